"""The one module of `model` that touches a disk, for both programs: a file replaced at once, a folder, what cannot be read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from stac_watch.model.errors import CannotWrite, cannot_write


def replace_file(path: Path, content: str | bytes, *, sync: bool = False) -> None:
    """Writes a file under its final name: a reader sees the old content or the new one, never a part.

    The new content lies beside it for a moment, under a hidden name of this process, and is removed when anything fails.

    Args:
        path: the file; its folder must be there.
        content: text is written as UTF-8.
        sync: whether it must also survive the machine: of use where something is concluded from the file's existence.

    Raises:
        OSError: it cannot be written; the old content is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # on a read-only file system removing fails like writing
            temporary.unlink(missing_ok=True)
        raise


def fault(error: OSError | ValueError) -> str:
    """Returns why a text file that a person named cannot be read."""
    return getattr(error, "strerror", None) or "it is not text in UTF-8"


def make_folder(folder: Path) -> None:
    """Makes a folder and writes a file in it, to know.

    Raises:
        CannotWrite: one of the two failed.
    """
    probe = folder / ".stac-watch-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise cannot_write(error, folder) or CannotWrite(
            f"cannot write {folder}: {error.strerror}", hint="choose another folder in the configuration"
        ) from error
