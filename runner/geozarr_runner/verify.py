"""Asks the output, pixel by pixel, whether it is what the source says. Metadata is not believed.

In: the staged source, the selection, the output. Out: named checks with verdicts, and each band's share of NaN. Never: uses
the converter, or xarray's decoding, as its own judge: source values are decoded here by the CF rule (scale * packed + offset,
fill = NaN).

The converter's `validate` calls a store with two bands full of holes compliant (measured, 0.12.0): hence this stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product as cartesian
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.core.group import GroupMetadata

from geozarr_runner.marker import Check
from geozarr_runner.product import OVERVIEWS, REFLECTANCE, Selection, ZarrArray

type Values = np.ndarray[Any, np.dtype[Any]]
type Block = tuple[slice, ...]
type Kind = Literal["native", "injected", "overview"]

RTOL = {"native": 1e-6, "injected": 1e-5, "overview": 1e-5}
ATOL = {"native": 0.0, "injected": 1e-6, "overview": 1e-6}
"""Native values pass through float64 once; means of float32 blocks may be summed in another order."""


@dataclass(frozen=True)
class Finding:
    """What comparing one output array with its expectation showed."""

    path: str
    kind: Kind
    pixels: int = 0
    nan: int = 0
    wrong: int = 0  # values that differ
    holes: int = 0  # NaN where a value is expected
    false_data: int = 0  # a value where NaN is expected
    missing: tuple[str, ...] = ()  # chunk keys that must be there
    where: str = ""  # the first difference

    @property
    def good(self) -> bool:
        """True when nothing differs and nothing is missing."""
        return not (self.wrong or self.holes or self.false_data or self.missing or self.where)


@dataclass(frozen=True)
class Verification:
    """The verdict on an output."""

    checks: tuple[Check, ...]
    findings: tuple[Finding, ...] = field(repr=False)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed; empty = the output may be published."""
        return tuple(c for c in self.checks if c.verdict == "failed")


@dataclass(frozen=True)
class _Task:
    path: str
    kind: Kind
    expect: Callable[[], Callable[[Block], Values]]  # opens what is needed, late: a full band takes 240 MB


def verify(
    root: Path, selection: Selection, output: Path, *, workers: int, advance: Callable[[int], None] = lambda _: None
) -> Verification:
    """Compares the output with the staged source.

    Args:
        root: the staged source.
        selection: what was to be converted.
        output: the store that the converter wrote.
        workers: arrays compared at a time.
        advance: told of each array that was compared.
    """
    source, target = zarr.open_group(str(root), mode="r"), zarr.open_group(str(output), mode="r", use_consolidated=False)
    there = {path: node for path, node in target.members(max_depth=None) if isinstance(node, zarr.Array)}
    structure = _structure(selection, output, there)
    tasks = [task for task in _tasks(selection, source, there) if task.path in there]

    def one(task: _Task) -> Finding:
        finding = compare(task.path, task.kind, there[task.path], task.expect(), output)
        advance(1)
        return finding

    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        findings = tuple(pool.map(one, tasks))
    return Verification(checks=(structure, *_verdicts(findings)), findings=findings)


def count(selection: Selection) -> int:
    """Returns about how many arrays `verify` will compare, for progress."""
    return len(selection.arrays) * (2 if selection.overviews else 1)


def decode(packed: Values, array: ZarrArray) -> Values:
    """Returns values by the CF rule: fill -> NaN, scale * packed + offset in float64, then float32 as in the output.

    Source: CF conventions 1.11, section 8.1 (packed data), section 2.5.1 (missing data).
    """
    if packed.dtype.kind not in "iufb":
        return packed
    values = packed.astype(np.float64)
    values *= float(array.attributes.get("scale_factor", 1.0))
    values += float(array.attributes.get("add_offset", 0.0))
    if array.fill_value is not None and array.fill_value != "NaN":
        values[packed == array.fill_value] = np.nan
    return values.astype(np.float32)


def block_mean(values: Values, factor: int) -> Values:
    """Returns the mean of factor x factor blocks, ignoring NaN; NaN where a block holds nothing else. Shape (y, x)."""
    height, width = (n // factor * factor for n in values.shape)
    blocks = values[:height, :width].reshape(height // factor, factor, width // factor, factor).astype(np.float64)
    valid = ~np.isnan(blocks)
    number = valid.sum(axis=(1, 3))
    total = np.where(valid, blocks, 0.0).sum(axis=(1, 3))
    mean = np.full(number.shape, np.nan)
    np.divide(total, number, out=mean, where=number > 0)
    return mean.astype(np.float32)


def compare(path: str, kind: Kind, array: Any, expect: Callable[[Block], Values], store: Path) -> Finding:  # noqa: ANN401  # zarr.Array
    """Compares one output array with its expectation, one chunk at a time; a shard may hold a whole band, a chunk never does."""
    pixels = nan = wrong = holes = false_data = 0
    needed, where = set(), ""
    stored = array.shards or array.chunks
    for block in _blocks(array.shape, array.chunks):
        got, want = np.asarray(array[block]), expect(block)
        if got.shape != want.shape:
            return Finding(path, kind, where=f"shape {array.shape} does not fit its source")
        if want.dtype.kind != "f":
            different = got != want
            wrong += int(np.count_nonzero(different))
            want_nan = np.zeros(want.shape, dtype=bool)
        else:
            got_nan, want_nan = np.isnan(got), np.isnan(want)
            holes += int(np.count_nonzero(got_nan & ~want_nan))
            false_data += int(np.count_nonzero(want_nan & ~got_nan))
            off = ~np.isclose(got, want, rtol=RTOL[kind], atol=ATOL[kind], equal_nan=True)
            wrong += int(np.count_nonzero(off & ~got_nan & ~want_nan))
            different = off
            nan += int(np.count_nonzero(got_nan))
        pixels += got.size
        if not where and different.any():
            first = np.unravel_index(int(np.argmax(different)), different.shape)
            at = ", ".join(str(s.start + int(i)) for s, i in zip(block, first, strict=True))
            where = f"at [{at}] the output has {got[first]}, the source {want[first]}"
        if not want_nan.all():
            needed.add(array.metadata.encode_chunk_key(tuple(s.start // n for s, n in zip(block, stored, strict=True))))
    missing = tuple(f"{path}/{key}" for key in sorted(needed) if not (store / path / key).exists())
    return Finding(path, kind, pixels, nan, wrong, holes, false_data, missing, where)


def _tasks(selection: Selection, source: Any, there: dict[str, Any]) -> Iterator[_Task]:  # noqa: ANN401  # zarr.Group
    by_path = {a.path: a for a in selection.arrays if a.group in selection.groups}
    for path, array in sorted(by_path.items(), key=lambda pair: -pair[1].pixels):  # the big ones first: threads end together
        if path in there and not _is_time(array):
            yield _Task(path, "native", lambda a=array: _from_source(source, a))  # type: ignore[misc]
    for path, node in sorted(there.items()):
        group, _, name = path.rpartition("/")
        level = group.rpartition("/")[2]
        if not group.startswith(f"{REFLECTANCE}/") or node.ndim != 2:  # (y, x)
            continue
        if level in OVERVIEWS:
            parent, factor = OVERVIEWS[level]
            above = there.get(f"{REFLECTANCE}/{parent}/{name}")
            if above is not None:
                yield _Task(path, "overview", lambda a=above, f=factor: _from_output(a, f))  # type: ignore[misc]
        elif path not in by_path and (origin := _finer(by_path, level, name)) is not None:
            yield _Task(path, "injected", lambda o=origin, n=level: _from_finer(source, o, n))  # type: ignore[misc]


def _finer(by_path: dict[str, ZarrArray], level: str, name: str) -> ZarrArray | None:
    """Returns the source band that the converter injects into a coarser level: the finest that has it."""
    for finer in ("r10m", "r20m"):
        if _metres(finer) < _metres(level) and (array := by_path.get(f"{REFLECTANCE}/{finer}/{name}")) is not None:
            return array
    return None


def _from_source(source: Any, array: ZarrArray) -> Callable[[Block], Values]:  # noqa: ANN401  # zarr.Group
    packed = np.asarray(source[array.path][...])
    return lambda block: decode(packed[block], array)


def _from_finer(source: Any, array: ZarrArray, level: str) -> Callable[[Block], Values]:  # noqa: ANN401  # zarr.Group
    packed = np.asarray(source[array.path][...])
    factor = _metres(level) // _metres(array.group.rpartition("/")[2])
    return lambda block: block_mean(decode(packed[_scaled(block, factor)], array), factor)


def _from_output(array: Any, factor: int) -> Callable[[Block], Values]:  # noqa: ANN401  # zarr.Array
    values = np.asarray(array[...])
    return lambda block: block_mean(values[_scaled(block, factor)], factor)


def _scaled(block: Block, factor: int) -> Block:
    return tuple(slice(s.start * factor, s.stop * factor) for s in block)


def _blocks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[Block]:
    for index in cartesian(*(range(-(-n // c)) for n, c in zip(shape, chunks, strict=True))):
        yield tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunks, shape, strict=True))


def _metres(level: str) -> int:
    return int(level.strip("rm"))


def _is_time(array: ZarrArray) -> bool:
    """True for CF times: xarray may write them with another reference date, so their stored numbers need not agree."""
    return " since " in str(array.attributes.get("units", "")) or array.attributes.get("dtype", "") in ("<M8[ns]", "<m8[ns]")


def _structure(selection: Selection, output: Path, there: dict[str, Any]) -> Check:
    """Compares what lies on disk with what was to be converted, and with what the consolidated metadata promises."""
    wanted = {*selection.groups, *(f"{REFLECTANCE}/{level}" for level in selection.overviews)}
    found = {path.rpartition("/")[0] for path in there}
    bands = {a.path for a in selection.arrays if a.group in selection.groups and not a.is_coordinate}
    lost, extra = sorted((wanted - found) | (bands - there.keys())), sorted(found - wanted)
    if lost or extra:
        detail = "; ".join(
            f"{len(names)} {word}: {', '.join(names[:5])}" for names, word in ((lost, "missing"), (extra, "unexpected")) if names
        )
        return Check("structure", "failed", detail)
    consolidated = zarr.open_group(str(output), mode="r").metadata.consolidated_metadata
    nodes = consolidated.flattened_metadata if consolidated else {}
    differ = sorted({path for path, node in nodes.items() if not isinstance(node, GroupMetadata)} ^ there.keys())
    if differ:
        return Check("structure", "failed", f"the consolidated metadata differs in {len(differ)} arrays, first {differ[0]}")
    return Check("structure", "passed", f"{len(wanted)} groups, {len(there)} arrays, consolidated")


def _verdicts(findings: tuple[Finding, ...]) -> Iterator[Check]:
    names: dict[Kind, str] = {"native": "native values", "injected": "injected bands", "overview": "overviews"}
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


def _shares(findings: tuple[Finding, ...]) -> list[tuple[str, float, float]]:
    """Returns the lowest and highest NaN share of the bands, for each level."""
    levels: dict[str, list[float]] = {}
    for finding in findings:
        if _is_band(finding) and finding.pixels:
            levels.setdefault(finding.path.split("/")[-2], []).append(finding.nan / finding.pixels)
    return [(level, min(shares), max(shares)) for level, shares in sorted(levels.items(), key=lambda pair: _metres(pair[0]))]


def _is_band(finding: Finding) -> bool:
    return finding.path.startswith(f"{REFLECTANCE}/") and finding.path.rpartition("/")[2].startswith("b")


def _blame(bad: list[Finding]) -> str:
    first = bad[0]
    counts = [f"{n} {word}" for n, word in ((first.wrong, "wrong"), (first.holes, "holes"), (first.false_data, "not NaN")) if n]
    more = f" (and {len(bad) - 1} more arrays)" if len(bad) > 1 else ""
    return f"{first.path}: {', '.join(counts)} of {first.pixels} pixels; {first.where}{more}"
