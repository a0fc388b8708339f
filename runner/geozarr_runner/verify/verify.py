"""Asks the output, pixel by pixel, whether it is what the source says. Metadata is not believed.

Source values are read by zarr-python and decoded by CF rules (see `source`, `rules`), never by the fast engine's code.

The converter's `validate` calls a store with two bands full of holes compliant (measured, 0.12.0): hence this stage. It must
stay always on, so it must be cheap: beyond `EVERYTHING` pixels, chunks of large arrays are sampled; every chunk that is absent, and
every small array, is compared whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zarr

from geozarr_runner.source.product import REFLECTANCE, Selection
from geozarr_runner.verify import georeferencing, sight
from geozarr_runner.verify.comparing import RTOL, compare
from geozarr_runner.verify.expected import Kind, Task, metres, tasks_of
from geozarr_runner.verify.findings import SMALL, Compared, Sample, Verification
from geozarr_runner.verify.frames import check as check_frames
from geozarr_runner.verify.shown import shown
from geozarr_runner.verify.source import SourceReader
from geozarr_runner.verify.structure import check as check_structure
from stac_watch.model.outcome import Check

EVERYTHING = 60_000_000  #: pixels that are compared without sampling: a second of one core
SAMPLED = 60_000_000  #: pixels of large arrays that are compared beyond: with all the rest, a quarter of a conversion (measured)
_READING = {"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline", "codec_pipeline.max_workers": 1}
"""How zarr-python decodes: a chunk in the thread that asks for it, not by way of its event loop: a third of the time (measured)."""


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
    with warnings.catch_warnings(), zarr.config.set(_READING):
        warnings.filterwarnings("ignore", message=".*has multiple fill values.*")  # all of them are missing, as CF says
        target = zarr.open_group(str(output), mode="r", use_consolidated=False)
        there = {path: shown(node) for path, node in target.members(max_depth=None) if isinstance(node, zarr.Array)}
        wanted = list(tasks_of(selection, SourceReader(root), there, level))
        tasks = sorted((task for task in wanted if task.path in there), key=lambda task: -task.reads)  # threads end together
        sample = _sample(seed, [task.reads for task in tasks], everything, sampled, small) if frames else Sample(seed, 1.0)

        def one(task: Task) -> Compared:
            finding = compare(task, there[task.path], output, sample)
            advance(1)
            return finding

        with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
            try:
                others = (
                    pool.submit(check_structure, selection, output, there, {task.path for task in wanted}),
                    pool.submit(georeferencing.check, selection, output, there),
                    pool.submit(sight.check, there, allowed=allow_empty),
                )
                findings = tuple(pool.map(one, tasks))
                structure, place, ground = (other.result() for other in others)
            except BaseException:  # a signal too: what has not begun does not begin
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    kept, coverage = check_frames(output, frames or {}, workers), Check("coverage", "passed", str(sample))
    return Verification(checks=(structure, place, ground, *_verdicts(findings), kept, coverage), findings=findings, sample=sample)


def count(selection: Selection) -> int:
    """Returns about how many arrays `verify` will compare, for progress."""
    return len(selection.arrays) * (2 if selection.overviews else 1)


def _sample(seed: str, sizes: list[int], everything: int, sampled: int, small: int) -> Sample:
    large = sum(size for size in sizes if size > small)
    return Sample(seed, 1.0 if sum(sizes) <= everything else min(1.0, sampled / max(1, large)), small)


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
