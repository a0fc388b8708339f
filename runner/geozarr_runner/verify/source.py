"""The staged product as other people's code reads it: zarr-python decodes its chunks, xarray applies the CF rules.

The fast engine reads the product with code of its own, which knows some forms of Zarr v2 and not others. Nothing of it is used
here: what one of the two gets wrong, the other notices.

Sources: CF conventions 1.11, section 8.1 (packed data), section 2.5.1 (missing data); Zarr v2, `fill_value` as xarray takes it.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from itertools import product as cartesian
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.conventions import decode_cf_variable

type Values = np.ndarray[Any, np.dtype[Any]]
type Block = tuple[slice, ...]

HELD = 190_000_000  #: bytes of decoded source chunks that one worker keeps: three of four of a 10 m band, and the next
_WORTH_A_TABLE = 2**17  # pixels; twice as many as there are values of two bytes


@dataclass
class SourceReader:
    """A Zarr v2 store on this machine. Groups are opened once, whichever thread asks first."""

    root: Path
    _groups: dict[str, xr.Dataset] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def variable(self, path: str) -> xr.Variable:
        """Returns an array as it is stored, not decoded; its attributes tell how it is to be, `_FillValue` included."""
        group, _, name = path.rpartition("/")
        with self._lock:
            if group not in self._groups:
                self._groups[group] = xr.open_dataset(
                    self.root, engine="zarr", group=group, consolidated=(self.root / ".zmetadata").exists(), chunks=None,
                    cache=False, mask_and_scale=False, decode_times=False, decode_coords=False,
                )  # fmt: skip
            return self._groups[group].variables[name]


@dataclass
class Packed:
    """An array, a block at a time. Holds decoded chunks, up to a band of 10 m: neighbours are asked for next."""

    variable: xr.Variable
    _held: dict[tuple[int, ...], Values] = field(default_factory=dict)

    def block(self, block: Block) -> Values:
        """Returns the decoded values of a block; see `decode`."""
        return decode(self.packed(block), self.variable)

    def packed(self, block: Block) -> Values:
        """Returns the stored values of a block, put together of the chunks that it touches."""
        chunks = tuple(self.variable.encoding["chunks"])
        spans = [range(s.start // n, -(-s.stop // n)) for s, n in zip(block, chunks, strict=True)]
        out = np.empty([s.stop - s.start for s in block], dtype=self.variable.dtype)
        for index in cartesian(*spans):
            chunk = self._chunk(index, chunks)
            starts = [i * n for i, n in zip(index, chunks, strict=True)]
            common = [(max(s.start, o), min(s.stop, o + n)) for s, o, n in zip(block, starts, chunks, strict=True)]
            there = tuple(slice(a - o, b - o) for (a, b), o in zip(common, starts, strict=True))
            here = tuple(slice(a - s.start, b - s.start) for (a, b), s in zip(common, block, strict=True))
            out[here] = chunk[there]
        return out

    def _chunk(self, index: tuple[int, ...], chunks: tuple[int, ...]) -> Values:
        if index not in self._held:
            while self._held and sum(chunk.nbytes for chunk in self._held.values()) > HELD:
                del self._held[next(iter(self._held))]
            where = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, chunks, strict=True))
            self._held[index] = np.asarray(self.variable[where].values)
        return self._held[index]


def words_of(attributes: Mapping[str, Any]) -> xr.Variable:
    """Returns attributes as `decode` takes them."""
    return xr.Variable((), 0, dict(attributes))


def decode(packed: Values, variable: xr.Variable) -> Values:
    """Returns values as xarray decodes them, numbers as float: missing = NaN. float32 as in the output, 8 bytes excepted.

    Args:
        packed: as stored; any shape.
        variable: which dtype and attributes it has.
    """
    if packed.dtype.kind not in "iufb":
        return packed
    if packed.dtype.kind == "u" and packed.dtype.itemsize <= 2 and packed.size > _WORTH_A_TABLE:  # bytes
        every = np.arange(np.iinfo(packed.dtype).max + 1, dtype=packed.dtype)
        return np.asarray(_decoded(every, variable.attrs)[packed])
    return _decoded(packed, variable.attrs)


def _decoded(packed: Values, attributes: dict[Hashable, Any]) -> Values:
    dimensions = tuple(f"d{n}" for n in range(packed.ndim))
    raw = xr.Variable(dimensions, packed, dict(attributes))
    values = np.asarray(decode_cf_variable("values", raw, decode_times=False, decode_timedelta=False).values)
    return values.astype(np.float64 if packed.dtype.itemsize > 4 else np.float32)  # bytes; coordinates are not rounded
