"""What a store is: asked once, before anything is paid for. A form that is not taken is refused by its name.

    .zmetadata there               EOPF product in Zarr v2, as ever
    zarr.json, with overviews      finished GeoZarr: mirrored, converted or referenced, see `model.forms.Native`
    zarr.json, without             EOPF product in Zarr v3: converted; where nothing is consolidated, the known tree is asked for
    a name that ends in .zip       refused: a gigabyte in one object, of which a part cannot be asked for safely

A new form is a value of `Form`, a branch here, and a maker in `build`; the others do not notice.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from geozarr_runner.source import native
from geozarr_runner.source.faults import Forbidden
from geozarr_runner.source.store import SourceStore
from geozarr_runner.source.walk import walk
from stac_watch.model.errors import InputError, SourceNotThere
from stac_watch.model.forms import Form
from stac_watch.model.zarr3 import ROOT, StoredTree, consolidated, read_json, tree_of


@dataclass(frozen=True)
class StoreForm:
    """What a store turned out to be."""

    form: Form
    raw: bytes  # the document that said so, as it was read; empty where it is for `preflight` to find out
    tree: StoredTree | None = None  # of Zarr v3


def recognise(source: SourceStore) -> StoreForm:
    """Says what lies at an address.

    Raises:
        InputError: a form that is not taken, or metadata that is none.
        Temporary | Refused: see `source.classify`.
    """
    refuse_archive(source.url)
    try:
        return StoreForm(Form.EOPF_V2, source.read(".zmetadata"))
    except (SourceNotThere, Forbidden):  # stores that may not be listed say 403 of what is not there
        pass
    try:
        raw = source.read(ROOT)
    except (SourceNotThere, Forbidden):
        return StoreForm(Form.EOPF_V2, b"")
    return _zarr3(source, raw)


def refuse_archive(url: str) -> None:
    """Raises InputError for a product that is packed in one file: it is not read to be told so."""
    path = urlsplit(url).path.rstrip("/")
    if path.endswith(".zip"):
        raise archive(url)


def archive(url: str) -> InputError:
    """Returns the error for a product that is packed in one file."""
    return InputError(
        f"{url} is a Zarr in one zip file, a form that is not taken",
        hint="give the .zarr beside it, or unpack it and give the folder",
    )


def _zarr3(source: SourceStore, raw: bytes) -> StoreForm:
    root: dict[str, Any] = read_json(raw, f"{source.url}/{ROOT}")
    if root.get("node_type") != "group":
        raise InputError(f"{source.url} is a single Zarr v3 array, not a product", hint="give the product's root")
    nodes = consolidated(root)
    found = {"": root, **nodes} if nodes else walk(source, root, threading.Event())
    tree = tree_of(found, source.url)
    native.require_product(tree, source.url)
    form = Form.GEOZARR if nodes and native.is_pyramid(root, found) else Form.EOPF_V3
    return StoreForm(form, raw, tree)
