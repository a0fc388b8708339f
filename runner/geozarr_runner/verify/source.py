"""The staged product as other people's code reads it: zarr-python decodes its chunks, CF rules say what the numbers mean.

The fast engine reads the product with code of its own, which knows some forms of Zarr v2 and not others. Nothing of it is used
here: what one of the two gets wrong, the other notices.

Source: Zarr v2, `fill_value` as xarray takes it: what is filled is missing, whatever `_FillValue` says.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from itertools import product as cartesian
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from geozarr_runner.verify.rules import CfRule, Values, rule_of

type Block = tuple[slice, ...]

HELD = 130_000_000  #: bytes of decoded source chunks that one worker keeps: two of four of a 10 m band, and the next


@dataclass
class SourceReader:
    """A Zarr v2 store on this machine. It is opened once, whichever thread asks first."""

    root: Path
    _opened: zarr.Group | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def array(self, path: str) -> Any:  # noqa: ANN401  # zarr.Array
        """Returns an array as it is stored, not decoded (zarr.Array)."""
        with self._lock:
            if self._opened is None:
                known = (self.root / ".zmetadata").exists()
                self._opened = zarr.open_group(str(self.root), mode="r", zarr_format=2, use_consolidated=known)
            return self._opened[path]


@dataclass
class Packed:
    """An array, a block at a time. Holds decoded chunks, up to half a band of 10 m: neighbours are asked for next."""

    array: Any  # zarr.Array
    _held: dict[tuple[int, ...], Values] = field(default_factory=dict)

    @property
    def rule(self) -> CfRule | None:
        """How its numbers are read; None when it holds none."""
        filled = {} if self.array.fill_value is None else {"_FillValue": self.array.fill_value}
        return rule_of(self.array.dtype, self.array.attrs.asdict() | filled)

    def block(self, block: Block) -> Values:
        """Returns what a block says; see `CfRule.values`."""
        rule, packed = self.rule, self.packed(block)
        return packed if rule is None else rule.values(packed)

    def packed(self, block: Block) -> Values:
        """Returns the stored values of a block, put together of the chunks that it touches. Not to be changed."""
        chunks = self.array.chunks
        spans = [range(s.start // n, -(-s.stop // n)) for s, n in zip(block, chunks, strict=True)]
        if all(len(span) == 1 for span in spans):  # nearly always: nothing is copied
            index = tuple(span.start for span in spans)
            starts = [i * n for i, n in zip(index, chunks, strict=True)]
            return self._chunk(index)[tuple(slice(s.start - o, s.stop - o) for s, o in zip(block, starts, strict=True))]
        out = np.empty([s.stop - s.start for s in block], dtype=self.array.dtype)
        for index in cartesian(*spans):
            starts = [i * n for i, n in zip(index, chunks, strict=True)]
            common = [(max(s.start, o), min(s.stop, o + n)) for s, o, n in zip(block, starts, chunks, strict=True)]
            there = tuple(slice(a - o, b - o) for (a, b), o in zip(common, starts, strict=True))
            here = tuple(slice(a - s.start, b - s.start) for (a, b), s in zip(common, block, strict=True))
            out[here] = self._chunk(index)[there]
        return out

    def _chunk(self, index: tuple[int, ...]) -> Values:
        if index not in self._held:
            while self._held and sum(chunk.nbytes for chunk in self._held.values()) > HELD:
                del self._held[next(iter(self._held))]
            where = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, self.array.chunks, strict=True))
            self._held[index] = np.asarray(self.array[where])
        return self._held[index]
