"""One output's place in an object store: what lies there, and how an object gets there, once, and is known to have arrived.

An object is read once and sent with one request. S3 clients send a CRC with it, and a store that says it back has compared it: then
that is believed, and the tag that the store gave is what a listing must show. Of other stores the tag is compared with an MD5 of
what was sent, where it is one (single part, no KMS).

Sources: Amazon S3, "Checking object integrity"; botocore >= 1.36 sends a CRC by itself; s3fs 2026.9 returns the answer.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONNECTIONS = 16  #: requests at a time: what staging uses too
_SINGLE = 512 << 20  #: bytes up to which an object is sent by one request; a package is larger
_IN_FLIGHT = 160 << 20  #: bytes that are held at a time, the client's own copy not counted; one object in any case
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

    @property
    def is_s3(self) -> bool:
        """Whether an S3 client speaks with it."""
        return "s3" in self.fs.protocol

    def be_plain(self) -> None:
        """Has an S3 client send objects without asking first whether it may.

        Asked (`Expect: 100-continue`), aiobotocore waits for the answer without a time-out: a connection that was lost at that
        moment stood still for fourteen minutes. What is sent at once has botocore's time-out, and its retries.
        """
        if self.is_s3:
            from botocore.handlers import add_expect_header

            self.fs.s3.meta.events.unregister("before-call.s3", add_expect_header)

    def expecting(self, crc: int | None) -> dict[str, str]:
        """Returns what tells an S3 store which CRC32C an object has; nothing where its client was told to send none."""
        if crc is None or self.fs.s3.meta.config.request_checksum_calculation == "when_required":
            return {}
        return {"ChecksumAlgorithm": "CRC32C", "ChecksumCRC32C": base64.b64encode(crc.to_bytes(4, "big")).decode()}

    def staging(self, key: str) -> str:
        """Returns the prefix where a new output waits beside an old one."""
        return f"{self.parent}/.{self.root.rpartition('/')[2]}.{key}.upload"


@dataclass(frozen=True)
class Listed:
    """An object as a listing shows it."""

    size: int
    etag: str

    @property
    def md5(self) -> str:
        """Its tag, where that may be an MD5; else nothing."""
        return self.etag if _MD5.fullmatch(self.etag) else ""


type Content = tuple[int, int, int]
"""Of a file that is written once: which it is, how long, and when it was written. A second name of it has the same."""


@dataclass(frozen=True)
class Placed:
    """An object that the store has."""

    content: Content
    tag: str  # what a listing must show, where it shows an MD5


@dataclass
class Sender:
    """Sends objects; one for an output, so that all threads together hold no more than `_IN_FLIGHT` bytes."""

    store: ObjectStore
    sent: dict[str, Placed] = field(
        default_factory=dict
    )  # by name: the same object may lie beside the old output, and then in its place
    _held: int = 0
    _room: threading.Condition = field(default_factory=threading.Condition)

    def send(self, name: str, file: Path, path: str, crc: int | None = None) -> None:
        """Sends one file to a path of the store; a large one in parts, whose tag says nothing of its content.

        Args:
            name: in the output.
            file: its content.
            path: in the store.
            crc: the CRC32C of what the file has to hold, taken when that was made; the store refuses anything else.

        Raises:
            Exception: whatever the client raises.
        """
        size = file.stat().st_size
        if size > _SINGLE:
            self.store.fs.put_file(str(file), path)
            self.sent[name] = Placed(content_of(file), "")
            return
        with self._hold(size):
            with file.open("rb") as opened:
                content, data = _content(os.fstat(opened.fileno())), opened.read()
            if not self.store.is_s3:
                self.store.fs.pipe_file(path, data)
                self.sent[name] = Placed(content, "")
                return
            answer = self.store.fs.pipe_file(path, data, chunksize=_SINGLE, **self.store.expecting(crc))
            summed = isinstance(answer, dict) and any(name.startswith("ChecksumCRC") and answer[name] for name in answer)
            tag = str(answer.get("ETag", "")).strip('"') if summed else ""
            self.sent[name] = Placed(content, tag or hashlib.md5(data, usedforsecurity=False).hexdigest())

    def has(self, name: str, file: Path, found: Listed | None) -> bool:
        """Tells whether the store has a file already: sent before, or by an attempt that broke off."""
        known = self.sent.get(name)
        if found is None or found.size != file.stat().st_size:
            return False
        if known is not None and known.content == content_of(file):
            return not (known.tag and found.md5) or found.md5 == known.tag or known.tag == found.etag
        if found.md5 and found.md5 == _md5(file):
            self.sent[name] = Placed(content_of(file), found.md5)
            return True
        return False

    def tag(self, name: str, file: Path) -> str:
        """Returns the tag that an object must have where a store gives MD5s."""
        known = self.sent.get(name)
        if known is not None and known.content == content_of(file):
            return known.tag
        return _md5(file)

    def send_all(
        self,
        files: Mapping[str, Path],
        prefix: str,
        there: Mapping[str, Listed],
        check: Callable[[], None],
        advance: Callable[[int], None],
    ) -> None:
        """Sends what the store has not yet, many at a time; `check` is asked now and then, and may end it by raising."""
        wanted = sorted(name for name, file in files.items() if not self.has(name, file, there.get(name)))
        advance(len(files) - len(wanted))
        step = 10 * CONNECTIONS
        for start in range(0, len(wanted), step):
            some = wanted[start : start + step]
            check()
            with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="send") as pool:
                jobs = [pool.submit(self.send, name, files[name], f"{prefix}/{name}") for name in some]
                try:
                    for job in jobs:
                        job.result()
                        advance(1)
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    @contextmanager
    def _hold(self, size: int) -> Iterator[None]:
        with self._room:
            self._room.wait_for(lambda: not self._held or self._held + size <= _IN_FLIGHT)
            self._held += size
        try:
            yield
        finally:
            with self._room:
                self._held -= size
                self._room.notify_all()


def listing(store: ObjectStore, prefix: str) -> dict[str, Listed]:
    """Returns what lies under a prefix, by its name below it."""
    try:
        found = store.fs.find(prefix, detail=True)
    except FileNotFoundError:
        return {}
    return {path.removeprefix(f"{prefix}/"): _found(info) for path, info in found.items() if info.get("type") == "file"}


def asked(store: ObjectStore, prefix: str, names: Iterable[str]) -> dict[str, Listed]:
    """Returns those of some objects that are there, each asked for: beside an output may lie any number of others."""
    found = {}
    for name in names:
        try:
            found[name] = _found(store.fs.info(f"{prefix}/{name}"))
        except FileNotFoundError:
            continue
    return found


def content_of(file: Path) -> Content:
    """Returns what tells a file's content from another's.

    Raises:
        OSError: it is not there.
    """
    return _content(file.stat())


def _content(stat: os.stat_result) -> Content:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _found(info: Mapping[str, Any]) -> Listed:
    return Listed(int(info["size"]), str(info.get("ETag", "")).strip('"'))


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
