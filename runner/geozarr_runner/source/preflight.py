"""What will be converted, from where, and what it will need. Nothing is paid for a product that cannot be converted.

One metadata document is all that is fetched; no pixels are read, and the converter is not loaded. What is judged here is not judged
again later: what passes is converted. `estimate` gives the formula by which volumes are sized.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from geozarr_runner.request import is_store
from geozarr_runner.source import forms, native, subject
from geozarr_runner.source import metadata as reading
from geozarr_runner.source import product as model
from geozarr_runner.source.faults import Forbidden
from geozarr_runner.source.product import Product, Selection, ZarrArray
from geozarr_runner.source.store import Patience, SourceStore, found_in, open_source, resolve_href
from geozarr_runner.source.transfer import Validator
from stac_watch.model.documents import document
from stac_watch.model.errors import InputError, SourceNotThere, printable
from stac_watch.model.forms import Form, Native, form_of
from stac_watch.model.identity import check_item_id
from stac_watch.model.product import product_href
from stac_watch.model.zarr3 import ROOT, StoredTree

log = logging.getLogger(__name__)

_METADATA_FILES = (".zgroup", ".zarray", ".zattrs")
_MIB = 1024**2
MAX_ITEM = 16 * _MIB
"""Bytes of an item: a thousand times a real one."""
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")  # APPNOTE.TXT, 4.3: of a member, an empty archive, a spanned one

OUTPUT_BYTES_PER_PIXEL = {"reflectance": 3.4, "atmosphere": 2.0, "mask": 0.35}
"""Upper end of what a float32 pixel takes after blosc-zstd-3 with shuffle. Measured on full tiles (2.36 GB for 0.87 G pixels of
reflectance and 1.9 G of masks): 2.6 for reflectance with sensor noise; masks are nearly constant and take next to nothing."""
STAGED_BYTES_PER_PIXEL = {"reflectance": 1.6, "atmosphere": 1.4, "mask": 0.25}
"""The same for the source as it is stored (uint16 and uint8, blosc-zstd): measured 1.08 for reflectance."""
PACKED_BYTES_PER_PIXEL = {"reflectance": 1.5, "atmosphere": 1.4, "mask": 0.25}
"""The same for a packed output: measured 1.01 to 1.25 for reflectance."""
SAMPLE_BYTES = 64_000_000
"""Of the smallest arrays of a store that is only referenced: so much is fetched and looked into."""
_ASKED = 6  #: assets that are asked whether they are stores
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
    documents: Mapping[str, Any] = field(default_factory=dict, repr=False)  # of the metadata, what belongs to the product as known
    sensed: datetime | None = None  # aware
    item: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the STAC item that led here; empty for a bare product


class Found(NamedTuple):
    """Where an item, or a URL, leads."""

    item_id: str  # empty for a bare product
    source: SourceStore
    item: Mapping[str, Any]  # idem


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
    compact: bool = False,
) -> Plan:
    """Resolves, reads and checks; raises before anything costly.

    Raises:
        InputError: not an item or product, not Sentinel-2, a group that is not there, a form that cannot be converted.
        SourceNotThere: the item or the product is not there yet.
        Temporary | Refused: see `source.classify`.
    """
    found = resolve(stac_url, allowed_hosts=allowed_hosts, patience=patience, wait=wait)
    source = found.source
    store = forms.recognise(source)
    tree = store.tree
    try:
        metadata, documents = read_metadata(source, store.raw) if tree is None else native.v2_metadata(tree)
    except SourceNotThere:
        _require_one_store(found)
        raise
    product = reading.parse(documents, source.url)
    model.require_sentinel2(product, source.url)
    named = check_item_id(item_id or found.item_id or product_name(source.url))
    subject.require_same(found.item, named, product, source.url)
    model.require_crs(product, source.url, subject.tile_of(product, found.item, named))
    sensed = subject.sensed(product, found.item)
    if sensed is None:
        raise InputError(f"neither {source.url} nor its item says when it was sensed", hint="tell the catalog's operator")
    done = asked if store.form is Form.GEOZARR and not (asked is Native.MIRROR and groups.split()) else Native.CONVERT
    selection = model.select(product, groups) if done is Native.CONVERT or tree is None else native.whole_selection(tree, product)
    for remark in product.remarks:
        log.warning("%s: %s", named, remark)
    return Plan(
        item_id=named,
        source=source,
        metadata=metadata,
        product=product,
        selection=selection,
        estimate=_estimate_of(
            done, tree, selection, staged=source.local is None, package=package, compact=compact and product.level == "L2A"
        ),
        seen=source.look(".zmetadata" if tree is None else "zarr.json") if source.local is None else "local",
        form=store.form,
        native=done,
        tree=tree,
        root=b"" if tree is None else store.raw,
        documents=reading.known(documents, product),
        sensed=sensed,
        item=found.item,
    )


def resolve(stac_url: str, *, allowed_hosts: tuple[str, ...], patience: Patience, wait: Callable[[float], bool]) -> Found:
    """Returns the product's store, and the item that led there."""
    given = open_source(stac_url, allowed_hosts=allowed_hosts, patience=patience, wait=wait)
    forms.refuse_archive(given.url)
    if is_store(stac_url) or (given.local is not None and given.local.is_dir()):
        return Found("", given, {})
    try:
        item = _item(_read_item(given), given.url)
    except (SourceNotThere, Forbidden, InputError):
        if not given.starts_with("", _ZIP) and _is_root(given):  # of a store whose name does not say so
            return Found("", given, {})
        raise
    found = product_href(item)
    if found is None:
        raise _no_product(item, given.url)
    href = resolve_href(given, found)
    named = href if given.local is not None else stac_url
    source = found_in(open_source(href, allowed_hosts=allowed_hosts, patience=patience, wait=wait, named=named))
    return Found(str(item.get("id", "")), source, item)


def read_metadata(source: SourceStore, raw: bytes) -> tuple[bytes, dict[str, Any]]:
    """Returns the consolidated metadata, as bytes and as documents by key.

    Args:
        source: a store in Zarr v2.
        raw: its `.zmetadata`; empty where it has none.

    Raises:
        InputError: no JSON.
        SourceNotThere: no store there, or its consolidated metadata is not: writers put it there last.
        Refused: nothing of it may be read.
    """
    if not raw:
        return _without_consolidated(source)
    try:
        documents = document(raw)["metadata"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{source.url}/.zmetadata is not consolidated Zarr metadata", hint="is this really the product's URL?"
        ) from error
    if not isinstance(documents, dict):
        raise InputError(f"{source.url}/.zmetadata has no object under `metadata`")
    return raw, documents


def estimate(selection: Selection, *, staged: bool, package: str, compact: bool = False) -> Estimate:
    """Returns the bytes that a conversion needs at most.

    Per array, pixels x bytes per pixel of its kind (the tables above), or its raw size where that is less, plus 4 KiB per object.
    The output adds the bands that the converter injects into coarser levels and the overviews: together less than a tenth of
    reflectance. The package is a tar of the output: as large again; with `tar.gz` hardly less (2 %, measured). Of a packed output
    (`compact`) a pixel takes what it takes in its source.
    """
    source = sum(min(a.pixels * a.itemsize, a.pixels * STAGED_BYTES_PER_PIXEL[_kind(a)]) for a in selection.arrays)
    pixel, most = (PACKED_BYTES_PER_PIXEL, 2.0) if compact else (OUTPUT_BYTES_PER_PIXEL, 4.0)  # bytes of one
    output = sum(min(a.pixels * most, a.pixels * pixel[_kind(a)]) for a in selection.arrays)
    output += 0.1 * sum(a.pixels * pixel["reflectance"] for a in selection.arrays if _kind(a) == "reflectance")
    files = BYTES_PER_FILE * len(selection.keys)
    written = round(output) + files + _MIB
    return Estimate(
        staged=round(source) + files if staged else 0, output=written, package=0 if package == "none" else written + files
    )


def _estimate_of(
    done: Native, tree: StoredTree | None, selection: Selection, *, staged: bool, package: str, compact: bool
) -> Estimate:
    """Returns the bytes that a run of one form needs at most.

    A mirror is one copy: what was fetched becomes the output by its name. A reference fetches a sample. A product in Zarr v3 that
    is converted lies there as it came, and again as it is staged.
    """
    if tree is None:
        return estimate(selection, staged=staged, package=package, compact=compact)
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
    converted = estimate(selection, staged=True, package=package, compact=compact)
    return Estimate(staged=converted.staged + copy, output=converted.output, package=converted.package)


def product_name(url: str) -> str:
    """Returns the store's name without `.zarr`, for products that come without an item."""
    return reading.store_name(url) or "product"


def _without_consolidated(source: SourceStore) -> tuple[bytes, dict[str, Any]]:
    """Finds out what is there instead. Where anything of the store may be read, a 403 for the rest means that it is not there."""
    if source.local is not None and (source.local / ".zgroup").is_file():
        documents = _walk(source)
        return json.dumps({"zarr_consolidated_format": 1, "metadata": documents}).encode(), documents
    try:
        source.read(".zgroup")
    except (SourceNotThere, Forbidden) as absent:
        if source.starts_with("", _ZIP):
            raise forms.archive(source.url) from absent
        if isinstance(absent, Forbidden) and source.query:  # what a signature opens would be told apart
            raise
        nothing = (
            "it has neither .zmetadata nor zarr.json" if isinstance(absent, SourceNotThere) else "all of it was answered with 403"
        )
        raise SourceNotThere(f"no product at {source.url}: {nothing}", hint=absent.hint) from absent
    raise SourceNotThere(
        f"{source.url} has no consolidated metadata yet",
        hint="writers put .zmetadata there last, so it is tried again; if it stays, consolidate it or give a local copy",
    )


def _is_root(source: SourceStore) -> bool:
    """Says whether a store's metadata lies at an address."""
    for key in (".zmetadata", ROOT):
        with contextlib.suppress(SourceNotThere, Forbidden, InputError):
            source.ask(key, Validator())
            return True
    return False


def _require_one_store(found: Found) -> None:
    """Of an item that leads to a folder where nothing is, asks whether its assets are stores: then nobody knows which one is meant.

    Raises:
        InputError: they are.
    """
    source, assets = found.source, found.item.get("assets")
    hrefs = {str(a.get("href")).rstrip("/") for a in (assets.values() if isinstance(assets, dict) else ()) if isinstance(a, dict)}
    inside = sorted(href for href in hrefs if source.url in href and href.partition("?")[0] != source.url)[:_ASKED]
    below = [replace(source, url=h, root=source.root + h.partition("?")[0].partition(source.url)[2]) for h in inside]
    stores = [one.url.partition("?")[0] for one in below if _is_root(one)]
    if stores:
        raise InputError(
            f"the item has its product in several stores, and none is called `product` ({printable(', '.join(stores), 400)})",
            hint="give the product's URL itself, or an item with an asset `product`",
        )


def _read_item(given: SourceStore) -> bytes:
    try:
        return given.read(limit=MAX_ITEM)
    except InputError:
        if given.starts_with("", _ZIP):
            raise forms.archive(given.url) from None
        raise


def _no_product(item: Mapping[str, Any], where: str) -> InputError:
    assets = item.get("assets")
    given = assets if isinstance(assets, dict) else {}
    names = printable(", ".join(sorted(map(str, given))), 400)
    hrefs = [str(asset.get("href")) for asset in given.values() if isinstance(asset, dict)]
    if form_of(item) is Form.ARCHIVE or any(href.partition("?")[0].lower().endswith(".zarr.zip") for href in hrefs):
        return InputError(
            f"the item at {where} has its product as a Zarr in one zip file only, a form that is not taken ({names})",
            hint="give the product's URL itself, if the Zarr lies beside the zip",
        )
    return InputError(
        f"no asset of the item at {where} is a Zarr product, or several are and none is called `product`"
        f" (assets: {names or 'none'})",
        hint="give the product's URL itself, or an item with an asset `product`",
    )


def _walk(source: SourceStore) -> dict[str, Any]:
    root = source.local
    if root is None:
        raise AssertionError("only local stores are walked")
    found = {}
    for path in sorted(p for p in root.rglob(".z*") if p.name in _METADATA_FILES):
        try:
            found[path.relative_to(root).as_posix()] = document(path.read_bytes())
        except ValueError as error:
            raise InputError(f"{path} is not JSON") from error
    return found


def _item(raw: bytes, where: str) -> dict[str, Any]:
    if raw.startswith(_ZIP):
        raise forms.archive(where)
    try:
        found = document(raw)
    except ValueError as error:
        raise InputError(
            f"{where} is neither a STAC item nor a .zarr store", hint="open it in a browser: JSON is expected"
        ) from error
    if not isinstance(found, dict) or found.get("type") != "Feature":
        kind = found.get("type") if isinstance(found, dict) else type(found).__name__
        raise InputError(
            f"{where} is not a STAC item: its type is {str(kind)[:80]!r}, not 'Feature'", hint="give the URL of one item"
        )
    return found


def _kind(array: ZarrArray) -> str:
    if array.path.startswith(model.REFLECTANCE):
        return "reflectance"
    return "mask" if array.itemsize == 1 else "atmosphere"
