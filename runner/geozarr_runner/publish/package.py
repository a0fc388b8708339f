"""Packs an output into one archive, in one pass: what is hashed is what was written.

The archive depends on names and contents of the store's files and on nothing else: no owners, modes, times, order of the disk,
second names of one file (a mirror's objects have them), and no folders but those that files lie in. So a lost archive can be made
again, here or on the way to whoever fetches it, and has the checksum that the marker states. Headers are tarfile's; the bytes go
through one buffer, because tarfile's own copying takes as long as everything else together (measured: docs/performance.md).

The archive has a name of its own until `publish` renames it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from stac_watch.model.outcome import DATA, MARKER

SUFFIXES = {"tar": ".tar", "tar.gz": ".tar.gz", "none": ""}
AUTO = "auto"
_COPY = 1 << 20
_END = bytes(2 * tarfile.BLOCKSIZE)

type Sink = Callable[[Any], object]
"""Takes bytes, all of them."""


def kind_of(asked: str, output: str) -> str:
    """Returns the kind of archive that is made: `auto` is a tar on a run's own volume, where an archive is what people fetch.

    An output in an object store or in a folder is read where it lies, and an archive would be as large again.
    """
    if asked != AUTO:
        return asked
    path = os.path.normpath(output.removeprefix("file://"))
    return "tar" if "://" not in output.removeprefix("file://") and f"{path}/".startswith(f"{DATA}/") else "none"


def pack(store: Path, archive: Path, *, name: str, kind: str, advance: Callable[[int], None] = lambda _: None) -> tuple[int, str]:
    """Writes the archive and returns its bytes and SHA-256.

    The members lie under `name`, sorted. The marker is left out, because it states the archive's hash. `tar.gz` uses level 1:
    chunks are compressed already, gzip saves 2 % of a tile in a minute (measured).

    Args:
        store: the store's folder.
        archive: the file to write; replaced when there.
        name: folder name within the archive.
        kind: `tar` or `tar.gz`.
        advance: told of each file.

    Raises:
        OSError: it cannot be written.
    """
    with archive.open("wb", buffering=0) as raw, ExitStack() as stack:
        hashing = _Hashing(raw.write)
        sink: Sink = hashing.write
        if kind == "tar.gz":
            zipped: Any = gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=hashing, mtime=0)
            sink = stack.enter_context(zipped).write
        write(store, sink, name=name, advance=advance)
        stack.close()
        return hashing.size, hashing.digest.hexdigest()


def write(store: Path, sink: Sink, *, name: str, advance: Callable[[int], None] = lambda _: None) -> None:
    """Writes a store's tar into whatever takes bytes.

    Raises:
        OSError: a file cannot be read, or is not as long as it was.
    """
    buffer = bytearray(_COPY)
    total = 0
    for path, relative in _members(store):
        head = tarfile.TarInfo(f"{name}/{relative}")
        if path is None:
            head.type, head.mode = tarfile.DIRTYPE, 0o755
            total += _put(sink, head.tobuf(tarfile.PAX_FORMAT))
            continue
        with path.open("rb", buffering=0) as file:
            head.size, head.mode = os.fstat(file.fileno()).st_size, 0o644
            total += _put(sink, head.tobuf(tarfile.PAX_FORMAT))
            total += _copy(file.readinto, head.size, sink, buffer, path)
        total += _put(sink, bytes(-head.size % tarfile.BLOCKSIZE))
        advance(1)
    total += _put(sink, _END)
    _put(sink, bytes(-total % tarfile.RECORDSIZE))


def measured(store: Path) -> tuple[int, str]:
    """Returns the bytes and the SHA-256 of a store's tar, which is written nowhere.

    Raises:
        OSError: a file cannot be read.
    """
    hashing = _Hashing(len)
    write(store, hashing.write, name=store.name)
    return hashing.size, hashing.digest.hexdigest()


def send(store: Path, out: BinaryIO, *, start: int = 0) -> None:
    """Writes a store's tar into a stream, from a byte on: for whoever has what comes before.

    Raises:
        OSError: a file cannot be read, or the stream is closed.
    """
    left = start

    def sink(data: Any) -> None:  # noqa: ANN401  # whatever has bytes
        nonlocal left
        view = memoryview(data)
        skipped = min(left, len(view))
        left -= skipped
        out.write(view[skipped:])

    write(store, sink, name=store.name)
    out.flush()


@dataclass
class _Hashing:
    """Hashes and counts what passes through."""

    pass_on: Callable[[Any], int | None]
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0

    def write(self, data: Any) -> int:  # noqa: ANN401  # whatever has bytes
        """Writes all of it, hashes, counts."""
        view = memoryview(data)
        self.digest.update(view)
        self.size += len(view)
        rest = view
        while rest:  # the system takes as much as it takes
            rest = rest[self.pass_on(rest) or 0 :]
        return len(view)

    def flush(self) -> None:
        """Holds nothing back."""


def _members(store: Path) -> Iterator[tuple[Path | None, str]]:
    """Yields files, each with its name, and None for the folders that they lie in; in the order of their names' parts."""
    files = {p.relative_to(store).as_posix(): p for p in store.rglob("*") if p != store / MARKER and p.is_file()}
    folders = {parent.as_posix() for name in files for parent in PurePosixPath(name).parents} - {"."}
    for name in sorted([*files, *folders], key=lambda name: PurePosixPath(name).parts):
        yield files.get(name), name


def _put(sink: Sink, data: bytes) -> int:
    if data:
        sink(data)
    return len(data)


def _copy(read: Callable[[Any], int | None], size: int, sink: Sink, buffer: bytearray, path: Path) -> int:
    view, copied = memoryview(buffer), 0
    while copied < size and (number := read(view[: size - copied])):
        sink(view[:number])
        copied += number
    if copied != size or read(view):
        raise OSError(f"{path} changed its length while it was packed")
    return size
