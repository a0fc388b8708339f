"""Bands become chunk files or shards: read a few rows at a time, looked up or taken as they are, compressed, written.

Little of a band is ever in memory: one row of its own chunks, and one row of the output's.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numcodecs
import numpy as np
from numcodecs import blosc

from geozarr_runner.convert.adopt import Written
from geozarr_runner.convert.arithmetic import Pixels
from geozarr_runner.convert.encoding import Layout
from geozarr_runner.convert.engine import is_simple
from geozarr_runner.source.product import ZarrArray
from geozarr_runner.verify.frames import checksum

_HEADER = 16  #: bytes of blosc's, the last four of them the length of all (blosc 1.x, README_CHUNK_FORMAT)
_ABSENT = 2**64 - 1  #: offset and length of a chunk that is not in its shard (sharding codec 1.0)


@dataclass
class Writer:
    """Reads bands and writes arrays. One for all threads; the buffers are each thread's own."""

    source: Path
    folder: Path
    chunk: int  # pixels of a chunk's edge
    stored: Mapping[str, Layout]  # how each array is to lie
    sharded: bool = False  # one file for each array
    written: dict[str, Written] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)  # key of each file -> its CRC32C, taken before it is written
    sums: dict[str, str] = field(default_factory=dict)  # idem, SHA-256: nobody has to read the file again for it
    finished: Callable[[str, int], None] = lambda _key, _crc: None  # told of each file that is written for good; any thread's
    called_off: threading.Event = field(default_factory=threading.Event)  # what is left is not written: all of it is thrown away
    _own: threading.local = field(default_factory=threading.local)

    def rows(self, array: ZarrArray) -> Iterator[Pixels]:
        """Yields a source array from the top, packed, so many rows at a time as a chunk has at most; each valid until the next."""
        if not is_simple(array):
            import zarr

            values = zarr.open_array(str(self.source / array.path), mode="r")[...]
            whole = np.asarray(values).astype(np.dtype(array.dtype).newbyteorder("<"), copy=False)
            yield from (whole[top : top + self.chunk] for top in range(0, len(whole), self.chunk))
            return
        codec = numcodecs.get_codec(dict(array.compressor or {}))
        (height, width), (rows, columns) = array.shape, array.chunks
        keys = iter(array.chunk_keys())
        for i in range(array.grid[0]):
            parts = [self._decoded(array, codec, next(keys), j) for j in range(array.grid[1])]
            top, end = i * rows, min(height, (i + 1) * rows)
            while top < end:
                below = min(end, (top // self.chunk + 1) * self.chunk)
                strips = [part[top - i * rows : below - i * rows] for part in parts]
                if len(strips) == 1:
                    yield strips[0][:, :width]
                else:
                    slab = self.buffer("slab", (below - top, width), array.dtype)
                    for j, strip in enumerate(strips):
                        slab[:, j * columns : (j + 1) * columns] = strip[:, : width - j * columns]
                    yield slab
                top = below

    def _decoded(self, array: ZarrArray, codec: numcodecs.abc.Codec, key: str, column: int) -> Pixels:
        decoded = self.buffer(f"chunk {column}", array.chunks, array.dtype)
        try:
            with (self.source / key).open("rb") as file:
                encoded = self.buffer("encoded", (os.fstat(file.fileno()).st_size,), "u1")
                encoded = encoded[: file.readinto(encoded)]
        except FileNotFoundError:  # `stage` has judged that it is legal
            decoded[...] = array.fill_value or 0  # null reads as 0
        else:
            if len(encoded) < _HEADER or int.from_bytes(encoded[12:_HEADER], "little") > len(encoded):  # blosc reads on regardless
                raise ValueError(f"{key} is shorter than its header says")
            codec.decode(encoded, out=decoded)
        return decoded

    def sheet(self, path: str, shape: tuple[int, int], table: Pixels | None = None, chunks: tuple[int, int] | None = None) -> Sheet:
        """Begins an array.

        Args:
            path: of the array in the output.
            shape: (y, x).
            table: the number to store for each integer that comes, see `lookup`; None = they are stored as they are.
            chunks: their shape; default: `chunk` at most.
        """
        height, width = shape
        how = self.stored[path]
        array = Written(shape, chunks or (min(self.chunk, height), min(self.chunk, width)), how, self.sharded)
        self.written[path] = array
        return Sheet(self, path, array, table)

    def cut(self, path: str, values: Pixels, chunks: tuple[int, int] | None = None) -> None:
        """Writes a whole array, (y, x)."""
        sheet = self.sheet(path, values.shape, chunks=chunks)
        sheet.add(values)
        sheet.end()

    def finish(self, key: str, crc: int, digest: str) -> None:
        """Takes down a file that is written for good."""
        self.frames[key], self.sums[key] = crc, digest
        self.finished(key, crc)

    def buffer(self, name: str, shape: tuple[int, ...], dtype: str) -> Pixels:
        """Returns memory that this thread has used before: fresh pages for bands of 240 MB cost a second per tile."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        held = getattr(self._own, name, None)
        if held is None or held.nbytes < size:
            held = np.empty(size, np.uint8)
            setattr(self._own, name, held)
        pixels: Pixels = held[:size].view(dtype).reshape(shape)
        return pixels


class Rows:
    """Hands rows on in groups of a number; those at the end may be fewer."""

    def __init__(self, number: int, take: Callable[[Pixels], None]) -> None:
        self._number, self._take = number, take
        self._held: Pixels | None = None
        self._filled = 0

    def add(self, values: Pixels) -> None:
        """Takes rows, (y, x)."""
        while len(values):
            number = min(self._number - self._filled, len(values))
            if number == self._number:
                self._take(values[:number])
            else:
                if self._held is None:
                    self._held = np.empty((self._number, values.shape[1]), values.dtype)
                self._held[self._filled : self._filled + number] = values[:number]
                self._filled += number
                if self._filled == self._number:
                    self._take(self._held)
                    self._filled = 0
            values = values[number:]

    def end(self) -> None:
        """Hands on what is left, and holds nothing any more: who takes rows may hold this, and nobody collects such a ring soon."""
        if self._filled and self._held is not None:
            self._take(self._held[: self._filled])
        self._held, self._filled = None, 0


class Sheet(Rows):
    """One array on its way to the disk. Edges are padded with the fill value, and chunks of nothing else left out, as zarr does."""

    def __init__(self, writer: Writer, path: str, array: Written, table: Pixels | None) -> None:
        super().__init__(array.chunks[0], self._write)
        self._writer, self._path, self._array, self._table = writer, path, array, table
        self._row = 0
        grid = [-(-n // chunk) for n, chunk in zip(array.shape, array.chunks, strict=True)]
        self._shard = _Shard(writer, f"{path}/c/0/0", (grid[0], grid[1])) if array.sharded else None

    def end(self) -> None:
        """Writes what is left."""
        super().end()
        if self._shard is not None:
            self._shard.end(whole=not self._writer.called_off.is_set())

    def _write(self, values: Pixels) -> None:
        (rows, columns), how = self._array.chunks, self._array.stored
        out = self._writer.buffer("out", (rows, columns), how.dtype)
        for j in range(-(-values.shape[1] // columns)):
            if self._writer.called_off.is_set():
                return
            block = values[:, j * columns : (j + 1) * columns]
            self._fill(out, block)
            if _is_nothing(out[: block.shape[0], : block.shape[1]], how.fill):
                continue
            shuffle = blosc.SHUFFLE if how.shuffled else blosc.NOSHUFFLE
            self._keep(j, blosc.compress(out, b"zstd", how.level, shuffle, how.block))
        self._row += 1

    def _fill(self, out: Pixels, block: Pixels) -> None:
        inner = out[: block.shape[0], : block.shape[1]]
        if inner.shape != out.shape:
            out[...] = self._array.stored.fill
        if self._table is None:
            inner[...] = block
        elif inner.shape == out.shape:
            np.take(self._table, block, out=out, mode="wrap")  # 'raise' would buffer the output (numpy.take)
        else:
            inner[...] = self._table[block]

    def _keep(self, column: int, encoded: bytes) -> None:
        if self._shard is not None:
            self._shard.add((self._row, column), encoded)
            return
        key = f"{self._path}/c/{self._row}/{column}"
        target = self._writer.folder / key
        target.parent.mkdir(parents=True, exist_ok=True)
        crc, digest = checksum(encoded), hashlib.sha256(encoded).hexdigest()
        target.write_bytes(encoded)
        self._writer.finish(key, crc, digest)


class _Shard:
    """A file that holds all chunks of an array, in order, and at its end where each begins (sharding codec 1.0)."""

    def __init__(self, writer: Writer, key: str, grid: tuple[int, int]) -> None:
        self._writer, self._key = writer, key
        self._index = np.full((*grid, 2), _ABSENT, "<u8")
        self._file: BinaryIO | None = None
        self._size = self._sum = 0
        self._digest = hashlib.sha256()

    def add(self, place: tuple[int, int], encoded: bytes) -> None:
        self._index[place] = self._size, len(encoded)
        self._put(encoded)

    def end(self, *, whole: bool) -> None:
        """Closes the file, if there is one: an array of nothing has none.

        Args:
            whole: all chunks are in it.
        """
        if self._file is None:
            return
        with self._file:
            if whole:
                index = self._index.tobytes()
                self._put(index + checksum(index).to_bytes(4, "little"))
        if whole:
            self._writer.finish(self._key, self._sum, self._digest.hexdigest())

    def _put(self, data: bytes) -> None:
        if self._file is None:
            target = self._writer.folder / self._key
            target.parent.mkdir(parents=True, exist_ok=True)
            self._file = target.open("wb", buffering=0)
        self._file.write(data)
        self._sum = google_crc32c.extend(self._sum, data)
        self._digest.update(data)
        self._size += len(data)


def _is_nothing(values: Pixels, fill: float) -> bool:
    if fill != fill:  # NaN
        return bool(np.isnan(values[0, 0]) and np.isnan(values).all())
    return bool(values[0, 0] == fill and (values == fill).all())
