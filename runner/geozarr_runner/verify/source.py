"""The staged product as other people's code reads it: zarr-python decodes its chunks, CF rules say what the numbers mean.

Of a large chunk that a sample touches, numcodecs decodes no more than is asked for (see `parts`); whenever that is not what the
output has, the whole of it is asked of zarr-python.

The fast engine reads the product with code of its own, which knows some forms of Zarr v2 and not others. Nothing of it is used
here: what one of the two gets wrong, the other notices.

Source: Zarr v2, `fill_value` as xarray takes it: what is filled is missing, whatever `_FillValue` says.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product as cartesian
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc

from geozarr_runner.verify.parts import part
from geozarr_runner.verify.rules import CfRule, Values, rule_of

type Block = tuple[slice, ...]

HELD = 130_000_000  #: bytes of decoded source chunks that one worker keeps: two of four of a 10 m band, and the next


@dataclass
class SourceReader:
    """A Zarr v2 store on this machine. It is opened once, whichever thread asks first."""

    root: Path
    _opened: zarr.Group | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def packed(self, path: str) -> Packed:
        """Returns an array."""
        with self._lock:
            if self._opened is None:
                known = (self.root / ".zmetadata").exists()
                self._opened = zarr.open_group(str(self.root), mode="r", zarr_format=2, use_consolidated=known)
            return Packed(self._opened[path], self.root / path)


@dataclass
class Packed:
    """An array, a block at a time. Holds decoded chunks or rows, up to half a band of 10 m: neighbours are asked for next."""

    array: Any  # zarr.Array
    folder: Path  # where it lies
    _held: dict[tuple[int, ...], Values] = field(default_factory=dict)
    _strips: dict[tuple[tuple[int, ...], int, int], Values] = field(default_factory=dict)

    @cached_property
    def rule(self) -> CfRule | None:
        """How its numbers are read; None when it holds none."""
        filled = {} if self.array.fill_value is None else {"_FillValue": self.array.fill_value}
        return rule_of(self.array.dtype, self.array.attrs.asdict() | filled)

    def block(self, block: Block, *, whole: bool = True) -> Values:
        """Returns what a block says; see `CfRule.values`."""
        rule, packed = self.rule, self.packed(block, whole=whole)
        return packed if rule is None else rule.values(packed)

    def packed(self, block: Block, *, whole: bool = False) -> Values:
        """Returns the stored values of a block, put together of the chunks that it touches. Not to be changed.

        Args:
            block: what is asked for.
            whole: zarr-python decodes chunks, whole ones. Else numcodecs alone does, of a large one only the rows that are asked
                for: half the time. What then seems wrong has to be asked for once more.
        """
        chunks = self.array.chunks
        spans = [range(s.start // n, -(-s.stop // n)) for s, n in zip(block, chunks, strict=True)]
        out = None if all(len(span) == 1 for span in spans) else np.empty([s.stop - s.start for s in block], self.array.dtype)
        for index in cartesian(*spans):
            starts = [i * n for i, n in zip(index, chunks, strict=True)]
            common = [(max(s.start, o), min(s.stop, o + n)) for s, o, n in zip(block, starts, chunks, strict=True)]
            there = tuple(slice(a - o, b - o) for (a, b), o in zip(common, starts, strict=True))
            piece = None if whole else self._quickly(index, there)
            piece = self._chunk(index)[there] if piece is None else piece
            if out is None:  # nearly always: nothing is copied
                return piece
            out[tuple(slice(a - s.start, b - s.start) for (a, b), s in zip(common, block, strict=True))] = piece
        return np.empty(0, self.array.dtype) if out is None else out

    def _chunk(self, index: tuple[int, ...]) -> Values:
        if index not in self._held:
            while self._held and sum(chunk.nbytes for chunk in self._held.values()) > HELD:
                del self._held[next(iter(self._held))]
            where = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, self.array.chunks, strict=True))
            self._held[index] = np.asarray(self.array[where])
        return self._held[index]

    def _quickly(self, index: tuple[int, ...], there: Block) -> Values | None:
        """Returns a part of a chunk without zarr-python; None where only that can say what is in it."""
        if not self._has_rows or index in self._held:
            return None
        begin, end = there[0].start, there[0].stop
        if 2 * (end - begin) > self.array.chunks[0]:  # most of it, and the next block may want the rest
            begin, end = 0, self.array.chunks[0]
        for first, last in ((begin, end), (0, self.array.chunks[0])):
            if (kept := self._strips.get((index, first, last))) is not None:
                return kept[there[0].start - first : there[0].stop - first, there[1]]
        row = self.array.chunks[1] * self.array.dtype.itemsize
        file, size = self.folder / self.array.metadata.encode_chunk_key(index), self.array.chunks[0] * row
        data = part(file, size, begin * row, end * row)
        if data is None or len(data) != (end - begin) * row:
            return None
        while self._strips and sum(strip.nbytes for strip in self._strips.values()) > HELD:
            del self._strips[next(iter(self._strips))]
        rows = np.frombuffer(data, self.array.dtype).reshape(-1, self.array.chunks[1])
        self._strips[index, begin, end] = rows
        return rows[there[0].start - begin : there[0].stop - begin, there[1]]

    @cached_property
    def _has_rows(self) -> bool:
        """Says whether rows of a chunk lie one after the other in a blosc frame, and in nothing else."""
        said = self.array.metadata
        plain = said.zarr_format == 2 and said.order == "C" and not said.filters and isinstance(said.compressor, Blosc)  # Zarr v2
        return plain and self.array.ndim == 2 and self.array.dtype.kind in "iuf"  # (y, x)
