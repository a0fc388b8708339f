"""What the output has to hold, computed from the staged source by rules of our own: the CF rule and plain block means.

In: source arrays, or levels of the output for the overviews below them. Out: functions from a block to the values expected there.
Never: uses the converter, xarray's decoding, or the fast engine's arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product as cartesian
from pathlib import Path
from typing import Any

import numpy as np

from geozarr_runner.product import ZarrArray
from geozarr_runner.stage import read_chunk

type Values = np.ndarray[Any, np.dtype[Any]]
type Block = tuple[slice, ...]

HELD = 190_000_000  #: bytes of decoded source chunks that one worker keeps: three of four of a 10 m band, and the next


def decode(packed: Values, array: ZarrArray) -> Values:
    """Returns values by the CF rule: fill -> NaN, scale * packed + offset in float64, then float32 as in the output.

    Source: CF conventions 1.11, section 8.1 (packed data), section 2.5.1 (missing data).
    """
    if packed.dtype.kind not in "iufb":
        return packed
    if packed.dtype.kind == "u" and packed.dtype.itemsize <= 2 and packed.size > 2**17:  # bytes; more pixels than values
        every = np.arange(np.iinfo(packed.dtype).max + 1, dtype=packed.dtype)
        return np.asarray(decode(every, array)[packed])
    values = packed.astype(np.float64)
    values *= float(array.attributes.get("scale_factor", 1.0))
    values += float(array.attributes.get("add_offset", 0.0))
    if array.fill_value is not None and array.fill_value != "NaN":
        values[packed == array.fill_value] = np.nan
    return values.astype(np.float32)


def block_mean(values: Values, factor: int) -> Values:
    """Returns the mean of factor x factor blocks, ignoring NaN; NaN where a block holds nothing else. Shape (y, x)."""
    height, width = (n // factor * factor for n in values.shape)
    part = values[:height, :width]
    valid = ~np.isnan(part)
    number = _block_sums(valid.astype(np.uint16), factor)
    total = _block_sums(np.where(valid, part, 0.0).astype(np.float64), factor)
    mean = np.full(number.shape, np.nan)
    np.divide(total, number, out=mean, where=number > 0)
    return mean.astype(np.float32)


def _block_sums(values: Values, factor: int) -> Values:
    """Sums rows first, which are contiguous, then columns of what is left: a fourth of the time of both at once."""
    height, width = values.shape
    rows = values.reshape(height // factor, factor, width).sum(axis=1, dtype=values.dtype)
    return np.asarray(rows.reshape(height // factor, width // factor, factor).sum(axis=2, dtype=values.dtype))


@dataclass
class Packed:
    """A source array, packed, a block at a time. Holds decoded chunks, up to a band of 10 m: neighbours are asked for next."""

    root: Path
    array: ZarrArray
    _held: dict[tuple[int, ...], Values] = field(default_factory=dict)

    def block(self, block: Block) -> Values:
        """Returns the values of a block, put together of the chunks that it touches."""
        spans = [range(s.start // n, -(-s.stop // n)) for s, n in zip(block, self.array.chunks, strict=True)]
        out = np.empty([s.stop - s.start for s in block], dtype=self.array.dtype)
        for index in cartesian(*spans):
            chunk = self._decoded(index)
            starts = [i * n for i, n in zip(index, self.array.chunks, strict=True)]
            common = [(max(s.start, o), min(s.stop, o + n)) for s, o, n in zip(block, starts, self.array.chunks, strict=True)]
            there = tuple(slice(a - o, b - o) for (a, b), o in zip(common, starts, strict=True))
            here = tuple(slice(a - s.start, b - s.start) for (a, b), s in zip(common, block, strict=True))
            out[here] = chunk[there]
        return out

    def _decoded(self, index: tuple[int, ...]) -> Values:
        if index not in self._held:
            name = self.array.separator.join(map(str, index)) or "0"
            path = self.root / self.array.path / name
            fill = 0 if self.array.fill_value is None else self.array.fill_value  # `stage` judged which chunks may be absent
            while self._held and sum(chunk.nbytes for chunk in self._held.values()) > HELD:
                del self._held[next(iter(self._held))]
            self._held[index] = (
                read_chunk(self.array, path) if path.exists() else np.full(self.array.chunks, fill, self.array.dtype)
            )
        return self._held[index]


def from_source(root: Path, array: ZarrArray) -> Callable[[Block], Values]:
    """Returns what a native array of the output has to hold."""
    packed = Packed(root, array)
    return lambda block: decode(packed.block(block), array)


def from_finer(root: Path, array: ZarrArray, level: str) -> Callable[[Block], Values]:
    """Returns what a band has to hold that the converter made of a finer one."""
    packed = Packed(root, array)
    factor = metres(level) // metres(array.group.rpartition("/")[2])
    return lambda block: block_mean(decode(packed.block(_scaled(block, factor)), array), factor)


def from_output(array: Any, factor: int) -> Callable[[Block], Values]:  # noqa: ANN401  # zarr.Array
    """Returns what an overview has to hold, seen from the level that it is made of."""
    values = np.asarray(array[...])
    return lambda block: block_mean(values[_scaled(block, factor)], factor)


def _scaled(block: Block, factor: int) -> Block:
    return tuple(slice(s.start * factor, s.stop * factor) for s in block)


def metres(level: str) -> int:
    """Returns the pixel size that a level is named after."""
    return int(level.strip("rm"))
