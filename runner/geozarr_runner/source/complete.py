"""Is the product whole? A writer may leave out what holds nothing but the fill value; an upload that has not ended looks alike.

An absent chunk is judged by the ground that it is of. Reflectance, atmosphere, scene classification and detector footprints have
data wherever a tile was seen: where one of them, in whatever resolution, has data and another lacks the chunk, it is missing.
Whether they were chosen is not asked: the smallest of each kind is fetched as a witness. Where none has data it is nodata, were it
the whole tile; unless the item says that the product has more (`claims`). Quality flags and probabilities may be 0 wherever nobody
speaks of them (`evidence`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geozarr_runner.source.evidence import LEAST, PROBABILITY, SAYS, marks_of, word_on
from geozarr_runner.source.ground import Flags, blocks, cells_of, deep, shares, within
from geozarr_runner.source.product import NATIVE_LEVELS, REFLECTANCE, Product, Selection, ZarrArray
from stac_watch.model.errors import SourceNotThere

SEES = (REFLECTANCE, "quality/atmosphere", "conditions/mask/detector_footprint", "conditions/mask/l2a_classification")
"""Groups whose arrays have data on all ground that the sensor saw: 0 means that it did not."""
HINT = (
    "it is looked at again later; if it stays, tell the catalog's operator which chunks are missing, "
    "or take them for nodata: stac-watch replay ITEM --now --allow-empty --yes; by hand geozarr-runner run --allow-empty true"
)
_SHOWN = 4


@dataclass(frozen=True)
class Odd:
    """An absent chunk that cannot be all nodata."""

    key: str
    why: str


@dataclass(frozen=True)
class Allowance:
    """How absent chunks are taken."""

    times: int = 1  # that the product was looked at, this one included
    allow_empty: bool = False  # a person says that they are nodata


def require(
    selection: Selection,
    absent: frozenset[str],
    root: Path,
    where: str,
    looked: Allowance,
    others: tuple[ZarrArray, ...] = (),
) -> tuple[Odd, ...]:
    """Checks that absent chunks can be nothing but nodata. Returns those that cannot, and are allowed all the same.

    Raises:
        SourceNotThere: some cannot; says which, and who sees data there.
    """
    odd = judge(selection, absent, root, others)
    if not odd or looked.allow_empty:
        return odd
    shown = "; ".join(f"{o.key}: {o.why}" for o in odd[:_SHOWN]) + (f"; and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else "")
    again = f", at {looked.times} looks" if looked.times > 1 else ""
    raise SourceNotThere(
        f"{where} is still being uploaded: {len(odd)} of {len(selection.keys)} chunks are missing{again} ({shown})",
        hint=HINT,
    )


def lacks_ground(selection: Selection, absent: frozenset[str]) -> bool:
    """Says whether chunks are absent of arrays that have data wherever the tile was seen."""
    return any(key in absent for a in selection.arrays if _on_ground(a) and _sees(a) for key in a.chunk_keys())


def witnesses(selection: Selection, product: Product, absent: frozenset[str]) -> tuple[ZarrArray, ...]:
    """Returns arrays that were not chosen and see the ground of absent chunks: of each kind the smallest."""
    spoken_of = any(
        key in absent for a in selection.arrays if a.group.startswith(PROBABILITY.rstrip("/")) for key in a.chunk_keys()
    )
    if not spoken_of and not lacks_ground(selection, absent):
        return ()
    chosen = {array.path for array in selection.arrays}
    outside = [a for a in product.arrays.values() if _on_ground(a) and a.path not in chosen]
    kinds = [[a for a in outside if a.group.startswith(kind)] for kind in SEES]
    return tuple(min(kind, key=lambda a: (a.pixels, a.path)) for kind in kinds if kind)


def seen(selection: Selection, absent: frozenset[str], root: Path) -> float:
    """Returns the share of the tile that reflectance has data on, as its coarsest band has it."""
    bands = [a for a in selection.arrays if _on_ground(a) and a.group.startswith(REFLECTANCE)]
    return _Witnesses(selection, absent, root).share(min(bands, key=lambda a: (a.pixels, a.path))) if bands else 1.0


def judge(selection: Selection, absent: frozenset[str], root: Path, others: tuple[ZarrArray, ...] = ()) -> tuple[Odd, ...]:
    """Returns the absent chunks that cannot be all nodata. Reads pixels only when ground is missing.

    Args:
        selection: what is converted.
        absent: the keys of its chunks that are not there.
        root: where the others are.
        others: arrays that are not converted and were brought there, too, as `witnesses`; theirs that are not there say nothing.
    """
    if not absent:
        return ()
    witnesses = _Witnesses(selection, absent, root, others)
    gone = [(array, [key for key in array.chunk_keys() if key in absent]) for array in selection.arrays]
    return tuple(odd for array, keys in gone for odd in _judged(array, keys, witnesses))


def _judged(array: ZarrArray, gone: list[str], witnesses: _Witnesses) -> Iterator[Odd]:
    if not array.shape or not gone:
        return  # a scalar may be its fill value
    if not _on_ground(array):
        whole = len(gone) == len(list(array.chunk_keys()))
        if array.is_coordinate and array.pixels > 1:
            if not witnesses.hold_nothing(array.group):
                yield from (Odd(key, "coordinates cannot be all alike") for key in gone)
        elif array.pixels > 1 and (whole or array.fill_value != "NaN"):
            yield from (Odd(key, "no such values are all alike") for key in gone)
    elif _sees(array):
        yield from (Odd(key, f"{seen} has data there") for key in gone if (seen := witnesses.of_ground(array, key)))
    elif word := word_on(array.path, array.attributes):
        yield from (Odd(key, f"{said} {SAYS[word]}") for key in gone if (said := witnesses.of_word(array, key, word)))


class _Witnesses:
    """Who has data on which ground; each array is read once, and only when it is asked."""

    def __init__(self, selection: Selection, absent: frozenset[str], root: Path, others: tuple[ZarrArray, ...] = ()) -> None:
        self._arrays = sorted((a for a in (*selection.arrays, *others) if _on_ground(a)), key=lambda a: a.pixels)
        self._selection, self._absent, self._root = selection, absent, root
        self._seeing = [a for a in self._arrays if _sees(a)]
        self._cells = cells_of(a.shape for a in self._seeing)
        self._deep: dict[str, Flags] = {}

    def hold_nothing(self, group: str) -> bool:
        """Says whether a group of flags is absent as a whole, its axes included: nothing was flagged."""
        inside = [a for a in self._selection.arrays if a.group == group]
        return not group.startswith(SEES) and all(key in self._absent for a in inside for key in a.chunk_keys())

    def of_ground(self, array: ZarrArray, key: str) -> str:
        """Returns an array that has data on the ground of a chunk; empty when none has."""
        block = _blocks_by_key(array)[key][-2:]
        where = within((block[0], block[1]), (array.shape[-2], array.shape[-1]), self._cells)
        return next((a.path for a in self._seeing if a is not array and self._deep_of(a)[where].any()), "")

    def of_word(self, array: ZarrArray, key: str, word: str) -> str:
        """Returns an array that says of a chunk's pixels what there would not be without it; see `evidence`."""
        block = _blocks_by_key(array)[key][-2:]
        for other in self._arrays:
            says = marks_of(other.path, other.attributes).get(word)
            if says is None or other is array:
                continue
            there = (
                slice(s.start * n // size, -(-s.stop * n // size))
                for s, n, size in zip(block, other.shape[-2:], array.shape[-2:], strict=True)
            )
            values = self._read(other, (*(slice(0, n) for n in other.shape[:-2]), *there))
            if values is not None and np.mean(says(values)) > LEAST[word]:
                return other.path
        return ""

    def share(self, array: ZarrArray) -> float:
        """Returns the share of an array's pixels that are data."""
        valid = sum(int(np.count_nonzero(flags)) for _, _, flags in self._parts(array))
        return valid / max(1, array.shape[-2] * array.shape[-1])

    def _deep_of(self, array: ZarrArray) -> Flags:
        if array.path not in self._deep:
            self._deep[array.path] = deep(shares(self._parts(array), (array.shape[-2], array.shape[-1]), self._cells), self._cells)
        return self._deep[array.path]

    def _parts(self, array: ZarrArray) -> Iterator[tuple[int, int, Flags]]:
        for key, block in _blocks_by_key(array).items():
            if key not in self._absent and (values := self._read(array, block)) is not None:
                yield block[-2].start, block[-1].start, _valid(array, values)

    def _read(self, array: ZarrArray, block: tuple[slice, ...]) -> Any:  # noqa: ANN401  # pixels (y, x), or None
        """Reads a chunk by zarr-python; None when it cannot be decoded: whether it is corrupt is found out by who needs it."""
        import zarr

        try:
            values = np.asarray(zarr.open_array(str(self._root / array.path), mode="r", zarr_format=2)[block])
        except (RuntimeError, ValueError, TypeError, FileNotFoundError):
            return None
        return values.reshape(-1, *values.shape[-2:])[0]


def _on_ground(array: ZarrArray) -> bool:
    dimensions = array.attributes.get("_ARRAY_DIMENSIONS")
    return isinstance(dimensions, list) and dimensions[-2:] == ["y", "x"] and array.group.rpartition("/")[2] in NATIVE_LEVELS


def _sees(array: ZarrArray) -> bool:
    return array.group.startswith(SEES)


def _valid(array: ZarrArray, values: Any) -> Flags:  # noqa: ANN401  # pixels
    names = ("_FillValue", "missing_value")
    missing = [array.fill_value]
    for said in (array.attributes.get(name) for name in names):
        missing += said if isinstance(said, list) else [said]  # CF 1.11, 2.5.1: `missing_value` may be several
    valid = ~np.isnan(values) if values.dtype.kind == "f" else values != 0
    for value in missing:
        if type(value) in (int, float):
            valid &= values != value
    return np.asarray(valid)


def _blocks_by_key(array: ZarrArray) -> dict[str, tuple[slice, ...]]:
    return dict(zip(array.chunk_keys(), blocks(array.shape, array.chunks), strict=True))
