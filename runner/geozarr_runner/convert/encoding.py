"""How the arrays that are written here lie in an output, in the words of their metadata.

The converter writes the metadata of an array of float32 with NaN and its own codec (`STOCK`), whatever is asked. What this module
says instead is put into its documents, the consolidated ones too, once they are known to be what they were thought to be.

Sources: Zarr v3 core, blosc codec 1.0, sharding codec 1.0; CF 1.11, 8.1 (packed data) and 2.5.1 (missing data).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geozarr_runner.convert.engine import Options, injections, missing_of, written_arrays
from geozarr_runner.source.product import OVERVIEWS, REFLECTANCE, Selection, ZarrArray
from stac_watch.model.forms import Encoding

_CF = ("scale_factor", "add_offset", "_FillValue", "missing_value")
_NOT_A_NUMBER = "AAAAAAAA+H8="
"""NaN, as xarray writes the missing value of an array of floats: eight bytes in base64."""


class Unexpected(Exception):  # noqa: N818  # never leaves the runner; reads as the sentence it is
    """The converter did not write the metadata that the chunks here were made for."""


@dataclass(frozen=True)
class Layout:
    """The numbers of an array, and how they are compressed."""

    dtype: str = "<f4"
    fill: int | float = math.nan  # what an absent chunk is, and what lies beyond the edge
    level: int = (
        1  # of zstd; with blocks of this size it finds as much as level 3 in small ones, in two fifths of the time (measured)
    )
    block: int = 2**20  # bytes that blosc compresses at a time; 0 = what it chooses: a few dozen KiB
    attributes: Mapping[str, Any] = field(default_factory=lambda: {"_FillValue": _NOT_A_NUMBER})  # of CF

    @property
    def shuffled(self) -> bool:
        """Says whether there is more than one byte to shuffle."""
        return np.dtype(self.dtype).itemsize > 1

    def codecs(self) -> list[dict[str, Any]]:
        """Returns what a chunk is encoded with."""
        size = np.dtype(self.dtype).itemsize
        order = {"name": "bytes", "configuration": {"endian": "little"}} if self.shuffled else {"name": "bytes"}
        blosc = {
            "typesize": size, "cname": "zstd", "clevel": self.level, "shuffle": "shuffle" if self.shuffled else "noshuffle",
            "blocksize": self.block,
        }  # fmt: skip
        return [order, {"name": "blosc", "configuration": blosc}]

    def words(self, shape: tuple[int, ...], chunks: tuple[int, ...], *, sharded: bool) -> dict[str, Any]:
        """Returns what the metadata of such an array says; a shard holds all of it."""
        codecs, grid = self.codecs(), list(chunks)
        if sharded:
            grid = [math.ceil(n / chunk) * chunk for n, chunk in zip(shape, chunks, strict=True)]
            index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
            inner = {"chunk_shape": list(chunks), "codecs": codecs, "index_codecs": index, "index_location": "end"}
            codecs = [{"name": "sharding_indexed", "configuration": inner}]
        return {
            "node_type": "array", "shape": list(shape), "data_type": str(np.dtype(self.dtype).newbyteorder("=")),
            "fill_value": "NaN" if math.isnan(self.fill) else self.fill, "codecs": codecs,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": grid}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        }  # fmt: skip


STOCK = Layout(level=3, block=0)
"""What `create_uniform_encoding` of eopf-geozarr 0.12.0 writes for every array."""


def stored(selection: Selection, options: Options, level: str) -> dict[str, Layout]:
    """Returns how each array lies that is written here: native ones, injected ones, overviews."""
    arrays = written_arrays(selection, options)
    found = {a.path: _stored(a, options) for a in arrays.values() if a.group in selection.groups}
    for path, (origin, _) in injections(selection, arrays, level).items():
        if path.rpartition("/")[0] in selection.groups:
            found[path] = _stored(origin, options)
    base = {path.rpartition("/")[2]: how for path, how in found.items() if path.rpartition("/")[0] == f"{REFLECTANCE}/r60m"}
    for coarse in (level for level in OVERVIEWS if level in selection.overviews):
        found |= {f"{REFLECTANCE}/{coarse}/{name}": how for name, how in base.items()}
    return found


def _stored(array: ZarrArray, options: Options) -> Layout:
    if options.encoding is not Encoding.PACKED:
        return STOCK if options.encoding is Encoding.STOCK else Layout()
    missing, attributes = missing_of(array), {name: array.attributes[name] for name in _CF if name in array.attributes}
    if missing is not None:
        attributes["_FillValue"] = missing
    return Layout(np.dtype(array.dtype).newbyteorder("<").str, missing or 0, attributes=attributes)


def chunk_shape(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the shape of an array's chunks, of those in a shard where it has one, as its `zarr.json` states it."""
    first = metadata["codecs"][0]
    grid = first if first["name"] == "sharding_indexed" else metadata["chunk_grid"]
    rows, columns = grid["configuration"]["chunk_shape"]
    return rows, columns


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


def require(path: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Compares an array's metadata with what it has to say.

    Raises:
        Unexpected: names what differs.
    """
    for name, value in wanted.items():
        if found.get(name) != value:
            raise Unexpected(f"{path} has {name} {json.dumps(found.get(name))}, not {json.dumps(value)}")


def declare(folder: Path, arrays: Mapping[str, Layout], *, sharded: bool) -> None:
    """Writes into the converter's metadata how these arrays lie.

    Raises:
        Unexpected: it is not the metadata that the converter was thought to write; names the array and what differs.
    """
    made = {
        path: dict(_declared(path, metadata(folder, path), how, sharded=sharded)) for path, how in arrays.items() if how != STOCK
    }
    for path, document in made.items():
        _write(folder / path, document)
    for holder in ("", REFLECTANCE):
        if made and (folder / holder / "zarr.json").is_file():
            document = metadata(folder, holder)
            below = document.get("consolidated_metadata", {}).get("metadata", {})
            copies = {path.removeprefix(f"{holder}/") if holder else path: words for path, words in made.items()}
            below.update({path: words for path, words in copies.items() if path in below})
            _write(folder / holder, document)


def _declared(path: str, document: dict[str, Any], how: Layout, *, sharded: bool) -> Iterator[tuple[str, Any]]:
    """Yields the names and values of an array's document, in its own order."""
    shape, chunks = tuple(document["shape"]), chunk_shape(document)
    require(path, document, STOCK.words(shape, chunks, sharded=sharded))
    words = how.words(shape, chunks, sharded=sharded)
    for name, value in document.items():
        if name == "attributes":
            yield name, {k: v for k, v in value.items() if k not in _CF} | dict(how.attributes)
        else:
            yield name, words.get(name, value)


def _write(node: Path, document: Mapping[str, Any]) -> None:
    (node / "zarr.json").write_text(json.dumps(document, indent=2))
