"""Dask's performance report: written beside the output, with which it is published, and copied to where a person wants it."""

from __future__ import annotations

import shutil
from pathlib import Path

from geozarr_runner.publish.folder import Target
from stac_watch.model.errors import write_failure

SUFFIX = ".dask.html"
"""What is appended to the output's name."""


def place(target: Target) -> Path:
    """Returns where it is written first."""
    return target.partial_beside / f"{target.path.name}{SUFFIX}"


def prepare(asked: str) -> None:
    """Makes the folder of the file that was asked for: what cannot be written is said before anything is downloaded.

    Raises:
        CannotWrite: it cannot be written.
    """
    if asked and "://" not in asked:
        try:
            Path(asked).absolute().parent.mkdir(parents=True, exist_ok=True)
            Path(asked).touch()
        except OSError as error:
            raise write_failure(error, asked) from error


def hand_out(asked: str, target: Target) -> None:
    """Copies the report to the file or address that was asked for; where nothing was computed there is none.

    Raises:
        CannotWrite | Temporary | Refused: see `bucket.put_file`.
        OSError: the file cannot be written.
    """
    if not asked or not place(target).exists():
        return
    if "://" in asked:
        from geozarr_runner.publish import bucket as upload

        upload.put_file(place(target), asked)
    else:
        shutil.copyfile(place(target), asked)
