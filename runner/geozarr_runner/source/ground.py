"""Which ground an array has data on, on a grid of cells that all resolutions of a tile share.

A band ends at the edge of the swath, and each band a little elsewhere. So only a cell that has data, and whose neighbours have, is
ground that every other array must have data on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

type Flags = np.ndarray[Any, np.dtype[np.bool_]]
type Shares = np.ndarray[Any, np.dtype[np.float64]]

CELLS = 60  #: per edge of a tile: 1.8 km of 110
_FULL = 0.9  #: share of a cell's pixels that have to be valid; single pixels are lost everywhere


def cells_of(shapes: Iterable[tuple[int, ...]]) -> int:
    """Returns how many cells per edge arrays of these shapes (y, x last) can share: no cell is smaller than a pixel."""
    return min([CELLS, *(n for shape in shapes for n in shape[-2:])])


def shares(parts: Iterable[tuple[int, int, Flags]], shape: tuple[int, int], cells: int) -> Shares:
    """Returns the share of valid pixels in each cell. Shape (cells, cells).

    Args:
        parts: the parts of the array that are there: first row, first column, which pixels are valid (y, x). What is in none of
            them counts as not valid.
        shape: of the whole array, (y, x).
        cells: see `cells_of`.
    """
    valid = np.zeros((cells, cells), np.int64)
    for row, column, flags in parts:
        rows, row_starts = _cells(row, flags.shape[0], shape[0], cells)
        columns, column_starts = _cells(column, flags.shape[1], shape[1], cells)
        row_edges, column_edges = [*row_starts, flags.shape[0]], [*column_starts, flags.shape[1]]
        valid[np.ix_(rows, columns)] += [  # a tenth of the time of `np.add.reduceat` (measured)
            [np.count_nonzero(flags[top:bottom, left:right]) for left, right in pairwise(column_edges)]
            for top, bottom in pairwise(row_edges)
        ]
    return np.asarray(valid / np.outer(*(_sizes(n, cells) for n in shape)))


def deep(valid: Shares, cells: int) -> Flags:
    """Returns which cells have data, as all of their neighbours do."""
    padded = np.pad(valid >= _FULL, 1, constant_values=True)  # beyond the tile's edge is nothing that could be missing
    return np.all([padded[i : i + cells, j : j + cells] for i in range(3) for j in range(3)], axis=0)


def around(flags: Flags) -> Flags:
    """Returns the cells that are flagged, and their neighbours: what `deep` asks of them."""
    padded = np.pad(flags, 1)
    return np.any([padded[i : i + len(flags), j : j + len(flags)] for i in range(3) for j in range(3)], axis=0)


def touched(block: tuple[slice, slice], shape: tuple[int, int], cells: int) -> tuple[slice, slice]:
    """Returns the cells that a block of pixels has a part of."""
    rows, columns = (slice(s.start * cells // n, (s.stop - 1) * cells // n + 1) for s, n in zip(block, shape, strict=True))
    return rows, columns


def within(block: tuple[slice, slice], shape: tuple[int, int], cells: int) -> tuple[slice, slice]:
    """Returns the cells that lie in a block of pixels; for one smaller than a cell, the cell that its middle is in."""
    rows, columns = (_inside(s, n, cells) for s, n in zip(block, shape, strict=True))
    return rows, columns


def _inside(pixels: slice, size: int, cells: int) -> slice:
    stop = min(pixels.stop, size)
    first, last = math.ceil(pixels.start * cells / size), stop * cells // size
    if first < last:
        return slice(first, last)
    middle = (pixels.start + stop) * cells // (2 * size)
    return slice(middle, middle + 1)


def _cells(start: int, count: int, size: int, cells: int) -> tuple[Any, Any]:
    """Returns the cells that pixels are in, and where among the pixels each begins."""
    ids = np.arange(start, start + count) * cells // size
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    return ids[starts], starts


def _sizes(size: int, cells: int) -> Any:  # noqa: ANN401  # numpy has no short word for it
    return np.bincount(np.arange(size) * cells // size, minlength=cells)


def blocks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yields the pixels of each chunk in C order; the last ones end with the array."""
    grid = [range(-(-n // c)) for n, c in zip(shape, chunks, strict=True)]
    for index in np.ndindex(*(len(r) for r in grid)):
        yield tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunks, shape, strict=True))
