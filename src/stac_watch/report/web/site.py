"""What the web may look at: the ledger, read once for all who ask at once, and the loop's pulse."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stac_watch.config.model import Limits, Source
from stac_watch.config.objective import Objective
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Scope
from stac_watch.model.errors import StacWatchError
from stac_watch.report import freshness, status, totals
from stac_watch.report.freshness import Burn, burns
from stac_watch.report.health import Health, alive, ready
from stac_watch.report.links import Links
from stac_watch.report.status import Status
from stac_watch.report.totals import Totals
from stac_watch.report.web import overview
from stac_watch.report.web.attention import Standing
from stac_watch.report.web.freshness import pages
from stac_watch.report.web.hints import Desk
from stac_watch.report.web.overview import Extent, Overview
from stac_watch.report.web.page import render_live
from stac_watch.report.web.query import View
from stac_watch.watch.pulse import Pulse

KEPT = timedelta(seconds=2)  # a reading, for all who ask meanwhile: at a million items it costs the database up to a second


KEPT_LONG = timedelta(minutes=5)  # of what reads all that was announced in days: two seconds a month of Sentinel-2 over Europe
DAYS = 30  # that the freshness page tells of


class Kept[T]:
    """A reading that is made once for all who ask for it within two seconds, or longer."""

    def __init__(self, keep: timedelta = KEPT) -> None:
        self._lock, self._keep = threading.Lock(), keep
        self._last: tuple[datetime, T] | None = None

    def get(self, now: datetime, read: Callable[[], T]) -> T:
        """Returns the last reading, or a new one; what one could not read, the next who asks tries to."""
        with self._lock:
            if self._last is None or not timedelta(0) <= now - self._last[0] < self._keep:
                self._last = None
                self._last = (now, read())
            return self._last[1]


@dataclass
class Reading:
    """A status, and what was made of it for those who asked."""

    status: Status
    extents: dict[Scope, Extent] = field(default_factory=dict)
    overviews: dict[View, Overview] = field(default_factory=dict)
    contents: dict[View, str] = field(default_factory=dict)


class Site:
    """What the web may look at, and what it saw a moment ago. Every method but `health` may be two seconds late.

    `/metrics` asks for `totals` alone: it waits for no page, and reads nothing that only a page shows.

    Raises:
        StacWatchError: of each of them, the ledger does not answer.
    """

    def __init__(
        self,
        ledger: Ledger,
        sources: tuple[Source, ...],
        limits: Limits,
        pulse: Callable[[], Pulse],
        now: Callable[[], datetime],
        version: str,
        links: Links | None = None,
        installation: str = "",
        objective: Objective | None = None,
        desk: Desk | None = None,
    ) -> None:
        self.ledger, self.sources, self.limits = ledger, sources, limits
        self.pulse, self.now, self.version, self.links = pulse, now, version, links or Links()
        self.installation, self.objective, self.desk = installation, objective, desk
        self._burns, self._freshness = Kept[list[Burn]](KEPT_LONG), Kept[dict[str, str]](KEPT_LONG)
        self._totals, self._status, self._reading = Kept[Totals](), Kept[Status](), Kept[Reading]()
        self._pages = threading.Lock()  # a page is made once for all who wait for it

    def totals(self) -> Totals:
        """Returns what everything adds up to."""
        now = self.now()
        return self._totals.get(now, lambda: totals.read(self.ledger, self.sources, now))

    def burns(self) -> list[Burn]:
        """Returns how fast each source uses up what the objective allows; nothing where none is configured."""
        objective, now = self.objective, self.now()
        if objective is None:
            return []
        return self._burns.get(now, lambda: burns(self.ledger, [source.name for source in self.sources], objective, now))

    def freshness(self) -> dict[str, str]:
        """Returns the files that `report --out` writes, five minutes old at most, with ways to the other pages."""
        now, names = self.now(), [source.name for source in self.sources]

        def made() -> dict[str, str]:
            found = freshness.read(self.ledger, names, now, DAYS, objective=self.objective, installation=self.installation)
            return pages(found, self.version, home="../")

        return self._freshness.get(now, made)

    def status(self) -> Status:
        """Returns what `status` says."""
        now = self.now()
        return self._status.get(now, lambda: status.read(self.ledger, self.sources, self.limits, now, self.pulse().runs))

    def overview(self, view: View) -> Overview:
        """Returns what the status page shows of a part of the ledger."""
        with self._pages:
            return self._overview(view)

    def content(self, view: View) -> str:
        """Returns the part of the status page that changes, rendered once for all who read it."""
        with self._pages:
            seen, reading = self._overview(view), self._read()
            if view not in reading.contents:
                reading.contents[view] = render_live(seen, self.standing(), view, self.sources)
            return reading.contents[view]

    def _overview(self, view: View) -> Overview:
        reading = self._read()
        if view not in reading.overviews:
            scope, runs = view.scope(reading.status.at), self.pulse().runs
            if scope not in reading.extents:
                reading.extents[scope] = overview.read_extent(self.ledger, reading.status, scope, self.limits, runs)
            extent = reading.extents[scope]
            names = [source.source for source in reading.status.sources]
            reading.overviews[view] = overview.overview(extent, overview.read_listing(self.ledger, extent, view, runs), names)
        return reading.overviews[view]

    def _read(self) -> Reading:
        return self._reading.get(self.now(), lambda: Reading(self.status()))

    def names(self) -> list[str]:
        """Returns the sources that there are, those of the ledger included."""
        return [source.source for source in self.status().sources]

    def standing(self) -> Standing:
        """Returns how the watcher does, as the page tells it."""
        pulse = self.pulse()
        return Standing(self.health(), alive(pulse.age), pulse.ticks, pulse.answered)

    def health(self) -> Health:
        """Tells whether the watcher can do its work; asks the ledger now."""
        pulse, problem = self.pulse(), None
        try:
            self.ledger.lease.holder()
        except StacWatchError as error:
            problem = error
        return ready(rounds=pulse.ticks, standby=pulse.standby, ailing=pulse.ailing, ledger=problem)
