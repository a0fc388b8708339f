"""The fast engine: eopf-geozarr writes structure, metadata and small arrays; the pixels of the big ones are written here.

The store is the same, bit for bit, as the converter writes alone, in less than half the time. No metadata is guessed: what the
converter wrote is compared with what was assumed here; if it differs, nothing is adopted and `convert` takes the stock engine.

Why: a stock conversion is three times the physical floor, because each of 3,000 chunks is handed from a dask worker to zarr's event
loop to a codec thread and back. Here one thread takes one band: decode, look up, compress, write; all of it outside the GIL.

    skeleton (a process of its own) ──────────────── structure, metadata, small arrays ─┐
    threads: band -> decode -> float32 -> chunks ──┬─ files in `<folder>-chunks` ───────┴─ compare, rename into place
                                                   └─ block means -> coarser levels
    Both may begin while the source is still being fetched: see `early`.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import product as cartesian
from pathlib import Path

import numcodecs
import numpy as np
from numcodecs import blosc

from geozarr_runner.convert.adopt import Unexpected, adopt, chunk_shape, metadata
from geozarr_runner.convert.arithmetic import Pixels, block_mean, lookup, precision
from geozarr_runner.convert.engine import in_order, injections
from geozarr_runner.source.product import OVERVIEWS, REFLECTANCE, Selection, ZarrArray
from geozarr_runner.verify.frames import checksum
from stac_watch.model.errors import Defect, Exit
from stac_watch.model.outcome import Check

type Verdicts = Callable[[], tuple[Check, ...]]
"""Waits for the metadata pass, and returns what the validators say of what it wrote."""

_BASE = f"{REFLECTANCE}/r60m"  #: what overviews are made of
_STRIP = 216  #: rows of a 10 m band averaged at a time: a multiple of 2 and 6, 19 MB as float64


def write(
    source: Path,
    selection: Selection,
    folder: Path,
    *,
    chunk: int,
    workers: int,
    advance: Callable[[int], None],
    begun: Begun | None = None,
) -> tuple[tuple[Check, ...], dict[str, int]]:
    """Writes the whole output; returns what the validators say of its metadata, and the checksums of the chunks written here.

    Args:
        source: Zarr v2 store, complete.
        selection: what to convert; `engine.reason_for_stock` had no objection.
        folder: the output.
        chunk: edge of the output's chunks in pixels.
        workers: bands that are worked on at a time.
        advance: told of each array.
        begun: what of it has begun already.

    Raises:
        Unexpected: the skeleton is not what the chunks were made for; `folder` is unusable then.
        RuntimeError | ValueError: a source chunk cannot be decoded.
        OSError: the folder cannot be written.
    """
    with nullcontext(begun) if begun else begin(source, selection, folder, chunk, workers) as work:
        coarse, writer = work.bands.finish(advance), work.bands.writer
        verdicts = work.finished()
        with ThreadPoolExecutor(workers, thread_name_prefix="overviews") as pool:
            made = [pool.submit(_write_overviews, writer, name, values, selection, folder) for name, values in coarse.items()]
            _all_or_first_error(pool, made)
        adopt(writer.folder, folder, writer.written)
        return verdicts, writer.frames


@dataclass(frozen=True)
class Begun:
    """A conversion under way."""

    finished: Verdicts
    bands: Bands


@contextmanager
def begin(source: Path, selection: Selection, folder: Path, chunk: int, workers: int) -> Iterator[Begun]:
    """Starts the metadata pass, and the threads that write a band when they are told that it is there; ends both with the block."""
    beside = folder.with_name(folder.name + "-chunks")
    try:
        with (
            _single_threaded_blosc(),
            metadata_pass(source, selection, folder, chunk) as finished,
            closing(Bands(Writer(source, beside, chunk), selection, workers)) as bands,
        ):
            yield Begun(finished, bands)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@dataclass
class Writer:
    """Turns bands into chunk files. One for all threads; the buffers are each thread's own."""

    source: Path
    folder: Path
    chunk: int
    written: dict[str, tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=dict)  # path -> shape, chunk shape
    frames: dict[str, int] = field(default_factory=dict)  # key of each chunk -> its checksum, taken before it is written
    called_off: threading.Event = field(default_factory=threading.Event)  # what is left is not written: all of it is thrown away
    _own: threading.local = field(default_factory=threading.local)

    def band(self, array: ZarrArray) -> Pixels:
        """Returns a whole source array, packed; valid until this thread asks for the next one."""
        whole = self._buffer("whole", array.shape, array.dtype)
        codec = numcodecs.get_codec(dict(array.compressor or {}))
        rows, columns = array.chunks
        for key, (i, j) in zip(array.chunk_keys(), cartesian(*map(range, array.grid)), strict=True):
            part = whole[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            try:
                data = (self.source / key).read_bytes()
            except FileNotFoundError:  # `stage` has judged that it is legal
                part[...] = array.fill_value or 0  # null reads as 0
                continue
            single = array.chunks == array.shape
            decoded = whole if single else self._buffer("chunk", array.chunks, array.dtype)
            codec.decode(data, out=decoded)
            if not single:
                part[...] = decoded[: part.shape[0], : part.shape[1]]
        return whole

    def cut(self, path: str, values: Pixels, table: Pixels | None, shape: tuple[int, int] | None = None) -> None:
        """Writes an array as chunk files: float32, edges padded with NaN, all-NaN chunks left out, as zarr does.

        Args:
            path: the array's path in the output.
            values: (y, x); integers to look up in `table`, or numbers to write as they are.
            table: float32 for each integer, see `lookup`.
            shape: of a chunk; default: `chunk` at most.
        """
        height, width = values.shape
        rows, columns = shape or (min(self.chunk, height), min(self.chunk, width))
        self.written[path] = ((height, width), (rows, columns))
        out = self._buffer("out", (rows, columns), "<f4")
        for i, j in cartesian(range(-(-height // rows)), range(-(-width // columns))):
            if self.called_off.is_set():
                return
            block = values[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            inner = out[: block.shape[0], : block.shape[1]]
            if inner.shape != out.shape:
                out[...] = np.nan
            if table is None:
                inner[...] = block
            elif inner.shape == out.shape:
                np.take(table, block, out=out, mode="wrap")  # 'raise' would buffer the output (numpy.take)
            else:
                inner[...] = table[block]
            if np.isnan(inner[0, 0]) and np.isnan(inner).all():
                continue
            target = self.folder / path / "c" / str(i) / str(j)
            target.parent.mkdir(parents=True, exist_ok=True)
            encoded = blosc.compress(out, b"zstd", 3, blosc.SHUFFLE, 0)
            self.frames[f"{path}/c/{i}/{j}"] = checksum(encoded)
            target.write_bytes(encoded)

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: str) -> Pixels:
        """Returns memory that this thread has used before: fresh pages for 240 MB bands cost a second per tile."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        held = getattr(self._own, name, None)
        if held is None or held.nbytes < size:
            held = np.empty(size, np.uint8)
            setattr(self._own, name, held)
        pixels: Pixels = held[:size].view(dtype).reshape(shape)
        return pixels


class Bands:
    """The native bands and those made of them, written by threads; each as soon as its source is there."""

    def __init__(self, writer: Writer, selection: Selection, workers: int) -> None:
        self.writer = writer
        self._selection, self._derived = selection, injections(selection)
        self._waiting = {array.path: array for array in in_order(selection)}
        self._coarse: dict[str, Pixels] = {}
        self._jobs: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="chunks")

    def begin(self, path: str) -> None:
        """Writes an array, once; nothing when it is none of the big ones."""
        if (array := self._waiting.pop(path, None)) is not None:
            self._jobs.append(self._pool.submit(self._write, array))

    def finish(self, advance: Callable[[int], None]) -> dict[str, Pixels]:
        """Writes what is left, waits for all, and returns what overviews are made of.

        Raises:
            RuntimeError | ValueError: a source chunk cannot be decoded.
            OSError: a file cannot be written.
        """
        for path in list(self._waiting):
            self.begin(path)
        for job in self._jobs:
            job.add_done_callback(lambda _: advance(1))
        _all_or_first_error(self._pool, self._jobs)
        return self._coarse

    def close(self) -> None:
        """Ends the threads, soon: no file is written after this."""
        self.writer.called_off.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _write(self, array: ZarrArray) -> None:
        chosen, table = self._selection.groups, lookup(array)
        packed = self.writer.band(array)
        if array.group in chosen:
            self.writer.cut(array.path, packed, table)
        made = [(path, factor) for path, (origin, factor) in self._derived.items() if origin.path == array.path]
        for path, values in _means(packed, array, made):
            if path.rpartition("/")[0] in chosen:
                self.writer.cut(path, values, None)
                self._keep(path, values)
        if array.group in chosen and array.group == _BASE:
            self._keep(array.path, packed.astype("<f4") if table is None else table[packed])

    def _keep(self, path: str, values: Pixels) -> None:
        group, _, name = path.rpartition("/")
        if self._selection.overviews and group == _BASE:
            self._coarse[name] = values


def _means(packed: Pixels, array: ZarrArray, made: list[tuple[str, int]]) -> Iterator[tuple[str, Pixels]]:
    """Yields the injected bands, float32; averaged as precisely as the converter does.

    A strip at a time, decoded once for all.
    """
    if not made:
        return
    table = lookup(array, precision(array))
    strips: list[list[Pixels]] = [[] for _ in made]
    for i in range(0, packed.shape[0], _STRIP):
        strip = packed[i : i + _STRIP]
        values = strip.astype("<f4") if table is None else np.take(table, strip, mode="wrap")
        for means, (_, factor) in zip(strips, made, strict=True):
            means.append(block_mean(values, factor).astype(np.float32))
    for means, (path, _) in zip(strips, made, strict=True):
        yield path, np.concatenate(means)


def _write_overviews(writer: Writer, name: str, values: Pixels, selection: Selection, folder: Path) -> None:
    """Writes the overviews of a 60 m band. Their chunks are whatever dask made of them: the metadata tells, nothing is guessed."""
    levels = {"r60m": values}
    for level in selection.overviews:
        parent, factor = OVERVIEWS[level]
        path = f"{REFLECTANCE}/{level}/{name}"
        shape = chunk_shape(metadata(folder, path))
        levels[level] = block_mean(levels[parent], factor, shape[1])
        writer.cut(path, levels[level], None, shape)


def _all_or_first_error(pool: ThreadPoolExecutor, futures: list[Future[None]]) -> None:
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    except BaseException:  # a signal: what has not begun does not begin
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown(wait=True, cancel_futures=True)
    for future in done:
        future.result()


@contextmanager
def metadata_pass(source: Path, selection: Selection, folder: Path, chunk: int) -> Iterator[Verdicts]:
    """Starts the metadata pass and yields the function that waits for it. It reads no big array: those need not be there yet.

    To be called by a thread that outlives it: the kernel ends the pass with the thread that started it.

    A process of its own: in a thread it holds the GIL against the chunk threads, 4 s of 17 (measured).
    """
    command = [sys.executable, "-m", "geozarr_runner.convert.skeleton", str(os.getpid())]
    with (
        tempfile.TemporaryFile() as said,  # a pipe that nobody reads yet could fill up
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said) as process,  # noqa: S603  # ourselves
    ):
        try:
            if process.stdin is None or process.stdout is None:
                raise Defect("a pipe that was asked for is not there")
            with suppress(BrokenPipeError), process.stdin as pipe:  # it ended at once: `finished` says why
                pickle.dump((source, selection, folder, chunk), pipe)
            answer = process.stdout

            def finished() -> tuple[Check, ...]:
                verdicts = answer.read()
                code = process.wait()
                if code == Exit.CANNOT_WRITE:
                    told = json.loads(verdicts)
                    raise OSError(told["errno"], told["strerror"], told["filename"])
                if code != 0:
                    said.seek(0)
                    reason = said.read().decode(errors="replace").strip()[-500:]
                    raise Unexpected(f"the metadata pass ended with {code}: {reason}")
                return tuple(Check(**verdict) for verdict in json.loads(verdicts))

            yield finished
        finally:
            process.kill()


@contextmanager
def _single_threaded_blosc() -> Iterator[None]:
    """One blosc context per thread; with its own threads, all bands would queue for one lock."""
    before, blosc.use_threads = blosc.use_threads, False
    try:
        yield
    finally:
        blosc.use_threads = before
