"""What the loop says of itself while it works: when its last round ended, what is wrong now, and counts since the process began.

In: ticks, from the loop's thread. Out: a `Pulse`, for whoever asks in another thread. Never: anything that must survive the
process; that is the ledger's.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from stac_watch.errors import StacWatchError
from stac_watch.states import Fact
from stac_watch.watch import Tick


@dataclass(frozen=True)
class Pulse:
    """The loop as it is now."""

    since: datetime  # when the process began
    at: datetime  # when the last round ended; when the process began if none did
    ticks: int = 0
    standby: str = ""  # who has the ledger, when it is not this watcher
    ailing: Mapping[str, StacWatchError] = field(default_factory=dict)  # by source, or `engine`: what is wrong until it works again
    answered: Mapping[str, datetime] = field(default_factory=dict)  # when a source last answered
    problems: Mapping[str, int] = field(default_factory=dict)  # by source, or `engine`
    facts: Mapping[Fact, int] = field(default_factory=dict)
    posts: Mapping[str, int] = field(default_factory=dict)  # by answer
    sightings: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by source and verdict


class Recorder:
    """Keeps the pulse; safe between threads."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now, self._lock = now, threading.Lock()
        self._pulse = Pulse(since=now(), at=now())
        self._answered: dict[str, datetime] = {}
        self._problems: Counter[str] = Counter()
        self._facts: Counter[Fact] = Counter()
        self._posts: Counter[str] = Counter()
        self._sightings: Counter[tuple[str, str]] = Counter()

    def note(self, tick: Tick) -> None:
        """Takes in what a round did."""
        with self._lock:
            moment = self._now()
            self._answered |= dict.fromkeys(tick.tallies, moment)
            self._problems.update(tick.problems.keys())
            self._facts.update(tick.facts)
            self._posts.update({"accepted": tick.sent.accepted, "refused": tick.sent.refused, "unknown": tick.sent.unknown})
            for source, t in tick.tallies.items():
                found = {"admitted": t.admitted, "skipped": t.skipped, "quarantined": t.quarantined}
                found["unchanged"] = t.seen - t.admitted - t.skipped
                self._sightings.update({(source, verdict): n for verdict, n in found.items()})
            self._pulse = Pulse(
                since=self._pulse.since, at=moment, ticks=self._pulse.ticks + 1, standby=tick.standby, ailing=dict(tick.ailing),
                answered=dict(self._answered), problems=dict(self._problems), facts=dict(self._facts), posts=dict(self._posts),
                sightings=dict(self._sightings),
            )  # fmt: skip

    def read(self) -> Pulse:
        """Returns the pulse as it is now; it never changes after that."""
        with self._lock:
            return self._pulse
