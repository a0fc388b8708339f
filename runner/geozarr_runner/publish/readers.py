"""Who reads an output as it lies, what of it a reader has to do itself, and how to open it: for its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from geozarr_runner.source.product import NATIVE_LEVELS, OVERVIEWS, REFLECTANCE

SHARDS = (
    "GDAL before 3.13 opens no sharded array, and neither does what reads by it (rasterio, QGIS): {number} arrays are sharded. "
    "xarray, zarr-python, zarrita and zarrs read them."
)
PACKED = (
    "{number} arrays hold packed integers. xarray, and what reads by it, decodes them; of zarr-python's apply scale_factor and "
    "add_offset, and mask _FillValue; of GDAL's, the band's scale and offset (gdal_translate -unscale)."
)
PLAIN = "Every reader of Zarr v3, GDAL's too, reads all of it as it is."


def notes(arrays: Mapping[str, Any]) -> Iterator[str]:
    """Yields what a reader should know, of arrays by their paths."""
    sharded = sum(getattr(array, "shards", None) is not None for array in arrays.values())
    packed = sum("scale_factor" in array.attrs or "add_offset" in array.attrs for array in arrays.values())
    if sharded:
        yield SHARDS.format(number=sharded)
    if packed:
        yield PACKED.format(number=packed)
    if not sharded and not packed:
        yield PLAIN


def opened(output: str, arrays: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns how to open an output: the lines that each reader is given, of its red band where it has one.

    Args:
        output: as its reader names it, a path or `s3://…`.
        arrays: by their paths; without a band of reflectance there is only xarray's way to the whole of it.
    """
    remote = output.startswith("s3://")
    options = ', storage_options={"anon": False}' if remote else ""
    lines = ["import xarray as xr", f'tree = xr.open_datatree("{output}", engine="zarr"{options})']
    band = _shown(arrays)
    if not band:
        return {"xarray": [*lines, "print(tree)"]}
    group, _, name = band.rpartition("/")
    lines += [f'data = tree["{group}"].to_dataset()', f'print(float(data["{name}"].mean()))']
    place = f"/vsis3/{output.removeprefix('s3://')}" if remote else output
    return {
        "xarray": lines,
        "GDAL, QGIS": [f'ZARR:"{place}":/{band}'],
        "titiler-xarray": [f"url={output}", f"group=/{group}", f"variable={name}"],
    }


def _shown(arrays: Mapping[str, Any]) -> str:
    """Returns the path of the red band at its finest, or of the first that there is."""
    paths = [
        path for level in (*NATIVE_LEVELS, *OVERVIEWS) for path in sorted(arrays) if path.startswith(f"{REFLECTANCE}/{level}/b")
    ]
    return next((path for path in paths if path.endswith("/b04")), paths[0] if paths else "")
