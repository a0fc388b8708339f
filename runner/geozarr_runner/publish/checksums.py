"""The checksums of an output, beside it: what `stac-watch audit --deep` and `sha256sum --check` compare it with, years later."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from stac_watch.model import checksums
from stac_watch.model.outcome import MARKER


def read(store: Path, known: Mapping[str, str]) -> dict[str, str]:
    """Returns the SHA-256 of each object of a store, the marker's not.

    Args:
        store: its folder.
        known: those that were taken when the object was written.

    Raises:
        OSError: one cannot be read.
    """
    found = {}
    for path in sorted(p for p in store.rglob("*") if p != store / MARKER and p.is_file()):
        name = path.relative_to(store).as_posix()
        found[name] = known.get(name) or digest(path)
    return found


def digest(path: Path) -> str:
    """Returns a file's SHA-256, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(beside: Path, name: str, sums: dict[str, str]) -> Path:
    """Writes them under the name that the output's companions have, and returns the file."""
    path = beside / f"{name}{checksums.SUFFIX}"
    path.write_text(checksums.as_text(sums))
    return path
