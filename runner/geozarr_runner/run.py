"""One conversion from beginning to end: the order of the stages, and nothing else.

In: a Request. Out: the Outcome of an output that is whole under its final name. Never: prints, exits, or publishes what was not
verified.

already done? -> lock -> finished by a killed attempt? -> preflight -> stage -> convert -> verify -> package -> marker -> rename.
Whatever the moment of a crash, the same request again ends in the same output: staged objects are kept, half-built folders are not.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from geozarr_runner import marker, package, publish
from geozarr_runner.marker import Check, Counts, Outcome, Package, write_failure
from geozarr_runner.progress import Progress
from stac_watch.errors import CannotWrite, Defect, InputError, cannot_write
from stac_watch.events import stamp

if TYPE_CHECKING:
    from geozarr_runner.convert import Options
    from geozarr_runner.preflight import Plan
    from geozarr_runner.stage import Staged

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """Who this run is; the event's words."""

    key: str
    revision: str = ""
    run: str = ""
    attempt: int = 1
    item_id: str = ""


@dataclass(frozen=True)
class Recipe:
    """What is asked of the converter and the packer."""

    groups: str = ""
    spatial_chunk: int = 1024
    sharding: bool = False
    package: str = "tar"
    dask_perf_html: str = ""


@dataclass(frozen=True)
class Request:
    """Everything one run needs to know."""

    identity: Identity
    stac_url: str
    output_zarr: str
    recipe: Recipe = field(default_factory=Recipe)
    overwrite: bool = False
    work: Path | None = None  # default: beside the output
    allowed_hosts: tuple[str, ...] = ()
    attempts: int = 5  # per object
    timeout: float = 60.0  # seconds of silence on a connection


def run(request: Request, *, progress: Progress, now: Callable[[], datetime], called_off: threading.Event) -> Outcome:
    """Converts what the request asks for, or finds that it is done already.

    Raises:
        StacWatchError: see stac_watch.errors; nothing half-done lies under the output's name.
    """
    identity = request.identity
    target = publish.target_of(request.output_zarr, identity.key, identity.attempt)
    if (done := publish.already_done(target)) is not None:
        return _again(done, identity)
    with publish.held(target):
        if (done := publish.already_done(target)) is not None:  # by the run that held the lock before us
            return _again(done, identity)
        if (done := _repacked(target, progress)) is not None:
            return _again(done, identity)
        publish.check_free(target, overwrite=request.overwrite)
        built = publish.finished_partial(target)
        publish.clear(target, but=built)
        if built is None:
            built = _build(request, target, progress, now, called_off)
        with progress.during("publish"):
            publish.publish(target, built)
        shutil.rmtree(stage_folder(request, target), ignore_errors=True)
        found = marker.read(target.path)
        if found is None:
            raise Defect(f"{target.path} has lost its marker while it was renamed", hint="was it removed by somebody else?")
        return replace(found, seconds={**found.seconds, "publish": progress.seconds["publish"]})


def stage_folder(request: Request, target: publish.Target) -> Path:
    """Returns where the source is staged: by key, so that the next attempt finds it."""
    work = request.work or target.path.parent / ".geozarr-runner"
    return work / "stage" / target.key


def _build(
    request: Request, target: publish.Target, progress: Progress, now: Callable[[], datetime], called_off: threading.Event
) -> Path:
    """Builds the output and its package under hidden names, the marker last."""
    with progress.during("preflight"):
        plan = _plan(request, called_off)
    _warn_of_space(plan, target)
    folder = stage_folder(request, target)
    try:
        staged, checks = _stage_and_convert(request, plan, target, folder, progress, called_off)
        _finish(request, plan, staged, checks, target, progress, now)
    except BaseException as error:  # signals too: a half-built output may fill the volume; what was staged is kept and continued
        publish.clear(target)
        if isinstance(error, InputError):  # this one is never continued
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return target.partial


def _finish(
    request: Request,
    plan: Plan,
    staged: Staged,
    checks: tuple[Check, ...],
    target: publish.Target,
    progress: Progress,
    now: Callable[[], datetime],
) -> None:
    """Packs what was verified, and writes the marker: from here on the folder is an output, only its name is not final."""
    with _writing(target.partial, plan):
        files, size = publish.content(target.partial)
        with progress.during("package", files) as advance:
            packed = _package(request, target, advance)
        outcome = Outcome(
            code=0, reason="done", hint="", stage="publish",
            key=target.key, revision=request.identity.revision, run=request.identity.run, attempt=target.attempt,
            item_id=plan.item_id, source=plan.source.url, output_zarr=str(target.path), package=packed,
            versions=marker.versions(), seconds=dict(progress.seconds),
            counts=Counts(len(plan.selection.arrays), staged.objects, files, staged.bytes, size),
            checks=checks, groups=plan.selection.groups, finished=stamp(now().replace(microsecond=0)),
        )  # fmt: skip
        publish.flush(target.partial)
        marker.write_atomically(target.partial / marker.NAME, outcome.as_json())


def _stage_and_convert(
    request: Request,
    plan: Plan,
    target: publish.Target,
    folder: Path,
    progress: Progress,
    called_off: threading.Event,
) -> tuple[Staged, tuple[Check, ...]]:
    """Stages and converts; when the converter stumbles over chunks that cannot be decoded, they are fetched once more."""
    staged = _stage(plan, folder, progress, called_off)
    try:
        checks = _convert(request, plan, staged, target, progress)
    except (RuntimeError, ValueError, TypeError) as error:  # what codecs raise, numcodecs and zarr alike
        from geozarr_runner import stage

        broken = stage.corrupt(plan.selection, staged.root)
        if not broken:
            raise
        log.warning("%d staged chunks cannot be decoded, first %s", len(broken), broken[0])
        if plan.source.local is None:
            stage.discard(staged, broken)
            staged = _stage(plan, folder, progress, called_off)
            broken = [key for key in stage.corrupt(plan.selection, staged.root) if key in broken]
        if broken:
            raise stage.corrupt_source(broken, plan.source.url) from error
        shutil.rmtree(target.partial, ignore_errors=True)
        checks = _convert(request, plan, staged, target, progress)
    return staged, checks


def _plan(request: Request, called_off: threading.Event) -> Plan:
    from geozarr_runner import preflight
    from geozarr_runner.source import Patience

    plan = preflight.plan(
        request.stac_url,
        request.recipe.groups,
        allowed_hosts=request.allowed_hosts,
        patience=Patience(attempts=request.attempts, timeout=request.timeout),
        wait=called_off.wait,
        item_id=request.identity.item_id,
        package=request.recipe.package,
    )
    chosen, all_groups = len(plan.selection.groups), len(plan.product.leaves())
    log.info(
        "%s %s: %d of %d groups, %d objects, %.1f MB raw; metadata: %s",
        plan.product.level or "product", plan.item_id, chosen, all_groups, len(plan.selection.keys),
        plan.selection.raw_bytes / 1e6, plan.seen,
    )  # fmt: skip
    return plan


def _stage(plan: Plan, folder: Path, progress: Progress, called_off: threading.Event) -> Staged:
    from geozarr_runner import stage

    with progress.during("stage", len(plan.selection.keys)) as advance:
        staged = stage.stage(plan, folder, advance=advance, called_off=called_off)
    log.info(
        "%d objects there, %d legally absent, %.1f MB fetched in %.1f s",
        staged.objects, len(staged.absent), staged.bytes / 1e6, progress.seconds["stage"],
    )  # fmt: skip
    return staged


def _convert(request: Request, plan: Plan, staged: Staged, target: publish.Target, progress: Progress) -> tuple[Check, ...]:
    from dask.system import cpu_count

    from geozarr_runner import convert, verify

    selection = plan.selection
    with (
        progress.during("convert", len(selection.groups) + len(selection.overviews)) as advance,
        _writing(target.partial, plan),
    ):
        convert.convert(staged.root, selection, target.partial, _options(request), advance=advance)
    log.info("converted %d groups in %.1f s", len(selection.groups), progress.seconds["convert"])
    with progress.during("verify", verify.count(selection)) as advance:
        found = verify.verify(staged.root, selection, target.partial, workers=max(1, cpu_count()), advance=advance)
    for check in found.checks:
        log.info("check %s: %s (%s)", check.name, check.verdict, check.detail[:200])
    if found.failed:
        first = found.failed[0]
        raise Defect(
            f"the output is not what the source says: check {first.name!r} failed: {first.detail}",
            hint="nothing was published; please report it with the versions in the outcome",
        )
    return found.checks


def _options(request: Request) -> Options:
    from geozarr_runner.convert import Options

    recipe = request.recipe
    return Options(recipe.spatial_chunk, recipe.sharding, recipe.dask_perf_html)


def _package(request: Request, target: publish.Target, advance: Callable[[int], None]) -> Package | None:
    kind = request.recipe.package
    if kind == "none":
        return None
    size, digest = package.pack(target.partial, target.partial_package, name=target.path.name, kind=kind, advance=advance)
    return Package(href=str(target.package(kind)), bytes=size, sha256=digest)


def _repacked(target: publish.Target, progress: Progress) -> Outcome | None:
    """Makes a lost package of a whole output anew. The same store gives the same archive, so the marker stays true."""
    done = publish.without_package(target)
    if done is None or done.package is None:
        return None
    archive = target.path.with_name(Path(done.package.href).name)
    with progress.during("package", done.counts.files) as advance:
        kind = "tar.gz" if archive.name.endswith(".gz") else "tar"
        try:
            size, digest = package.pack(target.path, target.partial_package, name=target.path.name, kind=kind, advance=advance)
            if (size, digest) != (done.package.bytes, done.package.sha256):
                target.partial_package.unlink()
                return None
            target.partial_package.replace(archive)
        except OSError as error:
            raise write_failure(error, archive) from error
    return done


def _again(done: Outcome, identity: Identity) -> Outcome:
    return replace(done, reason="already done", run=identity.run, attempt=identity.attempt)


def _warn_of_space(plan: Plan, target: publish.Target) -> None:
    need = plan.estimate.staged + plan.estimate.output + plan.estimate.package
    free = shutil.disk_usage(target.path.parent).free
    if free < need:
        log.warning("%.1f GB free beside %s, up to %.1f GB may be needed", free / 1e9, target.path, need / 1e9)


@contextlib.contextmanager
def _writing(folder: Path, plan: Plan) -> Iterator[None]:
    """Turns what the operating system says while we write into the error that names the place and the need."""
    try:
        yield
    except OSError as error:
        known = cannot_write(error, folder)
        if known is None:
            raise
        need = plan.estimate
        raise CannotWrite(
            known.message,
            hint=f"{known.hint}; the run needs up to {(need.staged + need.output + need.package) / 1e6:.0f} MB there",
        ) from error
