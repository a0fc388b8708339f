"""An output in an object store: uploaded, verified by listing, the marker last.

An object store renames nothing, so the order of writing is what keeps readers safe. Two documents decide what a reader sees: the
store's root metadata (`zarr.json`, without which it does not open) and the marker (without which it is not whole).

0. The note `stac-watch.uploading.json` is claimed (see `claim`): one writer at a time, and who lost it stops. Under the claim the
   marker is read: a later revision's, or another installation's, stays (see `precedence`).
1. Nothing there, or an upload of ours that broke off: objects go under the final prefix, root metadata and marker held back.
   An output with a marker there: objects go under `.<name>.<key>.upload/` beside it; the old output is untouched and readable.
2. What arrived is listed: every key, its size, and its ETag where that is an MD5 (single part, no KMS).
3. Only now the old marker goes, then the old root metadata: for the seconds of a copy inside the store, readers find no output,
   never a mixture. Objects are copied to the final prefix, those of the old output that are left over are removed.
4. Package, report and item; root metadata; the final prefix is listed again; the marker.

A crash at any point leaves the old output whole, or no marker and the note: the next run of the key goes on at once, another one
when the note was not renewed for a minute. What
it uploaded beside the old output goes when another key's output is whole, once nothing was written there for a day.
A reader that opened the old output before step 3 may read chunks of the new one during it: re-read the marker, or put the key into
the output's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from geozarr_runner.publish import marker, precedence
from geozarr_runner.publish.claim import NOTE, Asks, Reservation, write_if
from geozarr_runner.request import Service
from geozarr_runner.source.faults import classify
from stac_watch.model.errors import CannotWrite, InputError, Refused, SourceNotThere, StacWatchError, Temporary
from stac_watch.model.outcome import MARKER, Outcome

log = logging.getLogger(__name__)

ROOT = "zarr.json"
_BATCH = 16  #: requests at a time: what staging uses too
_ABANDONED = timedelta(days=1)  #: a run that uploads writes an object every few seconds
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class ObjectStore:
    """One output's place in an object store."""

    fs: Any = field(repr=False)
    root: str  # bucket/path, without scheme
    href: str

    def at(self, name: str) -> str:
        """Returns the path of an object of the output."""
        return f"{self.root}/{name}"

    @property
    def parent(self) -> str:
        """Where package, report and item lie."""
        return self.root.rpartition("/")[0]

    def staging(self, key: str) -> str:
        """Returns the prefix where a new output waits beside an old one."""
        return f"{self.parent}/.{self.root.rpartition('/')[2]}.{key}.upload"


@dataclass(frozen=True)
class _Object:
    size: int
    etag: str


def open_store(href: str) -> ObjectStore:
    """Returns the store; credentials and endpoint come from AWS_*, FSSPEC_* and the usual files. Nothing is asked yet.

    Raises:
        InputError: no file system is known or installed for the scheme, or it cannot be written.
    """
    scheme = href.partition("://")[0]
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except (ValueError, ImportError) as error:
        raise InputError(
            f"output {href!r} cannot be written: {error}", hint="give a path, an s3:// address, or install the file system for it"
        ) from error
    if not _can_copy(kind):
        raise InputError(f"output {href!r} cannot be written: {scheme} copies nothing", hint="give a path or an s3:// address")
    fs = kind(skip_instance_cache=True, use_listings_cache=False)
    return ObjectStore(fs, fs._strip_protocol(href).rstrip("/"), href.rstrip("/"))  # noqa: SLF001  # fsspec's own name for it; no other


def service(store: ObjectStore) -> Service | None:
    """Returns where an S3 client sends its requests; None for other stores."""
    if "s3" not in store.fs.protocol:
        return None
    with _talking(store):
        meta = store.fs.s3.meta  # after botocore looked at arguments, environment and configuration files
    return Service(str(meta.endpoint_url), "" if meta.region_name == "aws-global" else str(meta.region_name or ""))


def read_marker(store: ObjectStore) -> Outcome | None:
    """Returns what the marker says, None where there is none that can be read.

    Raises:
        Temporary | Refused: the store does not answer, or not to us.
    """
    with _talking(store):
        try:
            return marker.parse(store.fs.cat_file(store.at(MARKER)))
        except FileNotFoundError:
            return None


def already_done(store: ObjectStore) -> Outcome | None:
    """Returns the marker of an output that is whole: everything it counts is there.

    Raises:
        Temporary | Refused: the store does not answer, or not to us.
    """
    found = read_marker(store)
    if found is None or found.code != 0:
        return None
    with _talking(store):
        there = _content(store, store.root)
        counted = (len(there), sum(o.size for o in there.values())) == (found.counts.files, found.counts.bytes_written)
        package = found.package
        packed = package is None or _size(store, f"{store.parent}/{package.href.rpartition('/')[2]}") == package.bytes
    return found if counted and packed else None


def write_marker(store: ObjectStore, outcome: Outcome, before: Outcome, asks: Asks) -> None:
    """Writes the marker of an output that stays as it is, in place of the one that was read.

    Raises:
        Superseded: a later revision's output lies there.
        CannotWrite | Temporary | Refused: the store does not take it; another run writes.
    """
    with _talking(store), Reservation(store, asks, before) as claim:
        there = read_marker(store)
        precedence.check(there, asks.identity, store.href, overwrite=asks.overwrite)
        if there != before:
            raise Temporary(f"another run has written {store.href}", hint="it is tried again; the other run's result counts")
        claim.check()
        store.fs.pipe_file(store.at(MARKER), outcome.as_json().encode())
        claim.release()


def check_free(store: ObjectStore, key: str, *, overwrite: bool) -> None:
    """Makes sure, before anything is converted, that the address may be taken.

    Raises:
        CannotWrite: objects that are not ours lie there.
        Temporary | Refused: the store does not answer, or not to us.
    """
    with _talking(store):
        there = _list(store, store.root)
    if there and not overwrite and MARKER not in there and NOTE not in there:
        raise CannotWrite(
            f"{store.href} exists and has no {MARKER}: it is not an output of ours",
            hint=f"choose another output, or say --overwrite true to replace it (key {key})",
        )


def publish(store: ObjectStore, built: Path, outcome: Outcome, asks: Asks, *, advance: Callable[[int], None]) -> None:
    """Uploads a finished output and its companions, in the order that the module's description gives.

    Raises:
        Superseded: a later revision's output lies there.
        CannotWrite: the store does not take it, or has not what was sent.
        Temporary | Refused: the store does not answer, or not to us.
    """
    files = {p.relative_to(built).as_posix(): p for p in sorted(built.rglob("*")) if p.is_file()}
    last = files.pop(MARKER)
    hrefs = [*outcome.files.values(), *([outcome.package.href] if outcome.package else [])]
    companions = {name: built.with_name(name) for name in sorted(href.rpartition("/")[2] for href in hrefs)}
    there = read_marker(store)
    with _talking(store):
        _give_up_silence(store)
        with Reservation(store, asks, there) as claim:
            precedence.check(read_marker(store), asks.identity, store.href, overwrite=asks.overwrite)
            _arrive(store, claim, files, store.staging(asks.identity.key), advance)
            claim.check()
            _put(store, store.parent, companions, lambda _: None, claim)
            _require(store, store.parent, companions, exact=False)
            _put(store, store.root, {ROOT: files[ROOT]}, advance, claim)
            _require(store, store.root, files, exact=True)
            _mark(store, claim, files, last.read_bytes())
            _remove(store, [f"{store.staging(asks.identity.key)}/{n}" for n in _list(store, store.staging(asks.identity.key))])
            claim.release()
    _remove_abandoned(store)


def _arrive(store: ObjectStore, claim: Reservation, files: dict[str, Path], staging: str, advance: Callable[[int], None]) -> None:
    """Brings every object but the root metadata to the final prefix; an old output is readable until all of them are beside it."""
    replacing = MARKER in _list(store, store.root)
    where = staging if replacing else store.root
    sent = {n: p for n, p in files.items() if replacing or n != ROOT}
    _put(store, where, sent, advance, claim)
    _require(store, where, sent, exact=replacing)
    claim.check()
    if replacing:
        _remove(store, [store.at(n) for n in (MARKER, ROOT)])
        moved = [name for name in files if name != ROOT]
        store.fs.copy([f"{staging}/{n}" for n in moved], [store.at(n) for n in moved], batch_size=_BATCH, on_error="raise")
    _remove(store, [store.at(n) for n in sorted(_content(store, store.root).keys() - files.keys())])


def _mark(store: ObjectStore, claim: Reservation, files: dict[str, Path], content: bytes) -> None:
    """Writes the marker, where there is none. One that is there was written by a run that had lost its claim: it counts nothing."""
    claim.check()
    if not write_if(store, MARKER, content, {"IfNoneMatch": "*"}):
        claim.check()
        store.fs.pipe_file(store.at(MARKER), content)
        _require(store, store.root, files, exact=True)


def _give_up_silence(store: ObjectStore) -> None:
    """Has an S3 client send objects without asking first whether it may.

    Asked (`Expect: 100-continue`), aiobotocore waits for the answer without a time-out: a connection that was lost at that moment
    stood still for fourteen minutes, until somebody looked. What is sent at once has botocore's time-out, and its retries.
    """
    if "s3" in store.fs.protocol:
        from botocore.handlers import add_expect_header

        store.fs.s3.meta.events.unregister("before-call.s3", add_expect_header)


def put_file(path: Path, href: str) -> None:
    """Writes one file to an address.

    Raises:
        InputError: see `open_store`.
        CannotWrite | Temporary | Refused: the store does not take it.
    """
    store = open_store(href)
    with _talking(store):
        _give_up_silence(store)
        store.fs.put_file(str(path), store.root)


def _can_copy(kind: type[Any]) -> bool:
    """Says whether a file system has a copy of its own: what is replaced is copied. http has not, nor has sftp."""
    return any({"cp_file", "_cp_file"} & vars(c).keys() for c in kind.__mro__ if c not in (AbstractFileSystem, AsyncFileSystem))


def _put(store: ObjectStore, prefix: str, files: dict[str, Path], advance: Callable[[int], None], claim: Reservation) -> None:
    """Uploads what is not there yet with the same size and MD5."""
    there = _list(store, prefix) if len(files) > 1 else {}
    wanted = {name: path for name, path in files.items() if not _same(path, there.get(name))}
    advance(len(files) - len(wanted))
    names = sorted(wanted)
    step = 10 * _BATCH  # between two reports of progress
    for start in range(0, len(names), step):
        some = names[start : start + step]
        claim.check()
        store.fs.put([str(wanted[n]) for n in some], [f"{prefix}/{n}" for n in some], batch_size=_BATCH)
        advance(len(some))


def _require(store: ObjectStore, prefix: str, files: dict[str, Path], *, exact: bool) -> None:
    """Compares a listing with what was sent.

    Raises:
        CannotWrite: names the first object that is missing, differs, or should not be there.
    """
    there = _list(store, prefix)
    wrong = [name for name, path in files.items() if name not in there or there[name].size != path.stat().st_size]
    tags = {n: there[n].etag for n in files if n in there and _MD5.fullmatch(there[n].etag)}
    differ = [name for name, tag in tags.items() if tag != _md5(files[name])]
    if differ and len(differ) < len(tags):  # all: the store encrypts (KMS), an ETag is no MD5 there
        wrong += differ
    if exact:
        wrong += sorted(there.keys() - files.keys() - {MARKER, NOTE})
    if wrong:
        raise CannotWrite(
            f"{store.href} has not what was sent: {len(wrong)} objects differ, first {prefix}/{wrong[0]}",
            hint="run it again: only what differs is sent; if it stays, does another program write there?",
        )


def _list(store: ObjectStore, prefix: str) -> dict[str, _Object]:
    try:
        found = store.fs.find(prefix, detail=True)
    except FileNotFoundError:
        return {}
    return {
        path.removeprefix(f"{prefix}/"): _Object(int(info["size"]), str(info.get("ETag", "")).strip('"'))
        for path, info in found.items()
        if info.get("type") == "file"
    }


def _content(store: ObjectStore, prefix: str) -> dict[str, _Object]:
    return {name: found for name, found in _list(store, prefix).items() if name not in (MARKER, NOTE)}


def _size(store: ObjectStore, path: str) -> int:
    try:
        return int(store.fs.info(path)["size"])
    except FileNotFoundError:
        return -1


def _same(path: Path, found: _Object | None) -> bool:
    return found is not None and found.size == path.stat().st_size and found.etag == _md5(path)


def _remove(store: ObjectStore, paths: list[str]) -> None:
    there = [path for path in paths if store.fs.exists(path)] if len(paths) <= 2 else paths  # of two we do not know
    if there:
        store.fs.rm(there)


def _remove_abandoned(store: ObjectStore) -> None:
    """Removes what crashed uploads of other keys left; by the store's own clock, and only where it lists by the start of a name."""
    if "s3" not in store.fs.protocol:
        return
    name = store.root.rpartition("/")[2]
    ours = re.compile(re.escape(f"{store.parent}/.{name}.") + r"[^/.]+\.upload/")
    try:
        now = store.fs.info(store.at(MARKER))["LastModified"]
        uploads: dict[str, dict[str, Any]] = {}
        for path, info in store.fs.find(store.parent, prefix=f".{name}.", detail=True).items():
            if found := ours.match(path):
                uploads.setdefault(found[0], {})[path] = info["LastModified"]
        for upload, objects in uploads.items():
            if now - max(objects.values()) >= _ABANDONED:  # else another run may be at it just now
                store.fs.rm(list(objects))
                log.info("removed %d objects of an abandoned upload: %s", len(objects), upload)
    except Exception as error:  # noqa: BLE001  # whatever the store says to this: the output is whole, and the next one looks again
        log.warning("cannot look for abandoned uploads beside %s: %s", store.href, error)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextlib.contextmanager
def _talking(store: ObjectStore) -> Iterator[None]:
    """Turns what s3fs and botocore raise into our errors."""
    try:
        yield
    except StacWatchError:
        raise
    except Exception as error:  # botocore, aiohttp and OS errors alike; each becomes one of ours, as for sources
        known = classify(error, store.href)
        if isinstance(known, SourceNotThere):
            raise CannotWrite(
                f"{store.href} cannot be written: no such bucket", hint="create the bucket, or fix the name"
            ) from error
        if isinstance(known, Temporary | Refused):
            raise known from error
        raise CannotWrite(f"cannot write {store.href}: {error}", hint="check the address and the store's policy") from error
