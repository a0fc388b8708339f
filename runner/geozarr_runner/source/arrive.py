"""Brings the objects of a Zarr v3 store onto the work volume, each whole or not at all, and looks into each once as it arrives.

Whole objects, no ranges: a server was seen that answers a ranged request with the head of the object and the right length. What an
earlier attempt left is not fetched again, but looked into again. An object that is broken is fetched once more; then the source is.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from geozarr_runner.source.shards import Broken, Cells, Inspected, Region, dtype_of, inspect
from geozarr_runner.source.stage import corrupt_source
from geozarr_runner.source.store import SourceStore
from geozarr_runner.source.threads import in_threads
from stac_watch.model.errors import SourceNotThere, write_failure
from stac_watch.model.zarr3 import StoredArray

_MARGIN = 1_000_000  #: headers of chunks that do not get smaller: of thousands in a shard, too
type See = Callable[[StoredArray, Region, Cells | None], None]


@dataclass(frozen=True)
class Arrived:
    """The objects that are on this machine, and what they are."""

    root: Path
    objects: dict[str, Inspected] = field(repr=False)
    missing: frozenset[str]  # keys that the source does not have
    bytes: int  # fetched by this attempt

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each object."""
        return {key: found.size for key, found in self.objects.items()}

    @property
    def indexes(self) -> dict[str, int]:
        """CRC-32C of each shard's index."""
        return {key: found.crc for key, found in self.objects.items() if found.crc is not None}


def bring(
    source: SourceStore,
    root: Path,
    arrays: Iterable[StoredArray],
    *,
    advance: Callable[[int], None],
    called_off: threading.Event,
    see: See | None = None,
) -> Arrived:
    """Fetches every object of the arrays that is not there yet, and looks into all of them.

    Args:
        source: where from; a local one is read where it lies.
        root: where to.
        arrays: whose objects.
        advance: told of each object.
        called_off: ends the work early.
        see: told of each chunk, from many threads at once.

    Raises:
        InputError: an object is broken at the source.
        Temporary | Refused | CannotWrite: see `source.classify`.
    """
    places = {key: (array, place) for array in arrays for key, place in array.keys()}  # noqa: SIM118  # no mapping
    where = source.local or root

    def one(key: str) -> tuple[Inspected | None, int]:
        if called_off.is_set():
            return None, 0
        array, place = places[key]
        told = None if see is None else lambda at, cells: see(array, at, cells)
        found = _one(source, where, key, encoded_limit(array), lambda path: inspect(array, place, path, told))
        advance(1)
        return found

    largest = sorted(places, key=lambda key: -places[key][0].pixels)
    results = dict(zip(largest, in_threads(one, largest, called_off), strict=True))
    objects = {key: found for key, (found, _) in results.items() if found is not None}
    return Arrived(where, objects, frozenset(results.keys() - objects.keys()), sum(size for _, size in results.values()))


def fetch_documents(source: SourceStore, root: Path, keys: Iterable[str], called_off: threading.Event) -> dict[str, bytes | None]:
    """Returns metadata documents, None for those that the source does not have; what `root` has already is not fetched again."""

    def one(key: str) -> bytes | None:
        if called_off.is_set():
            return None
        there = root / key
        try:
            return there.read_bytes() if there.exists() else source.read(key)
        except SourceNotThere:
            return None

    wanted = list(keys)
    return dict(zip(wanted, in_threads(one, wanted, called_off), strict=True))


def _one(source: SourceStore, root: Path, key: str, limit: int, look: Callable[[Path], Inspected]) -> tuple[Inspected | None, int]:
    """Returns what an object is, None when it is not there, and the bytes that were fetched for it."""
    target, fetched = root / key, 0
    said = ""
    if target.is_file() and _still(source, key, target):
        try:
            return look(target), 0
        except Broken as error:
            said = str(error)
    elif source.local is not None:
        return None, 0
    if source.local is None:
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(2):
                fetched += source.fetch(key, temporary, limit=limit).size
                try:
                    found = look(temporary)
                except Broken as error:
                    said = str(error)
                    continue
                temporary.replace(target)
                return found, fetched
        except SourceNotThere:
            return None, 0
        except OSError as error:
            raise write_failure(error, target) from error
        finally:
            temporary.unlink(missing_ok=True)
    raise corrupt_source([f"{key}: {said}"], source.url)


def _still(source: SourceStore, key: str, path: Path) -> bool:
    """Says whether what an earlier attempt fetched may be what the source has now: a store is published anew under its own name."""
    if source.local is not None:
        return True
    size = source.size(key)
    return size is None or size in (-1, path.stat().st_size)


def encoded_limit(array: StoredArray) -> int:
    """Returns the most bytes that a stored object can have: no codec makes noise longer by more than a hundredth."""
    return math.prod(array.stored) * dtype_of(array).itemsize * 101 // 100 + array.index_bytes + _MARGIN
