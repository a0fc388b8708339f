"""What an item says of its product's content, held against what is there.

Only where chunks are absent: then it is the last witness. A whole product may have any size, and a catalog may be wrong.

Sources: STAC extensions sentinel-2 (`s2:nodata_pixel_percentage`), file (`file:size`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from geozarr_runner.source import codecs, complete, whole
from geozarr_runner.source.complete import HINT, Allowance
from geozarr_runner.source.preflight import Plan
from geozarr_runner.source.samples import Blocks
from stac_watch.model.errors import SourceNotThere
from stac_watch.model.zarr3 import StoredArray

_NODATA = "s2:nodata_pixel_percentage"
_POINTS = 2.0  #: per cent of a tile by which bands, and two ways to count, differ
_SLACK = 0.01  #: of the bytes; a chunk of data has more
_DOCUMENTS = 3  #: times the consolidated metadata, at most: each node's own documents are written with other spaces


@dataclass(frozen=True)
class Claims:
    """As far as the item says anything."""

    nodata: float | None = None  # per cent of the pixels that hold nothing
    sizes: Mapping[str, int] = field(default_factory=dict)  # path in the store, "" for all of it -> bytes

    def contradiction(self, seen: float, sizes: Mapping[str, int], documents: int) -> str:
        """Says what the product lacks of what is claimed; empty when it lacks nothing.

        Args:
            seen: share of the tile with data.
            sizes: of the objects that hold pixels, by key; all of what `self.sizes` names.
            documents: bytes of the consolidated metadata.
        """
        if self.nodata is not None and 100 * (1 - seen) > 1.1 * self.nodata + _POINTS:
            return f"its item says that {self.nodata:g} % of the pixels hold nothing, here {100 * (1 - seen):.1f} % would"
        for path, stated in self.sizes.items():
            there = sum(size for key, size in sizes.items() if not path or key.startswith(f"{path}/"))
            if stated > there * (1 + _SLACK) + _DOCUMENTS * documents:
                return f"its item says that {path or 'the product'} has {stated} bytes, there are {there}"
        return ""


def claims_of(item: Mapping[str, Any], own: Mapping[str, Any], where: str) -> Claims:
    """Returns what an item says of its product.

    Args:
        item: empty for a bare product.
        own: the properties that the product has of itself.
        where: the product's URL; assets whose href leads there, or below, are of it.
    """
    properties = item.get("properties")
    given = [p.get(_NODATA) for p in (properties, own) if isinstance(p, Mapping)]
    nodata = next((float(n) for n in given if isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n <= 100), None)
    assets = item.get("assets")
    found = (_size(asset, where) for asset in (assets.values() if isinstance(assets, Mapping) else ()))
    return Claims(nodata, dict(pair for pair in found if pair is not None))


def contradiction(plan: Plan, absent: frozenset[str], root: Path, called_off: threading.Event) -> str:
    """Says what of an item's claims a product in Zarr v2 does not have; empty when nothing, and where no chunk is absent.

    Args:
        plan: the product and its item.
        absent: chunks that are not there.
        root: where the others are.
        called_off: ends the work early.
    """
    found = claims_of(plan.item, plan.product.properties, plan.source.url)
    known = {*plan.product.groups, *plan.product.arrays} | (set() if plan.product.left_out else {""})
    stated = {path: size for path, size in found.sizes.items() if path in known}
    if not absent or (found.nodata is None and not stated):
        return ""
    chosen = {array.path for array in plan.selection.arrays}
    rest = {
        key: codecs.encoded_limit(array)
        for array in plan.product.arrays.values()
        if array.path not in chosen and any(not path or f"{array.path}/".startswith(f"{path}/") for path in stated)
        for key in array.chunk_keys()
    }
    asked = plan.source.sizes(rest, called_off)
    there = {key: (root / key).stat().st_size for key in plan.selection.keys if key not in absent} if stated else {}
    seen = complete.seen(plan.selection, absent, root) if complete.lacks_ground(plan.selection, absent) else 1.0
    return replace(found, sizes=stated).contradiction(seen, there | asked, len(plan.metadata))


def contradiction_of_store(
    plan: Plan, arrays: Mapping[str, StoredArray], missing: frozenset[str], samples: Blocks, sizes: Mapping[str, int]
) -> str:
    """Says the same of a store in Zarr v3.

    Args:
        plan: the store and its item.
        arrays: those that were fetched.
        missing: objects that are not there.
        samples: of what was fetched.
        sizes: bytes of every object of the store.
    """
    lacking = whole.lacks_ground(arrays, missing, samples)
    if plan.tree is None or not (lacking or missing):
        return ""
    found = claims_of(plan.item, plan.product.properties, plan.source.url)
    stated = {path: size for path, size in found.sizes.items() if path in plan.tree.nodes}
    return replace(found, sizes=stated).contradiction(whole.seen(arrays, samples) if lacking else 1.0, sizes, len(plan.root))


def require(contradiction: str, where: str, looked: Allowance) -> None:
    """Raises SourceNotThere when there is a contradiction that nobody allows."""
    if contradiction and not looked.allow_empty:
        again = f", at {looked.times} looks" if looked.times > 1 else ""
        raise SourceNotThere(f"{where} is still being uploaded{again}: {contradiction}", hint=HINT)


def _size(asset: object, where: str) -> tuple[str, int] | None:
    if not isinstance(asset, Mapping) or not isinstance(asset.get("href"), str):
        return None
    size, path, root = asset.get("file:size"), _path(str(asset["href"])), _path(where)
    if not isinstance(size, int) or isinstance(size, bool) or not f"{path}/".startswith(f"{root}/"):
        return None
    return path[len(root) :].strip("/"), size


def _path(href: str) -> str:
    try:
        return urlsplit(href).path.rstrip("/")
    except ValueError:
        return href
