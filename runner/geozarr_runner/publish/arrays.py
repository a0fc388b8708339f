"""What an item says of arrays: their grid, their numbers, their bands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geozarr_runner.source.metadata import strict
from geozarr_runner.source.product import Product, ZarrArray
from stac_watch.model.forms import Native

_COMMON = {
    "b01": "coastal", "b02": "blue", "b03": "green", "b04": "red", "b05": "rededge071", "b06": "rededge075", "b07": "rededge078",
    "b08": "nir", "b8a": "nir08", "b09": "nir09", "b10": "cirrus", "b11": "swir16", "b12": "swir22",
}  # fmt: skip
"""Common names of the eo extension 2.0."""
_NAMES = {
    "proj:code": "proj:code",
    "spatial:bbox": "proj:bbox",
    "spatial:shape": "proj:shape",
    "spatial:transform": "proj:transform",
}


def projection(store: Path, array: ZarrArray) -> dict[str, Any]:
    """Returns the grid of an array's group in the words of the projection extension, as the output has it, else as the product."""
    said = _attributes(store / array.group)
    found = {ours: said[theirs] for theirs, ours in _NAMES.items() if said.get(theirs) is not None}
    if not found:
        found = {key: array.attributes[key] for key in ("proj:bbox", "proj:shape", "proj:transform") if key in array.attributes}
        found |= {"proj:code": f"EPSG:{array.attributes['proj:epsg']}"} if "proj:epsg" in array.attributes else {}
    if isinstance(found.get("proj:transform"), list):
        found["proj:transform"] = found["proj:transform"][:6]  # the last row of the matrix is always 0, 0, 1
    kept: dict[str, Any] = strict(found)
    return kept


def numbers(store: Path, array: ZarrArray, *, native: Native) -> dict[str, Any]:
    """Returns what a pixel is: its type, what no data is, and how it is scaled, as the output has it."""
    path = store / array.path / "zarr.json"
    try:
        document = json.loads(path.read_bytes())
        said, kind = document["attributes"], str(document["data_type"])
    except (OSError, ValueError, KeyError):  # of a store that is only referenced
        said, kind = array.attributes, np.dtype(array.dtype).name
    nodata = said.get("_FillValue", array.fill_value if native is not Native.CONVERT else None)
    if native is Native.CONVERT and np.dtype(kind).kind == "f":
        nodata = "nan"
    found: dict[str, Any] = {"data_type": kind}
    if isinstance(nodata, int | float) or nodata == "nan":
        found["nodata"] = nodata
    known = {"raster:scale": "scale_factor", "raster:offset": "add_offset"}
    return found | {name: said[key] for name, key in known.items() if isinstance(said.get(key), int | float)}


def bands(product: Product, metres: Mapping[str, int]) -> list[dict[str, Any]]:
    """Returns the bands by name, each with its finest pixels and, where the product says it, its wavelengths in micrometres."""
    given = product.properties.get("bands")
    known = {one.get("name"): one for one in given if isinstance(one, dict)} if isinstance(given, list) else {}
    found = []
    for name in sorted(metres):
        band: dict[str, Any] = {"name": name, "gsd": metres[name]}
        band |= {"eo:common_name": _COMMON[name]} if name in _COMMON else {}
        centre, width = known.get(name, {}).get("center_wavelength"), known.get(name, {}).get("full_width_half_max")
        if isinstance(centre, int | float) and isinstance(width, int | float) and not isinstance(centre, bool):
            band |= {"eo:center_wavelength": _micrometres(centre), "eo:full_width_half_max": _micrometres(width)}
        found.append(band)
    kept: list[dict[str, Any]] = strict(found)
    return kept


def _micrometres(length: float) -> float:
    """EOPF products give one of the two in nanometres."""
    return round(length / 1000 if length > 100 else length, 4)  # no band of ours is 100 micrometres long, nor 100 nm


def _attributes(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "zarr.json").read_bytes())["attributes"]
    except (OSError, ValueError, KeyError):
        return {}
    return found if isinstance(found, dict) else {}
