"""Converts what was there before: a range of acquisition days, planned first, resumable, and under a brake.

The plan changes nothing. Doing it admits conversions in the lane `backfill`, oldest first, each window's items and the backfill's
own cursor in one transaction. Nothing is sent from here: that is `dispatch`, which keeps to the order that is left in the ledger.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stac_watch.catalog.reader import Leaf
from stac_watch.catalog.windows import DAY, floor_day, floor_second
from stac_watch.config.model import Limits, Source
from stac_watch.discover.intake import Comparison, Intake
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow, Order
from stac_watch.model.errors import InputError
from stac_watch.model.states import FINAL, IN_FLIGHT, State

USUAL_BYTES = 1.26e9  # of one product at the source, 657 objects (EOPF-Explorer/data-pipeline, its operators' notes)
USUAL_SECONDS = 300.0  # of one conversion of a full tile, volume and packaging included
SAMPLE = 100  # conversions from which size and time are taken, once there are any


@dataclass(frozen=True)
class BackfillRequest:
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
    expired: int = 0  # done, and gone with their runs' volumes: a replay makes them again
    other_recipe: int = 0  # of those to do: done already, with another recipe or at another place


@dataclass(frozen=True)
class BackfillPlan:
    """What a backfill would do."""

    source: str
    start: datetime
    end: datetime
    goes_on_at: datetime | None  # where an earlier run of the same range stopped
    days: list[Day]
    reasons: dict[str, int]  # of the skipped ones
    to_do: int
    gigabytes: float
    hours: float
    limit: str  # what the hours are limited by
    measured: bool  # whether size and time come from conversions of this ledger
    held: str | None
    other_recipe: int = 0  # of those to do: done already, with another recipe or at another place


def check_range(request: BackfillRequest, now: datetime) -> BackfillRequest:
    """Returns the request with whole seconds, no later than today: until now, the range and so its cursor would change at once.

    Raises:
        InputError: the range is empty.
    """
    start, end = floor_second(request.start), floor_second(min(request.end, floor_day(now) + DAY))
    if start >= min(end, now):
        raise InputError(
            f"nothing lies between {start:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M}", hint="--start must be before --end"
        )
    return replace(request, start=start, end=end)


def plan(intake: Intake, limits: Limits, request: BackfillRequest) -> BackfillPlan:
    """Reads the range and says what a backfill of it would do; writes nothing of it.

    Raises:
        CatalogUnavailable: no usable answer.
    """
    intake.ensure_abilities()
    source, ledger = intake.source, intake.ledger
    found: dict[str, Counter[str]] = {}
    reasons = Counter[str]()
    for leaf, seen in intake.read_days(request.start, request.end, "backfill"):
        found.setdefault(f"{leaf.window.start:%Y-%m-%d}", Counter()).update(_tally(seen, leaf))
        reasons.update(_reasons(seen))
    rows = [Day(day=day, **{name: counts[name] for name in _COUNTED}) for day, counts in sorted(found.items())]
    to_do = sum(day.to_do for day in rows)
    to_do = min(to_do, request.max_items) if request.max_items is not None else to_do
    recent = ledger.conversions.find(state=State.DONE, source=source.name, limit=SAMPLE)
    size, seconds = usual(recent)
    hours, limit = _hours(to_do, seconds, limits, source)
    order = next((o for o in ledger.orders.all() if o.source == source.name), None)
    position = ledger.sources.position(cursor(intake, request))
    return BackfillPlan(
        source=source.name,
        start=request.start,
        end=request.end,
        goes_on_at=position if position is not None and position < request.end else None,
        days=rows,
        reasons=dict(reasons.most_common()),
        to_do=to_do,
        gigabytes=round(to_do * size / 1e9, 1),
        hours=round(hours, 2),
        limit=limit,
        measured=any(_costs(row) for row in recent),
        held=order.held if order else None,
        other_recipe=sum(day.other_recipe for day in rows),
    )


_COUNTED = ("items", "to_do", "done", "unfinished", "failed", "skipped", "unreadable", "expired", "other_recipe")


def _tally(seen: Comparison, leaf: Leaf) -> Counter[str]:
    new = {s.item.item_id for s in seen.sightings}
    counts = Counter({"items": len(leaf.documents), "unreadable": len(seen.unreadable) + (leaf.hidden is not None)})
    for s in seen.sightings:
        if s.item.item_id not in seen.shared:
            counts["to_do" if s.skip is None else "skipped"] += 1
    counts["other_recipe"] = sum(seen.known[i].state is State.DONE for i in seen.otherwise)
    for item_id, known in (seen.known | seen.shared).items():
        if item_id not in new or item_id in seen.shared:
            counts[known.state.value if known.state in FINAL else "unfinished"] += 1
    return counts


def _reasons(seen: Comparison) -> Iterator[str]:
    """Yields why items are skipped: as they are judged now, or as it is known of what is not judged."""
    judged = {s.item.item_id: s.skip for s in seen.sightings}
    yield from (skip.value for item_id, skip in judged.items() if skip is not None and item_id not in seen.shared)
    yield from (k.cause for item_id, k in seen.known.items() if item_id not in judged and k.state is State.SKIPPED)


def usual(rows: Iterable[ConversionRow]) -> tuple[float, float]:
    """Returns bytes and seconds of one conversion: the mean of these, or what is usual where they say nothing."""
    costs = [cost for row in rows if (cost := _costs(row)) is not None]
    if not costs:
        return USUAL_BYTES, USUAL_SECONDS
    return sum(size for size, _ in costs) / len(costs), sum(seconds for _, seconds in costs) / len(costs)


def _costs(row: ConversionRow) -> tuple[float, float] | None:
    if row.outcome is None:
        return None
    size, seconds = row.outcome.counts.bytes_read, sum(row.outcome.seconds.values())
    return (float(size), float(seconds)) if size and seconds else None


def _hours(to_do: int, seconds: float, limits: Limits, source: Source) -> tuple[float, str]:
    runs = min(limits.max_in_flight, source.max_in_flight or limits.max_in_flight)
    by_runs, by_rate = to_do * seconds / runs / 3600, to_do / limits.rate / 3600
    if by_runs >= by_rate:
        return by_runs, f"{runs} runs at a time, {seconds:.0f} s each"
    return by_rate, f"{limits.rate:g} events per second"


# -- doing it ------------------------------------------------------------------------------------------------------------------


def begin(intake: Intake, request: BackfillRequest) -> None:
    """Leaves the order that `dispatch` keeps to; given again, it lifts what held the last one."""
    intake.ensure_abilities()
    source, ledger, now = intake.source.name, intake.ledger, intake.now()
    ledger.orders.give(Order(source, request.start, request.end, now, request.canary, request.max_failures, None))
    name = cursor(intake, request)
    position = ledger.sources.position(name)
    if position is not None and position >= request.end:
        ledger.sources.set_position(name, request.start, now)  # it was read to its end: look again for what is new


def admit(intake: Intake, request: BackfillRequest) -> Iterator[tuple[datetime, int]]:
    """Admits window by window from where an earlier run stopped; yields how far it is and how many were admitted.

    Raises:
        CatalogUnavailable: no usable answer; run again, it goes on at the window that failed.
    """
    name, admitted = cursor(intake, request), 0
    start = intake.ledger.sources.position(name) or request.start
    for leaf, seen in intake.read_days(start, request.end, "backfill"):
        room = None if request.max_items is None else request.max_items - admitted
        wanted = [s for s in seen.sightings if s.skip is None and s.item.item_id not in seen.shared]
        cut = room is not None and len(wanted) > room
        if cut:
            seen = replace(seen, sightings=wanted[:room], older={})
        done = intake.commit(seen, leaf, cursor=None if cut or leaf.part else (name, leaf.window.end))
        admitted += done.admitted
        yield leaf.window.end, admitted
        if cut:
            return


def cursor(intake: Intake, request: BackfillRequest) -> str:
    """Returns the name of the cursor: another range or another recipe is another backfill."""
    what = f"{request.start.isoformat()}/{request.end.isoformat()} {intake.recipe.digest_fields()}"
    return intake.cursor(f"backfill:{hashlib.sha256(what.encode()).hexdigest()[:12]}")


# -- following it --------------------------------------------------------------------------------------------------------------


def progress(
    ledger: Ledger, source: str, request: BackfillRequest, began: datetime, done_before: int, now: datetime
) -> BackfillProgress:
    """Returns how far a backfill is; the ETA is what its own rate since it began gives."""
    held = next((o.held for o in ledger.orders.all() if o.source == source), None)
    states, waiting = _states(ledger, source, request.start, request.end)
    return _summed_up(states, waiting, held, states.get(State.DONE, 0) - done_before, began, now)


def ordered(ledger: Ledger, order: Order, now: datetime) -> BackfillProgress:
    """Returns how far what was ordered is; the ETA is what the source's backfill did in the last hour, or since the order."""
    since = max(order.created_at, now - timedelta(hours=1))
    states, waiting = _states(ledger, order.source, order.start, order.end)
    return _summed_up(states, waiting, order.held, ledger.counts.done_since(order.source, since, "backfill"), since, now)


def _states(ledger: Ledger, source: str, start: datetime, end: datetime) -> tuple[Mapping[State, int], int]:
    """Returns how many items are in each state, and how many of the queued ones wait for their product."""
    states = ledger.counts.states_within(source, start, end)
    return states, ledger.counts.waiting_within(source, start, end) if states.get(State.QUEUED) else 0


def _summed_up(
    states: Mapping[State, int], waiting: int, held: str | None, gained: int, since: datetime, now: datetime
) -> BackfillProgress:
    in_flight = sum(states.get(state, 0) for state in IN_FLIGHT)
    to_do = states.get(State.QUEUED, 0) - waiting + in_flight
    return BackfillProgress(
        total=sum(states.values()) - states.get(State.SKIPPED, 0),
        done=states.get(State.DONE, 0),
        failed=states.get(State.FAILED, 0),
        to_do=to_do,
        waiting=waiting,
        in_flight=in_flight,
        held=held,
        eta=now + to_do * (now - since) / gained if to_do and gained > 0 else None,
    )


@dataclass(frozen=True)
class BackfillProgress:
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
