"""The numbers of the fast engine: decoded values and block means, to the last bit those of xarray and dask. Pure.

`verify` has arithmetic of its own: a judge does not ask the accused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geozarr_runner.source.product import ZarrArray
from stac_watch.model.errors import Defect

type Pixels = np.ndarray[Any, np.dtype[Any]]


def lookup(array: ZarrArray, dtype: str = "<f4") -> Pixels | None:
    """Returns the decoded value of each packed one; None when they are equal.

    Computed in float64, as xarray decodes what is packed. float32 arithmetic would not do: near zero `v * scale + offset` is off by
    up to 6e-5 of the value (measured).
    """
    scale, offset = array.attributes.get("scale_factor"), array.attributes.get("add_offset")
    if scale is None and offset is None and array.fill_value is None:
        return None
    table = np.arange(np.iinfo(array.dtype).max + 1, dtype=precision(array))
    if scale is not None:
        table *= scale
    if offset is not None:
        table += offset
    if array.fill_value is not None:
        table[int(str(array.fill_value))] = np.nan
    return table.astype(dtype)


def precision(array: ZarrArray) -> str:
    """Returns the type that xarray decodes an integer of up to two bytes to: float64 when it is packed."""
    return "<f8" if array.attributes.keys() & {"scale_factor", "add_offset"} else "<f4"


def block_mean(values: Pixels, factor: int, columns: int = 0) -> Pixels:
    """Returns the mean of factor x factor blocks without their NaN, trimmed to whole blocks, in the values' own precision.

    The order of additions is that of `numpy.nanmean` over the block axes, which dask applies for the converter: across a row of the
    block, then down. Bit for bit the same, and six times faster than reducing two short axes. Where the converter's last chunk is
    one column wide, numpy sees the blocks as contiguous and adds in another order: so do we.

    Args:
        values: (y, x), float.
        factor: edge of a block.
        columns: of the result's chunks; 0 = one chunk.
    """
    height, width = (n // factor * factor for n in values.shape)
    part = values[:height, :width]
    nan = np.isnan(part)
    holes = bool(nan.any())
    filled = np.where(nan, values.dtype.type(0), part) if holes else part
    total = _block_sum(filled, factor)
    if columns and (width // factor) % columns == 1:
        total[:, -1] = filled[:, -factor:].reshape(height // factor, factor * factor).sum(axis=1)
    if not holes:  # nearly always: in half the time
        return np.asarray(total / values.dtype.type(factor * factor))
    number = factor * factor - _block_sum(nan.view(np.uint8), factor)
    with np.errstate(invalid="ignore"):  # 0 / 0: no valid pixel, NaN
        mean: Pixels = total / number.astype(values.dtype)
    return mean


def _block_sum(values: Pixels, factor: int) -> Pixels:
    total: Pixels | None = None
    for row in range(factor):
        line = values[row::factor, 0::factor].copy()
        for column in range(1, factor):
            line += values[row::factor, column::factor]
        total = line if total is None else total + line
    if total is None:
        raise Defect("a factor of zero")
    return total


def packed_mean(values: Pixels, factor: int, missing: int | None) -> Pixels:
    """Returns the mean of factor x factor blocks of packed numbers without those that mean "no data", to the nearest whole one.

    Trimmed to whole blocks; a block of nothing is nothing. A mean that is by chance the number for "no data" becomes its neighbour
    on the mean's side: possible only where that number lies amid the others.

    Args:
        values: (y, x), integers of up to two bytes.
        factor: edge of a block.
        missing: the number that means "no data"; None = there is none.
    """
    height, width = (n // factor * factor for n in values.shape)
    part, wide = values[:height, :width], np.int32 if values.dtype.kind == "i" else np.uint32
    nothing = part == missing if missing is not None else None
    if nothing is None or not nothing.any():  # nearly always
        return _nearest(_whole_sum(part, factor, wide), factor * factor, missing).astype(values.dtype)
    number = factor * factor - _whole_sum(nothing.view(np.uint8), factor, np.uint16).astype(wide)
    total = _whole_sum(part if missing == 0 else np.where(nothing, 0, part), factor, wide)  # nothing of 0 adds nothing
    mean = _nearest(total, np.maximum(number, 1), missing)
    mean[number == 0] = missing
    return mean.astype(values.dtype)


def _whole_sum(values: Pixels, factor: int, wide: type[np.integer[Any]]) -> Pixels:
    """Adds whole numbers, whose order does not matter: rows first, which are contiguous, in half the time (measured)."""
    rows = values[::factor].astype(wide)
    for number in range(1, factor):
        rows += values[number::factor]
    total: Pixels = rows[:, ::factor].copy()
    for number in range(1, factor):
        total += rows[:, number::factor]
    return total


def _nearest(total: Pixels, number: Any, missing: int | None) -> Pixels:  # noqa: ANN401  # of values in each, one or many
    mean = (total + number // 2) // number
    if missing is not None:
        met = mean == missing
        if met.any():
            beyond = np.asarray(total >= np.int64(missing) * number)
            mean[met] = np.where(beyond[met], missing + 1, missing - 1)
    return np.asarray(mean)
