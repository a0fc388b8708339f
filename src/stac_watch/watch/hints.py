"""Hints that a source has something new: reasons to ask it now, and never facts.

A hint costs at most a poll. One that is lost costs nothing, for polls go on as ever. Those that come while one waits are one. One
after which nothing new was found makes the next wait twice as long, up to the interval of the polls: hints without end cost what
they are worth.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from stac_watch.ledger.records import Moved
from stac_watch.model.patience import Backoff, Rest
from stac_watch.model.states import State

PAUSE = timedelta(seconds=1)  # between two polls that hints asked for
STEP = 0.1  # seconds between two looks whether there is something to do


class Hinted(Protocol):
    """A source that knows whether it is to be polled because of a hint."""

    @property
    def is_hinted(self) -> bool:
        """Whether it is."""


@dataclass
class _Pace:
    waits: bool = False  # there is a hint that no poll has followed
    wasted: int = 0  # hinted polls in a row that found nothing
    rest: Rest | None = None


class Hints:
    """What was hinted of each source; safe between threads."""

    def __init__(self) -> None:
        self.bell = threading.Event()  # rings when there is something to do before the loop's next beat
        self._lock = threading.Lock()
        self._paces: dict[str, _Pace] = {}
        self._given: Counter[str] = Counter()
        self._polls: Counter[tuple[str, str]] = Counter()

    def give(self, source: str) -> None:
        """Asks for a poll of a source as soon as its pace allows."""
        with self._lock:
            self._of(source).waits = True
        self.bell.set()

    def note(self, result: str) -> None:
        """Counts a request by what became of it."""
        with self._lock:
            self._given[result] += 1

    def is_due(self, source: str, now: datetime) -> bool:
        """Tells whether a hint is to be followed now."""
        with self._lock:
            pace = self._of(source)
            return pace.waits and not (pace.rest is not None and pace.rest.lasts(now))

    def begin(self, source: str) -> None:
        """A poll begins: it answers whatever was hinted until here."""
        with self._lock:
            self._of(source).waits = False

    def end(self, source: str, now: datetime, *, useful: bool, longest: timedelta) -> None:
        """A poll that a hint asked for has ended."""
        with self._lock:
            pace = self._of(source)
            pace.wasted = 0 if useful else pace.wasted + 1
            pace.rest = Rest(now, now + Backoff(PAUSE, max(PAUSE, longest)).pause(pace.wasted))
            self._polls[source, "news" if useful else "nothing"] += 1

    def hear(self, moved: Moved) -> None:
        """Lets what was just admitted be sent at once, while the rest of its window, or another source, is still read."""
        if moved.src is None and moved.dst is State.QUEUED:
            self.bell.set()

    def rest(self, wait: Callable[[float], bool], seconds: float, sources: Collection[Hinted]) -> float | None:
        """Waits until there is something to do, so many seconds at most; returns those that were left, None when asked to stop."""
        while seconds > 0:
            if wait(min(STEP, seconds)):
                return None
            seconds -= STEP
            if self.bell.is_set() or any(source.is_hinted for source in sources):
                break
        self.bell.clear()
        return seconds

    def counts(self) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
        """Returns how many requests there were, by what became of them, and polls that followed, by source and what they found."""
        with self._lock:
            return dict(self._given), dict(self._polls)

    def _of(self, source: str) -> _Pace:
        return self._paces.setdefault(source, _Pace())
