"""Discovery of one source in a thread of its own: a catalog that hangs keeps nobody but itself waiting.

One round at a time; it keeps nothing that the ledger does not hold, besides when to ask next.
"""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta

from stac_watch.discover.intake import Intake, add
from stac_watch.discover.poll import poll
from stac_watch.discover.sweep import sweep
from stac_watch.ledger.records import Tally
from stac_watch.model.errors import Refused, StacWatchError, Temporary
from stac_watch.model.patience import Rest

JITTER = 0.1  # of the poll interval, so that many installations do not ask the catalog in step
PAUSE = timedelta(minutes=1)  # between looks whether a sweep is due, and after one that failed


class Observer:
    """One source's polls and sweeps."""

    def __init__(self, intake: Intake, rng: random.Random) -> None:
        self.name = intake.source.name
        self._intake, self._rng = intake, rng
        self._polled: Rest | None = None
        self._swept: Rest | None = None
        self._thread: threading.Thread | None = None
        self._tally: Tally | None = None
        self._error: BaseException | None = None
        self._answered = False

    def start(self, *, to_the_end: bool) -> bool:
        """Starts a round when its time has come and none is under way; `to_the_end` includes the whole of a due sweep."""
        if self._thread is not None or not (self._due(self._polled) or self._due(self._swept)):
            return False
        # a daemon: a stop must not wait for a catalog's time-out, and the ledger's transactions survive any end
        self._thread = threading.Thread(target=self._round, args=(to_the_end,), name=f"observe-{self.name}", daemon=True)
        self._thread.start()
        return True

    def collect(self, patience: float | None) -> tuple[Tally | None, StacWatchError | None]:
        """Waits so long for the round to end; returns what it found and what is wrong, nothing while it goes on.

        Raises:
            StacWatchError: nothing but a person can help, and this source never worked.
        """
        if self._thread is None:
            return None, None
        self._thread.join(patience)
        if self._thread.is_alive():
            return None, None
        tally, error = self._tally, self._error
        self._thread, self._tally, self._error = None, None, None
        if isinstance(error, StacWatchError):
            if not self._answered and not isinstance(error, Temporary | Refused):
                raise error
            return tally, error
        if error is not None:
            raise error
        return tally, None

    def rest(self, until: datetime) -> None:
        """Asks nothing before then."""
        self._polled = self._swept = Rest(datetime.min.replace(tzinfo=UTC), until)

    def _due(self, rest: Rest | None) -> bool:
        return rest is None or not rest.lasts(self._intake.now())

    def _pause(self, pause: timedelta) -> Rest:
        now = self._intake.now()
        return Rest(now, now + pause)

    def _round(self, to_the_end: bool) -> None:  # a thread's target takes positions
        try:
            if self._due(self._polled):
                jitter = 1 + self._rng.uniform(-JITTER, JITTER)
                self._polled = self._pause(self._intake.source.poll.interval * jitter)
                self._tally = poll(self._intake)
                self._answered = True
            if self._due(self._swept):
                self._sweep(to_the_end=to_the_end)
        except BaseException as error:  # noqa: BLE001  # carried to the loop's thread, and raised there
            self._error = error
            self._swept = self._pause(PAUSE)

    def _sweep(self, *, to_the_end: bool) -> None:
        while True:
            found = sweep(self._intake)
            if found is None:
                self._swept = self._pause(PAUSE)
                return
            self._tally = add(self._tally or Tally(), found)
            if not to_the_end:
                return
