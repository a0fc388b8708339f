"""One conversion from beginning to end: the order of the steps, and nothing else.

already done? -> lock -> finished by a killed attempt? -> build -> rename; for object stores, the same locally, then upload.
Whatever the moment of a crash, the same request again ends in the same output: staged objects are kept, half-built folders are not.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from geozarr_runner import build
from geozarr_runner.process.progress import Progress
from geozarr_runner.publish import folder as publish
from geozarr_runner.publish import marker, package, precedence
from geozarr_runner.request import Identity, Request
from stac_watch.model.errors import Defect, InputError, write_failure
from stac_watch.model.forms import Native
from stac_watch.model.outcome import MARKER, Outcome

log = logging.getLogger(__name__)


def run(request: Request, *, progress: Progress, now: Callable[[], datetime], called_off: threading.Event) -> Outcome:
    """Converts what the request asks for, or finds that it is done already.

    Raises:
        StacWatchError: see stac_watch.errors; nothing half-done lies under the output's name.
    """
    precedence.require_possible(request.identity, now())
    target = _target(request)
    if target.is_remote:
        return _to_object_store(request, target, progress, now, called_off)
    if request.scratch:
        raise InputError(
            f"{target.path} would go with its pod: this run has no volume",
            hint="give an address in an object store, s3://BUCKET/NAME.zarr; or set `runs.volume` to claim or auto in the values",
        )
    return _to_file_system(request, target, progress, now, called_off)


def _target(request: Request) -> publish.Target:
    identity = request.identity
    return publish.target_of(
        request.output_zarr, identity.key, identity.attempt, request.work, run=identity.run, overwrite=request.overwrite,
        source=request.stac_url,
    )  # fmt: skip


def standing(request: Request) -> Outcome | None:
    """Returns the whole output that answers the request already, whatever has become of its source; None where there is none.

    Raises:
        Superseded: a later revision's output lies there.
        CannotWrite: another installation's does.
        Temporary | Refused: the store does not answer, or not to us.
    """
    identity, target = request.identity, _target(request)
    if target.is_remote:
        from geozarr_runner.publish import bucket as upload

        store = upload.open_store(target.href)
        precedence.check(upload.read_marker(store), identity, target.href, overwrite=request.overwrite)
        done = upload.already_done(store)
        return _again(done, identity) if done is not None and target.is_answered_by(done) else None
    precedence.check(marker.read(target.path), identity, str(target.path), overwrite=request.overwrite)
    found = publish.already_done(target)
    return _again(found, identity) if found is not None else None


def _to_file_system(
    request: Request, target: publish.Target, progress: Progress, now: Callable[[], datetime], called_off: threading.Event
) -> Outcome:
    identity = request.identity

    def check() -> None:
        precedence.check(marker.read(target.path), identity, str(target.path), overwrite=request.overwrite)

    check()
    if (done := publish.already_done(target)) is not None:
        return _again(done, identity)
    with publish.held(target):
        check()
        if (done := publish.already_done(target)) is not None:  # by the run that held the lock before us
            return _again(done, identity)
        if (done := _repacked(target, progress)) is not None:
            return _again(done, identity)
        publish.check_free(target, overwrite=request.overwrite)
        there = marker.read(target.path)
        whole = there and publish.already_done(replace(target, key=there.key, overwrite=False))
        if (same := _unchanged(request, whole, progress, called_off)) is not None:
            marker.write(target.path / MARKER, same.as_json())
            return same
        built = publish.finished_partial(target)
        publish.clear(target, but=built)
        if built is None:
            built = build.build(request, target, progress, now, called_off)
        with progress.during("publish"):
            check()  # a file system that locks nothing
            publish.publish(target, built)
        shutil.rmtree(build.stage_folder(target), ignore_errors=True)
        found = marker.read(target.path)
        if found is None:
            raise Defect(f"{target.path} has lost its marker while it was renamed", hint="was it removed by somebody else?")
        return replace(found, seconds={**found.seconds, "publish": progress.seconds["publish"]})


def _to_object_store(
    request: Request, target: publish.Target, progress: Progress, now: Callable[[], datetime], called_off: threading.Event
) -> Outcome:
    """Builds in the work folder as for a file system, and uploads meanwhile. A crash in the upload is continued by uploading."""
    from geozarr_runner.publish import bucket as upload
    from geozarr_runner.publish.ahead import Ahead
    from geozarr_runner.publish.claim import Asks

    store = upload.open_store(target.href)
    precedence.check(upload.read_marker(store), request.identity, target.href, overwrite=request.overwrite)
    done = upload.already_done(store)
    if done is not None and target.is_answered_by(done):
        return _again(done, request.identity)
    asks = Asks(request.identity, overwrite=request.overwrite, wait=called_off.wait)
    if done is not None and (same := _unchanged(request, done, progress, called_off)) is not None:
        upload.write_marker(store, same, done, asks)
        return same
    upload.check_free(store, target.key, overwrite=request.overwrite)
    with Ahead(store, asks) as ahead:
        request = replace(request, service=upload.service(store), offer=ahead.offer)
        outcome = _to_file_system(request, target, progress, now, called_off)
        with progress.during("publish", outcome.counts.files) as advance:
            upload.publish(store, target.path, outcome, asks, advance=advance, ahead=ahead)
    shutil.rmtree(target.path.parent, ignore_errors=True)
    return replace(outcome, reason="done", seconds={**outcome.seconds, "publish": progress.seconds["publish"]})


def _unchanged(request: Request, whole: Outcome | None, progress: Progress, called_off: threading.Event) -> Outcome | None:
    """Returns the marker of an output that stays, because the finished GeoZarr that it was made of is the same one still.

    These products have no checksum, so a new stamp of their item is a new revision; what is asked of the store then is its root's
    metadata and the size of each object, and nothing is fetched.
    """
    identity = request.identity
    if whole is None or request.overwrite or not whole.fingerprint or whole.installation != identity.installation:
        return None
    from geozarr_runner.convert import mirror

    with progress.during("preflight"):
        plan = build.plan_of(request, called_off)
        packed = "" if plan.native is Native.REFERENCE else package.SUFFIXES.get(request.recipe.package, "")
        if not mirror.is_still(plan, whole, f"{whole.output_zarr}{packed}" if packed else "", called_off):
            return None
    log.info("the product is the one that the output was made of: %s", whole.fingerprint)
    return replace(
        whole, reason="unchanged", key=identity.key, revision=identity.revision, run=identity.run, attempt=identity.attempt,
        fence=identity.fence, source=plan.source.url,
    )  # fmt: skip


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
