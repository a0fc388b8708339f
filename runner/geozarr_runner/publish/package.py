"""Packs an output into one archive, in one pass: what is hashed is what was written.

The archive has a name of its own until `publish` renames it.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from stac_watch.model.outcome import MARKER

SUFFIXES = {"tar": ".tar", "tar.gz": ".tar.gz", "none": ""}
_COPY = 1024**2


@dataclass
class _Hashing:
    """A write-only file that hashes and counts what passes through."""

    file: IO[bytes]
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0

    def write(self, data: bytes) -> int:
        """Writes, hashes, counts."""
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        """Passes on."""
        self.file.flush()


def pack(store: Path, archive: Path, *, name: str, kind: str, advance: Callable[[int], None] = lambda _: None) -> tuple[int, str]:
    """Writes the archive and returns its bytes and SHA-256.

    The members lie under `name`, sorted, without owners and times: the same store gives the same archive. The marker is left out,
    because it states the archive's hash. `tar.gz` uses level 1: chunks are compressed already, gzip saves 2 % of a tile in a
    minute (measured).

    Args:
        store: the store's folder.
        archive: the file to write; replaced when there.
        name: folder name within the archive.
        kind: `tar` or `tar.gz`.
        advance: told of each member.

    Raises:
        OSError: it cannot be written.
    """
    with archive.open("wb") as raw, ExitStack() as stack:
        hashing = _Hashing(raw)
        sink: Any = hashing
        if kind == "tar.gz":
            sink = stack.enter_context(gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=sink, mtime=0))
        with tarfile.open(fileobj=sink, mode="w|", bufsize=_COPY, format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(p for p in store.rglob("*") if p != store / MARKER):
                tar.add(path, arcname=f"{name}/{path.relative_to(store).as_posix()}", recursive=False, filter=_anonymous)
                advance(1)
        stack.close()
        return hashing.size, hashing.digest.hexdigest()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o755 if member.isdir() else 0o644
    return member
