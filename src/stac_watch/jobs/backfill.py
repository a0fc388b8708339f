"""Converts what was there before: a range of acquisition days, planned first, resumable, and under a brake.

In: a source, a range, its limits. Out: a plan that changes nothing; or conversions in the lane `backfill`, oldest first, each
window's items and its own cursor in one transaction. Never: sends anything (that is `dispatch`, which keeps to the order that is
left in the ledger), or starves what is live.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stac_watch.catalog.client import Catalog
from stac_watch.catalog.reader import Leaf, leaves
from stac_watch.catalog.windows import DAY, Window, days, floor_day, floor_second
from stac_watch.config.model import Limits, Recipe, Source
from stac_watch.discover.intake import Look, commit, ensure_abilities, look
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow, Order
from stac_watch.model.errors import InputError
from stac_watch.model.states import FINAL, IN_FLIGHT, State

USUAL_BYTES = 1.26e9  # of one product at the source, 657 objects (EOPF-Explorer/data-pipeline, its operators' notes)
USUAL_SECONDS = 300.0  # of one conversion of a full tile, volume and packaging included
SAMPLE = 100  # conversions from which size and time are taken, once there are any


@dataclass(frozen=True)
class Request:
    """What a person asked for."""

    start: datetime
    end: datetime  # exclusive
    canary: int = 0
    max_items: int | None = None
    max_failures: int | None = None


@dataclass(frozen=True)
class Day:
    """What one day of the range holds."""

    day: str  # yyyy-mm-dd
    items: int
    to_do: int
    done: int
    unfinished: int
    failed: int
    skipped: int
    unreadable: int


@dataclass(frozen=True)
class Plan:
    """What a backfill would do."""

    source: str
    start: datetime
    end: datetime
    goes_on_at: datetime | None  # where an earlier run of the same range stopped
    days: list[Day]
    to_do: int
    gigabytes: float
    hours: float
    limit: str  # what the hours are limited by
    measured: bool  # whether size and time come from conversions of this ledger
    held: str | None


@dataclass(frozen=True)
class Context:
    """What a backfill works with."""

    source: Source
    recipe: Recipe
    limits: Limits
    catalog: Catalog
    ledger: Ledger


def check_range(request: Request, now: datetime) -> Request:
    """Returns the request with whole seconds, no later than today: until now, the range and so its cursor would change at once.

    Raises:
        InputError: the range is empty.
    """
    start, end = floor_second(request.start), floor_second(min(request.end, floor_day(now) + DAY))
    if start >= min(end, now):
        raise InputError(f"nothing lies between {start:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M}", hint="--start is before --end")
    return replace(request, start=start, end=end)


def plan(c: Context, request: Request, now: datetime) -> Plan:
    """Reads the range and says what a backfill of it would do; writes nothing of it.

    Raises:
        CatalogUnavailable: no usable answer.
    """
    ensure_abilities(c.source, c.catalog, c.ledger, now)
    found: dict[str, Counter[str]] = {}
    for _, seen, leaf in _read(c, request.start, request.end, now):
        found.setdefault(f"{leaf.window.start:%Y-%m-%d}", Counter()).update(_tally(seen, leaf))
    rows = [Day(day=day, **{name: counts[name] for name in _COUNTED}) for day, counts in sorted(found.items())]
    to_do = sum(day.to_do for day in rows)
    to_do = min(to_do, request.max_items) if request.max_items is not None else to_do
    recent = c.ledger.conversions.find(state=State.DONE, source=c.source.name, limit=SAMPLE)
    size, seconds = usual(recent)
    hours, limit = _hours(to_do, seconds, c.limits, c.source)
    order = next((o for o in c.ledger.orders.all() if o.source == c.source.name), None)
    position = c.ledger.sources.position(cursor(c, request))
    return Plan(
        source=c.source.name,
        start=request.start,
        end=request.end,
        goes_on_at=position if position is not None and position < request.end else None,
        days=rows,
        to_do=to_do,
        gigabytes=round(to_do * size / 1e9, 1),
        hours=round(hours, 2),
        limit=limit,
        measured=any(_costs(row) for row in recent),
        held=order.held if order else None,
    )


_COUNTED = ("items", "to_do", "done", "unfinished", "failed", "skipped", "unreadable")


def _tally(seen: Look, leaf: Leaf) -> Counter[str]:
    new = {s.item.item_id for s in seen.sightings}
    counts = Counter({"items": len(leaf.documents), "unreadable": len(seen.bad) + (leaf.hidden is not None)})
    for s in seen.sightings:
        counts["to_do" if s.skip is None else "skipped"] += 1
    for item_id, known in seen.known.items():
        if item_id not in new:
            counts[known.state.value if known.state in FINAL else "unfinished"] += 1
    return counts


def usual(rows: Iterable[ConversionRow]) -> tuple[float, float]:
    """Returns bytes and seconds of one conversion: the mean of these, or what is usual where they say nothing."""
    costs = [cost for row in rows if (cost := _costs(row)) is not None]
    if not costs:
        return USUAL_BYTES, USUAL_SECONDS
    return sum(size for size, _ in costs) / len(costs), sum(seconds for _, seconds in costs) / len(costs)


def _costs(row: ConversionRow) -> tuple[float, float] | None:
    outcome = row.outcome or {}
    size, seconds = (outcome.get("counts") or {}).get("bytes_read"), sum((outcome.get("seconds") or {}).values())
    return (float(size), float(seconds)) if size and seconds else None


def _hours(to_do: int, seconds: float, limits: Limits, source: Source) -> tuple[float, str]:
    runs = min(limits.max_in_flight, source.max_in_flight or limits.max_in_flight)
    by_runs, by_rate = to_do * seconds / runs / 3600, to_do / limits.rate / 3600
    if by_runs >= by_rate:
        return by_runs, f"{runs} runs at a time, {seconds:.0f} s each"
    return by_rate, f"{limits.rate:g} events per second"


# -- doing it ------------------------------------------------------------------------------------------------------------------


def begin(c: Context, request: Request, now: datetime) -> None:
    """Leaves the order that `dispatch` keeps to; given again, it lifts what held the last one."""
    ensure_abilities(c.source, c.catalog, c.ledger, now)
    c.ledger.orders.give(Order(c.source.name, request.start, request.end, now, request.canary, request.max_failures, None))
    position = c.ledger.sources.position(cursor(c, request))
    if position is not None and position >= request.end:
        c.ledger.sources.set_position(cursor(c, request), request.start, now)  # it was read to its end: look again for what is new


def admit(c: Context, request: Request, now: datetime) -> Iterator[tuple[datetime, int]]:
    """Admits window by window from where an earlier run stopped; yields how far it is and how many were admitted.

    Raises:
        CatalogUnavailable: no usable answer; run again, it goes on at the window that failed.
    """
    name, admitted = cursor(c, request), 0
    for _, seen, leaf in _read(c, c.ledger.sources.position(name) or request.start, request.end, now):
        room = None if request.max_items is None else request.max_items - admitted
        wanted = sum(s.skip is None for s in seen.sightings)
        cut = room is not None and wanted > room
        if cut:
            seen = replace(seen, sightings=[s for s in seen.sightings if s.skip is None][:room], older={})
        done = commit(seen, leaf.hidden, c.source, c.ledger, now, cursor=None if cut else (name, leaf.window.end))
        admitted += done.admitted
        yield leaf.window.end, admitted
        if cut:
            return


def cursor(c: Context, request: Request) -> str:
    """Returns the name of the cursor: another range or another recipe is another backfill."""
    what = f"{request.start.isoformat()}/{request.end.isoformat()} {c.recipe.digest_fields()}"
    return f"{c.source.name}:backfill:{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def _read(c: Context, start: datetime, end: datetime, now: datetime) -> Iterator[tuple[Window, Look, Leaf]]:
    for window in days("datetime", start, end):
        for leaf in leaves(c.catalog, window, c.source.poll.page):
            yield window, look(leaf.documents, c.source, c.recipe, c.ledger, now, lane="backfill"), leaf


# -- following it --------------------------------------------------------------------------------------------------------------


def progress(c: Context, request: Request, began: datetime, done_before: int, now: datetime) -> Progress:
    """Returns how far a backfill is; the ETA is what its own rate since it began gives."""
    held = next((o.held for o in c.ledger.orders.all() if o.source == c.source.name), None)
    found = _counted(c.ledger, c.source.name, request.start, request.end, held)
    return replace(found, eta=_eta(found.to_do, found.done - done_before, began, now))


def ordered(ledger: Ledger, order: Order, now: datetime) -> Progress:
    """Returns how far what was ordered is; the ETA is what the source's backfill did in the last hour, or since the order."""
    since = max(order.created_at, now - timedelta(hours=1))
    found = _counted(ledger, order.source, order.start, order.end, order.held)
    return replace(found, eta=_eta(found.to_do, ledger.counts.done_since(order.source, since, "backfill"), since, now))


def _eta(to_do: int, gained: int, since: datetime, now: datetime) -> datetime | None:
    if gained <= 0 or not to_do:
        return None
    return now + timedelta(seconds=to_do * (now - since).total_seconds() / gained)


def _counted(ledger: Ledger, source: str, start: datetime, end: datetime, held: str | None) -> Progress:
    states = ledger.counts.states_within(source, start, end)
    queued, done = states.get(State.QUEUED, 0), states.get(State.DONE, 0)
    waiting = ledger.counts.waiting_within(source, start, end) if queued else 0
    in_flight = sum(states.get(state, 0) for state in IN_FLIGHT)
    to_do = queued - waiting + in_flight
    total = sum(states.values()) - states.get(State.SKIPPED, 0)
    return Progress(total, done, states.get(State.FAILED, 0), to_do, waiting, in_flight, held, None)


@dataclass(frozen=True)
class Progress:
    """How far the items of a range are."""

    total: int  # to be converted: skipped ones are not
    done: int
    failed: int
    to_do: int  # moves by itself
    waiting: int  # their products are not there yet: looked at again, for days
    in_flight: int
    held: str | None
    eta: datetime | None

    @property
    def settled(self) -> bool:
        """Nothing more moves by itself, or not soon."""
        return self.to_do == 0 or (self.held is not None and self.in_flight == 0)

    @property
    def counts(self) -> str:
        """One line of numbers."""
        waiting = f", {self.waiting} not there yet" if self.waiting else ""
        return f"{self.done} done, {self.failed} failed, {self.to_do} to do{waiting}"
