"""The checksums of an output, beside it: what `stac-watch audit --deep` and `sha256sum --check` compare it with, years later."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stac_watch.model import checksums
from stac_watch.model.outcome import MARKER


def read(store: Path) -> dict[str, str]:
    """Returns the SHA-256 of each object of a store, the marker's not.

    Raises:
        OSError: one cannot be read.
    """
    found = {}
    for path in sorted(p for p in store.rglob("*") if p != store / MARKER and p.is_file()):
        with path.open("rb") as file:
            found[path.relative_to(store).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def write(beside: Path, name: str, sums: dict[str, str]) -> Path:
    """Writes them under the name that the output's companions have, and returns the file."""
    path = beside / f"{name}{checksums.SUFFIX}"
    path.write_text(checksums.as_text(sums))
    return path
