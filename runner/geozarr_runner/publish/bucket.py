"""An output in an object store: uploaded, verified by listing, the marker last.

An object store renames nothing, so the order of writing is what keeps readers safe. Two documents decide what a reader sees: the
store's root metadata (`zarr.json`, without which it does not open) and the marker (without which it is not whole).

0. The note `stac-watch.uploading.json` is claimed (see `claim`), by the first object that is sent ahead (see `ahead`) or now: one
   writer at a time, and who lost it stops. Under the claim the marker is read: a later revision's, or another installation's, stays
   (see `precedence`).
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
import logging
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from geozarr_runner.publish import marker, precedence
from geozarr_runner.publish.ahead import Ahead, require_turn
from geozarr_runner.publish.claim import NOTE, Asks, Reservation, write_if
from geozarr_runner.publish.objects import CONNECTIONS, Listed, ObjectStore, Sender, asked, listing
from geozarr_runner.request import Service
from geozarr_runner.source.faults import classify
from stac_watch.model.errors import CannotWrite, InputError, Refused, SourceNotThere, StacWatchError, Temporary
from stac_watch.model.outcome import MARKER, Outcome

log = logging.getLogger(__name__)

ROOT = "zarr.json"
_ABANDONED = timedelta(days=1)  #: a run that uploads writes an object every few seconds


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
    if not store.is_s3:
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
        return marker.at(store)


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
        there = listing(store, store.root)
    if there and not overwrite and MARKER not in there and NOTE not in there:
        raise CannotWrite(
            f"{store.href} exists and has no {MARKER}: it is not an output of ours",
            hint=f"choose another output, or use --overwrite true to replace it (key {key})",
        )


def publish(
    store: ObjectStore, built: Path, outcome: Outcome, asks: Asks, *, advance: Callable[[int], None], ahead: Ahead | None = None
) -> None:
    """Uploads a finished output and its companions, in the order that the module's description gives.

    Args:
        store: where to.
        built: the output's folder.
        outcome: what its marker says.
        asks: who publishes.
        advance: told of each object.
        ahead: what has sent objects of it already.

    Raises:
        Superseded: a later revision's output lies there.
        CannotWrite: the store does not take it, or has not what was sent.
        Temporary | Refused: the store does not answer, or not to us.
    """
    files = {p.relative_to(built).as_posix(): p for p in sorted(built.rglob("*")) if p.is_file()}
    last = files.pop(MARKER)
    hrefs = [*outcome.files.values(), *([outcome.package.href] if outcome.package else [])]
    companions = {name: built.with_name(name) for name in sorted(href.rpartition("/")[2] for href in hrefs)}
    with _talking(store):
        store.be_plain()
        begun = ahead.finish() if ahead is not None else None
        sender = ahead.sender if ahead is not None else Sender(store)
        with contextlib.nullcontext(begun) if begun else Reservation(store, asks, marker.at(store)) as claim:
            require_turn(store, asks, claim)
            _arrive(sender, claim, files, store.staging(asks.identity.key), advance)
            claim.check()
            there = asked(store, store.parent, companions)
            sender.send_all(companions, store.parent, there, claim.check, lambda _: None)
            _require(sender, store.parent, companions, asked(store, store.parent, companions), exact=False)
            sender.send(ROOT, files[ROOT], store.at(ROOT))
            advance(1)
            _require(sender, store.root, files, listing(store, store.root), exact=True)
            _mark(sender, claim, files, last.read_bytes())
            _remove(store, [f"{store.staging(asks.identity.key)}/{n}" for n in listing(store, store.staging(asks.identity.key))])
            claim.release()
    _remove_abandoned(store)


def _arrive(sender: Sender, claim: Reservation, files: dict[str, Path], staging: str, advance: Callable[[int], None]) -> None:
    """Brings every object but the root metadata to the final prefix; an old output is readable until all of them are beside it."""
    store = sender.store
    there = listing(store, store.root)
    replacing = MARKER in there
    where = staging if replacing else store.root
    sent = {n: p for n, p in files.items() if replacing or n != ROOT}
    beside = listing(store, where) if replacing else there
    sender.send_all(sent, where, beside, claim.check, advance)
    if left := beside.keys() - sent.keys() if replacing else ():  # sent ahead, of what was then made otherwise
        _remove(store, [f"{where}/{name}" for name in sorted(left)])
    _require(sender, where, sent, listing(store, where), exact=replacing)
    claim.check()
    if replacing:
        _remove(store, [store.at(n) for n in (MARKER, ROOT)])
        moved = [name for name in files if name != ROOT]
        store.fs.copy([f"{staging}/{n}" for n in moved], [store.at(n) for n in moved], batch_size=CONNECTIONS, on_error="raise")
    _remove(store, [store.at(n) for n in sorted(_content(store, store.root).keys() - files.keys())])


def _mark(sender: Sender, claim: Reservation, files: dict[str, Path], content: bytes) -> None:
    """Writes the marker, where there is none. One that is there was written by a run that had lost its claim: it counts nothing."""
    store = sender.store
    claim.check()
    if not write_if(store, MARKER, content, {"IfNoneMatch": "*"}):
        claim.check()
        store.fs.pipe_file(store.at(MARKER), content)
        _require(sender, store.root, files, listing(store, store.root), exact=True)


def put_file(path: Path, href: str) -> None:
    """Writes one file to an address.

    Raises:
        InputError: see `open_store`.
        CannotWrite | Temporary | Refused: the store does not take it.
    """
    store = open_store(href)
    with _talking(store):
        store.be_plain()
        store.fs.put_file(str(path), store.root)


def _can_copy(kind: type[Any]) -> bool:
    """Says whether a file system has a copy of its own: what is replaced is copied. http has not, nor has sftp."""
    return any({"cp_file", "_cp_file"} & vars(c).keys() for c in kind.__mro__ if c not in (AbstractFileSystem, AsyncFileSystem))


def _require(sender: Sender, prefix: str, files: dict[str, Path], there: dict[str, Listed], *, exact: bool) -> None:
    """Compares what lies there with what was sent.

    Raises:
        CannotWrite: names the first object that is missing, differs, or should not be there.
    """
    wrong = [name for name, path in files.items() if name not in there or there[name].size != path.stat().st_size]
    tags = {name: there[name].md5 for name in files if name in there and there[name].md5}
    differ = [name for name, tag in tags.items() if sender.tag(name, files[name]) not in ("", tag)]
    if differ and len(differ) < len(tags):  # all: the store encrypts (KMS), an ETag is no MD5 there
        wrong += differ
    if exact:
        wrong += sorted(there.keys() - files.keys() - {MARKER, NOTE})
    if wrong:
        raise CannotWrite(
            f"{sender.store.href} has not what was sent: {len(wrong)} objects differ, first {prefix}/{wrong[0]}",
            hint="run it again: only what differs is sent; if it stays, does another program write there?",
        )


def _content(store: ObjectStore, prefix: str) -> dict[str, Listed]:
    return {name: found for name, found in listing(store, prefix).items() if name not in (MARKER, NOTE)}


def _size(store: ObjectStore, path: str) -> int:
    try:
        return int(store.fs.info(path)["size"])
    except FileNotFoundError:
        return -1


def _remove(store: ObjectStore, paths: list[str]) -> None:
    there = [path for path in paths if store.fs.exists(path)] if len(paths) <= 2 else paths  # of two we do not know
    if there:
        store.fs.rm(there)


def _remove_abandoned(store: ObjectStore) -> None:
    """Removes what crashed uploads of other keys left; by the store's own clock, and only where it lists by the start of a name."""
    if not store.is_s3:
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
