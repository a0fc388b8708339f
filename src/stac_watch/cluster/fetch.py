"""Fetches what a run left on its volume: package, report, item, Dask's report. Resumable; believed when the checksum holds.

A file gets its final name only when it is whole and right, and no byte is fetched twice. `outcome.json` lies beside the files.
Where a run made no archive of its output, it is packed on its way: the one that the run would have made, byte for byte.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import posixpath
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from stac_watch.cluster.runs import LATEST, SELECTOR, check_name, find, is_over, outcome, parameters
from stac_watch.cluster.volume import Volume, opened
from stac_watch.model.errors import CannotWrite, InputError, Temporary, write_failure
from stac_watch.model.files import replace_file
from stac_watch.model.forms import Native
from stac_watch.model.outcome import DATA, MARKER, Outcome, parse_outcome
from stac_watch.runs.kubernetes_api import Cluster, Document

OUTCOME = "outcome.json"
ATTEMPTS = 6  #: broken connections in a row that bring no byte
PAUSE = 2.0  #: seconds between two of them


@dataclass(frozen=True)
class Wanted:
    """One file of a run; size and SHA-256 are None where the run does not say them."""

    kind: str
    path: str
    size: int | None = None
    sha256: str | None = None
    packed: str = ""  # the output that it is packed of on its way; empty for what lies there

    @property
    def name(self) -> str:
        """Its name here."""
        return posixpath.basename(self.path)


@dataclass(frozen=True)
class Fetched:
    """One file that is here now."""

    kind: str
    path: Path
    bytes: int
    sha256: str
    fetched: int  # bytes that came over the network this time; 0 = it was here already


@dataclass(frozen=True)
class Watching:
    """How whoever waits is told: a file with its size, then bytes as they come; and how to pause."""

    begin: Callable[[str, int], None]
    advance: Callable[[int], None]
    wait: Callable[[float], bool]  # sleeps; True means stop


def fetch(cluster: Cluster, run: str, out: Path, *, pod: Callable[[str], str], watching: Watching) -> list[Fetched]:
    """Fetches a run's files into `out/<run>/`.

    Args:
        cluster: where it is.
        run: its name, or `@latest`.
        out: the folder of all runs.
        pod: returns a fresh name for the helper pod of a run.
        watching: told of progress.

    Raises:
        InputError: there is nothing to fetch, and why; or a file is not what the run says it is.
        Temporary: it is not over, or the connection breaks again and again; the same call goes on where it stopped.
        CannotWrite: `out` cannot be written.
    """
    workflow = find(cluster, run)
    if workflow is None and run == LATEST:
        raise InputError(f"there is no run in namespace {cluster.namespace}", hint=_volumes(cluster))
    name = workflow["metadata"]["name"] if workflow else check_name(run)
    told = _told(workflow) if workflow else None
    if told is not None and not on_volume(told, parameters(workflow or {})):
        raise InputError(f"nothing of run {name} lies on its volume: {_where(told)}", hint="its output is read where it is")
    folder = _made(out / name)
    with opened(cluster, name, workflow, pod=pod(name), wait=watching.wait) as volume:
        said = told or _marked(volume, name)
        files = _measured(volume, on_volume(said, parameters(workflow) if workflow else {}), said)
        got = [copy(_reading(volume, file), file, folder, watching) for file in files]
    _write(folder / OUTCOME, json.dumps(said.document(), indent=2) + "\n")
    return got


def _told(workflow: Document) -> Outcome | None:
    """Returns the outcome of a run that went well; None when Argo did not keep it."""
    name = workflow["metadata"]["name"]
    if not is_over(workflow):
        raise Temporary(f"run {name} is not over", hint=f"`stac-watch cluster logs {name} --follow` shows what it does")
    said = outcome(workflow)
    if said is not None and said.code:
        hint = f"`stac-watch cluster logs {name}` shows why"
        raise InputError(f"run {name} failed and made no package: {said.reason}", hint=hint)
    return said


def _marked(volume: Volume, run: str) -> Outcome:
    """Returns what the marker on the volume says: it outlives the Workflow."""
    found = [outcome for text in volume.markers(MARKER) if (outcome := parse_outcome(text)) is not None]
    if not found:
        raise InputError(f"on the volume of run {run} lies no output with a marker", hint="the run did not get that far")
    if len(found) > 1:
        names = ", ".join(outcome.output_zarr for outcome in found)
        raise InputError(f"on the volume of run {run} lie several outputs: {names}", hint="copy the right one with kubectl")
    return found[0]


def on_volume(said: Outcome, given: Mapping[str, str]) -> list[Wanted]:
    """Returns what an outcome and the parameters speak of, as far as it lies on the volume. Pure.

    Raises:
        InputError: two of them would have one name here.
    """
    package = said.package
    files = [Wanted("package", package.href, package.bytes, package.sha256)] if package is not None else []
    if package is None and said.engine != Native.REFERENCE and said.output_zarr:
        files.append(Wanted("package", f"{said.output_zarr}.tar", packed=said.output_zarr))
    files += [Wanted(kind, path) for kind, path in said.files.items()]
    if given.get("dask_perf_html"):
        files.append(Wanted("dask_report", given["dask_perf_html"]))
    chosen = [f for f in files if f.path.startswith(f"{DATA}/") and posixpath.normpath(f.path) == f.path]
    names = [f.name for f in chosen]
    if twice := sorted({name for name in [*names, OUTCOME] if [*names, OUTCOME].count(name) > 1}):
        raise InputError(f"two files of the run are called {twice[0]!r}", hint="copy them with kubectl")
    return chosen


def copy(read: Callable[[str, int], Iterator[bytes]], file: Wanted, folder: Path, watching: Watching) -> Fetched:
    """Copies one file, going on where an earlier call stopped.

    The unfinished file's name carries the checksum: what a different file left is never continued.

    Raises:
        Temporary: the connection broke too often; what came stays.
        InputError: what came is whole, and its checksum is not the one that was said.
        CannotWrite: the folder cannot be written.
    """
    size, digest = file.size or 0, file.sha256 or ""
    final, part = folder / file.name, folder / f".{file.name}.{digest[:12]}.part"
    watching.begin(file.name, size)
    try:
        if final.is_file() and final.stat().st_size == size and _digest(final) == digest:
            watching.advance(size)
            return Fetched(file.kind, final, size, digest, 0)
        for other in folder.glob(f".{_literal(file.name)}.*.part"):
            if other != part:
                other.unlink()
        with _held(part) as target:
            fetched = _fill(read, file.path, size, target, watching)
            if _digest(part) != digest:
                part.unlink()
                raise InputError(
                    f"{file.path} has another checksum than {digest[:12]}…, which its run says",
                    hint="fetch again; when it happens twice the volume is damaged: `stac-watch replay ITEM` converts again",
                )
            part.replace(final)
    except OSError as error:
        raise write_failure(error, folder, "choose another --out") from error
    return Fetched(file.kind, final, size, digest, fetched)


def _fill(read: Callable[[str, int], Iterator[bytes]], path: str, size: int, target: IO[bytes], watching: Watching) -> int:
    """Appends what is missing, and returns how much that was."""
    target.seek(0, os.SEEK_END)
    start = target.tell()
    if start > size:
        start = target.truncate(0)
        target.seek(0)
    if (free := shutil.disk_usage(Path(target.name).parent).free) < size - start:
        raise CannotWrite(f"{size - start:,} bytes are to come and {free:,} are free", hint="free space, or choose another --out")
    watching.advance(start)
    there, idle = start, 0
    while there < size:
        before = there
        try:
            for data in read(path, there):
                if there + len(data) > size:
                    raise InputError(f"{path} is longer than its run says", hint="is something still writing it?")
                target.write(data)
                there += len(data)
                watching.advance(len(data))
        except Temporary:
            idle = 0 if there > before else idle + 1
            if idle >= ATTEMPTS or watching.wait(PAUSE):
                raise
        else:
            if there < size:
                raise InputError(
                    f"{path} ends after {there} of {size} bytes", hint="the volume is damaged, or the file was replaced"
                )
    target.flush()
    os.fsync(target.fileno())
    return there - start


def _measured(volume: Volume, files: list[Wanted], said: Outcome) -> list[Wanted]:
    """Asks for what the run does not say, and leaves out what it meant to write and did not (a Dask report)."""
    sums = volume.sums([f.path for f in files if f.sha256 is None and not f.packed])
    known = [f if f.sha256 or f.packed else replace(f, size=sums[f.path][0], sha256=sums[f.path][1])
             for f in files if f.sha256 or f.packed or f.path in sums]  # fmt: skip
    return [_to_pack(volume, f, said) if f.packed else f for f in known]


def _to_pack(volume: Volume, file: Wanted, said: Outcome) -> Wanted:
    """Asks what an archive will be, and whether the output is still what the run wrote: no other checksum would tell.

    Raises:
        InputError: it is not.
    """
    found = volume.archive(file.packed)
    if said.digest and found.content != said.digest:
        hint = "its volume is damaged, or somebody wrote there: `stac-watch replay ITEM` converts anew"
        raise InputError(f"{file.packed} is not what its run has written: its objects have other checksums", hint=hint)
    return replace(file, size=found.size, sha256=found.sha256)


def _reading(volume: Volume, file: Wanted) -> Callable[[str, int], Iterator[bytes]]:
    """Returns how a file is read from an offset on."""
    return (lambda _path, offset: volume.pack(file.packed, offset)) if file.packed else volume.read


def _where(said: Outcome) -> str:
    output = said.output_zarr
    return f"its output is {output}" if "://" in output else f"it made no package of {output}"


def _volumes(cluster: Cluster) -> str:
    names = [claim["metadata"]["name"] for claim in cluster.items(cluster.core("persistentvolumeclaims"), SELECTOR)]
    return f"volumes are still there of: {', '.join(names)}" if names else "`stac-watch cluster submit STAC_URL` makes one"


@contextmanager
def _held(part: Path) -> Iterator[IO[bytes]]:
    """Opens an unfinished file; one process at a time, and the lock goes with it."""
    with part.open("ab+") as target:
        try:
            fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Temporary(f"another process is fetching {part.name}", hint="wait for it, or choose another --out") from None
        yield target


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(error, folder, "choose another --out") from error
    return folder


def _write(path: Path, content: str) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise write_failure(error, path, "choose another --out") from error
