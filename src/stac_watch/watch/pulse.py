"""What the loop says of itself while it works: when its last round ended, what is wrong now, and counts since the process began.

The loop's thread writes it, others read it. What must survive the process is the ledger's.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from time import monotonic

from stac_watch.ledger.records import Moved
from stac_watch.model.errors import StacWatchError
from stac_watch.model.states import Fact, State
from stac_watch.runs.engine import Runs
from stac_watch.watch.loop import Tick

BOUNDS = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600, 86_400, 7 * 86_400)  # seconds
"""What a poll, a pod's start, a conversion, a source that is not there yet, and an outage take lie in buckets of their own."""
STEPS = {
    (None, State.QUEUED): "seen", (State.QUEUED, State.SUBMITTED): "accepted", (State.SUBMITTED, State.RUNNING): "running",
    (State.SUBMITTED, State.DONE): "done", (State.RUNNING, State.DONE): "done",
}  # fmt: skip
"""Which move reaches which step; the others are retries and ends, which `facts` counts."""


@dataclass(frozen=True)
class Durations:
    """How long a step took, so far: of each bound how many took no longer, all of them, and their sum in seconds."""

    counts: tuple[int, ...] = (0,) * len(BOUNDS)
    n: int = 0
    total: float = 0.0

    def cumulated(self) -> list[tuple[str, float]]:
        """Returns bound and count of each bucket, as Prometheus has them."""
        return [*((f"{bound:g}", n) for bound, n in zip(BOUNDS, self.counts, strict=True)), ("+Inf", self.n)]

    def plus(self, seconds: float) -> Durations:
        """Returns the same with one more."""
        counts = tuple(n + (seconds <= bound) for n, bound in zip(self.counts, BOUNDS, strict=True))
        return Durations(counts, self.n + 1, self.total + seconds)


@dataclass(frozen=True)
class Pulse:
    """The loop as it is now."""

    since: datetime  # when the process began
    at: datetime  # when the last round ended; when the process began if none did
    age: timedelta = timedelta(0)  # since then, by a clock that nobody can set
    ticks: int = 0
    standby: str = ""  # who has the ledger, when it is not this watcher
    ailing: Mapping[str, StacWatchError] = field(default_factory=dict)  # by source, or `engine`: what is wrong until it works again
    answered: Mapping[str, datetime] = field(default_factory=dict)  # when a source last answered
    problems: Mapping[str, int] = field(default_factory=dict)  # by source, or `engine`
    facts: Mapping[Fact, int] = field(default_factory=dict)
    posts: Mapping[str, int] = field(default_factory=dict)  # by answer
    sightings: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by source and verdict
    steps: Mapping[tuple[str, str, str], Durations] = field(default_factory=dict)  # by source, lane and step
    products: Mapping[tuple[str, str, str], int] = field(default_factory=dict)  # of new conversions: by source, form and state
    runs: Runs = field(default_factory=Runs)  # as the engine had them last


class Recorder:
    """Keeps the pulse; safe between threads."""

    def __init__(self, now: Callable[[], datetime], *, clock: Callable[[], float] = monotonic) -> None:
        self._now, self._clock, self._lock = now, clock, threading.Lock()
        self._beat = clock()
        self._pulse = Pulse(since=now(), at=now())
        self._answered: dict[str, datetime] = {}
        self._problems: Counter[str] = Counter()
        self._facts: Counter[Fact] = Counter()
        self._posts: Counter[str] = Counter()
        self._sightings: Counter[tuple[str, str]] = Counter()
        self._steps: dict[tuple[str, str, str], Durations] = {}
        self._products: Counter[tuple[str, str, str]] = Counter()

    def note(self, tick: Tick) -> None:
        """Takes in what a round did."""
        with self._lock:
            moment, self._beat = self._now(), self._clock()
            self._answered |= dict.fromkeys(tick.tallies, moment)
            self._problems.update(tick.problems.keys())
            self._facts.update(tick.facts)
            self._posts.update({"accepted": tick.sent.accepted, "refused": tick.sent.refused, "unknown": tick.sent.unknown})
            for source, t in tick.tallies.items():
                found = {"admitted": t.admitted, "skipped": t.skipped, "unreadable": t.unreadable, "lagging": t.lagging}
                found["unchanged"] = t.seen - t.admitted - t.skipped
                self._sightings.update({(source, verdict): n for verdict, n in found.items()})
            self._pulse = Pulse(
                since=self._pulse.since, at=moment, ticks=self._pulse.ticks + 1, standby=tick.standby, ailing=dict(tick.ailing),
                answered=dict(self._answered), problems=dict(self._problems), facts=dict(self._facts), posts=dict(self._posts),
                sightings=dict(self._sightings), runs=tick.runs,
            )  # fmt: skip

    def hear(self, moved: Moved) -> None:
        """Takes in a move that was committed, from whatever thread."""
        if moved.form:
            with self._lock:
                self._products[moved.source, moved.form, moved.dst.value] += 1
        step = STEPS.get((moved.src, moved.dst))
        if step is None or moved.since is None or moved.since > moved.at:
            return
        place = (moved.source, moved.lane, step)
        with self._lock:
            before = self._steps.get(place, Durations())
            self._steps[place] = before.plus((moved.at - moved.since).total_seconds())

    def read(self) -> Pulse:
        """Returns the pulse as it is now; it never changes after that."""
        with self._lock:
            age = timedelta(seconds=self._clock() - self._beat)
            return replace(self._pulse, age=age, steps=dict(self._steps), products=dict(self._products))
