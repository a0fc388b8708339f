"""Brings the objects that a conversion needs onto the work volume, each whole or not at all, and accounts for every one.

What an earlier attempt left is not fetched again; an absent chunk is nodata only where nobody sees data; see `complete`.

Why stage at all: the converter reads some chunks three to five times (4.9x the bytes, measured), takes a missing chunk for fill
values without a word, and never tries again. Staged, network faults end before the conversion begins.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

from geozarr_runner.source import complete
from geozarr_runner.source.complete import Allowance, Odd
from geozarr_runner.source.preflight import Plan
from geozarr_runner.source.product import Selection, ZarrArray
from geozarr_runner.source.threads import CONNECTIONS, most_telling
from stac_watch.model.errors import InputError, SourceNotThere, write_failure
from stac_watch.model.files import replace_file
from stac_watch.model.outcome import Check

_FIRST_LOOK = Allowance()
_BLOSC_HEADER = struct.Struct("<4B3I")  # version, versionlz, flags, typesize, nbytes, blocksize, cbytes (c-blosc README_HEADER)


@dataclass(frozen=True)
class Staged:
    """The source as the converter will read it."""

    root: Path
    absent: frozenset[str]  # chunk keys that are legally absent: all fill
    objects: int
    bytes: int  # fetched by this attempt
    odd: tuple[Odd, ...] = ()  # absent chunks that others see data in, and that a person takes for nodata

    allow_empty: bool = False

    @property
    def completeness(self) -> Check:
        """What became of the chunks that are not there."""
        if self.odd:
            detail = f"{len(self.odd)} chunks are missing and taken for nodata, as was asked: {self.odd[0].key} (…)"
        else:
            detail = f"{self.objects} chunks are there, {len(self.absent)} are absent where no array sees data"
        return Check("completeness", "passed", detail)


@dataclass(frozen=True)
class Eager:
    """Who works with what is there while the rest is on its way; told in the caller's thread, of arrays by their paths."""

    rank: Callable[[str], int]  # the lowest is fetched first
    begin: Callable[[Path], None]  # all of rank 0 is there; once
    arrived: Callable[[str], None]  # after that: all chunks of an array are there, or absent


def stage(
    plan: Plan,
    folder: Path,
    *,
    advance: Callable[[int], None],
    called_off: threading.Event,
    eager: Eager | None = None,
    looked: Allowance = _FIRST_LOOK,
) -> Staged:
    """Makes the product local. A local product is used where it lies.

    Args:
        plan: what to bring.
        folder: where the copy lives; what is there already is kept when it belongs to the same metadata.
        advance: told of every object that is there.
        called_off: ends the downloads early.
        eager: who is told of what has arrived. Nobody is when the product is local already.
        looked: how absent chunks are taken.

    Raises:
        SourceNotThere: chunks are missing that cannot be empty: still being uploaded.
        InputError: an object is corrupt at the source.
        Temporary | Refused | CannotWrite: see `source.classify`.
    """
    if plan.source.local is not None:
        return _in_place(plan, plan.source.local, advance, looked)
    root = folder / "product.zarr"
    prepare(plan, root)
    by_key = {key: array for array in plan.selection.arrays for key in array.chunk_keys()}
    wanted = [key for key in by_key if not (root / key).exists()]
    advance(len(by_key) - len(wanted))
    if eager is not None:
        wanted.sort(key=lambda key: eager.rank(by_key[key].path))
    fetched, absent = _fetch_all(plan, root, by_key, wanted, advance, called_off, eager)
    odd = complete.require(plan.selection, absent, root, plan.source.url, looked)
    return Staged(root, absent, len(by_key) - len(absent), fetched, odd, looked.allow_empty)


def corrupt(selection: Selection, root: Path) -> list[str]:
    """Returns the staged chunks that cannot be decoded. Reads everything: for use after a failure."""
    return [key for array in selection.arrays for key in array.chunk_keys() if _undecodable(array, root / key)]


def discard(staged: Staged, keys: Iterable[str]) -> None:
    """Removes staged chunks, so that the next staging fetches them again."""
    for key in keys:
        (staged.root / key).unlink(missing_ok=True)


def read_chunk(array: ZarrArray, path: Path) -> np.ndarray[Any, Any]:
    """Returns one decoded chunk, in its full chunk shape.

    Raises:
        RuntimeError | ValueError | TypeError: it cannot be decoded.
        OSError: it cannot be read.
    """
    data: Any = path.read_bytes()
    if array.compressor is not None:
        data = numcodecs.get_codec(dict(array.compressor)).decode(data)
    for codec in reversed(array.filters):
        data = numcodecs.get_codec(dict(codec)).decode(data)
    return np.frombuffer(data, dtype=array.dtype).reshape(array.chunks)


def whole(array: ZarrArray, path: Path) -> bool:
    """Says whether a stored chunk has the length that it itself, and its array, state. Reads 16 bytes.

    A chunk that decodes to less than its array's chunk would leave pixels of another band in a buffer that is used again.
    """
    size = path.stat().st_size
    if array.filters:
        return size > 0
    if array.compressor is None:
        return size == int(np.prod(array.chunks)) * array.itemsize
    if array.compressor.get("id") != "blosc":
        return size > 0
    return blosc_lengths(path) == (int(np.prod(array.chunks)) * array.itemsize, size)


def blosc_lengths(path: Path) -> tuple[int, int] | None:
    """Returns the decoded and the stored length that a blosc frame's header states; None when it is too short to have one."""
    with path.open("rb") as file:
        header = file.read(_BLOSC_HEADER.size)
    if len(header) < _BLOSC_HEADER.size:
        return None
    *_, decoded, _, stored = _BLOSC_HEADER.unpack(header)
    return decoded, stored


def _in_place(plan: Plan, root: Path, advance: Callable[[int], None], looked: Allowance) -> Staged:
    absent, cut = set(), []
    for array in plan.selection.arrays:
        for key in array.chunk_keys():
            if not (root / key).exists():
                absent.add(key)
            elif not whole(array, root / key):
                cut.append(key)
            advance(1)
    if cut:
        raise corrupt_source(cut, plan.source.url)
    odd = complete.require(plan.selection, frozenset(absent), root, plan.source.url, looked)
    return Staged(root, frozenset(absent), len(plan.selection.keys) - len(absent), 0, odd, looked.allow_empty)


def prepare(plan: Plan, root: Path) -> None:
    """Makes the folder, and empties it when what it holds belongs to other metadata: the product was replaced meanwhile."""
    stored = root / ".zmetadata"
    try:
        if stored.exists() and stored.read_bytes() == plan.metadata:
            return
        shutil.rmtree(root, ignore_errors=True)
        for key, document in json.loads(plan.metadata)["metadata"].items():  # zarr asks for the single documents too
            path = root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document))
        replace_file(stored, plan.metadata, sync=True)  # last: where it lies, the rest is there
    except OSError as error:
        raise write_failure(error, root) from error


def _fetch_all(
    plan: Plan,
    root: Path,
    by_key: dict[str, ZarrArray],
    wanted: list[str],
    advance: Callable[[int], None],
    called_off: threading.Event,
    eager: Eager | None,
) -> tuple[int, frozenset[str]]:
    def one(key: str) -> tuple[str, int | None]:
        if called_off.is_set():
            return key, 0
        size = _fetch(plan, by_key[key], key, root)
        advance(1)
        return key, size

    pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="stage")
    try:
        futures = [pool.submit(one, key) for key in wanted]
        if eager is not None:
            _tell(eager, root, {f: by_key[key].path for f, key in zip(futures, wanted, strict=True)}, called_off)
        _, waiting = wait(futures, return_when=FIRST_EXCEPTION)
        if waiting:
            called_off.set()  # one failed: no thread starts, or waits for, another object
        pool.shutdown(wait=True, cancel_futures=True)
    except BaseException:  # a signal: the process ends at once, whatever a silent connection is doing
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    failures = [e for f in futures if not f.cancelled() and (e := f.exception()) is not None]
    if failures:
        raise most_telling(failures)
    results = [f.result() for f in futures]
    return sum(size or 0 for _, size in results), frozenset(key for key, size in results if size is None)


def _tell(eager: Eager, root: Path, fetched: dict[Future[tuple[str, int | None]], str], called_off: threading.Event) -> None:
    """Tells of every array whose objects are there, until all are or one cannot be had."""
    there, late = wait([f for f, path in fetched.items() if not eager.rank(path)], return_when=FIRST_EXCEPTION)
    if late or any(f.exception() is not None for f in there):
        return
    eager.begin(root)
    left = Counter(fetched.values())
    for future in as_completed(fetched):
        if called_off.is_set() or future.exception() is not None:
            return
        left[fetched[future]] -= 1
        if not left[fetched[future]]:
            eager.arrived(fetched[future])


def _fetch(plan: Plan, array: ZarrArray, key: str, root: Path) -> int | None:
    """Fetches one object under a temporary name and renames it; None when it is not there. A cut object is fetched once more."""
    target = root / key
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            size = plan.source.fetch(key, temporary)
            if whole(array, temporary):
                temporary.replace(target)
                return size
    except SourceNotThere:
        return None
    except OSError as error:
        raise write_failure(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)
    raise corrupt_source([key], plan.source.url)


def corrupt_source(keys: list[str], where: str) -> InputError:
    """Returns the error that names the chunks which the source has, and nobody can decode."""
    return InputError(
        f"{where} is corrupt: {len(keys)} chunks cannot be decoded ({', '.join(keys[:5])})",
        hint="the producer has to publish it again; replay the item when it has",
    )


def _undecodable(array: ZarrArray, path: Path) -> bool:
    if not path.exists():
        return False
    try:
        read_chunk(array, path)
    except (RuntimeError, ValueError, TypeError):
        return True
    return False
