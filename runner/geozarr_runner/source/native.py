"""A product in Zarr v3: what of it is taken, and the Zarr v2 product with the same content, which is what gets converted.

The converter, its fast engine and the checks read EOPF products in Zarr v2. A v3 product is staged as one: pixels unchanged, packed
as they are, in the chunks that they have. What a finished GeoZarr has besides (overviews, injected bands, `spatial_ref`) is left
out: the conversion makes its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from geozarr_runner.source import crs
from geozarr_runner.source import product as model
from geozarr_runner.source.crs import code_of
from geozarr_runner.source.product import NATIVE_LEVELS, OVERVIEWS, REFLECTANCE, Product, Selection
from geozarr_runner.source.shards import dtype_of, missing_of, require_known
from stac_watch.model.errors import InputError
from stac_watch.model.zarr3 import StoredArray, StoredTree, attributes_of

COMPRESSOR = {"id": "blosc", "cname": "lz4", "clevel": 1, "shuffle": 1, "blocksize": 0}
"""Of what is staged: written once and read twice, so speed counts and size does not."""
_INJECTED = tuple(f"{REFLECTANCE}/{level}/b08" for level in NATIVE_LEVELS[1:])
_OWN = ("zarr_conventions", "multiscales", "grid_mapping", "coordinates", "_FillValue", "missing_value")
_OWN_PREFIXES = ("spatial:", "proj:")


def require_product(tree: StoredTree, where: str) -> None:
    """Raises InputError unless the store has what a Sentinel-2 product has, in forms that are known here."""
    for array in tree.arrays.values():
        require_known(array)
    lost = [level for level in NATIVE_LEVELS if not any(a.group == f"{REFLECTANCE}/{level}" for a in tree.arrays.values())]
    if lost:
        raise InputError(f"{where} is not a Sentinel-2 product: it lacks {', '.join(f'{REFLECTANCE}/{n}' for n in lost)}")


def v2_documents(tree: StoredTree) -> dict[str, Any]:
    """Returns the metadata of the Zarr v2 product with the same content, as under `metadata` in `.zmetadata`."""
    documents: dict[str, Any] = {".zgroup": {"zarr_format": 2}, ".zattrs": _kept(tree.attributes)}
    wanted = sources(tree)
    groups = {"/".join(path.split("/")[:n]) for path in wanted for n in range(1, path.count("/") + 1)}
    for group in sorted(groups):
        documents[f"{group}/.zgroup"] = {"zarr_format": 2}
        documents[f"{group}/.zattrs"] = _kept(attributes_of(tree.nodes.get(group, {})))
    for path, array in wanted.items():
        documents[f"{path}/.zarray"] = {
            "zarr_format": 2, "shape": list(array.shape), "chunks": list(v2_chunks(array)), "dtype": v2_dtype(array),
            "fill_value": _v2_fill(array), "compressor": COMPRESSOR if array.shape else None, "order": "C", "filters": None,
            "dimension_separator": ".",
        }  # fmt: skip
        documents[f"{path}/.zattrs"] = {
            "_ARRAY_DIMENSIONS": list(_dimensions(array)),
            **_projection(tree, array),
            **_kept(array.attributes),
        }
    return documents


def v2_metadata(tree: StoredTree) -> tuple[bytes, dict[str, Any]]:
    """Returns the `.zmetadata` of that product, as bytes and as documents by key."""
    documents = v2_documents(tree)
    return json.dumps({"zarr_consolidated_format": 1, "metadata": documents}).encode(), documents


def sources(tree: StoredTree) -> dict[str, StoredArray]:
    """Returns the arrays that a conversion reads: what a product of the instrument holds, and nothing that was made of it."""
    derived = tuple(f"{REFLECTANCE}/{level}/" for level in OVERVIEWS)
    return {
        path: array
        for path, array in sorted(tree.arrays.items())
        if not path.startswith(derived)
        and path not in _INJECTED
        and array.shape  # the converter drops scalar coordinates, and stumbles over one that nothing names as its coordinate
        and array.name != "spatial_ref"
        and not path.startswith(model.QUICKLOOKS)
    }


def v2_chunks(array: StoredArray) -> tuple[int, ...]:
    """Returns the chunks of the staged array: those of the source, no larger than the array."""
    return tuple(max(1, min(n, size)) for n, size in zip(array.inner, array.shape, strict=True))


def v2_dtype(array: StoredArray) -> str:
    """Returns the numpy typestr of the staged array, little-endian."""
    kind = array.data_type
    if isinstance(kind, dict) and str(kind.get("name", "")).startswith("numpy."):
        letter = "M" if "datetime" in kind["name"] else "m"
        return f"<{letter}8[{kind['configuration']['unit']}]"
    return dtype_of(array).newbyteorder("<").str


def whole_selection(tree: StoredTree, product: Product) -> Selection:
    """Returns what a copy of the whole store has, in the words of a conversion."""
    overviews = tuple(level for level in OVERVIEWS if f"{REFLECTANCE}/{level}" in tree.nodes)
    return Selection(tuple(product.leaves()), overviews, None, tuple(a for _, a in sorted(product.arrays.items())))


def is_pyramid(root: Mapping[str, Any], nodes: Mapping[str, Any]) -> bool:
    """Tells whether a store is finished GeoZarr: reflectance says which levels it has, and has an overview among them."""
    scales = attributes_of(nodes.get(REFLECTANCE, {})).get("multiscales") or attributes_of(root).get("multiscales")
    return isinstance(scales, dict) and any(f"{REFLECTANCE}/{level}" in nodes for level in OVERVIEWS)


def _dimensions(array: StoredArray) -> tuple[str, ...]:
    if len(array.dimensions) == len(array.shape):
        return array.dimensions
    return ("y", "x") if len(array.shape) == 2 else tuple(f"dim_{n}" for n in range(len(array.shape)))  # (y, x)


def _v2_fill(array: StoredArray) -> Any:  # noqa: ANN401  # JSON
    value = missing_of(array)
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def _kept(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in attributes.items() if k not in _OWN and (k == "proj:epsg" or not k.startswith(_OWN_PREFIXES))}


def _projection(tree: StoredTree, array: StoredArray) -> dict[str, Any]:
    """Returns what a v2 product says on each array on the map's grid; in v3 the group and `spatial_ref` say it."""
    group = attributes_of(tree.nodes.get(array.group, {}))
    if len(array.shape) != 2 or _dimensions(array) != ("y", "x"):  # (y, x)
        return {}
    own = {k: v for k, v in array.attributes.items() if k.startswith("proj:") and k not in ("proj:shape", "proj:transform")}
    given = (group.get("proj:code"), array.attributes.get("proj:code"), group.get("proj:projjson"), group.get("proj:wkt2"))
    code = next((code for value in given if (code := code_of(value))), "") or _by_wkt(tree, array.group)
    if code:
        own.setdefault("proj:epsg", int(code.removeprefix("EPSG:")))
    transform = array.attributes.get("proj:transform") or group.get("spatial:transform")
    found = {"proj:shape": list(array.shape), **({"proj:transform": transform} if transform else {})}
    if "spatial:bbox" in group:
        own.setdefault("proj:bbox", group["spatial:bbox"])
    return {**own, **found}


def _by_wkt(tree: StoredTree, group: str) -> str:
    """Returns the code of the CRS that a group's `spatial_ref` spells out."""
    array = tree.arrays.get(f"{group}/spatial_ref")
    given = [] if array is None else [array.attributes.get(name) for name in crs.WKT_NAMES]
    return next((code for wkt in given if (code := code_of(wkt))), "")
