"""Builds an output, and what lies beside it, under hidden names: plan -> stage -> convert -> verify -> package -> report -> marker.

What fails leaves no half-built output; what was staged is kept, so that the next attempt goes on from there.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from geozarr_runner.process import memory, space
from geozarr_runner.process.progress import Progress
from geozarr_runner.process.slowness import in_time
from geozarr_runner.publish import checksums, dask_report, marker, package
from geozarr_runner.publish import folder as publish
from geozarr_runner.request import Request
from stac_watch.model.checksums import CHECKSUMS, digest_of
from stac_watch.model.errors import InputError
from stac_watch.model.forms import Form, Native
from stac_watch.model.identity import parse_product_id
from stac_watch.model.outcome import MARKER, Check, Counts, Outcome, Package
from stac_watch.model.stamps import stamp

if TYPE_CHECKING:
    from geozarr_runner.convert.engine import Options
    from geozarr_runner.convert.fast import Begun
    from geozarr_runner.convert.stock import Converted
    from geozarr_runner.source.complete import Allowance
    from geozarr_runner.source.eager import Eager
    from geozarr_runner.source.preflight import Plan
    from geozarr_runner.source.stage import Staged
    from geozarr_runner.verify.findings import Verification

log = logging.getLogger(__name__)

ROUNDS = 3
"""How often a run begins with a product that is replaced while it is read; then the next attempt comes later."""


@dataclass(frozen=True)
class _Made:
    """An output that was converted and verified, not yet packed."""

    staged: Staged
    converted: Converted
    verified: Verification
    fingerprint: str = ""  # of a finished GeoZarr that was taken as it is
    store: Path | None = None  # where the report reads pixels; None = in the output
    sums: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of objects, as far as they are known

    @property
    def checks(self) -> tuple[Check, ...]:
        """What was asked of source and output."""
        return (self.staged.completeness, *self.verified.checks, *self.converted.checks)


def build(
    request: Request, target: publish.Target, progress: Progress, now: Callable[[], datetime], called_off: threading.Event
) -> Path:
    """Builds the output and its companions, the marker last, and returns the folder.

    Raises:
        StacWatchError: see stac_watch.errors; nothing half-built is left.
    """
    from geozarr_runner.source.noted import Replaced

    for rounds_left in reversed(range(ROUNDS)):
        try:
            _build_once(request, target, progress, now, called_off)
        except Replaced as replaced:
            if not rounds_left:
                raise
            log.warning("%s; it is staged anew", replaced.message)
        else:
            break
    return target.partial


def _build_once(
    request: Request, target: publish.Target, progress: Progress, now: Callable[[], datetime], called_off: threading.Event
) -> None:
    with progress.during("preflight"):
        dask_report.prepare(request.recipe.dask_perf_html)
        plan = plan_of(request, called_off)
        if request.scratch:
            space.require(plan.estimate, request.scratch)
    space.warn(plan.estimate, target.path.parent)
    folder = stage_folder(target)
    try:
        made = _MAKERS[plan.form, plan.native](request, plan, target, folder, progress, called_off)
        _finish(request, plan, made, target, progress, now)
    except BaseException as error:  # signals too: a half-built output may fill the volume; what was staged is kept and continued
        publish.clear(target)
        if isinstance(error, InputError):  # this one is never continued
            shutil.rmtree(folder, ignore_errors=True)
        raise


def stage_folder(target: publish.Target) -> Path:
    """Returns where the source is staged: by key, so that the next attempt finds it."""
    return target.work / "stage" / target.key


def plan_of(request: Request, called_off: threading.Event) -> Plan:
    """Returns what the request asks for, after a look at the product's metadata.

    Raises:
        StacWatchError: see `preflight.plan`.
    """
    from geozarr_runner.source import preflight
    from geozarr_runner.source.store import Patience

    plan = preflight.plan(
        request.stac_url,
        request.recipe.groups,
        allowed_hosts=request.allowed_hosts,
        patience=Patience(attempts=request.attempts, timeout=request.timeout),
        wait=called_off.wait,
        item_id=request.identity.item_id,
        package=request.recipe.package,
        asked=Native(request.recipe.native),
        compact=request.recipe.compact,
    )
    chosen, all_groups = len(plan.selection.groups), len(plan.product.leaves())
    log.info(
        "%s %s: %d of %d groups, %d objects, %.1f MB raw; metadata: %s",
        plan.product.level or "product", plan.item_id, chosen, all_groups, len(plan.selection.keys),
        plan.selection.raw_bytes / 1e6, plan.seen,
    )  # fmt: skip
    return plan


def _take(
    request: Request,
    plan: Plan,
    target: publish.Target,
    folder: Path,
    progress: Progress,
    called_off: threading.Event,
) -> _Made:
    """Takes a finished GeoZarr as it is, here or where it lies."""
    from geozarr_runner.convert import mirror
    from geozarr_runner.convert.stock import Converted

    @contextlib.contextmanager
    def during(stage: str, total: int = 0) -> Iterator[Callable[[int], None]]:
        with progress.during(stage, total) as advance:
            yield in_time(advance, plan.selection.raw_bytes, plan.source.url, monotonic) if stage == "stage" else advance

    taken = mirror.take(
        plan, folder, target.partial, during, called_off, flush=publish.flush, offer=request.offer, allow_empty=request.allow_empty
    )
    return _Made(taken.staged, Converted(str(plan.native), ()), taken.verified, taken.fingerprint, taken.store, taken.sums)


def _transcode_and_convert(
    request: Request, plan: Plan, target: publish.Target, folder: Path, progress: Progress, called_off: threading.Event
) -> _Made:
    """Stages a product in Zarr v3 as one in v2, and converts that."""
    from geozarr_runner.convert.early import Early
    from geozarr_runner.process import limits
    from geozarr_runner.source import noted, transcode

    options = _options(request, target, limits.workers(plan.selection, request.memory_limit))
    total = len(plan.tree.keys()) if plan.tree is not None else 0
    with Early(plan.selection, target.partial, options, plan.product.level, request.offer) as early:
        with progress.during("stage", total) as advance, space.writing(folder, plan.estimate):
            patient = in_time(advance, plan.selection.raw_bytes, plan.source.url, monotonic)
            came = transcode.stage(
                plan, folder, advance=patient, called_off=called_off, eager=early.eager, allow_empty=request.allow_empty
            )
        with noted.unchanged(came.watch):
            made = _convert(request, plan, came.staged, target, options, progress, early.begun)
            return replace(made, fingerprint=came.fingerprint)


def _stage_and_convert(
    request: Request,
    plan: Plan,
    target: publish.Target,
    folder: Path,
    progress: Progress,
    called_off: threading.Event,
) -> _Made:
    """Stages and converts; when the converter stumbles over chunks that cannot be decoded, they are fetched once more."""
    from geozarr_runner.convert.early import Early
    from geozarr_runner.process import limits
    from geozarr_runner.source import noted
    from geozarr_runner.source.complete import Allowance

    options = _options(request, target, limits.workers(plan.selection, request.memory_limit))
    looked = Allowance(request.identity.attempt, request.allow_empty)
    with Early(plan.selection, target.partial, options, plan.product.level, request.offer) as early:
        staged = _stage(plan, folder, progress, called_off, looked, early.eager)
        with noted.unchanged(noted.Watch(plan, staged.root, staged.noted, staged.absent, called_off)):
            try:
                return _convert(request, plan, staged, target, options, progress, early.begun)
            except (RuntimeError, ValueError, TypeError) as error:  # what codecs raise, numcodecs and zarr alike
                early.close()
                staged = _mended(plan, staged, folder, progress, called_off, looked, error)
                shutil.rmtree(target.partial, ignore_errors=True)
                return _convert(request, plan, staged, target, options, progress, None)


type _Maker = Callable[[Request, Plan, publish.Target, Path, Progress, threading.Event], _Made]

_MAKERS: Mapping[tuple[Form, Native], _Maker] = {
    (Form.EOPF_V2, Native.CONVERT): _stage_and_convert,
    (Form.EOPF_V3, Native.CONVERT): _transcode_and_convert,
    (Form.GEOZARR, Native.CONVERT): _transcode_and_convert,
    (Form.GEOZARR, Native.MIRROR): _take,
    (Form.GEOZARR, Native.REFERENCE): _take,
}
"""What is done with a product of each form."""


def _mended(
    plan: Plan, staged: Staged, folder: Path, progress: Progress, called_off: threading.Event, looked: Allowance, error: Exception
) -> Staged:
    """Fetches once more what cannot be decoded; what failed for another reason, or again, is raised."""
    from geozarr_runner.source import stage

    broken = stage.corrupt(plan.selection, staged.root)
    if not broken:
        raise error
    log.warning("%d staged chunks cannot be decoded, first %s", len(broken), broken[0])
    if plan.source.local is None:
        stage.discard(staged, broken)
        staged = _stage(plan, folder, progress, called_off, looked)
        broken = [key for key in stage.corrupt(plan.selection, staged.root) if key in broken]
    if broken:
        raise stage.corrupt_source(broken, plan.source.url) from error
    return staged


def _stage(
    plan: Plan, folder: Path, progress: Progress, called_off: threading.Event, looked: Allowance, eager: Eager | None = None
) -> Staged:
    from geozarr_runner.source import stage

    with progress.during("stage", len(plan.selection.keys)) as advance, space.writing(folder, plan.estimate):
        patient = in_time(advance, plan.selection.raw_bytes, plan.source.url, monotonic)
        staged = stage.stage(plan, folder, advance=patient, called_off=called_off, eager=eager, looked=looked)
    log.info(
        "%d objects there, %d legally absent, %.1f MB fetched in %.1f s",
        staged.objects, len(staged.absent), staged.bytes / 1e6, progress.seconds["stage"],
    )  # fmt: skip
    return staged


def _convert(
    request: Request, plan: Plan, staged: Staged, target: publish.Target, options: Options, progress: Progress, begun: Begun | None
) -> _Made:
    from geozarr_runner.convert import stock as convert
    from geozarr_runner.verify import georeferencing, verdict, verify

    georeferencing.require_axes(plan.selection, staged.root, plan.source.url, plan.product)
    selection, workers = plan.selection, options.workers
    with progress.during("convert", len(selection.arrays)) as advance, space.writing(target.partial, plan.estimate):
        converted = convert.convert(
            staged.root, selection, target.partial, options,
            level=plan.product.level, advance=advance, begun=begun, offer=request.offer,
        )  # fmt: skip
    log.info(
        "converted %d groups in %.1f s, engine %s, %d workers",
        len(selection.groups), progress.seconds["convert"], converted.engine, workers,
    )  # fmt: skip
    memory.give_back()
    with progress.during("verify", verify.count(selection)) as advance, _flushing(target.partial, plan):
        found = verify.verify(
            staged.root, selection, target.partial, level=plan.product.level, workers=workers, seed=target.key,
            frames=converted.frames, allow_empty=staged.allow_empty, advance=advance,
        )  # fmt: skip
    memory.give_back()
    made = _Made(staged, converted, found, sums=converted.sums)
    checks = made.checks
    for check in checks:
        log.info("check %s: %s (%s)", check.name, check.verdict, check.detail[:200])
    verdict.require(checks, plan.source.url)
    return made


@contextlib.contextmanager
def _flushing(folder: Path, plan: Plan) -> Iterator[None]:
    """Brings what was written to the disk meanwhile: at the end there is next to nothing left to wait for."""
    with ThreadPoolExecutor(1, thread_name_prefix="flush") as pool:
        flushed = pool.submit(publish.flush, folder)
        yield
        with space.writing(folder, plan.estimate):
            flushed.result()  # an error of the disk is told once, to who asked first


def _options(request: Request, target: publish.Target, workers: int) -> Options:
    from geozarr_runner.convert.engine import Options

    recipe = request.recipe
    measured = str(dask_report.place(target)) if recipe.dask_perf_html else ""
    return Options(recipe.spatial_chunk, recipe.sharding, recipe.encoding, measured, recipe.engine, workers)


def _finish(
    request: Request,
    plan: Plan,
    made: _Made,
    target: publish.Target,
    progress: Progress,
    now: Callable[[], datetime],
) -> None:
    """Packs what was verified, describes it, and writes the marker: from here on it is an output, only its name is not final."""
    with space.writing(target.partial, plan.estimate):
        files, size = publish.content(target.partial)
        with progress.during("package", files) as advance, ThreadPoolExecutor(1, thread_name_prefix="checksums") as pool:
            summed = pool.submit(checksums.read, target.partial, made.sums)
            packed = _package(request, made, target, advance)
            sums = summed.result()
        outcome = Outcome(
            code=0, reason="done", hint="", stage="publish",
            key=target.key, revision=request.identity.revision, run=request.identity.run, attempt=target.attempt,
            item_id=plan.item_id, fence=request.identity.fence, installation=request.identity.installation,
            source=plan.source.url, output_zarr=target.href, package=packed,
            versions=marker.versions(), seconds=dict(progress.seconds),
            counts=Counts(_arrays(plan), made.staged.objects, files, made.staged.bytes, size),
            checks=(*_source_check(plan), *made.checks, _item_check(plan)), groups=plan.selection.groups,
            engine=made.converted.engine, form=str(plan.form), fingerprint=made.fingerprint, digest=digest_of(sums),
            finished=stamp(now().replace(microsecond=0)),
        )  # fmt: skip
        with progress.during("report"):
            outcome = _describe(request, plan, made, target, outcome, sums)
        dask_report.hand_out(request.recipe.dask_perf_html, target)
        publish.flush(target.partial)
        outcome = replace(outcome, seconds=dict(progress.seconds))
        marker.write(target.partial / MARKER, outcome.as_json())


def _arrays(plan: Plan) -> int:
    return len(plan.selection.arrays if plan.tree is None or plan.native is Native.CONVERT else plan.tree.arrays)


def _source_check(plan: Plan) -> tuple[Check, ...]:
    """Says in the outcome what was found of a product that is converted: what was left out of it, and what it lacks."""
    if plan.native is not Native.CONVERT:
        return ()
    return (Check("source", "passed", "; ".join(plan.product.remarks) or "the item's product, with all that is known of such"),)


def _item_check(plan: Plan) -> Check:
    """Says in the outcome what the item sets right of what the product says of its acquisition."""
    from geozarr_runner.publish import item

    notes = item.acquired(plan).notes
    return Check("item", "passed", "set right: " + "; ".join(notes) if notes else "says of the acquisition what can be computed")


def _package(request: Request, made: _Made, target: publish.Target, advance: Callable[[int], None]) -> Package | None:
    kind = request.recipe.package
    if kind == "none" or made.converted.engine == Native.REFERENCE:
        return None
    size, digest = package.pack(target.partial, target.partial_package, name=target.path.name, kind=kind, advance=advance)
    return Package(href=target.href + package.SUFFIXES[kind], bytes=size, sha256=digest)


def _describe(request: Request, plan: Plan, made: _Made, target: publish.Target, outcome: Outcome, sums: dict[str, str]) -> Outcome:
    """Writes report, checksums and item beside the output, and returns the outcome with their names."""
    from geozarr_runner.publish import item, report

    name, beside = target.path.name, target.partial_beside
    beside.mkdir(exist_ok=True)
    subject = report.Subject(
        level=plan.product.level,
        sensed=stamp(plan.sensed) if plan.sensed else "",
        tile=(parse_product_id(plan.item_id) or {}).get("tile", ""),
        bytes_by_stage=_bytes_by_stage(outcome),
    )
    written = report.write(beside, name, made.store or target.partial, outcome, made.verified.findings, subject)
    if request.recipe.dask_perf_html and dask_report.place(target).exists():
        written["dask_report"] = dask_report.place(target)
    written[CHECKSUMS] = checksums.write(beside, name, sums)
    written["item"] = beside / f"{name}{item.SUFFIX}"
    files = {key: path for key, path in written.items() if key != "item"}
    described = item.describe(outcome, plan, request.stac_url, target.partial, files, name=name, service=request.service)
    written["item"].write_text(described)
    parent = target.href.rpartition("/")[0]
    return replace(outcome, files={key: f"{parent}/{path.name}" for key, path in written.items()})


def _bytes_by_stage(outcome: Outcome) -> Mapping[str, int]:
    found = {"stage": outcome.counts.bytes_read, "convert": outcome.counts.bytes_written}
    return found | ({"package": outcome.package.bytes} if outcome.package else {})
