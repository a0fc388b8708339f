"""Objects go up while the rest of their output is still made: the store is waited for at the same time as the source and the cores.

What is sent ahead is no output: the root's metadata and the marker are never among it, so that nobody opens or believes anything
before all of it is verified. It goes where `bucket` would put it, under the same claim, after the same look at whose output lies
there; the first object takes the claim, so that a run which finds nothing to convert never touches the store. Trouble ends it
quietly: what is not there at the end is sent then, and that is when an error is told. What was sent for an output that can never
be is removed again.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from geozarr_runner.publish import marker, precedence
from geozarr_runner.publish.claim import NOTE, Asks, Reservation
from geozarr_runner.publish.objects import Listed, ObjectStore, Sender, listing
from stac_watch.model.errors import StacWatchError, Temporary
from stac_watch.model.outcome import MARKER

log = logging.getLogger(__name__)

_THREADS = 4  #: the cores have other work; as many connections bring 80 MB/s even where each is slow
_AGAIN = 5.0  #: seconds after which the claim is looked at before another object is sent


def require_turn(store: ObjectStore, asks: Asks, claim: Reservation) -> None:
    """Asks, under the claim, whose output lies there. Who must leave it alone keeps nobody else from it.

    Raises:
        Superseded | CannotWrite: see `precedence.check`.
    """
    try:
        precedence.check(marker.at(store), asks.identity, store.href, overwrite=asks.overwrite)
    except StacWatchError:
        claim.release()
        raise


class Ahead:
    """One output's objects on their way; a block in which it is made and published."""

    def __init__(self, store: ObjectStore, asks: Asks) -> None:
        self.sender = Sender(store)
        self._store, self._asks = store, asks
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="ahead")
        self._turn = threading.Lock()
        self._claim: Reservation | None = None
        self._looked, self._given_up, self._handed_over = 0.0, False, False
        self._where, self._there = "", dict[str, Listed]()
        self._offered, self._again = set[str](), set[str]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._given_up = True
        self._pool.shutdown(wait=kind is None or issubclass(kind, Exception), cancel_futures=True)
        claim = self._claim
        if claim is None:
            return
        ended = isinstance(error, StacWatchError) and not isinstance(error, Temporary)  # a temporary one goes on from there
        if ended and not self._handed_over:
            self._remove(claim)
        claim.__exit__(kind, error, trace)

    def offer(self, name: str, *places: Path, crc: int | None = None) -> None:
        """Takes an object that is written for good: its name in the output, and where it lies now or a little later.

        A `crc` goes with it (CRC32C): the store compares what it got with what was encoded.
        """
        if name in self._offered:  # made anew; the first may still be on its way, and arrive last
            self._again.add(name)
        elif not self._given_up:
            self._offered.add(name)
            self._pool.submit(self._send, name, places, crc)

    def finish(self) -> Reservation | None:
        """Waits for what was offered, and hands the claim over to whoever publishes; None where there is none.

        From here on the order of publishing says what stays: nothing is removed any more.
        """
        self._handed_over = True
        self._pool.shutdown(wait=True)
        for name in self._again:
            self.sender.sent.pop(name, None)
        return self._claim

    def _send(self, name: str, places: tuple[Path, ...], crc: int | None) -> None:
        file = next((place for place in places if place.exists()), None)
        if file is None:
            return
        try:
            if self._may() and not self.sender.has(name, file, self._there.get(name)):
                self.sender.send(name, file, f"{self._where}/{name}", crc)
        except FileNotFoundError:  # moved just now; it is sent with the rest
            return
        except Exception as error:  # noqa: BLE001  # whatever it is, it will be told when it is met again at the end
            self._given_up = True
            log.info("nothing more is sent ahead to %s: %s", self._store.href, error)

    def _may(self) -> bool:
        """Takes the claim when nobody has yet, and looks now and then whether it is still ours."""
        with self._turn:
            if self._given_up:
                return False
            if self._claim is None:
                self._begin()
            elif monotonic() - self._looked > _AGAIN:
                self._claim.check()
            self._looked = monotonic()
            return True

    def _begin(self) -> None:
        store, mine = self._store, self._asks.identity
        store.be_plain()
        claim = Reservation(store, self._asks, marker.at(store)).__enter__()
        try:
            require_turn(store, self._asks, claim)
            there = listing(store, store.root)
            replacing = MARKER in there
            self._where = store.staging(mine.key) if replacing else store.root
            self._there = listing(store, self._where) if replacing else there
        except BaseException:
            claim.__exit__(None, None, None)
            raise
        self._claim = claim

    def _remove(self, claim: Reservation) -> None:
        """Removes what was sent for nothing, and the note that somebody writes here.

        The note stays where an earlier attempt left objects: it is what tells them from somebody else's.
        """
        try:
            claim.check()
            if paths := [f"{self._where}/{name}" for name in self.sender.sent]:
                self._store.fs.rm(paths)
            if listing(self._store, self._store.root).keys() <= {NOTE, MARKER} or self._where != self._store.root:
                claim.release()
            log.info("removed %d objects that were sent ahead", len(paths))
        except Exception as error:  # noqa: BLE001  # the run's own error counts more; what is left has no marker
            log.warning("cannot remove what was sent ahead to %s: %s", self._store.href, error)
