"""What is remembered of a finished GeoZarr while its chunks arrive: a few thousand small blocks of each array, and what is absent.

Every chunk is decoded once, and then it is gone: 4 GB of a tile are not kept. The blocks lie on the grid of r60m, so that levels
and bands can be compared with each other.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geozarr_runner.source.evidence import marks_of
from geozarr_runner.source.product import REFLECTANCE
from geozarr_runner.source.shards import Cells, Region, missing_of
from stac_watch.model.zarr3 import StoredArray

MOST = 183  #: blocks along an edge: a tenth of r60m, 33,000 in all
_COARSE = f"{REFLECTANCE}/r60m"


@dataclass
class Sampled:
    """The blocks of one array. NaN where nothing is known: a block that no chunk holds whole, or with no valid pixel."""

    array: StoredArray
    mean: Cells  # (block row, block column), of the valid pixels, packed
    valid: Cells  # share of pixels that are valid
    pixels: dict[tuple[int, ...], tuple[int, int]] = field(default_factory=dict)  # chunk -> pixels, of them without data
    absent: list[Region] = field(default_factory=list)
    marks: dict[str, Cells] = field(default_factory=dict)  # see `evidence`: word -> share of a block's pixels that say it


class Blocks:
    """The blocks of all arrays; `see` is called from many threads."""

    def __init__(self, arrays: Mapping[str, StoredArray]) -> None:
        coarse = next((a for a in arrays.values() if a.group == _COARSE and len(a.shape) == 2), None)  # (y, x)
        self.edges = coarse.shape if coarse is not None else (0, 0)
        self._lock = threading.Lock()
        self.of: dict[str, Sampled] = {}
        rows, columns = (min(MOST, n) for n in self.edges)
        for path, array in arrays.items():
            if len(array.shape) == 2 and self._factor(array):
                empty: Any = np.full((rows, columns), np.nan, np.float32)
                marks = {word: empty.copy() for word in marks_of(path, array.attributes)}
                self.of[path] = Sampled(array, empty, empty.copy(), marks=marks)

    def see(self, array: StoredArray, at: Region, cells: Cells | None) -> None:
        """Takes the blocks of one chunk; None = it is absent."""
        found = self.of.get(array.path)
        if found is None:
            return
        size = int(np.prod([s.stop - s.start for s in at]))
        nothing = size if cells is None else size - int(np.count_nonzero(_valid(array, cells)))
        key = tuple(s.start for s in at)
        with self._lock:
            found.pixels[key] = (size, nothing)
            if cells is None:
                found.absent.append(at)
        (i, rows), (j, columns) = (self._inside(axis, array, s) for axis, s in enumerate(at))
        if not len(i) or not len(j):
            return
        if cells is None:
            for known in (found.valid, *found.marks.values()):
                known[np.ix_(i, j)] = 0.0
            return
        picked = cells.take(rows.ravel(), axis=0).take(columns.ravel(), axis=1)  # no more than these are looked at any further
        each = rows.shape[1] * columns.shape[1]  # pixels of a block
        for word, says in marks_of(array.path, array.attributes).items():
            found.marks[word][np.ix_(i, j)] = _sums(says(picked), rows.shape, columns.shape) / each
        good = _valid(array, picked)
        number = _sums(good, rows.shape, columns.shape)
        total = _sums(np.where(good, picked, np.zeros((), picked.dtype)), rows.shape, columns.shape)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.mean[np.ix_(i, j)] = total / number
        found.valid[np.ix_(i, j)] = number / each

    @property
    def metres(self) -> float:
        """From one block to the next."""
        return 60.0 * max(1, *(edge / max(1, min(MOST, edge)) for edge in self.edges))

    def _factor(self, array: StoredArray) -> int:
        """Returns how many pixels of the array lie along a pixel of r60m; 0 = it is no finer grid of the same ground."""
        whole = all(n and size % n == 0 for size, n in zip(array.shape, self.edges, strict=True))
        factors = {size // n for size, n in zip(array.shape, self.edges, strict=True)} if whole else set()
        return factors.pop() if len(factors) == 1 else 0

    def _inside(self, axis: int, array: StoredArray, span: slice) -> tuple[Cells, Cells]:
        """Returns which blocks lie whole in a chunk's span, and the pixels of each, counted from the chunk's start."""
        edge, factor = self.edges[axis], self._factor(array)
        count = min(MOST, edge)
        firsts = (np.arange(count) * edge // count) * factor
        inside = np.flatnonzero((firsts >= span.start) & (firsts + factor <= span.stop))
        return inside, (firsts[inside] - span.start)[:, None] + np.arange(factor)[None, :]


def _sums(picked: Cells, rows: tuple[int, ...], columns: tuple[int, ...]) -> Cells:
    """Returns the sum of each block, of pixels that lie as their blocks do: (block rows, its rows), likewise columns.

    A row of each block after another: numpy's own sum over two short axes takes three times as long (measured).
    """
    by_row = picked.reshape(*rows, -1)
    strips: Cells = by_row[:, 0].astype(np.float64 if picked.dtype.kind == "f" else np.int64)
    for row in range(1, rows[1]):
        strips += by_row[:, row]
    return strips.reshape(len(strips), *columns).sum(axis=2)


def _valid(array: StoredArray, cells: Cells) -> Cells:
    """Says which pixels are data: not the missing value; where none is named, not zero, which is what masks mean by nothing."""
    missing = missing_of(array)
    if missing is None and np.dtype(str(array.data_type) if isinstance(array.data_type, str) else "f8").kind in "ub":
        missing = 0
    said = missing is not None and missing == missing  # NaN is asked for by itself
    if cells.dtype.kind != "f":
        return cells != missing if said else np.ones(cells.shape, bool)
    valid: Cells = ~np.isnan(cells)
    if said:
        valid &= cells != missing
    return valid
