"""When it is time to send: the same of a catalog and of a sink.

What waits is due, the other end is not left alone, and nothing waits for a time that a clock showed which was set back since.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta

from stac_watch.model.patience import CLOCKS, Backoff, Breaker

PAUSES = Backoff(timedelta(seconds=15), timedelta(hours=1))  # between two tries of one item, or one event
RESTS = Backoff(timedelta(seconds=15), timedelta(minutes=5))  # of an other end that does not answer
ENOUGH = 6  # tries of what the other end answers to, and does not take


class OtherEnd:
    """A catalog or a sink, and what waits in the ledger for it."""

    def __init__(
        self,
        waits: Callable[[datetime], bool],
        bring_forward: Callable[[datetime, timedelta], object],
        now: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        """Takes what tells whether something is due, and what makes due whatever waits for longer than a span."""
        self._waits, self._bring_forward, self._now, self._rng = waits, bring_forward, now, rng
        self._breaker = Breaker(1, RESTS)
        self._clock: datetime | None = None  # as it was at the last look

    def is_due(self) -> bool:
        """Tells whether there is something to send, and it is not left alone."""
        now = self._now()
        before, self._clock = self._clock, now
        if before is None or now < before - CLOCKS:
            self._bring_forward(now, PAUSES.longest + CLOCKS)
        return not self._breaker.is_open(now) and self._waits(now)

    def again(self, earlier: int) -> datetime:
        """Returns when something is tried again that was tried `earlier` times before this one."""
        return self._now() + PAUSES.pause(earlier, self._rng)

    def failed(self, said: str, *, asked: timedelta | None = None) -> None:
        """Leaves it alone for a while: as long as it asked, at most as long as one item waits."""
        asked = min(asked, PAUSES.longest) if asked is not None else None
        self._breaker.failed(self._now(), said, rng=self._rng, asked=asked)

    def worked(self) -> None:
        """Notes that it answers."""
        self._breaker.worked()
