"""One array of the output beside what it has to hold: all chunks or a sample of them; what is absent or cut in any case."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as cartesian
from pathlib import Path
from typing import Any

import numpy as np

from geozarr_runner.source.codecs import blosc_lengths
from geozarr_runner.verify.expected import Kind, Original, Task
from geozarr_runner.verify.findings import Compared, Sample, name_of
from geozarr_runner.verify.rules import Values
from geozarr_runner.verify.shown import InStore, Shown, in_shard, rounding, rule, stored, unwritten
from geozarr_runner.verify.source import Block

RTOL = {"native": 1e-6, "injected": 1e-5, "overview": 1e-5, "coordinate": 1e-12}
ATOL = {"native": 0.0, "injected": 1e-6, "overview": 1e-6, "coordinate": 0.0}
"""Native values pass through float64 once; means of float32 blocks may be summed in another order. A millionth of a northing would
be five metres: coordinates have to be the same numbers."""


def compare(task: Task, array: Any, store: Path, sample: Sample) -> Compared:  # noqa: ANN401  # zarr.Array
    """Compares one output array with its expectation, one chunk at a time; a shard may hold a whole band, a chunk never does."""
    pixels = nan = wrong = holes = false_data = 0
    missing, where = set(), ""
    if array.shape != task.shape:
        return Compared(task.path, task.kind, where=f"its shape is {array.shape}, not {task.shape}")
    step = rounding(array) if task.kind in ("injected", "overview") else 0.0
    pair, whole = Pair(array, task.expect()), task.reads <= sample.small or sample.share >= 1
    for block, key, found in _chosen(task, array, store, None if whole else sample):
        try:
            got = unwritten(array, block) if found is InStore.ABSENT else stored(array, block)
        except (RuntimeError, ValueError) as error:  # what codecs raise; a broken source chunk is `stage`'s to judge
            return Compared(task.path, task.kind, pixels, where=f"{key} cannot be decoded: {error}")
        pixels += got.size
        here = pair.difference(got, block, task.kind, step)
        nan, wrong = nan + here.nan, wrong + here.wrong
        holes, false_data = holes + here.holes, false_data + here.false_data
        where = where or here.where
        lost = not here.none and not (store / task.path / key).exists()
        if lost and not is_fill(pair.original.values(block), array.fill_value):
            missing.add(f"{task.path}/{key}")
    return Compared(task.path, task.kind, pixels, nan, wrong, holes, false_data, tuple(sorted(missing)), whole, where)


@dataclass(frozen=True)
class _Difference:
    """How one chunk differs; `where` is its first value that does, told."""

    nan: int = 0
    wrong: int = 0
    holes: int = 0
    false_data: int = 0
    where: str = ""

    @property
    def none(self) -> bool:
        """True when nothing differs."""
        return not (self.wrong or self.holes or self.false_data)


class Pair:
    """An array of the output beside what it has to hold."""

    def __init__(self, array: Any, original: Original) -> None:  # noqa: ANN401  # zarr.Array, or `Shown`
        self.original = original
        self._rule = rule(array)
        self._alike = original.packed is not None and self._rule is not None and self._rule.equals(original.rule)
        self._decodes = isinstance(array, Shown)

    def difference(self, got: Values, block: Block, kind: Kind, step: float) -> _Difference:
        """Compares a block: numbers, where both sides read them by the same rule and they are the same; else what they say.

        Args:
            got: the output's numbers, as they are stored.
            block: where they are.
            kind: see `RTOL`.
            step: by how much a packed mean may be off.
        """
        numbers = self.original.packed
        if self._alike and numbers is not None and self._rule is not None and np.array_equal(got, numbers(block)):  # nearly always
            return _Difference(nan=self._rule.missing(got))
        if self._decodes and self._rule is not None:
            got = self._rule.values(got)
        if self.original.quick is not None and not self._alike:
            found = _difference(got, self.original.quick(block), block, kind, step)
            if found.none:
                return found
        return _difference(got, self.original.values(block), block, kind, step)


def _difference(got: Values, want: Values, block: Block, kind: Kind, step: float) -> _Difference:
    if want.dtype.kind != "f":
        different = got != want
        return _Difference(wrong=int(np.count_nonzero(different)), where=_first(different, got, want, block))
    got_nan = np.isnan(got)
    if np.array_equal(got, want, equal_nan=True):  # nearly always; a tenth of the time of what follows
        return _Difference(nan=int(np.count_nonzero(got_nan)))
    want_nan = np.isnan(want)
    off = ~np.isclose(got, want, rtol=RTOL[kind], atol=ATOL[kind] + step, equal_nan=True)
    return _Difference(
        nan=int(np.count_nonzero(got_nan)),
        wrong=int(np.count_nonzero(off & ~got_nan & ~want_nan)),
        holes=int(np.count_nonzero(got_nan & ~want_nan)),
        false_data=int(np.count_nonzero(want_nan & ~got_nan)),
        where=_first(off, got, want, block),
    )


def is_fill(want: Values, fill: Any) -> bool:  # noqa: ANN401  # of any type
    """Says whether a chunk that has to hold `want` may be left out: an absent chunk reads as the array's fill value."""
    if want.dtype.kind == "f" and np.isnan(fill):
        return bool(np.isnan(want).all())
    return bool(np.all(want == fill))


def _chosen(
    task: Task,
    array: Any,  # noqa: ANN401  # zarr.Array
    store: Path,
    sample: Sample | None,
) -> Iterator[tuple[Block, str, InStore]]:
    """Yields the blocks to compare, the key of each one's file, and what lies there.

    All of a small array; of another one all that is absent or cut, and a sample of the rest.
    """
    blocks = [
        (part, key, found)
        for block, key, found in _stored(store / task.path, array)
        for part in (_parts(block, task.factor) if sample is not None else (block,))
    ]
    if sample is not None:
        whole = sample.choose(task.path, [block for block, _, found in blocks if found is InStore.WHOLE])
        names = {name_of(block) for block in whole}
        blocks = [each for each in blocks if each[2] is not InStore.WHOLE or name_of(each[0]) in names]
    yield from sorted(blocks, key=lambda each: [s.start for s in each[0]])


def _stored(folder: Path, array: Any) -> Iterator[tuple[Block, str, InStore]]:  # noqa: ANN401  # zarr.Array
    """Yields each chunk of an array, the key of its file, and whether it is there, and as long as its header or index says."""
    sizes = array.shards or array.chunks
    grid = tuple(s // n for s, n in zip(sizes, array.chunks, strict=True))
    shards: dict[str, Any] = {}
    for block in _blocks(array.shape, array.chunks):
        key = array.metadata.encode_chunk_key(tuple(s.start // n for s, n in zip(block, sizes, strict=True)))
        if array.shards is None:
            yield block, key, _file(folder / key)
            continue
        if key not in shards:
            there = (folder / key).exists()
            shards[key] = in_shard(folder / key, grid) if there else np.full(grid, InStore.ABSENT)
        yield block, key, InStore(shards[key][tuple(s.start // n % g for s, n, g in zip(block, array.chunks, grid, strict=True))])


def _file(file: Path) -> InStore:
    """Says whether a chunk's file is there, and as long as its header says. Reads 16 bytes."""
    if not file.exists():
        return InStore.ABSENT
    lengths = blosc_lengths(file)
    return InStore.WHOLE if lengths is not None and lengths[1] == file.stat().st_size else InStore.CUT


def _first(different: Values, got: Values, want: Values, block: Block) -> str:
    """Tells the first difference; empty when there is none."""
    if not different.any():
        return ""
    index = np.unravel_index(int(np.argmax(different)), different.shape)
    at = ", ".join(str(s.start + int(i)) for s, i in zip(block, index, strict=True))
    return f"at [{at}] the output has {got[index]}, the source {want[index]}"


def _blocks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[Block]:
    for index in cartesian(*(range(-(-n // c)) for n, c in zip(shape, chunks, strict=True))):
        yield tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunks, shape, strict=True))


def _parts(block: Block, number: int) -> Iterator[Block]:
    """Yields a block in at most `number` parts an edge."""
    sizes = tuple(s.stop - s.start for s in block)
    for part in _blocks(sizes, tuple(-(-n // number) for n in sizes)):
        yield tuple(slice(s.start + p.start, s.start + p.stop) for s, p in zip(block, part, strict=True))
