"""How long to wait before the same is tried again, and when to leave somebody alone. Pure; the time and the chance are arguments.

One `Backoff` gives every pause of both programs. A `Breaker` counts failures in a row and opens for ever longer; what comes after
that time is the probe whether it works again. A `Rest` is a pause that knows when it began: a clock that was set ends it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Backoff:
    """Pauses that double from the first to the longest."""

    first: timedelta
    longest: timedelta

    def pause(self, earlier: int, rng: random.Random | None = None, *, asked: timedelta | None = None) -> timedelta:
        """Returns the next pause.

        Args:
            earlier: pauses before this one; 0 gives the first.
            rng: shortens the pause by up to a half, so that many who wait do not come back in step.
            asked: what the server asked for: no pause is shorter, unless it is longer than the longest.
        """
        doubled = self.first.total_seconds() * 2.0 ** min(earlier, 1_000)  # beyond that a float has no room
        pause = timedelta(seconds=min(doubled, self.longest.total_seconds()))
        if rng is not None:
            pause *= rng.uniform(0.5, 1.0)
        return min(self.longest, max(asked or timedelta(0), pause))


CLOCKS = timedelta(minutes=1)
"""How far the clocks of two machines of ours may be apart; what lies further in the future was written before a clock was set."""


@dataclass(frozen=True)
class Rest:
    """A pause by the wall clock. It is over when the clock leaves it, also when it is set back to before it began."""

    since: datetime
    until: datetime

    def lasts(self, now: datetime) -> bool:
        """Tells whether it is not over."""
        return self.since <= now < self.until


def waited(since: datetime, now: datetime, span: timedelta) -> bool:
    """Tells whether `span` has passed since something was written down, or the clock was set back since."""
    return not -CLOCKS <= now - since < span


@dataclass
class Breaker:
    """Opens after some failures in a row, ever longer."""

    after: int  # failures in a row that open it
    rests: Backoff
    failures: int = 0
    rest: Rest | None = None
    said: str = ""  # by the last failure

    def is_open(self, now: datetime) -> bool:
        """Tells whether to leave it alone now."""
        return self.rest is not None and self.rest.lasts(now)

    def failed(self, now: datetime, said: str = "", *, rng: random.Random | None = None, asked: timedelta | None = None) -> None:
        """Notes a failure; `asked` is how long the server wants to be left alone: it is respected at once and in full."""
        self.failures += 1
        self.said = said
        if asked is not None:
            self.rest = Rest(now, now + asked)
        elif self.failures >= self.after:
            self.rest = Rest(now, now + self.rests.pause(self.failures - self.after, rng))

    def worked(self) -> None:
        """Notes an answer: it closes."""
        self.failures, self.rest, self.said = 0, None, ""
