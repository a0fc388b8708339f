"""What will be converted, from where, and what it will need. Nothing is paid for a product that cannot be converted.

One metadata document is all that is fetched; no pixels are read, and the converter is not loaded. `estimate` gives the formula by
which volumes are sized.
"""

from __future__ import annotations

import json
import logging
import math
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from geozarr_runner.source import forms, native
from geozarr_runner.source import product as model
from geozarr_runner.source.product import Product, Selection, ZarrArray
from geozarr_runner.source.store import Patience, SourceStore, open_source, resolve_href
from stac_watch.model.errors import InputError, SourceNotThere
from stac_watch.model.forms import Form, Native, form_of
from stac_watch.model.product import product_href
from stac_watch.model.zarr3 import StoredTree

log = logging.getLogger(__name__)

_METADATA_FILES = (".zgroup", ".zarray", ".zattrs")
_MIB = 1024**2

OUTPUT_BYTES_PER_PIXEL = {"reflectance": 3.4, "atmosphere": 2.0, "mask": 0.35}
"""Upper end of what a float32 pixel takes after blosc-zstd-3 with shuffle. Measured on full tiles (2.36 GB for 0.87 G pixels of
reflectance and 1.9 G of masks): 2.6 for reflectance with sensor noise; masks are nearly constant and take next to nothing."""
STAGED_BYTES_PER_PIXEL = {"reflectance": 1.6, "atmosphere": 1.4, "mask": 0.25}
"""The same for the source as it is stored (uint16 and uint8, blosc-zstd): measured 1.08 for reflectance."""
SAMPLE_BYTES = 64_000_000
"""Of the smallest arrays of a store that is only referenced: so much is fetched and looked into."""
BYTES_PER_FILE = 4096
"""Metadata documents and the rounding of small files."""


@dataclass(frozen=True)
class Estimate:
    """Bytes that a run will need at most, on the volume where it works."""

    staged: int
    output: int
    package: int

    @property
    def volume(self) -> int:
        """All of it, in whole GiB with a tenth to spare; a volume below 1 GiB saves nothing."""
        need = 1.1 * (self.staged + self.output + self.package)
        return max(1, math.ceil(need / 1024**3)) * 1024**3

    @property
    def quantity(self) -> str:
        """The volume's size as a Kubernetes quantity, e.g. `7Gi`."""
        return f"{self.volume // 1024**3}Gi"


@dataclass(frozen=True)
class Plan:
    """A product that can be converted, and what converting it means."""

    item_id: str
    source: SourceStore
    metadata: bytes  # the consolidated metadata as read; staged as it is
    product: Product
    selection: Selection
    estimate: Estimate
    seen: str  # what a HEAD request showed
    form: Form = Form.EOPF_V2
    native: Native = Native.CONVERT  # what is done; a store that is not finished is always converted
    tree: StoredTree | None = None  # of a product in Zarr v3; `product` then is its Zarr v2 counterpart
    root: bytes = b""  # its root's metadata document, as it was read


def plan(
    stac_url: str,
    groups: str,
    *,
    allowed_hosts: tuple[str, ...],
    patience: Patience,
    wait: Callable[[float], bool],
    item_id: str = "",
    package: str = "tar",
    asked: Native = Native.MIRROR,
) -> Plan:
    """Resolves, reads and checks; raises before anything costly.

    Raises:
        InputError: not an item or product, not Sentinel-2, a group that is not there, a form that cannot be converted.
        SourceNotThere: the item or the product is not there yet.
        Temporary | Refused: see `source.classify`.
    """
    named, source = resolve(stac_url, allowed_hosts=allowed_hosts, patience=patience, wait=wait)
    found = forms.recognise(source)
    tree = found.tree
    metadata, documents = read_metadata(source, found.raw) if tree is None else native.v2_metadata(tree)
    product = model.parse(documents, source.url)
    model.require_sentinel2(product, source.url)
    model.require_crs(product, source.url)
    done = asked if found.form is Form.GEOZARR and not (asked is Native.MIRROR and groups.split()) else Native.CONVERT
    selection = model.select(product, groups) if done is Native.CONVERT or tree is None else native.whole_selection(tree, product)
    return Plan(
        item_id=item_id or named or product_name(source.url),
        source=source,
        metadata=metadata,
        product=product,
        selection=selection,
        estimate=_estimate_of(done, tree, selection, staged=source.local is None, package=package),
        seen=source.look(".zmetadata" if tree is None else "zarr.json") if source.local is None else "local",
        form=found.form,
        native=done,
        tree=tree,
        root=b"" if tree is None else found.raw,
    )


def resolve(
    stac_url: str, *, allowed_hosts: tuple[str, ...], patience: Patience, wait: Callable[[float], bool]
) -> tuple[str, SourceStore]:
    """Returns the item's id (empty for a bare product) and the product's store."""
    given = open_source(stac_url, allowed_hosts=allowed_hosts, patience=patience, wait=wait)
    forms.refuse_archive(stac_url)
    is_store = urlsplit(stac_url).path.rstrip("/").endswith(".zarr") or (given.local is not None and given.local.is_dir())
    if is_store:
        return "", given
    item = _item(given.read(), stac_url)
    found = product_href(item)
    if found is None:
        assets = item.get("assets")
        names = ", ".join(sorted(assets)) if isinstance(assets, dict) else ""
        if form_of(item) is Form.ARCHIVE:
            raise InputError(
                f"the item at {stac_url} has its product as a Zarr in one zip file only, a form that is not taken ({names})",
                hint="give the product's URL itself, if the Zarr lies beside the zip",
            )
        raise InputError(
            f"no asset of the item at {stac_url} is a Zarr product (assets: {names or 'none'})",
            hint="give the product's URL itself, or an item with an asset `product`",
        )
    href = resolve_href(given, found)
    named = href if given.local is not None else stac_url
    return str(item.get("id", "")), open_source(href, allowed_hosts=allowed_hosts, patience=patience, wait=wait, named=named)


def read_metadata(source: SourceStore, raw: bytes) -> tuple[bytes, dict[str, Any]]:
    """Returns the consolidated metadata, as bytes and as documents by key.

    Args:
        source: a store in Zarr v2.
        raw: its `.zmetadata`; empty where it has none.

    Raises:
        InputError: no JSON, or not consolidated and not local.
        SourceNotThere: no store there.
    """
    if not raw:
        return _without_consolidated(source)
    try:
        documents = json.loads(raw)["metadata"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{source.url}/.zmetadata is not consolidated Zarr metadata", hint="is this really the product's URL?"
        ) from error
    if not isinstance(documents, dict):
        raise InputError(f"{source.url}/.zmetadata has no object under `metadata`")
    return raw, documents


def estimate(selection: Selection, *, staged: bool, package: str) -> Estimate:
    """Returns the bytes that a conversion needs at most.

    Per array, pixels x bytes per pixel of its kind (the tables above), or its raw size where that is less, plus 4 KiB per object.
    The output adds the bands that the converter injects into coarser levels and the overviews: together less than a tenth of
    reflectance. The package is a tar of the output: as large again; with `tar.gz` hardly less (2 %, measured).
    """
    source = sum(min(a.pixels * a.itemsize, a.pixels * STAGED_BYTES_PER_PIXEL[_kind(a)]) for a in selection.arrays)
    output = sum(min(a.pixels * 4.0, a.pixels * OUTPUT_BYTES_PER_PIXEL[_kind(a)]) for a in selection.arrays)
    output += 0.1 * sum(a.pixels * OUTPUT_BYTES_PER_PIXEL["reflectance"] for a in selection.arrays if _kind(a) == "reflectance")
    files = BYTES_PER_FILE * len(selection.keys)
    written = round(output) + files + _MIB
    return Estimate(
        staged=round(source) + files if staged else 0, output=written, package=0 if package == "none" else written + files
    )


def _estimate_of(done: Native, tree: StoredTree | None, selection: Selection, *, staged: bool, package: str) -> Estimate:
    """Returns the bytes that a run of one form needs at most.

    A mirror is one copy: what was fetched becomes the output by its name. A reference fetches a sample. A product in Zarr v3 that
    is converted lies there as it came, and again as it is staged.
    """
    if tree is None:
        return estimate(selection, staged=staged, package=package)
    if done is Native.REFERENCE:
        return Estimate(staged=2 * SAMPLE_BYTES, output=_MIB, package=0)
    kinds = {a.path: a for a in selection.arrays}
    stored = sum(
        min(a.pixels * 8.0, a.pixels * STAGED_BYTES_PER_PIXEL[_kind(kinds[path]) if path in kinds else "reflectance"])
        for path, a in tree.arrays.items()
    )
    copy = round(stored) + BYTES_PER_FILE * (len(tree.keys()) + len(tree.nodes)) + _MIB
    if done is Native.MIRROR:
        return Estimate(staged=0, output=copy, package=0 if package == "none" else copy)
    converted = estimate(selection, staged=True, package=package)
    return Estimate(staged=converted.staged + copy, output=converted.output, package=converted.package)


def product_name(url: str) -> str:
    """Returns the store's name without `.zarr`, for products that come without an item."""
    return posixpath.basename(urlsplit(url).path.rstrip("/")).removesuffix(".zarr") or "product"


def _without_consolidated(source: SourceStore) -> tuple[bytes, dict[str, Any]]:
    if source.local is not None and (source.local / ".zgroup").is_file():
        documents = _walk(source)
        return json.dumps({"zarr_consolidated_format": 1, "metadata": documents}).encode(), documents
    try:
        source.read(".zgroup")
    except SourceNotThere as absent:
        raise SourceNotThere(f"no product at {source.url}: it has neither .zmetadata nor zarr.json", hint=absent.hint) from absent
    raise InputError(
        f"{source.url} has no consolidated metadata", hint="consolidate it (zarr.consolidate_metadata), or give a local copy"
    )


def _walk(source: SourceStore) -> dict[str, Any]:
    root = source.local
    if root is None:
        raise AssertionError("only local stores are walked")
    found = {}
    for path in sorted(p for p in root.rglob(".z*") if p.name in _METADATA_FILES):
        try:
            found[path.relative_to(root).as_posix()] = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path} is not JSON") from error
    return found


def _item(raw: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise InputError(
            f"{where} is neither a STAC item nor a .zarr store", hint="open it in a browser: JSON is expected"
        ) from error
    if not isinstance(document, dict) or document.get("type") != "Feature":
        kind = document.get("type") if isinstance(document, dict) else type(document).__name__
        raise InputError(f"{where} is not a STAC item: its type is {kind!r}, not 'Feature'", hint="give the URL of one item")
    return document


def _kind(array: ZarrArray) -> str:
    if array.path.startswith(model.REFLECTANCE):
        return "reflectance"
    return "mask" if array.itemsize == 1 else "atmosphere"
