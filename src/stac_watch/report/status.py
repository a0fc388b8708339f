"""The question `status`, and its answer: how much is where, how far behind, what waits and why, what failed alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stac_watch.config.model import Limits, Source
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.naming import Sort
from stac_watch.ledger.records import Audited, ConversionRow, Scope
from stac_watch.model.announcement import DeliveryCount, DeliveryState
from stac_watch.model.publication import Publication, PublicationCount, PublicationState
from stac_watch.model.states import State
from stac_watch.report import totals
from stac_watch.report.explain import circumstances, what_next
from stac_watch.report.lines import STYLE, Line, line, table
from stac_watch.report.times import clock, span, when
from stac_watch.report.totals import SourceStatus
from stac_watch.runs.cleaning import spelled
from stac_watch.runs.engine import Runs

NO_RUNS, EVERYTHING = Runs(), Scope()
SHOWN = 20  # lines of a kind; `items` has all
LONGEST = 5
WAITING = (State.QUEUED, State.SUBMITTED, State.RUNNING)


@dataclass(frozen=True)
class Waiting:
    """One of those that wait longest."""

    line: Line
    why: str
    seconds: float  # since it was admitted, or last replayed, whatever was tried since


@dataclass(frozen=True)
class Failure:
    """Failed conversions whose errors have something in common."""

    fingerprint: str
    count: int
    source: str
    example: str | None  # an item


@dataclass(frozen=True)
class Status:
    """How many conversions are where, and which of them a person should know of."""

    at: datetime
    states: dict[str, int]
    skipped: dict[str, int]  # by reason
    unreadable: int
    watcher: str | None
    sources: list[SourceStatus]
    waiting: list[Waiting]
    failures: list[Failure]
    in_flight: list[Line]
    failed: list[Line]
    ledger_bytes: int  # on its disk
    publications: list[PublicationCount]  # of each source in each state; empty where none were ever made
    unregistered: list[Publication]  # those that failed, and that wait after a try that went wrong; the last first
    deliveries: list[DeliveryCount] = field(default_factory=list)  # events of each sink in each state
    lifetime: float | None = None  # seconds that outputs are there once they are done; None = until somebody removes them


def read(
    ledger: Ledger,
    sources: Sequence[Source],
    limits: Limits,
    now: datetime,
    runs: Runs = NO_RUNS,
    lifetime: timedelta | None = None,
) -> Status:
    """Reads the totals and whom they are about: what waits longest, what is in flight, what failed.

    `runs` are what a watcher saw of them last: how far those in flight are. `lifetime` is that of outputs on volumes.
    """
    whole = totals.read(ledger, sources, now)
    failed = ledger.conversions.find(state=State.FAILED, limit=1000)
    held = ledger.lease.holder()
    return Status(
        at=now,
        states=whole.states,
        skipped=whole.skipped,
        unreadable=whole.unreadable,
        watcher=held[0] if held is not None and held[1] > now else None,
        sources=whole.sources,
        waiting=_longest(ledger, whole.sources, limits, now, EVERYTHING),
        failures=_with_examples(whole.failures, failed),
        in_flight=_in_flight(ledger, now, runs, EVERYTHING),
        failed=[line(r, now) for r in failed[:SHOWN]],
        ledger_bytes=whole.ledger_bytes,
        publications=whole.publications,
        unregistered=ledger.publications.troubled(LONGEST) if whole.publications else [],
        deliveries=whole.deliveries,
        lifetime=lifetime.total_seconds() if lifetime is not None else None,
    )


def _longest(ledger: Ledger, sources: Sequence[SourceStatus], limits: Limits, now: datetime, scope: Scope) -> list[Waiting]:
    orders = {s.source: s.backfill for s in sources if s.backfill is not None}
    rows = [r for s in WAITING for r in _within(ledger, scope, s, LONGEST, Sort.WAITING)]
    oldest = sorted(rows, key=lambda row: row.queued_at)[:LONGEST]
    found = []
    for row in oldest:
        then = what_next(row, now, limits, circumstances(ledger, row, orders))
        again = f", at {clock(then.at, now)}" if then.at is not None and then.at > now else ""
        found.append(Waiting(line(row, now), f"{then.what}{again}", round((now - row.queued_at).total_seconds(), 1)))
    return found


def _in_flight(ledger: Ledger, now: datetime, runs: Runs, scope: Scope) -> list[Line]:
    rows = [r for s in (State.RUNNING, State.SUBMITTED) for r in _within(ledger, scope, s, SHOWN)]
    return [line(r, now, run=runs.of(r)) for r in rows]


def _within(ledger: Ledger, scope: Scope, state: State, limit: int, sort: Sort = Sort.CHANGED) -> list[ConversionRow]:
    return ledger.conversions.find(source=scope.source, lane=scope.lane, since=scope.since, state=state, limit=limit, sort=sort)


def narrow(ledger: Ledger, whole: Status, scope: Scope, limits: Limits, runs: Runs = NO_RUNS) -> Status:
    """Returns what a scope leaves of a status; how far a source has got stays as it is."""
    funnel = ledger.counts.funnel() if scope.since is None else ledger.counts.moved_since(scope.since)
    inside = {place: n for place, n in funnel.items() if scope.has(place.source, place.lane)}
    failed = ledger.conversions.find(state=State.FAILED, source=scope.source, lane=scope.lane, since=scope.since, limit=1000)
    return replace(
        whole,
        states=totals.states_of(inside),
        skipped=totals.skipped_of(inside),
        sources=[replace(s, lanes=totals.lanes_of(inside, s.source)) for s in whole.sources if scope.source in (None, s.source)],
        waiting=_longest(ledger, whole.sources, limits, whole.at, scope),
        failures=_with_examples(totals.failures_of(inside), failed),
        in_flight=_in_flight(ledger, whole.at, runs, scope),
        failed=[line(r, whole.at) for r in failed[:SHOWN]],
        unregistered=[p for p in whole.unregistered if scope.source in (None, p.source)],
    )


def _with_examples(counts: Mapping[tuple[str, str], int], failed: Sequence[ConversionRow]) -> list[Failure]:
    examples = {(row.source, row.cause): row.item_id for row in reversed(failed)}  # the last that failed
    return [Failure(cause, n, source, examples.get((source, cause))) for (source, cause), n in counts.items()]


def render_status(view: Status) -> RenderableType:
    """Returns the funnel, and what needs eyes."""
    parts: list[RenderableType] = [_funnel(view), *_notes(view)]
    parts += [_lag(view)] if view.sources else []
    parts += [table(view.in_flight, "in flight")] if view.in_flight else []
    parts += [_waiting(view.waiting)] if view.waiting else []
    parts += [_failures(view.failures)] if view.failures else []
    parts += [_unregistered(view.unregistered)] if view.unregistered else []
    parts += [table(view.failed, "failed: `stac-watch explain ITEM` says why")] if view.failed else []
    return Group(*parts)


def _notes(view: Status) -> list[Text]:
    notes = []
    if view.skipped:
        notes.append(Text("skipped: " + ", ".join(f"{n} {reason}" for reason, n in view.skipped.items()), style="dim"))
    if view.unreadable:
        notes.append(Text(f"{view.unreadable} items cannot be read; `stac-watch items --unreadable` lists them", style="yellow"))
    if view.lifetime is not None:
        lasts = spelled(timedelta(seconds=view.lifetime))
        text = f"outputs lie on the volumes of their runs: each is gone {lasts} after it was done, and its conversion expired"
        notes.append(Text(text, style="yellow"))
    notes.append(Text(f"watcher: {view.watcher or 'none; nothing moves until `stac-watch watch` runs'}"))
    notes += [Text(f"{s.source}: {s.catalog or 'its catalog was not asked yet'}", style="dim") for s in view.sources]
    if view.publications:
        notes.append(Text(f"registered: {published(view.publications)}", style="dim"))
    for sink in sorted({c.sink for c in view.deliveries}):
        counts = {c.state: c.n for c in view.deliveries if c.sink == sink}
        told = ", ".join(f"{counts[state]} {state.value}" for state in DeliveryState if counts.get(state))
        style = "yellow" if DeliveryState.REFUSED in counts else "dim"
        notes.append(Text(f"told to {sink}: {told}", style=style))
    for source in view.sources:
        if source.backfill is not None and source.backfill.held:
            text = f"backfill of {source.source} is on hold: {source.backfill.held}; the same command with --yes resumes it"
            notes.append(Text(text, style="bold yellow"))
    return notes


def published(counts: Sequence[PublicationCount]) -> str:
    """Returns how many items are registered, or are to be, in a line; leaving is told only where some leave."""
    states = {state: sum(c.n for c in counts if c.state is state) for state in PublicationState}
    leaving = (PublicationState.WITHDRAWING, PublicationState.WITHDRAWN)
    return ", ".join(f"{n} {state.value}" for state, n in states.items() if n or state not in leaving)


def _waiting(entries: Sequence[Waiting]) -> Table:
    waits = Table(title="longest waiting", title_justify="left", header_style="bold")
    for column in ("item", "state", "for", "why"):
        waits.add_column(column, overflow="fold")
    for w in entries:
        waits.add_row(w.line.item, w.line.state.value, span(w.seconds), Text(w.why))
    return waits


def _unregistered(rows: Sequence[Publication]) -> Table:
    title = "not registered: `stac-watch register --failed --yes` tries again"
    late = Table(title=title, title_justify="left", header_style="bold")
    for column in ("item", "state", "tries", "why"):
        late.add_column(column, overflow="fold")
    for row in rows:
        late.add_row(row.item_id, row.state.value, str(row.attempts), Text(row.reason or ""))
    return late


def _failures(groups: Sequence[Failure]) -> Table:
    failed = Table(title="failures: `stac-watch replay --error TEXT` tries again", title_justify="left", header_style="bold")
    for column in ("count", "source", "failed with", "for example"):
        failed.add_column(column, overflow="fold")
    for f in groups[:10]:
        failed.add_row(str(f.count), f.source, Text(f.fingerprint), f.example or "")
    return failed


def _funnel(view: Status) -> Table:
    funnel = Table(title="conversions", title_justify="left", header_style="bold")
    funnel.add_column("source")
    funnel.add_column("lane")
    for state in State:
        funnel.add_column(Text(state.value, style=STYLE[state]), justify="right")
    for source in view.sources:
        for lane, states in source.lanes.items():
            funnel.add_row(source.source, lane, *(str(states[s.value]) for s in State))
    funnel.add_row("all", "", *(str(view.states[s.value]) for s in State), style="bold")
    return funnel


def _overlap(source: SourceStatus) -> str:
    if source.overlap is None:
        return "-"
    why = "as set" if source.lateness_samples is None else f"lateness of {source.lateness_samples} items"
    return f"{source.overlap / 60:.0f} min ({why})"


def _restamped(source: SourceStatus) -> str:
    """Returns how far the looks at known items are that were stamped anew and have no checksum."""
    counts = dict(source.restamped)
    waiting = counts.pop("waiting")
    found = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    return "; in 24 h ".join(part for part in (f"{waiting} to look at" if waiting else "", found) if part) or "-"


def _verdict(audited: Audited | None) -> str:
    if audited is None:
        return "-"
    gaps = ", ".join(f"{n} {kind}" for kind, n in audited.gaps.items() if n)
    return f"{when(audited.at)}: {gaps or 'no gap'}"


def _lag(view: Status) -> Table:
    lag = Table(title="freshness", title_justify="left", header_style="bold")
    lag.add_column("")
    for s in view.sources:
        lag.add_column(s.source)
    lag.add_row("newest published", *(when(s.newest_published) for s in view.sources))
    lag.add_row("newest seen", *(when(s.newest_seen) for s in view.sources))
    lag.add_row("newest done", *(when(s.newest_done) for s in view.sources))
    lag.add_row("done in 1 h / 24 h", *(f"{s.done_last_hour} / {s.done_last_day}" for s in view.sources))
    lag.add_row("to do", *(str(s.unfinished) for s in view.sources))
    lag.add_row("ETA", *(when(s.eta) for s in view.sources))
    lag.add_row("overlap", *(_overlap(s) for s in view.sources))
    lag.add_row("withdrawn", *(str(s.withdrawn) for s in view.sources))
    if any(any(s.retired.values()) for s in view.sources):
        lag.add_row("retired", *(", ".join(f"{n} {what}" for what, n in s.retired.items() if n) or "-" for s in view.sources))
    if any(any(s.restamped.values()) for s in view.sources):
        lag.add_row("re-stamped", *(_restamped(s) for s in view.sources))
    lag.add_row("swept", *(when(s.swept) for s in view.sources))
    lag.add_row("audited", *(_verdict(s.audited) for s in view.sources))
    return lag
