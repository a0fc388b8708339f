"""Brings the objects of a Zarr v3 store onto the work volume, each whole or not at all, and looks into each once as it arrives.

Whole objects, no ranges: a server was seen that answers a ranged request with the head of the object and the right length.
What an earlier attempt left is not fetched again where the source can be asked later whether it is still the same (`noted`), but
looked into again. An object that is broken is fetched once more; then the source is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from geozarr_runner.source.eager import Eager, Landing
from geozarr_runner.source.faults import Forbidden
from geozarr_runner.source.noted import Noted
from geozarr_runner.source.refusals import Refusals
from geozarr_runner.source.shards import Broken, Cells, Inspected, Region, encoded_limit, inspect
from geozarr_runner.source.stage import corrupt_source
from geozarr_runner.source.store import SourceStore, stat_validator
from geozarr_runner.source.threads import in_threads
from stac_watch.model.errors import SourceNotThere, write_failure
from stac_watch.model.zarr3 import ROOT, StoredArray

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
    noted: Noted,
    *,
    advance: Callable[[int], None],
    called_off: threading.Event,
    see: See | None = None,
    lost: Callable[[StoredArray, tuple[int, ...]], None] = lambda _array, _place: None,
    done: Callable[[StoredArray, str], None] = lambda _array, _key: None,
    eager: Eager | None = None,
) -> Arrived:
    """Fetches every object of the arrays that is not there yet, and looks into all of them.

    Args:
        source: where from; a local one is read where it lies.
        root: where to.
        arrays: whose objects.
        noted: what the source said of each that is there; added to.
        advance: told of each object.
        called_off: ends the work early.
        see: told of each chunk, from many threads at once.
        lost: told of each object that is nowhere, by its place in the array's grid, likewise.
        done: told of each object that is here, or is known to be nowhere, likewise.
        eager: who is told of the arrays that are there, all of them.

    Raises:
        InputError: an object is broken at the source.
        Temporary | Refused | CannotWrite: see `source.classify`.
    """
    places = {key: (array, place) for array in arrays for key, place in array.keys()}  # noqa: SIM118  # no mapping
    bringing = _Bringing(source, source.local or root, noted, Refusals(source, ROOT))

    def one(key: str) -> tuple[Inspected | None, int]:
        if called_off.is_set():
            return None, 0
        array, place = places[key]
        told = None if see is None else lambda at, cells: see(array, at, cells)
        found = bringing.one(key, encoded_limit(array), lambda path: inspect(array, place, path, told))
        if found[0] is None:
            lost(array, place)
        done(array, key)
        advance(1)
        return found

    largest = sorted(places, key=lambda key: -places[key][0].pixels)
    landed = None
    if eager is not None:
        largest.sort(key=lambda key: eager.rank(places[key][0].path))
        landed = Landing(eager, bringing.root, {key: array.path for key, (array, _) in places.items()}).landed
    results = dict(zip(largest, in_threads(one, largest, called_off, landed), strict=True))
    objects = {key: found for key, (found, _) in results.items() if found is not None}
    return Arrived(bringing.root, objects, frozenset(results.keys() - objects.keys()), sum(size for _, size in results.values()))


def fetch_documents(source: SourceStore, root: Path, keys: Iterable[str], called_off: threading.Event) -> dict[str, bytes | None]:
    """Returns metadata documents, None for those that the source does not have; what `root` has already is not fetched again."""

    def one(key: str) -> bytes | None:
        if called_off.is_set():
            return None
        there = root / key
        try:
            return there.read_bytes() if there.exists() else source.read(key)
        except (SourceNotThere, Forbidden):  # the root could be read: what it refuses it does not have
            return None

    wanted = list(keys)
    return dict(zip(wanted, in_threads(one, wanted, called_off), strict=True))


@dataclass(frozen=True)
class _Bringing:
    """What the threads that fetch have in common."""

    source: SourceStore
    root: Path
    noted: Noted
    refusals: Refusals

    def one(self, key: str, limit: int, look: Callable[[Path], Inspected]) -> tuple[Inspected | None, int]:
        """Returns what an object is, None when it is not there, and the bytes that were fetched for it."""
        target = self.root / key
        if self.source.local is not None:
            return self._in_place(key, target, look), 0
        if target.is_file() and self.noted.vouches(key):
            with suppress(Broken):
                return look(target), 0
        try:
            return self._fetch(key, target, limit, look)
        except SourceNotThere:
            target.unlink(missing_ok=True)  # of an earlier attempt, that nobody vouches for
        except Forbidden:
            self.refusals.take_for_absent(key)
            target.unlink(missing_ok=True)  # idem
        return None, 0

    def _in_place(self, key: str, target: Path, look: Callable[[Path], Inspected]) -> Inspected | None:
        try:
            self.noted.add(key, stat_validator(target))
            return look(target)
        except Broken as error:
            raise corrupt_source([f"{key}: {error}"], self.source.url) from error
        except OSError:
            return None

    def _fetch(self, key: str, target: Path, limit: int, look: Callable[[Path], Inspected]) -> tuple[Inspected, int]:
        """Fetches an object under a temporary name and renames it; one that is broken is fetched once more."""
        temporary, fetched, said = target.with_name(f".{target.name}.{os.getpid()}.part"), 0, ""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(2):
                got = self.source.fetch(key, temporary, limit=limit)
                fetched += got.size
                try:
                    found = look(temporary)
                except Broken as error:
                    said, self.noted.broken[key] = str(error), got.validator
                    continue
                temporary.replace(target)
                self.noted.add(key, got.validator)
                return found, fetched
        except OSError as error:
            raise write_failure(error, target) from error
        finally:
            temporary.unlink(missing_ok=True)
        raise corrupt_source([f"{key}: {said}"], self.source.url)
