"""What a recipe asks of the converter, which arrays the fast engine writes, and which conversions are the stock one's. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geozarr_runner.source.product import NATIVE_LEVELS, REFLECTANCE, Selection, ZarrArray
from stac_watch.model.forms import ENCODING, Encoding

INJECTED = "b08"
"""The one band of an L2A product that the converter adds to coarser groups; of an L1C product, every finer one
(`create_multiscale_from_datatree`)."""
WORTH_IT = 20_000_000
"""Pixels below which starting a second process takes longer than it saves: the stock engine writes them in two seconds."""


@dataclass(frozen=True)
class Options:
    """What a recipe can ask of the converter."""

    spatial_chunk: int = 1024  #: 256, the converter's own default, makes 13 times the files and takes twice as long (measured)
    sharding: bool = False  #: one file per array
    encoding: Encoding = ENCODING  #: the source's own integers, float32, or what the converter writes alone, byte for byte
    dask_perf_html: str = ""  #: where Dask's performance report goes; empty = none. It needs a distributed client: slower
    engine: str = "auto"  #: fast, stock, or auto: fast, and stock for whatever that does not know. Both write the same values
    workers: int = 2  #: threads; see `limits`


def reason_for_stock(selection: Selection, options: Options, level: str) -> str:
    """Returns why the stock engine does this conversion; empty = the fast one does."""
    if options.engine == "stock":
        return "asked for"
    if options.dask_perf_html:
        return "Dask's report needs Dask to do the work"
    reason = _not_for_fast(selection, options, level)
    if not reason and options.engine != "fast" and sum(a.pixels for a in selection.arrays) < WORTH_IT:
        return "the product is small"
    return reason


def _not_for_fast(selection: Selection, options: Options, level: str) -> str:
    """Returns why the fast engine cannot do it; empty = it can."""
    if options.sharding and options.encoding is Encoding.STOCK:
        return "the converter's own shards are asked for"
    if level not in ("L1C", "L2A"):
        return f"the product's level is {level or 'unknown'}, neither L1C nor L2A"
    if not any(a.group in selection.groups for a in big_arrays(selection).values()):
        return "it has no array that would be written faster"
    bands = [a for a in selection.arrays if a.group in {f"{REFLECTANCE}/{level}" for level in NATIVE_LEVELS}]
    odd = [a.path for a in bands if not a.is_coordinate and not is_simple(a)]
    if options.encoding is Encoding.PACKED:
        odd += sorted(written_arrays(selection, options).keys() - big_arrays(selection).keys())
    return f"{odd[0]} has a form that the fast engine does not know" if odd else ""


def big_arrays(selection: Selection) -> dict[str, ZarrArray]:
    """Returns what the fast engine writes: (y, x), unsigned integers, blosc; of groups that hold nothing else but coordinates."""
    measured = [a for a in selection.arrays if not a.is_coordinate]
    odd = {a.group for a in measured if not is_simple(a)}
    return {a.path: a for a in measured if a.group not in odd}


def written_arrays(selection: Selection, options: Options) -> dict[str, ZarrArray]:
    """Returns the arrays whose chunks are written here, whichever engine is taken: packed ones in any form, or what is big."""
    if options.encoding is not Encoding.PACKED:
        return big_arrays(selection)
    return {a.path: a for a in selection.arrays if not a.is_coordinate and _can_be_packed(a)}


def in_order(arrays: Mapping[str, ZarrArray], origins: Collection[str]) -> list[ZarrArray]:
    """Returns arrays as they are best written: what others are made of, then the largest, so that threads end together."""
    return sorted(arrays.values(), key=lambda a: (a.path not in origins, -a.pixels))


def injections(selection: Selection, arrays: Mapping[str, ZarrArray], level: str) -> dict[str, tuple[ZarrArray, int]]:
    """Returns the arrays that the converter derives from a finer one: path -> (source, factor).

    Args:
        selection: what is converted.
        arrays: those that can be a source.
        level: of the product, `L1C` or `L2A`.
    """
    groups, paths = {a.group for a in selection.arrays}, {a.path for a in selection.arrays}
    found: dict[str, tuple[ZarrArray, int]] = {}
    for coarse in NATIVE_LEVELS[1:]:
        for fine in NATIVE_LEVELS[: NATIVE_LEVELS.index(coarse)]:
            for array in (a for a in arrays.values() if a.group == f"{REFLECTANCE}/{fine}" and a.group in selection.groups):
                path = f"{REFLECTANCE}/{coarse}/{array.name}"
                wanted = level == "L1C" or (array.name == INJECTED and fine == NATIVE_LEVELS[0])
                if wanted and f"{REFLECTANCE}/{coarse}" in groups and path not in paths:
                    found.setdefault(path, (array, _metres(coarse) // _metres(fine)))
    return found


def missing_of(array: ZarrArray) -> int | None:
    """Returns the packed number that means "no data", as xarray takes it; None = there is none."""
    words = (array.fill_value, *(array.attributes.get(name) for name in ("_FillValue", "missing_value")))
    return next((int(str(word)) for word in words if word is not None), None)


def _metres(level: str) -> int:
    return int(level.strip("rm"))


def _can_be_packed(array: ZarrArray) -> bool:
    """Says whether an array holds small integers, and says of them no more than scale, offset and one missing value."""
    dtype, attributes = np.dtype(array.dtype), array.attributes
    words = [attributes[name] for name in ("_FillValue", "missing_value") if name in attributes]
    missing = {word for word in (array.fill_value, *words) if isinstance(word, int)}
    numbers = [attributes[name] for name in ("scale_factor", "add_offset") if name in attributes]
    return (
        len(array.shape) == 2  # (y, x)
        and dtype.kind in "iu"
        and dtype.itemsize <= 2  # bytes
        and not array.unknown
        and all(type(word) is int for word in words)
        and (array.fill_value is None or type(array.fill_value) is int)
        and len(missing) <= 1
        and all(np.iinfo(dtype).min <= word <= np.iinfo(dtype).max for word in missing)
        and all(type(n) in (int, float) and math.isfinite(n) for n in numbers)
        and "_Unsigned" not in attributes
        and attributes.get("dtype") != "bool"
    )


def is_simple(array: ZarrArray) -> bool:
    """Says whether an array has a form that `fast` reads and decodes as zarr-python and xarray do."""
    dtype = np.dtype(array.dtype)
    return (
        len(array.shape) == 2  # (y, x)
        and dtype.kind == "u"
        and dtype.itemsize <= 2  # bytes: `lookup` has an entry for each value
        and dtype.isnative
        and not array.filters
        and array.order == "C"
        and not array.unknown
        and (array.compressor or {}).get("id") == "blosc"
        and _is_plain_fill(array.fill_value, dtype)
        and _is_plainly_packed(array)
    )


def _is_plain_fill(fill: object, dtype: np.dtype[Any]) -> bool:
    return fill is None or (type(fill) is int and 0 <= fill <= np.iinfo(dtype).max)


def _is_plainly_packed(array: ZarrArray) -> bool:
    """Says whether the CF attributes are those that `lookup` knows: two numbers, and no other word on what is missing."""
    attributes = array.attributes
    numbers = [attributes[name] for name in ("scale_factor", "add_offset") if name in attributes]
    missing = [attributes[name] for name in ("_FillValue", "missing_value") if name in attributes]
    return (
        all(type(n) in (int, float) and math.isfinite(n) for n in numbers)
        and all(type(value) is int and value == array.fill_value for value in missing)
        and type(attributes.get("scale_factor", 1.0)) is float  # xarray decodes to the type of this number
        and "_Unsigned" not in attributes
        and attributes.get("dtype") != "bool"
    )
