"""How many events go out, and how fast: rate, room, limits of sources, and none to an engine that does not answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stac_watch.model.patience import Backoff, Breaker

PAUSES = Backoff(timedelta(seconds=2), timedelta(minutes=5))
"""Between posts of the same event, and while an engine is left alone."""
OPENS_AT = 3
"""Answers without meaning in a row before nothing more is posted for a while: an engine that is down for an hour would otherwise
be posted every event that waits, and each of them be looked for among the runs."""


@dataclass
class TokenBucket:
    """At most `rate` events per second, with a burst of one second's worth."""

    rate: float
    tokens: float = 1.0
    filled_at: datetime | None = None

    def take(self, now: datetime) -> bool:
        """Takes one token if there is one."""
        if self.filled_at is not None:
            self.tokens += max(0.0, (now - self.filled_at).total_seconds()) * self.rate
        self.filled_at = now
        self.tokens = min(self.tokens, max(1.0, self.rate))
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass
class Throttle:
    """What keeps events back; it remembers from one dispatch to the next."""

    bucket: TokenBucket
    breaker: Breaker = field(default_factory=lambda: Breaker(OPENS_AT, PAUSES))
    caps: Mapping[str, int] = field(default_factory=dict)  # most runs in flight of sources that have a limit of their own
    max_in_flight: int | None = None  # of all, by the ledger's own count; None = what the engine says
