"""Chunks that were written beside an output are compared with the metadata there, and renamed into place."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from geozarr_runner.convert.encoding import Layout, Unexpected, metadata, require


@dataclass(frozen=True)
class Written:
    """An array whose chunks lie beside the output."""

    shape: tuple[int, int]
    chunks: tuple[int, int]
    stored: Layout
    sharded: bool = False


def adopt(beside: Path, folder: Path, written: Mapping[str, Written], *, instead: bool = False) -> None:
    """Compares every array's metadata with what its chunks were made for, then renames the chunks into place.

    Args:
        beside: where the chunks are.
        folder: the output.
        written: what of it they are.
        instead: they take the place of chunks that are there; else those are a fault.

    Raises:
        Unexpected: names the first array that differs, and in what.
    """
    for path, array in sorted(written.items()):
        require(path, metadata(folder, path), array.stored.words(array.shape, array.chunks, sharded=array.sharded))
        if (folder / path / "c").exists() and not instead:
            raise Unexpected(f"{path} has chunks already: the converter computed what it was not to compute")
    for path in written:
        if instead:
            shutil.rmtree(folder / path / "c", ignore_errors=True)
        if (beside / path / "c").exists():  # absent when all of it is nodata
            (beside / path / "c").rename(folder / path / "c")
