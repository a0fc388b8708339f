"""Chunks that were written beside an output are compared with the metadata that the converter wrote, and renamed into place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CODECS = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {
        "name": "blosc",
        "configuration": {"typesize": 4, "cname": "zstd", "clevel": 3, "shuffle": "shuffle", "blocksize": 0},
    },
]
"""What `create_uniform_encoding` of eopf-geozarr 0.12.0 writes for every array, whatever is asked."""


class Unexpected(Exception):  # noqa: N818  # never leaves the runner; reads as the sentence it is
    """The converter did not write the metadata that the chunks here were made for."""


def chunk_shape(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the chunk shape that an array's `zarr.json` states."""
    rows, columns = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    return rows, columns


def adopt(beside: Path, folder: Path, written: Mapping[str, tuple[tuple[int, int], tuple[int, int]]]) -> None:
    """Compares every array's metadata with what its chunks were made for, then renames the chunks into place.

    Raises:
        Unexpected: names the first array that differs, and in what.
    """
    for path, (shape, chunks) in sorted(written.items()):
        found = metadata(folder, path)
        wanted = {
            "node_type": "array", "shape": list(shape), "data_type": "float32", "fill_value": "NaN", "codecs": _CODECS,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        }  # fmt: skip
        for name, value in wanted.items():
            if found.get(name) != value:
                raise Unexpected(f"{path} has {name} {json.dumps(found.get(name))}, not {json.dumps(value)}")
        if (folder / path / "c").exists():
            raise Unexpected(f"{path} has chunks already: the converter computed what it was not to compute")
    for path in written:
        if (beside / path / "c").exists():  # absent when all of it is nodata
            (beside / path / "c").rename(folder / path / "c")


def metadata(folder: Path, path: str) -> dict[str, Any]:
    """Returns what the converter wrote of an array.

    Raises:
        Unexpected: it wrote no such array.
    """
    try:
        found: dict[str, Any] = json.loads((folder / path / "zarr.json").read_bytes())
    except FileNotFoundError as error:
        raise Unexpected(f"the converter wrote no {path}") from error
    return found
