"""The only time there is in a simulated year: seconds since its start, turned by hand.

In: seconds. Out: moments. Never: the time of this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY, HOUR, MINUTE = 86_400, 3_600, 60


@dataclass
class Clock:
    """The only time there is."""

    time: datetime = START

    def __call__(self) -> datetime:
        """Returns it."""
        return self.time

    @property
    def seconds(self) -> float:
        """Since the start."""
        return (self.time - START).total_seconds()

    def forward(self, seconds: float) -> None:
        """Turns it."""
        self.time += timedelta(seconds=seconds)


def moment(seconds: float) -> datetime:
    """Returns the time so many seconds after the start."""
    return START + timedelta(seconds=seconds)
