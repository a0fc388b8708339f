"""Asks the output, pixel by pixel, whether it is what the source says. Metadata is not believed.

Source values are read by zarr-python and decoded by xarray (see `source`), never by the fast engine's code.

The converter's `validate` calls a store with two bands full of holes compliant (measured, 0.12.0): hence this stage. It must
stay always on, so it must be cheap: beyond `EVERYTHING` pixels, chunks of large arrays are sampled; every chunk that is absent, and
every small array, is compared whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product as cartesian
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from geozarr_runner.source.codecs import blosc_lengths
from geozarr_runner.source.product import REFLECTANCE, Selection
from geozarr_runner.verify import georeferencing, sight
from geozarr_runner.verify.expected import Kind, Task, metres, tasks_of
from geozarr_runner.verify.findings import SMALL, Compared, Sample, Verification, name_of
from geozarr_runner.verify.frames import check as check_frames
from geozarr_runner.verify.shown import in_shard, rounding, shown
from geozarr_runner.verify.source import Block, SourceReader, Values
from geozarr_runner.verify.structure import check as check_structure
from stac_watch.model.outcome import Check

RTOL = {"native": 1e-6, "injected": 1e-5, "overview": 1e-5, "coordinate": 1e-12}
ATOL = {"native": 0.0, "injected": 1e-6, "overview": 1e-6, "coordinate": 0.0}
"""Native values pass through float64 once; means of float32 blocks may be summed in another order. A millionth of a northing would
be five metres: coordinates have to be the same numbers."""

EVERYTHING = 250_000_000  #: pixels that are compared without sampling: two seconds on two cores
SAMPLED = 100_000_000  #: pixels of large arrays that are compared beyond: under a quarter of a full tile's conversion (measured)


def verify(
    root: Path,
    selection: Selection,
    output: Path,
    *,
    level: str,
    workers: int,
    seed: str = "",
    everything: int = EVERYTHING,
    sampled: int = SAMPLED,
    small: int = SMALL,
    frames: Mapping[str, int] | None = None,
    allow_empty: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Compares the output with the staged source.

    Args:
        root: the staged source.
        selection: what was to be converted.
        output: the store that the converter wrote.
        level: the product's, `L1C` or `L2A`.
        workers: arrays compared at a time.
        seed: of the sample; the conversion's key.
        everything: pixels up to which nothing is sampled.
        sampled: pixels of large arrays that are compared beyond.
        small: pixels up to which an array is compared whole all the same.
        frames: the checksums of encoded chunks, by their keys. Nothing is sampled of an output without them.
        allow_empty: see `sight.check`.
        advance: told of each array that was compared.
    """
    target = zarr.open_group(str(output), mode="r", use_consolidated=False)
    there = {path: shown(node) for path, node in target.members(max_depth=None) if isinstance(node, zarr.Array)}
    wanted = list(tasks_of(selection, SourceReader(root), there, level))
    structure = check_structure(selection, output, there, {task.path for task in wanted})
    place = georeferencing.check(selection, output, there)
    tasks = sorted((task for task in wanted if task.path in there), key=lambda task: -task.reads)  # threads end together
    sample = _sample(seed, [task.reads for task in tasks], everything, sampled, small) if frames else Sample(seed, 1.0)

    def one(task: Task) -> Compared:
        finding = compare(task, there[task.path], output, sample)
        advance(1)
        return finding

    with warnings.catch_warnings(), ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        warnings.filterwarnings("ignore", message=".*has multiple fill values.*")  # all of them are missing, as CF says
        try:
            findings = tuple(pool.map(one, tasks))
        except BaseException:  # a signal too: what has not begun does not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    ground, kept = sight.check(there, allowed=allow_empty), check_frames(output, frames or {}, workers)
    coverage = Check("coverage", "passed", str(sample))
    return Verification(checks=(structure, place, ground, *_verdicts(findings), kept, coverage), findings=findings, sample=sample)


def count(selection: Selection) -> int:
    """Returns about how many arrays `verify` will compare, for progress."""
    return len(selection.arrays) * (2 if selection.overviews else 1)


def compare(task: Task, array: Any, store: Path, sample: Sample) -> Compared:  # noqa: ANN401  # zarr.Array
    """Compares one output array with its expectation, one chunk at a time; a shard may hold a whole band, a chunk never does."""
    pixels = nan = wrong = holes = false_data = 0
    missing, where = set(), ""
    if array.shape != task.shape:
        return Compared(task.path, task.kind, where=f"its shape is {array.shape}, not {task.shape}")
    step = rounding(array) if task.kind in ("injected", "overview") else 0.0
    expect, whole = task.expect(), task.reads <= sample.small or sample.share >= 1
    for block, key in _chosen(task, array, store, None if whole else sample):
        try:
            got = np.asarray(array[block])
        except (RuntimeError, ValueError) as error:  # what codecs raise; a broken source chunk is `stage`'s to judge
            return Compared(task.path, task.kind, pixels, where=f"{key} cannot be decoded: {error}")
        want = expect(block)
        pixels += got.size
        here = _difference(got, want, task.kind, step)
        nan, wrong = nan + here.nan, wrong + here.wrong
        holes, false_data = holes + here.holes, false_data + here.false_data
        if not where and here.first is not None:
            at = ", ".join(str(s.start + int(i)) for s, i in zip(block, here.first, strict=True))
            where = f"at [{at}] the output has {got[here.first]}, the source {want[here.first]}"
        if not (store / task.path / key).exists() and not is_fill(want, array.fill_value):
            missing.add(f"{task.path}/{key}")
    return Compared(task.path, task.kind, pixels, nan, wrong, holes, false_data, tuple(sorted(missing)), whole, where)


@dataclass(frozen=True)
class _Difference:
    """How one chunk differs; `first` is the index of the first value that does."""

    nan: int = 0
    wrong: int = 0
    holes: int = 0
    false_data: int = 0
    first: tuple[Any, ...] | None = None


def _difference(got: Values, want: Values, kind: Kind, step: float) -> _Difference:
    if want.dtype.kind != "f":
        different = got != want
        number = int(np.count_nonzero(different))
        return _Difference(wrong=number, first=_where_first(different) if number else None)
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
        first=_where_first(off) if off.any() else None,
    )


def is_fill(want: Values, fill: Any) -> bool:  # noqa: ANN401  # of any type
    """Says whether a chunk that has to hold `want` may be left out: an absent chunk reads as the array's fill value."""
    if want.dtype.kind == "f" and np.isnan(fill):
        return bool(np.isnan(want).all())
    return bool(np.all(want == fill))


def _chosen(task: Task, array: Any, store: Path, sample: Sample | None) -> Iterator[tuple[Block, str]]:  # noqa: ANN401  # zarr.Array
    """Yields the blocks to compare, with their files' keys: all of a small array; else all that are absent or cut, and a sample."""
    stored, blocks = array.shards or array.chunks, list(_blocks(array.shape, array.chunks))
    if sample is not None:
        blocks = [part for block in blocks for part in _parts(block, task.factor)]
    keys = {
        name_of(block): array.metadata.encode_chunk_key(tuple(s.start // n for s, n in zip(block, stored, strict=True)))
        for block in blocks
    }
    if sample is not None:
        good = _stored(store / task.path, array, blocks, keys)
        odd = [block for block in blocks if not good[name_of(block)]]
        rest = [block for block in blocks if good[name_of(block)]]
        blocks = sorted(odd + sample.choose(task.path, rest), key=lambda block: [s.start for s in block])
    for block in blocks:
        yield block, keys[name_of(block)]


def _stored(folder: Path, array: Any, blocks: list[Block], keys: Mapping[str, str]) -> dict[str, bool]:  # noqa: ANN401  # zarr.Array
    """Says of each block whether its chunk is there, and as long as its header or its shard's index says."""
    if array.shards is None:
        return {name: _is_whole(folder / key) for name, key in keys.items()}
    grid = tuple(s // n for s, n in zip(array.shards, array.chunks, strict=True))
    shards = {key: in_shard(folder / key, grid) for key in set(keys.values()) if (folder / key).exists()}
    found = {}
    for block in blocks:
        place = tuple(s.start // n % g for s, n, g in zip(block, array.chunks, grid, strict=True))
        shard = shards.get(keys[name_of(block)])
        found[name_of(block)] = shard is not None and bool(shard[place])
    return found


def _is_whole(file: Path) -> bool:
    """Says whether a chunk's file is there, and as long as its header says. Reads 16 bytes."""
    if not file.exists():
        return False
    lengths = blosc_lengths(file)
    return lengths is not None and lengths[1] == file.stat().st_size


def _sample(seed: str, sizes: list[int], everything: int, sampled: int, small: int) -> Sample:
    large = sum(size for size in sizes if size > small)
    return Sample(seed, 1.0 if sum(sizes) <= everything else min(1.0, sampled / max(1, large)), small)


def _where_first(different: Values) -> tuple[Any, ...]:
    return np.unravel_index(int(np.argmax(different)), different.shape)


def _blocks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[Block]:
    for index in cartesian(*(range(-(-n // c)) for n, c in zip(shape, chunks, strict=True))):
        yield tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunks, shape, strict=True))


def _parts(block: Block, number: int) -> Iterator[Block]:
    """Yields a block in at most `number` parts an edge."""
    sizes = tuple(s.stop - s.start for s in block)
    for part in _blocks(sizes, tuple(-(-n // number) for n in sizes)):
        yield tuple(slice(s.start + p.start, s.start + p.stop) for s, p in zip(block, part, strict=True))


def _verdicts(findings: tuple[Compared, ...]) -> Iterator[Check]:
    names: dict[Kind, str] = {
        "native": "native values", "injected": "injected bands", "overview": "overviews", "coordinate": "coordinates",
    }  # fmt: skip
    for kind, name in names.items():
        some = [f for f in findings if f.kind == kind]
        if not some:
            yield Check(name, "skipped", "the selection has none")
            continue
        bad = [f for f in some if f.wrong or (f.where and not (f.holes or f.false_data))]
        what = f"{len(some)} arrays, {sum(f.pixels for f in some)} pixels within rtol {RTOL[kind]:g}"
        yield Check(name, "failed", _blame(bad)) if bad else Check(name, "passed", what)
    masked = [f for f in findings if f.holes or f.false_data]
    detail = ", ".join(
        f"{level} {low:.2%}" if low == high else f"{level} {low:.2%} to {high:.2%}" for level, low, high in _shares(findings)
    )
    yield (
        Check("nodata", "failed", _blame(masked))
        if masked
        else Check("nodata", "passed", f"NaN exactly where the source is nodata: {detail}")
    )
    lost = [f for f in findings if f.missing]
    keys = [key for f in lost for key in f.missing]
    detail = f"{len(keys)} missing, first {keys[0]}" if keys else "every chunk that holds data is there"
    yield Check("chunks", "failed" if keys else "passed", detail)


def _shares(findings: tuple[Compared, ...]) -> list[tuple[str, float, float]]:
    """Returns the lowest and highest NaN share of the bands, for each level."""
    levels: dict[str, list[float]] = {}
    for finding in findings:
        if _is_band(finding) and finding.whole and finding.pixels:
            levels.setdefault(finding.path.split("/")[-2], []).append(finding.nan / finding.pixels)
    return [(level, min(shares), max(shares)) for level, shares in sorted(levels.items(), key=lambda pair: metres(pair[0]))]


def _is_band(finding: Compared) -> bool:
    return finding.path.startswith(f"{REFLECTANCE}/") and finding.path.rpartition("/")[2].startswith("b")


def _blame(bad: list[Compared]) -> str:
    first = bad[0]
    counts = [f"{n} {word}" for n, word in ((first.wrong, "wrong"), (first.holes, "holes"), (first.false_data, "not NaN")) if n]
    more = f" (and {len(bad) - 1} more arrays)" if len(bad) > 1 else ""
    return f"{first.path}: {', '.join(counts)} of {first.pixels} pixels; {first.where}{more}"
