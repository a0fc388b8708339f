"""The final name: who may take it, what lies under it, and how a finished output gets there in one step.

Everything is built in a hidden sibling (same file system), flushed, then renamed. An output with another key is exchanged
atomically (renameat2 with RENAME_EXCHANGE, Linux >= 3.15; where the file system lacks it, two renames). A reader sees the old
output or the new one. Light on purpose: the answer "already done" must not cost the import of a geospatial stack.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geozarr_runner.publish import marker
from stac_watch.model.errors import CannotWrite, InputError, Temporary, write_failure
from stac_watch.model.outcome import MARKER, Outcome
from stac_watch.model.product import is_made_of

WORK = ".geozarr-runner"
"""The default work folder's name."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_REMOVALS, _PAUSE = 20, 0.1
"""How often, and seconds between: zarr's event loop finishes writes that had begun when another one failed, folders included."""
_NOT_EXCHANGEABLE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})


@dataclass(frozen=True)
class Target:
    """An output's place and the names beside it."""

    path: Path  # where it is built and, unless `href` is elsewhere, stays
    key: str
    attempt: int
    href: str  # what the marker calls it
    work: Path  # where sources are staged
    run: str = ""
    overwrite: bool = False
    source: str = ""  # what is asked for

    @property
    def is_remote(self) -> bool:
        """True for an output in an object store: `upload` takes it there."""
        return "://" in self.href

    def is_answered_by(self, found: Outcome) -> bool:
        """Tells whether an output with this marker is what is asked for: it has the same key, and was made of the same product.

        With `overwrite` a new conversion is asked for. Then only what this very run made counts (it was killed and started again),
        or what a later attempt made.
        """
        mine = self.run != "" and found.run == self.run
        same = found.key == self.key and is_made_of(found.source, self.source)
        return same and (not self.overwrite or mine or found.attempt > self.attempt)

    @property
    def partial(self) -> Path:
        """Where this attempt builds."""
        return self.path.with_name(f".{self.path.name}.{self.key}-{self.attempt}.partial")

    @property
    def partial_package(self) -> Path:
        """Where this attempt packs."""
        return self.partial.with_suffix(".partial-package")

    @property
    def partial_beside(self) -> Path:
        """Where this attempt writes report and item, under their final names."""
        return self.partial.with_suffix(".partial-beside")

    @property
    def lock(self) -> Path:
        """The file that one writer at a time holds."""
        return self.path.with_name(f".{self.path.name}.lock")


def target_of(
    output_zarr: str, key: str, attempt: int, work: Path | None, *, run: str = "", overwrite: bool = False, source: str = ""
) -> Target:
    """Returns the target for an output path, or an address in an object store; those are built in the work folder first.

    Raises:
        InputError: neither a path on a mounted file system nor an address of a store.
    """
    scheme, sep, rest = output_zarr.partition("://")
    name = rest.strip("/").rpartition("/")
    if sep and scheme != "file":
        if not (scheme and name[0] and name[2]):
            raise InputError(
                f"output {output_zarr!r} is not the address of a store",
                hint="give a path on a mounted volume, e.g. /outputs/ITEM.zarr, or s3://BUCKET/ITEM.zarr",
            )
        folder = work or Path.cwd() / WORK
        return Target(
            folder / "outputs" / key / name[2], key, attempt, f"{scheme}://{rest.strip('/')}", folder, run, overwrite, source
        )
    path = Path(os.path.abspath(rest if sep else output_zarr))  # noqa: PTH100  # resolve() would follow a symlink of the user's
    if not output_zarr or path == path.parent:
        raise InputError(f"output {output_zarr!r} is not the path of a store", hint="give e.g. /outputs/ITEM.zarr")
    return Target(path, key, attempt, str(path), work or path.parent / WORK, run, overwrite, source)


def already_done(target: Target) -> Outcome | None:
    """Returns the marker when a whole output that answers the request lies under the final name: nothing is left to do."""
    found = marker.read(target.path)
    return found if found is not None and target.is_answered_by(found) and _whole(target.path, found, target) else None


def without_package(target: Target) -> Outcome | None:
    """Returns the marker of an output that is whole and answers the request, but whose package is gone."""
    found = marker.read(target.path)
    return found if found is not None and target.is_answered_by(found) and _whole(target.path, found, None) else None


def check_free(target: Target, *, overwrite: bool) -> None:
    """Makes sure, before anything is downloaded, that the final name may be taken.

    Raises:
        CannotWrite: something that is not ours lies there, or the folder cannot be written.
    """
    if (target.path.exists() or target.path.is_symlink()) and not overwrite and marker.read(target.path) is None:
        raise CannotWrite(
            f"{target.path} exists and has no {MARKER}: it is not an output of ours",
            hint="choose another output, or use --overwrite true to replace it",
        )


@contextlib.contextmanager
def held(target: Target) -> Iterator[None]:
    """Holds the output's lock: one writer per output. The lock dies with its process, so none is ever left behind.

    Raises:
        Temporary: another run holds it.
        CannotWrite: the output's folder cannot be written.
    """
    try:
        target.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(target.lock)
    except BlockingIOError as error:
        raise Temporary(f"another run is writing {target.path}", hint="it is tried again; the other run's result counts") from error
    except OSError as error:
        raise write_failure(error, target.path) from error
    try:
        yield
    finally:
        # while it is held: whoever opened it meanwhile finds that it is no longer the file there
        target.lock.unlink(missing_ok=True)
        os.close(descriptor)


def finished_partial(target: Target) -> Path | None:
    """Returns an earlier attempt's folder that has its marker: it was killed between the marker and the rename."""
    for folder in _partials(target):
        found = marker.read(folder) if folder.is_dir() else None
        if found is not None and target.is_answered_by(found) and _whole(folder, found, None):
            archive = folder.with_suffix(".partial-package")
            if found.package is None or _has_size(archive, found.package.bytes) or _published_package(target, found):
                return folder
    return None


def clear(target: Target, *, but: Path | None = None) -> None:
    """Removes what earlier attempts left beside the output. Only under the lock: nobody else builds there."""
    keep = {but, but.with_suffix(".partial-package"), but.with_suffix(".partial-beside")} if but else set()
    for path in _partials(target):
        if path not in keep:
            _remove(path)


def publish(target: Target, built: Path) -> None:
    """Puts a finished folder, and its package, report and item first, under the final names.

    They go first: when the marker can be seen, everything it speaks of is there.

    Raises:
        CannotWrite: a rename failed.
    """
    found = marker.read(built)
    archive = built.with_suffix(".partial-package")
    try:
        flush(built)
        if found is not None and found.package is not None and archive.exists():
            archive.replace(target.path.with_name(Path(found.package.href).name))
        beside = built.with_suffix(".partial-beside")
        for companion in sorted(beside.iterdir()) if beside.exists() else []:
            companion.replace(target.path.with_name(companion.name))
        _remove(beside)
        if target.path.exists() or target.path.is_symlink():
            _exchange(built, target.path)
            _flush_folder(target.path.parent)
            _remove(built)
        else:
            built.rename(target.path)
            _flush_folder(target.path.parent)
    except OSError as error:
        raise write_failure(error, target.path) from error


def flush(folder: Path) -> None:
    """Brings everything on the folder's file system to the disk, in one call: fsync of 3000 files one by one takes seconds.

    Source: syncfs(2), Linux >= 2.6.39; it reports write-back errors since 5.8.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def content(folder: Path) -> tuple[int, int]:
    """Returns the number and the bytes of a store's files, the marker not counted."""
    sizes = [
        entry.stat().st_size
        for where, _, names in os.walk(folder)
        for entry in (Path(where, name) for name in names)
        if entry != folder / MARKER
    ]
    return len(sizes), sum(sizes)


def _whole(folder: Path, found: Outcome, target: Target | None) -> bool:
    counted = content(folder) == (found.counts.files, found.counts.bytes_written)
    packed = target is None or found.package is None or _published_package(target, found)
    return found.code == 0 and counted and packed


def _published_package(target: Target, found: Outcome) -> bool:
    return found.package is not None and _has_size(target.path.with_name(Path(found.package.href).name), found.package.bytes)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _partials(target: Target) -> list[Path]:
    pattern = re.compile(rf"\.{re.escape(target.path.name)}\..+-\d+\.partial(-package|-beside|-chunks)?")
    try:
        return sorted(p for p in target.path.parent.iterdir() if pattern.fullmatch(p.name))
    except OSError as error:
        raise write_failure(error, target.path.parent) from error


def _locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the holder removed it between our open and our lock


def _exchange(new: Path, old: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        names = (os.fsencode(new), os.fsencode(old))
        if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
        if (number := ctypes.get_errno()) not in _NOT_EXCHANGEABLE:
            raise OSError(number, os.strerror(number), str(old))
    exchange_by_renames(new, old)


def exchange_by_renames(new: Path, old: Path) -> None:
    """Exchanges two folders where the file system cannot do it in one step: for an instant there is no output, never a mixture."""
    aside = new.with_suffix(".partial-package")  # a name that `clear` knows, should we die in between
    _remove(aside)
    old.rename(aside)
    new.rename(old)
    aside.rename(new)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for _ in range(_REMOVALS):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(_PAUSE)
