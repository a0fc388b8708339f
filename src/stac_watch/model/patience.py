"""How long to wait before the same is tried again, and when to leave somebody alone. Pure; the time and the chance are arguments.

One `Backoff` gives every pause of both programs. A `Breaker` counts failures in a row and opens for ever longer; what comes after
that time is the probe whether it works again.
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


@dataclass
class Breaker:
    """Opens after some failures in a row, ever longer."""

    after: int  # failures in a row that open it
    rests: Backoff
    failures: int = 0
    open_until: datetime | None = None
    said: str = ""  # by the last failure

    def is_open(self, now: datetime) -> bool:
        """Tells whether to leave it alone now."""
        return self.open_until is not None and now < self.open_until

    def failed(self, now: datetime, said: str = "", *, rng: random.Random | None = None, asked: timedelta | None = None) -> None:
        """Notes a failure; `asked` is how long the server wants to be left alone: it is respected at once and in full."""
        self.failures += 1
        self.said = said
        if asked is not None:
            self.open_until = now + asked
        elif self.failures >= self.after:
            self.open_until = now + self.rests.pause(self.failures - self.after, rng)

    def worked(self) -> None:
        """Notes an answer: it closes."""
        self.failures, self.open_until, self.said = 0, None, ""
