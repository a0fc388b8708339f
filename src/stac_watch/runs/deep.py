"""Reads every byte of an output and compares it with the checksums that its marker stands for.

What is read is paced and counted, a block at a time. The one digest in the marker decides; the list beside the output only names
which objects are not what was written, and is itself held to that digest.
"""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stac_watch.model.checksums import SUFFIX, digest_of, parse
from stac_watch.model.errors import Unavailable
from stac_watch.model.outcome import Outcome
from stac_watch.runs.markers import Damage, OutputPlace, missing, place_of, words_of

BLOCK = 4 << 20  # bytes


class ReadingStopped(Exception):  # noqa: N818  # an order, not an error
    """Whoever asked wants no more of it."""


@dataclass
class Pace:
    """How fast is read, over all threads: so many bytes a second, and not beyond an order to stop."""

    most: float | None = None  # bytes a second; None = as fast as it goes
    wait: Callable[[float], bool] = lambda _: False  # seconds; True = stop
    told: Callable[[int], None] = lambda _: None  # of bytes that were read
    _free_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def take(self, size: int) -> None:
        """Accounts for bytes that were read, and waits for as long as they should have taken.

        Raises:
            ReadingStopped: it was ordered meanwhile.
        """
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + (size / self.most if self.most else 0.0)
            pause = self._free_at - now
        self.told(size)
        if self._stopped.is_set() or self.wait(max(0.0, pause)):
            raise ReadingStopped

    def stop(self) -> None:
        """Lets every reader end at its next block."""
        self._stopped.set()


def damage(output_zarr: str, marker: Outcome, pace: Pace) -> Damage:
    """Returns what of an output is not what was written, object by object.

    Raises:
        Unavailable: it cannot be looked at from here.
        ReadingStopped: it was ordered meanwhile.
    """
    counted = missing(output_zarr, marker)
    place = place_of(output_zarr)
    found = [f"{_name(place.package(marker))}: {said}" for said in [_package(place, marker, pace)] if said]
    if not marker.digest:  # made by an earlier version: nothing but its counts is known
        return Damage(counted.why or "; ".join(found), (*counted.objects, *found))
    sums, unreadable = _read(place, pace)
    if not unreadable and digest_of(sums) == marker.digest:
        return Damage(counted.why or "; ".join(found), (*counted.objects, *found), compared=True)
    found += _named(_listed(place, marker), sums, unreadable)
    objects = tuple(found)
    return Damage(", ".join(filter(None, (counted.why, f"{len(objects)} are not what was written"))), objects, compared=True)


def _named(written: dict[str, str] | None, sums: dict[str, str], unreadable: dict[str, str]) -> list[str]:
    """Returns a line for each object that is not as the list has it."""
    bad = [f"{name}: {why}" for name, why in unreadable.items()]
    if written is None:
        return bad or [f"some of its {len(sums)} objects: which, the list of checksums beside it would say, and is damaged or gone"]
    bad += [f"{name}: other bytes" for name in written.keys() & sums.keys() if written[name] != sums[name]]
    bad += [f"{name}: not there" for name in written.keys() - sums.keys() - unreadable.keys()]
    bad += [f"{name}: not of this output" for name in sums.keys() - written.keys()]
    return sorted(bad)


def _read(place: OutputPlace, pace: Pace) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the checksum of each object, and why others cannot be read."""
    sums, unreadable = {}, {}
    for name in sorted(place.objects()):
        try:
            sums[name] = _digest(place.fs, f"{place.path}/{name}", pace)
        except FileNotFoundError:  # it went between listing and reading
            unreadable[name] = "not there"
        except OSError as error:
            if error.errno != errno.EIO:
                raise _unseen(place, error) from error
            unreadable[name] = f"cannot be read: {error.strerror}"
        except ReadingStopped:
            raise
        except Exception as error:  # each backend raises its own
            raise _unseen(place, error) from error
    return sums, unreadable


def _package(place: OutputPlace, marker: Outcome, pace: Pace) -> str:
    if marker.package is None:
        return ""
    try:
        return "" if _digest(place.fs, place.package(marker), pace) == marker.package.sha256 else "other bytes"
    except FileNotFoundError:
        return "not there"
    except ReadingStopped:
        raise
    except Exception as error:
        raise _unseen(place, error) from error


def _listed(place: OutputPlace, marker: Outcome) -> dict[str, str] | None:
    """Returns the list of checksums beside an output, if it is the one that the marker stands for."""
    try:
        sums = parse(bytes(place.fs.cat_file(f"{place.path}{SUFFIX}")).decode())
    except Exception:  # noqa: BLE001  # whatever is wrong with it, it names nothing
        return None
    return sums if sums is not None and digest_of(sums) == marker.digest else None


def _digest(fs: Any, path: str, pace: Pace) -> str:  # noqa: ANN401  # a file system of fsspec, which has no types
    found = hashlib.sha256()
    with fs.open(path, "rb", block_size=BLOCK, cache_type="none") as file:
        while block := file.read(BLOCK):
            found.update(block)
            pace.take(len(block))
    return found.hexdigest()


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _unseen(place: OutputPlace, error: Exception) -> Unavailable:
    return Unavailable(f"cannot read {place.path!r}: {words_of(error)}")
