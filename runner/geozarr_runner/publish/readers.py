"""Who reads an output as it lies, and what of it a reader has to do itself: a sentence each, for its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
