"""What people ask the ledger for: `status`, `items`, `explain`. Reads, and hands over to `views`.

In: a ledger, the configuration, the time. Out: views. Never: writes, asks the engine or the catalog: it works beside a watcher,
and without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from stac_watch.catalog.abilities import Abilities, restore, summary
from stac_watch.config.model import Limits, Source
from stac_watch.discover.overlap import overlap_of
from stac_watch.jobs.backfill import ordered
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Audited, ConversionRow, Footprint, Order, Scope
from stac_watch.model.errors import InputError
from stac_watch.model.states import State
from stac_watch.report.explain import Circumstances, Explanation, explanation, what_next
from stac_watch.report.lines import Line, line
from stac_watch.report.status import Discovery, SourceStatus, Status, Waiting, narrowed, source_status
from stac_watch.report.status import status as summed_up
from stac_watch.report.web.page import Overview
from stac_watch.report.web.timeline import timeline
from stac_watch.runs.engine import Runs

NO_RUNS = Runs()
SHOWN = 20  # lines of a kind; `items` has all
LONGEST = 5
JOURNEYS = 500  # the last ones; a page that is asked for every two seconds must not read more
MAP_ORDER = (State.SKIPPED, State.DONE, State.QUEUED, State.SUBMITTED, State.RUNNING, State.FAILED)
WAITING = (State.QUEUED, State.SUBMITTED, State.RUNNING)


@dataclass(frozen=True)
class UnreadableItem:
    """An item that cannot be acted on, and why."""

    source: str
    item: str
    why: str


def status(
    ledger: Ledger,
    sources: Sequence[Source],
    limits: Limits,
    now: datetime,
    runs: Runs = NO_RUNS,
) -> Status:
    """Sums up the ledger; sources that are no longer configured are shown as long as the ledger has something of them.

    `runs` are what a watcher saw of them last: how far those in flight are.
    """
    funnel = ledger.counts.funnel()
    orders = {order.source: order for order in ledger.orders.all()}
    configured = {source.name: source for source in sources}
    audited = ledger.sources.audits()
    names = [*configured, *sorted({place.source for place in funnel} - configured.keys())]
    parts: list[SourceStatus] = [
        source_status(
            name, funnel, ledger.counts.lag(name), orders.get(name), now,
            ledger.counts.done_since(name, now - timedelta(hours=1)), ledger.counts.done_since(name, now - timedelta(days=1)),
            discovery(ledger, name, configured.get(name), audited.get(name)),
        )
        for name in names
    ]  # fmt: skip
    failed = ledger.conversions.find(state=State.FAILED, limit=1000)
    in_flight = [r for s in (State.RUNNING, State.SUBMITTED) for r in ledger.conversions.find(state=s, limit=SHOWN)]
    oldest = [r for s in WAITING for r in ledger.conversions.find(state=s, limit=LONGEST, oldest=True)]
    oldest = sorted(oldest, key=lambda row: row.changed_at)[:LONGEST]
    held = ledger.lease.holder()
    return summed_up(
        funnel,
        now,
        unreadable=len(ledger.absences.unreadable()),
        watcher=held[0] if held is not None and held[1] > now else None,
        sources=parts,
        waiting=[Waiting(line(r, now), what_next(r, now, limits, circumstances(ledger, r, orders)).what) for r in oldest],
        failed=failed,
        lines=[line(r, now, run=runs.of(r)) for r in [*in_flight, *failed[:SHOWN]]],
        ledger_bytes=ledger.counts.size(),
    )


def overview(ledger: Ledger, whole: Status, footprints: list[Footprint], scope: Scope) -> Overview:
    """Narrows a status to a scope, and adds how long steps take and how far backfills are."""
    return Overview(
        whole if scope == Scope() else _narrowed(ledger, whole, scope),
        [s.source for s in whole.sources],
        timeline(ledger.counts.journeys(scope, JOURNEYS)),
        [(o, ordered(ledger, o, whole.at)) for o in ledger.orders.all() if scope.has(o.source, "backfill")],
        footprints,
    )


def _narrowed(ledger: Ledger, whole: Status, scope: Scope) -> Status:
    funnel = ledger.counts.funnel() if scope.since is None else ledger.counts.moved_since(scope.since)
    inside = {place: n for place, n in funnel.items() if scope.has(place.source, place.lane)}
    failed = ledger.conversions.find(state=State.FAILED, source=scope.source, lane=scope.lane, since=scope.since, limit=1000)
    return narrowed(whole, scope, inside, failed)


def discovery(ledger: Ledger, name: str, source: Source | None, audited: Audited | None) -> Discovery:
    """Returns what discovery knows of a source's catalog; no overlap where the source is not configured."""
    kept, sweep = ledger.sources.abilities(name), ledger.sources.sweep(name, "recent")
    found = restore(kept[0]) if kept is not None else None
    said = Discovery(
        summary(found) if found else None, kept[1] if kept else None, withdrawn=ledger.absences.withdrawn(name),
        cursor=ledger.sources.position(f"{name}:{found.stamp}") if found else None, swept=sweep.done_at if sweep else None,
        audited=audited,
    )  # fmt: skip
    if source is None:
        return said
    counts, stamp = ledger.sources.lateness(name), found.stamp if found else Abilities().stamp
    sized = source.poll.overlap == "auto" and stamp != "datetime"
    overlap = overlap_of(source, stamp, counts)
    return replace(said, overlap=overlap, lateness_samples=sum(counts.values()) if sized else None)


def footprints(ledger: Ledger, limit: int = 400) -> list[Footprint]:
    """Returns where items lie: of each state the last changed, at most `limit`; what needs eyes comes last, on top of a map."""
    return [f for state in MAP_ORDER for f in ledger.items.footprints(state, limit)]


def items(
    ledger: Ledger,
    now: datetime,
    *,
    source: str | None = None,
    state: State | None = None,
    limit: int = 50,
) -> list[Line]:
    """Returns conversions as lines, the last changed first."""
    rows = ledger.conversions.find(source=source, state=state, limit=limit)
    waits = ledger.outbox.of([row.key for row in rows if row.state is State.QUEUED])
    return [line(row, now, due=waits[row.key].due if row.key in waits else None) for row in rows]


def unreadable(rows: Sequence[tuple[str, str, str]]) -> list[UnreadableItem]:
    """Returns items that cannot be acted on."""
    return [UnreadableItem(*row) for row in rows]


def explain(
    ledger: Ledger, item: str, limits: Limits, now: datetime, log_of: Callable[[str | None], Path | None]
) -> list[Explanation]:
    """Returns the chains of an item's conversions, by its id or a key.

    Raises:
        InputError: the ledger has none.
    """
    orders = {order.source: order for order in ledger.orders.all()}
    return [
        explanation(
            row, now, limits, item=ledger.items.get(row), history=ledger.conversions.history(row.key),
            bodies=ledger.conversions.events(row.key),
            around=circumstances(ledger, row, orders), log=log_of(row.run),
        )
        for row in known(ledger, item)
    ]  # fmt: skip


def circumstances(ledger: Ledger, row: ConversionRow, orders: dict[str, Order]) -> Circumstances:
    """Returns what decides when a conversion's event goes out."""
    if row.state is not State.QUEUED:
        return Circumstances(None, None, None)
    order = orders.get(row.source)
    return Circumstances(
        ledger.outbox.of([row.key]).get(row.key), ledger.conversions.waiting_for(row.key), order.held if order else None
    )


def known(ledger: Ledger, item: str) -> list[ConversionRow]:
    """Returns the conversions of an item, by its id or a key.

    Raises:
        InputError: the ledger has none.
    """
    rows = ledger.conversions.find(item_id=item) or [row for row in [ledger.conversions.get(item)] if row is not None]
    if not rows:
        raise InputError(f"the ledger knows no item or key {item!r}", hint="`stac-watch items` lists what it knows")
    return rows
