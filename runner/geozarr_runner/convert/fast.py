"""The fast engine: eopf-geozarr writes structure, metadata and small arrays; the pixels of the big ones are written here.

The store is the same, bit for bit, as the converter writes alone, in less than half the time. No metadata is guessed: what the
converter wrote is compared with what was assumed here; if it differs, nothing is adopted and `convert` takes the stock engine.

Why: a stock conversion is three times the physical floor, because each of 3,000 chunks is handed from a dask worker to zarr's event
loop to a codec thread and back. Here one thread takes one band: decode, look up, compress, write; all of it outside the GIL.

    skeleton (a process of its own) ──────────────── structure, metadata, small arrays ─┐
    threads: band -> decode -> float32 -> chunks ──┬─ files in `<folder>-chunks` ───────┴─ compare, rename into place
                                                   └─ block means -> coarser levels
    Both may begin while the source is still being fetched: see `early`. A file that is finished may be sent where the output goes
    while the rest is made: it is offered with the digests that were taken when it was encoded.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geozarr_runner.convert.adopt import adopt
from geozarr_runner.convert.arithmetic import Pixels, block_mean, lookup, packed_mean, precision
from geozarr_runner.convert.chunks import Rows, Writer
from geozarr_runner.convert.encoding import Unexpected, chunk_shape, metadata, stored
from geozarr_runner.convert.engine import Options, in_order, injections, missing_of, written_arrays
from geozarr_runner.request import Offer
from geozarr_runner.source.product import OVERVIEWS, REFLECTANCE, Selection, ZarrArray
from geozarr_runner.source.threads import single_threaded_blosc
from stac_watch.model.errors import Defect, Exit
from stac_watch.model.forms import Encoding
from stac_watch.model.outcome import Check

type Verdicts = Callable[[], tuple[Check, ...]]
"""Waits for the metadata pass, and returns what the validators say of what it wrote."""

_BASE = f"{REFLECTANCE}/r60m"  #: what overviews are made of
_STRIP = 216  #: rows of a 10 m band averaged at a time: a multiple of 2 and 6, 19 MB as float64


def write(
    source: Path,
    selection: Selection,
    folder: Path,
    options: Options,
    *,
    level: str,
    advance: Callable[[int], None],
    begun: Begun | None = None,
    offer: Offer | None = None,
) -> tuple[tuple[Check, ...], Writer]:
    """Writes the whole output; returns what the validators say of its metadata, and who wrote: it knows the files' checksums.

    Args:
        source: Zarr v2 store, complete.
        selection: what to convert; `engine.reason_for_stock` had no objection.
        folder: the output.
        options: the recipe.
        level: the product's, `L1C` or `L2A`.
        advance: told of each array.
        begun: what of it has begun already.
        offer: takes each file that is finished, where nothing has begun.

    Raises:
        Unexpected: the skeleton is not what the chunks were made for; `folder` is unusable then.
        RuntimeError | ValueError: a source chunk cannot be decoded.
        OSError: the folder cannot be written.
    """
    with nullcontext(begun) if begun else begin(source, selection, folder, options, level, offer) as work:
        work.bands.finish(advance)
        verdicts = work.finished()
        work.bands.overviews(folder)
        adopt(work.bands.writer.folder, folder, work.bands.writer.written)
        return verdicts, work.bands.writer


def recode(source: Path, selection: Selection, folder: Path, options: Options, *, level: str) -> None:
    """Writes the chunks of a stock conversion anew, as its metadata was declared meanwhile (`encoding.declare`).

    Raises:
        Unexpected | RuntimeError | ValueError | OSError: see `write`.
    """
    with _beside(folder) as beside, single_threaded_blosc():
        writer = Writer(source, beside, options.spatial_chunk, stored(selection, options, level), options.sharding)
        with closing(Bands(writer, selection, options, level)) as bands:
            bands.finish(lambda _: None)
            bands.overviews(folder)
        adopt(beside, folder, writer.written, instead=True)


@dataclass(frozen=True)
class Begun:
    """A conversion under way."""

    finished: Verdicts
    bands: Bands


@contextmanager
def begin(
    source: Path, selection: Selection, folder: Path, options: Options, level: str, offer: Offer | None = None
) -> Iterator[Begun]:
    """Starts the metadata pass, and the threads that write a band when they are told that it is there; ends both with the block."""
    with (
        _beside(folder) as beside,
        single_threaded_blosc(),
        metadata_pass(source, selection, folder, options, level) as finished,
    ):
        writer = Writer(source, beside, options.spatial_chunk, stored(selection, options, level), options.sharding)
        if offer is not None:
            writer.finished = lambda key, crc: offer(key, beside / key, folder / key, crc=crc)
        with closing(Bands(writer, selection, options, level)) as bands:
            yield Begun(finished, bands)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yields the folder for chunks, which is gone afterwards."""
    beside = folder.with_name(folder.name + "-chunks")
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


class Bands:
    """The native bands and those made of them, written by threads; each as soon as its source is there."""

    def __init__(self, writer: Writer, selection: Selection, options: Options, level: str) -> None:
        self.writer = writer
        self._selection, self._packed = selection, options.encoding is Encoding.PACKED
        arrays = written_arrays(selection, options)
        self._derived = injections(selection, arrays, level)
        self._waiting = {a.path: a for a in in_order(arrays, {origin.path for origin, _ in self._derived.values()})}
        self._coarse: dict[str, Coarse] = {}
        self._jobs: list[Future[None]] = []
        self._workers = options.workers
        self._pool = ThreadPoolExecutor(options.workers, thread_name_prefix="chunks")

    def begin(self, path: str) -> None:
        """Writes an array, once; nothing when it is none of the big ones."""
        if (array := self._waiting.pop(path, None)) is not None:
            self._jobs.append(self._pool.submit(self._write, array))

    def finish(self, advance: Callable[[int], None]) -> None:
        """Writes what is left, and waits for all.

        Raises:
            RuntimeError | ValueError: a source chunk cannot be decoded.
            OSError: a file cannot be written.
        """
        for path in list(self._waiting):
            self.begin(path)
        for job in self._jobs:
            job.add_done_callback(lambda _: advance(1))
        _all_or_first_error(self._pool, self._jobs)

    def overviews(self, folder: Path) -> None:
        """Writes the overviews of the 60 m bands. Their chunks are whatever dask made of them: the metadata tells."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="overviews") as pool:
            _all_or_first_error(pool, [pool.submit(self._overviews, name, base, folder) for name, base in self._coarse.items()])
        self._coarse.clear()  # what this is part of lasts until the output is verified

    def close(self) -> None:
        """Ends the threads, soon: no file is written after this."""
        self.writer.called_off.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _write(self, array: ZarrArray) -> None:
        derived = [(path, factor) for path, (origin, factor) in self._derived.items() if origin.path == array.path]
        made = [_Made(self, array, *one) for one in derived if one[0].rpartition("/")[0] in self._selection.groups]
        table = None if self._packed else lookup(array)
        chosen, kept = array.group in self._selection.groups, Retained(self.is_base(array.path))
        sheet = self.writer.sheet(array.path, (array.shape[0], array.shape[1]), table) if chosen else None
        for rows in self.writer.rows(array) if chosen or made else ():
            if sheet is not None:
                sheet.add(rows)
                kept.add(rows if self._packed else rows.astype("<f4") if table is None else table[rows])
            for one in made:
                one.strips.add(rows)
        if sheet is not None:
            sheet.end()
            self._keep(array.path, kept, array)
        for one in made:
            one.end()
            self._keep(one.path, one.kept, array)

    def is_base(self, path: str) -> bool:
        """Says whether overviews are made of an array of the output."""
        return bool(self._selection.overviews) and path.rpartition("/")[0] == _BASE

    def _keep(self, path: str, kept: Retained, origin: ZarrArray) -> None:
        if kept.wanted:
            self._coarse[path.rpartition("/")[2]] = Coarse(kept.whole(), missing_of(origin) if self._packed else None)

    def _overviews(self, name: str, base: Coarse, folder: Path) -> None:
        levels = {"r60m": base.values}
        for level in self._selection.overviews:
            parent, factor = OVERVIEWS[level]
            path = f"{REFLECTANCE}/{level}/{name}"
            shape = chunk_shape(metadata(folder, path))
            if self._packed:
                levels[level] = packed_mean(levels[parent], factor, base.missing)
            else:
                levels[level] = block_mean(levels[parent], factor, shape[1])
            self.writer.cut(path, levels[level], shape)

    def mean_of(self, array: ZarrArray, factor: int) -> Callable[[Pixels], Pixels]:
        """Returns what averages packed rows of a band: float32, as precisely as the converter does, or packed numbers."""
        if self._packed:
            missing = missing_of(array)
            return lambda rows: packed_mean(rows, factor, missing)
        table = lookup(array, precision(array))

        def mean(rows: Pixels) -> Pixels:
            values = rows.astype("<f4") if table is None else np.take(table, rows, mode="wrap")
            return block_mean(values, factor).astype(np.float32)

        return mean


@dataclass(frozen=True)
class Coarse:
    """A whole 60 m band, of which overviews are made."""

    values: Pixels
    missing: int | None  # the packed number that means "no data"


class Retained:
    """What is kept of a band while it is written: all of it, or nothing."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self._parts: list[Pixels] = []

    def add(self, rows: Pixels) -> None:
        """Takes a copy of the next rows."""
        if self.wanted:
            self._parts.append(rows.copy())

    def whole(self) -> Pixels:
        """Returns all rows, once."""
        rows = np.concatenate(self._parts)
        self._parts.clear()
        return rows


class _Made:
    """A band that is made of a finer one, a strip at a time."""

    def __init__(self, bands: Bands, array: ZarrArray, path: str, factor: int) -> None:
        self.path = path
        self.kept = Retained(bands.is_base(path))
        self._mean = bands.mean_of(array, factor)
        self._sheet = bands.writer.sheet(path, (array.shape[0] // factor, array.shape[1] // factor))
        self.strips = Rows(_STRIP, self._add)

    def _add(self, strip: Pixels) -> None:
        rows = self._mean(strip)
        self.kept.add(rows)
        self._sheet.add(rows)

    def end(self) -> None:
        """Writes what is left."""
        self.strips.end()
        self._sheet.end()


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
def metadata_pass(source: Path, selection: Selection, folder: Path, options: Options, level: str) -> Iterator[Verdicts]:
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
                pickle.dump((source, selection, folder, options, level), pipe)
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
