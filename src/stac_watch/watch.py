"""The loop: discover, reconcile, dispatch; again and again, or once to the end.

In: the parts that `app` put together. Out: ticks, reported as they happen. Never: keeps anything in memory that the ledger does not
hold: killed at any moment and started again, it goes on as if nothing had happened.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stac_watch.catalog import Catalog
from stac_watch.config import Limits, Recipe, Source
from stac_watch.discover import discover
from stac_watch.dispatch import Sent, TokenBucket, dispatch
from stac_watch.engines import Engine
from stac_watch.errors import Temporary
from stac_watch.ledger import Ledger
from stac_watch.reconcile import Marker, reconcile
from stac_watch.records import Tally
from stac_watch.states import Fact

JITTER = 0.1  # of the poll interval, so that many installations do not ask the catalogue in step


@dataclass(frozen=True)
class Parts:
    """What a watcher works with."""

    sources: tuple[Source, ...]
    recipe: Recipe
    limits: Limits
    ledger: Ledger
    engine: Engine
    catalogs: Mapping[str, Catalog]
    read_marker: Callable[[str], Marker | None]
    now: Callable[[], datetime]
    wait: Callable[[float], bool]  # waits so many seconds; True when asked to stop
    rng: random.Random
    beat: float = 1.0  # seconds between looks at the engine


@dataclass(frozen=True)
class Tick:
    """What one round of the loop did."""

    tallies: Mapping[str, Tally] = field(default_factory=dict)
    problems: Mapping[str, Temporary] = field(default_factory=dict)  # by source; the next tick asks again
    facts: Mapping[Fact, int] = field(default_factory=dict)
    sent: Sent = field(default_factory=Sent)

    @property
    def idle(self) -> bool:
        """Nothing moved."""
        return not self.facts and self.sent == Sent() and not any(t.seen for t in self.tallies.values())


class Watcher:
    """The loop over its parts."""

    def __init__(self, parts: Parts) -> None:
        self._p = parts
        self._bucket = TokenBucket(parts.limits.rate)
        self._poll_at: dict[str, datetime] = {}

    def tick(self) -> Tick:
        """One round: asks the sources whose time has come, looks at the engine, sends what there is room for."""
        p, tallies, problems = self._p, {}, {}
        for source in p.sources:
            poll_at = self._poll_at.get(source.name)
            if poll_at is not None and p.now() < poll_at:
                continue
            try:
                tallies[source.name] = discover(source, p.recipe, p.catalogs[source.name], p.ledger, p.now)
            except Temporary as error:
                problems[source.name] = error
            jitter = 1 + p.rng.uniform(-JITTER, JITTER)
            self._poll_at[source.name] = p.now() + source.poll.interval * jitter
        facts = reconcile(p.ledger, p.engine, p.limits, p.read_marker, p.now)
        sent = dispatch(p.ledger, p.engine, self._bucket, p.rng, p.now)
        return Tick(tallies, problems, facts, sent)

    def run(self, report: Callable[[Tick], None]) -> None:
        """Goes on until asked to stop."""
        while True:
            report(self.tick())
            if self._p.wait(self._p.beat):
                return

    def drain(self, report: Callable[[Tick], None]) -> bool:
        """One tick to the end: asks once, then sees every event that is due through; False when asked to stop before."""
        tick = self.tick()
        report(tick)
        for source in self._p.sources:
            self._poll_at[source.name] = self._p.now() + timedelta(days=36_500)  # asked once, and no more
        for problem in tick.problems.values():
            raise problem
        while not self._settled():
            if self._p.wait(self._p.beat):
                return False
            report(self.tick())
        return True

    def _settled(self) -> bool:
        due = self._p.ledger.next_due()
        return not self._p.ledger.unfinished() and (due is None or due > self._p.now())
