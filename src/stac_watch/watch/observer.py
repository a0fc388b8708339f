"""Discovery of one source in a thread of its own: a catalog that hangs keeps nobody but itself waiting.

One round at a time; it keeps nothing that the ledger does not hold, besides when to ask next.
"""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta

from stac_watch.catalog.stores import Stores
from stac_watch.discover.intake import Flooded, Intake, add
from stac_watch.discover.poll import poll
from stac_watch.discover.restamps import look
from stac_watch.discover.sweep import sweep
from stac_watch.ledger.records import Tally
from stac_watch.model.errors import Defect, StacWatchError, Temporary, told
from stac_watch.model.patience import Rest
from stac_watch.watch.hints import Hints

JITTER = 0.1  # of the poll interval, so that many installations do not ask the catalog in step
PAUSE = timedelta(minutes=1)  # between looks whether a sweep is due or an item is to be looked at, and after one that failed


class Observer:
    """One source's polls, sweeps, and looks at what was stamped anew."""

    def __init__(self, intake: Intake, rng: random.Random, hints: Hints, stores: Stores | None = None) -> None:
        self.name = intake.source.name
        self._intake, self._rng, self._hints, self._stores = intake, rng, hints, stores
        self._polled: Rest | None = None
        self._swept: Rest | None = None
        self._looked: Rest | None = None
        self._thread: threading.Thread | None = None
        self._tally: Tally | None = None
        self._error: BaseException | None = None

    def start(self, *, to_the_end: bool, early: bool = False) -> bool:
        """Starts a round when its time has come and none is under way.

        `to_the_end` includes the whole of a due sweep. `early`, before the loop's beat, only polls begin: of sweeps it is a step a
        beat.

        Raises:
            Temporary: this machine has no thread for it.
        """
        rests = (self._polled,) if early else (self._polled, self._swept, self._looked)
        if self._thread is not None or not (self.is_hinted or any(map(self._due, rests))):
            return False
        # a daemon: a stop must not wait for a catalog's time-out, and the ledger's transactions survive any end
        self._thread = threading.Thread(target=self._round, args=(to_the_end,), name=f"observe-{self.name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._thread = None
            raise Temporary(f"this machine starts no thread: {error}", hint="check its limits on processes and memory") from error
        return True

    @property
    def is_hinted(self) -> bool:
        """Tells whether a round is to begin now because of a hint."""
        return self._thread is None and self._hints.is_due(self.name, self._intake.now())

    def collect(self, patience: float | None) -> tuple[Tally | None, StacWatchError | None]:
        """Waits so long for the round to end; returns what it found and what is wrong, nothing while it goes on.

        Whatever a round ended with is this source's trouble: a catalog's answer that nobody thought of must not end the others.
        """
        if self._thread is None:
            return None, None
        self._thread.join(patience)
        if self._thread.is_alive():
            return None, None
        tally, error = self._tally, self._error
        self._thread, self._tally, self._error = None, None, None
        if error is None or isinstance(error, StacWatchError):
            return tally, error
        hint = "this source is asked again; please report the line, and see what its catalog answers with `stac-watch check`"
        return tally, Defect(told(error), hint=hint)

    def rest(self, until: datetime) -> None:
        """Asks nothing before then."""
        self._polled = self._swept = self._looked = Rest(datetime.min.replace(tzinfo=UTC), until)

    def _due(self, rest: Rest | None) -> bool:
        return rest is None or not rest.lasts(self._intake.now())

    def _pause(self, pause: timedelta) -> Rest:
        now = self._intake.now()
        return Rest(now, now + pause)

    def _round(self, to_the_end: bool) -> None:  # a thread's target takes positions
        try:
            hinted = self._hints.is_due(self.name, self._intake.now())
            if hinted or self._due(self._polled):
                self._poll(hinted=hinted)
            if self._due(self._swept):
                self._sweep(to_the_end=to_the_end)
            if self._due(self._looked) and (self._stores is None or look(self._intake, self._stores) is None):
                self._looked = self._pause(PAUSE)
        except Flooded as error:
            self._tally, self._error = add(self._tally or Tally(), error.tally), error
            self._swept = self._pause(PAUSE)
        except BaseException as error:  # noqa: BLE001  # carried to the loop's thread, which says it
            self._error = error
            self._swept = self._pause(PAUSE)
        finally:
            self._hints.bell.set()

    def _poll(self, *, hinted: bool) -> None:
        interval = self._intake.source.poll.interval
        self._polled = self._pause(interval * (1 + self._rng.uniform(-JITTER, JITTER)))
        self._hints.begin(self.name)
        useful = False
        try:
            self._tally = poll(self._intake)
            useful = self._tally.seen > 0
        finally:
            if hinted:
                self._hints.end(self.name, self._intake.now(), useful=useful, longest=interval)

    def _sweep(self, *, to_the_end: bool) -> None:
        while True:
            found = sweep(self._intake)
            if found is None:
                self._swept = self._pause(PAUSE)
                return
            self._tally = add(self._tally or Tally(), found)
            if not to_the_end:
                return
