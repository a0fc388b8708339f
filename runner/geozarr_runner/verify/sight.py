"""All resolutions of a tile saw the same ground: none may have nodata where another has data.

What the converter makes is what the source says, and a source that was written by halves says nodata. Edges differ from band to
band; so ground counts that is well inside of what a band saw, and only when no band of the other resolution has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from geozarr_runner.source.ground import Flags, Shares, around, blocks, cells_of, deep, shares, touched
from geozarr_runner.source.product import NATIVE_LEVELS, REFLECTANCE
from geozarr_runner.verify.shown import has_data
from stac_watch.model.outcome import Check

_BLANK = 0.1  #: share of a cell's pixels up to which it has no data
_ROWS = 1024  #: read at a time


def check(there: Mapping[str, Any], *, allowed: bool) -> Check:
    """Compares where the resolutions of the output have data.

    Args:
        there: path -> array of the output.
        allowed: a person takes for nodata what is missing.
    """
    levels = {level: _bands(there, level) for level in NATIVE_LEVELS if _bands(there, level)}
    if len(levels) < 2:  # nothing to compare with
        return Check("ground", "skipped", "reflectance has one resolution")
    cells = cells_of(array.shape for bands in levels.values() for array in bands.values())
    blank = {level: _shares(_smallest(there, bands), cells) < _BLANK for level, bands in levels.items()}
    for other, bands in levels.items():
        asked = np.any([flags for level, flags in blank.items() if level != other], axis=0)
        seen = deep(_shares(next(iter(bands.values())), cells, around(asked)), cells) if asked.any() else asked
        for level in (name for name in levels if name != other):
            lost = _lost_to_all(seen & blank[level], list(levels[level].values()), cells)
            if lost.any():
                what = f"{level} has no data on {lost.mean():.1%} of the tile where {other} has"
                return Check("ground", "passed" if allowed else "failed", f"{what}, as was allowed" if allowed else what)
    return Check("ground", "passed", f"{', '.join(levels)} have data on the same ground")


def _lost_to_all(lost: Flags, bands: list[Any], cells: int) -> Flags:
    """Returns what of it every band lacks: one band may have been lost."""
    for band in bands:
        if not lost.any():
            break
        lost = lost & (_shares(band, cells, lost) < _BLANK)
    return lost


def _smallest(there: Mapping[str, Any], bands: Mapping[str, Any]) -> Any:  # noqa: ANN401  # zarr.Array
    """Returns who sees the ground of a level's bands: the coarsest that was made of one of them, else the first of them.

    A pixel of what was made has data where any of those behind it had: b08 at 60 m shows in 3 Mpx what it saw in 120.
    """
    names = {path.rpartition("/")[2] for path in bands}
    made = [array for path, array in there.items() if path.rpartition("/")[2] in names and _is_made(path, array)]
    return min([next(iter(bands.values())), *made], key=lambda array: math.prod(array.shape))


def _is_made(path: str, array: Any) -> bool:  # noqa: ANN401  # idem
    level = path.removeprefix(f"{REFLECTANCE}/").rpartition("/")[0]
    return level in NATIVE_LEVELS and array.ndim == 2 and "_derived_from" in array.attrs  # (y, x)


def _bands(there: Mapping[str, Any], level: str) -> dict[str, Any]:
    """Returns the native bands of a level: those that were made of a finer one show what that saw."""
    group = f"{REFLECTANCE}/{level}"
    return {
        path: array
        for path, array in sorted(there.items())
        if path.rpartition("/")[0] == group and array.ndim == 2 and not _is_made(path, array)  # (y, x)
    }


def _shares(array: Any, cells: int, asked: Flags | None = None) -> Shares:  # noqa: ANN401  # zarr.Array
    """Returns the share of pixels with data in each cell; where some are asked for, of the others perhaps less."""
    return shares(_parts(array, cells, asked), array.shape, cells)


def _parts(array: Any, cells: int, asked: Flags | None) -> Iterator[tuple[int, int, Flags]]:  # noqa: ANN401  # zarr.Array
    edges = (_ROWS, array.shape[1] if asked is None else _ROWS)
    for rows, columns in blocks(array.shape, edges):
        if asked is None or asked[touched((rows, columns), array.shape, cells)].any():
            yield rows.start, columns.start, has_data(array, (rows, columns))
