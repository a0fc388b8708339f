"""What conversions fail with becomes one event for each cause: when it begins, and when it is over; never one for each item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from stac_watch.config.model import Config
from stac_watch.ledger.ledger import Ledger
from stac_watch.model.announcement import GATHER, QUIET, SETTLED, Audience, Incident, cause_event
from stac_watch.model.patience import Rest, waited


def audience_of(config: Config) -> Audience | None:
    """Returns who is told of outputs; None where nobody is."""
    sinks = {sink.name: frozenset[str](sink.types) for sink in config.sinks}
    return Audience(config.installation, sinks, registers=config.registration is not None) if sinks else None


class Causes:
    """Compares what is failed now with the causes that others know of."""

    def __init__(self, ledger: Ledger, audience: Audience, now: Callable[[], datetime]) -> None:
        self._ledger, self._audience, self._now = ledger, audience, now
        self._looked: Rest | None = None

    def look(self) -> int:
        """Tells of causes that began and of those that are over, once a minute; returns how many."""
        now = self._now()
        if self._looked is not None and self._looked.lasts(now):
            return 0
        self._looked = Rest(now, now + GATHER)
        failing, known = self._ledger.deliveries.failing(), self._ledger.deliveries.incidents()
        told = sum(self._begun(*place, known.get(place), now) for place in failing)
        return told + sum(self._ended(incident, failing.get(place, 0), now) for place, incident in known.items())

    def _begun(self, source: str, cause: str, known: Incident | None, now: datetime) -> int:
        if known is not None and known.resolved_at is None:
            return 0
        found = self._ledger.deliveries.seen(source, cause, known.resolved_at if known is not None else None)
        if found is None or not waited(found.since, now, GATHER):
            return 0
        event = cause_event(found, now=now, installation=self._audience.installation)
        self._ledger.deliveries.note(found, event, self._audience, now)
        return 1

    def _ended(self, known: Incident, n: int, now: datetime) -> int:
        if known.resolved_at is not None:
            return 0
        newer = self._ledger.deliveries.seen(known.source, known.cause, known.last)
        last = newer.last if newer is not None else now if known.n and not n else known.last
        over = "none is failed any more" if n == 0 else f"none failed with it for a day; {n} are failed still"
        if not waited(last, now, QUIET if n else SETTLED):
            if (n, last) != (known.n, known.last):
                self._ledger.deliveries.note(replace(known, n=n, last=last), None, self._audience, now)
            return 0
        ended = replace(known, n=n, last=last, resolved_at=now)
        event = cause_event(ended, now=now, installation=self._audience.installation, why=over)
        self._ledger.deliveries.note(ended, event, self._audience, now)
        return 1
