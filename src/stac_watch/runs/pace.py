"""How fast events go out: at most so many a second. Pure; time is an argument."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


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
