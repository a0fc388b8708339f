"""All resolutions of a tile saw the same ground: none may have nodata where another has data.

What the converter makes is what the source says, and a source that was written by halves says nodata. Edges differ from band to
band; so ground counts that is well inside of what a band saw, and only when no band of the other resolution has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from geozarr_runner.source.ground import Flags, Shares, blocks, cells_of, deep, shares
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
    first = {level: _shares(next(iter(bands.values())), cells) for level, bands in levels.items()}
    for level, bands in levels.items():
        for other, seen in first.items():
            lost = deep(seen, cells) & (first[level] < _BLANK)
            if other != level and lost.any():
                lost = _lost_to_all(lost, list(bands.values())[1:], cells)
                if lost.any():
                    what = f"{level} has no data on {lost.mean():.1%} of the tile where {other} has"
                    return Check("ground", "passed" if allowed else "failed", f"{what}, as was allowed" if allowed else what)
    return Check("ground", "passed", f"{', '.join(levels)} have data on the same ground")


def _lost_to_all(lost: Flags, bands: list[Any], cells: int) -> Flags:
    """Returns what of it every other band lacks, too: one band may have been lost."""
    for band in bands:
        if not lost.any():
            break
        lost = lost & (_shares(band, cells) < _BLANK)
    return lost


def _bands(there: Mapping[str, Any], level: str) -> dict[str, Any]:
    """Returns the native bands of a level: those that were made of a finer one show what that saw."""
    group = f"{REFLECTANCE}/{level}"
    return {
        path: array
        for path, array in sorted(there.items())
        if path.rpartition("/")[0] == group and array.ndim == 2 and "_derived_from" not in array.attrs  # (y, x)
    }


def _shares(array: Any, cells: int) -> Shares:  # noqa: ANN401  # zarr.Array
    return shares(_parts(array), array.shape, cells)


def _parts(array: Any) -> Iterator[tuple[int, int, Flags]]:  # noqa: ANN401  # zarr.Array
    for rows, columns in blocks(array.shape, (_ROWS, array.shape[1])):
        yield rows.start, columns.start, has_data(array, (rows, columns))
