"""How much is where, how far behind, what waits and why, what failed alike, how fast it goes. Pure.

In: counts, lags, orders, lines. Out: a `Status`, and its picture. Never: asks the ledger or prints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stac_watch.ledger.records import Audited, ConversionRow, Lag, Order, Place, Scope
from stac_watch.model.stamps import stamp
from stac_watch.model.states import FINAL, IN_FLIGHT, State
from stac_watch.report.lines import STYLE, Line, table


@dataclass(frozen=True)
class SourceStatus:
    """One source: its funnel by lane, and how far it has got."""

    source: str
    lanes: dict[str, dict[str, int]]  # lane -> state -> conversions
    newest_published: datetime | None
    newest_seen: datetime | None
    newest_done: datetime | None
    done_last_hour: int
    done_last_day: int
    unfinished: int
    eta: datetime | None
    backfill: Order | None
    catalog: str | None
    probed: datetime | None
    overlap: float | None  # seconds
    lateness_samples: int | None  # None = it is not sized by them
    withdrawn: int
    cursor: datetime | None  # every change up to then was read
    swept: datetime | None  # when the last sweep of recent days ended
    audited: Audited | None


@dataclass(frozen=True)
class Discovery:
    """What discovery knows of a source's catalog."""

    catalog: str | None = None  # what the probe found, in one line
    probed: datetime | None = None
    overlap: timedelta | None = None  # None where the source is not configured any more
    lateness_samples: int | None = None
    withdrawn: int = 0
    cursor: datetime | None = None
    swept: datetime | None = None
    audited: Audited | None = None


@dataclass(frozen=True)
class Waiting:
    """One of those that wait longest."""

    line: Line
    why: str


@dataclass(frozen=True)
class Failure:
    """Failed conversions whose errors have something in common."""

    fingerprint: str
    count: int
    source: str
    example: str | None  # an item


@dataclass(frozen=True)
class Status:
    """How many conversions are where."""

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


def source_status(
    source: str,
    funnel: Mapping[Place, int],
    lag: Lag,
    order: Order | None,
    now: datetime,
    done_last_hour: int,
    done_last_day: int,
    discovery: Discovery,
) -> SourceStatus:
    """Sums up one source; the ETA is what the last hour's rate gives."""
    unfinished = sum(n for p, n in funnel.items() if p.source == source and p.state not in FINAL)
    eta = now + timedelta(hours=unfinished / done_last_hour) if unfinished and done_last_hour else None
    return SourceStatus(
        source,
        _lanes(funnel, source),
        lag.published,
        lag.seen,
        lag.done,
        done_last_hour,
        done_last_day,
        unfinished,
        eta,
        order,
        discovery.catalog,
        discovery.probed,
        discovery.overlap.total_seconds() if discovery.overlap is not None else None,
        discovery.lateness_samples,
        discovery.withdrawn,
        discovery.cursor,
        discovery.swept,
        discovery.audited,
    )


def failures(funnel: Mapping[Place, int], failed: Sequence[ConversionRow]) -> list[Failure]:
    """Groups failed conversions by what their failures have in common, the most frequent first."""
    examples = {(row.source, row.cause): row.item_id for row in reversed(failed)}
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for place, n in funnel.items():
        if place.state is State.FAILED:
            counts[place.source, place.cause] += n
    found = [Failure(cause, n, source, examples.get((source, cause))) for (source, cause), n in counts.items()]
    return sorted(found, key=lambda f: (-f.count, f.fingerprint))


def status(
    funnel: Mapping[Place, int],
    now: datetime,
    *,
    unreadable: int,
    watcher: str | None,
    sources: list[SourceStatus],
    waiting: list[Waiting],
    failed: Sequence[ConversionRow],
    lines: Sequence[Line],
    ledger_bytes: int = 0,
) -> Status:
    """Sums up the ledger."""
    states = {s.value: sum(n for p, n in funnel.items() if p.state is s) for s in State}
    skipped: dict[str, int] = defaultdict(int)
    for place, n in sorted(funnel.items(), key=lambda entry: entry[0].cause):
        if place.state is State.SKIPPED:
            skipped[place.cause] += n
    return Status(
        now, states, dict(skipped), unreadable, watcher, sources, waiting, failures(funnel, failed),
        [x for x in lines if x.state in IN_FLIGHT], [x for x in lines if x.state is State.FAILED], ledger_bytes,
    )  # fmt: skip


def narrowed(view: Status, scope: Scope, funnel: Mapping[Place, int], failed: Sequence[ConversionRow]) -> Status:
    """Returns what a scope leaves of it; the counts are those of the given funnel, and how far a source has got stays as it is."""
    sources = [replace(s, lanes=_lanes(funnel, s.source)) for s in view.sources if scope.source in (None, s.source)]
    return status(
        funnel, view.at, unreadable=view.unreadable, watcher=view.watcher, sources=sources,
        waiting=[w for w in view.waiting if scope.has(w.line.source, w.line.lane)], failed=failed,
        lines=[x for x in (*view.in_flight, *view.failed) if scope.has(x.source, x.lane)], ledger_bytes=view.ledger_bytes,
    )  # fmt: skip


def _lanes(funnel: Mapping[Place, int], source: str) -> dict[str, dict[str, int]]:
    lanes: dict[str, dict[str, int]] = defaultdict(lambda: {s.value: 0 for s in State})
    for place, n in funnel.items():
        if place.source == source:
            lanes[place.lane][place.state.value] += n
    return dict(sorted(lanes.items()))


def render_status(view: Status) -> RenderableType:
    """Returns the funnel, and what needs eyes."""
    parts: list[RenderableType] = [_funnel(view), *_notes(view)]
    parts += [_lag(view)] if view.sources else []
    parts += [table(view.in_flight, "in flight")] if view.in_flight else []
    parts += [_waiting(view.waiting)] if view.waiting else []
    parts += [_failures(view.failures)] if view.failures else []
    parts += [table(view.failed, "failed: `stac-watch explain ITEM` says why")] if view.failed else []
    return Group(*parts)


def _notes(view: Status) -> list[Text]:
    notes = []
    if view.skipped:
        notes.append(Text("skipped: " + ", ".join(f"{n} {reason}" for reason, n in view.skipped.items()), style="dim"))
    if view.unreadable:
        notes.append(Text(f"{view.unreadable} items cannot be read; `stac-watch items --unreadable` lists them", style="yellow"))
    notes.append(Text(f"watcher: {view.watcher or 'none; nothing moves until `stac-watch watch` runs'}"))
    notes += [Text(f"{s.source}: {s.catalog or 'its catalog was not asked yet'}", style="dim") for s in view.sources]
    for source in view.sources:
        if source.backfill is not None and source.backfill.held:
            text = f"backfill of {source.source} is held: {source.backfill.held}; the same command with --yes goes on"
            notes.append(Text(text, style="bold yellow"))
    return notes


def _waiting(entries: Sequence[Waiting]) -> Table:
    waits = Table(title="waits longest", title_justify="left", header_style="bold")
    for column in ("item", "state", "hours", "why"):
        waits.add_column(column, overflow="fold")
    for w in entries:
        waits.add_row(w.line.item, w.line.state.value, f"{w.line.seconds / 3600:.1f}", Text(w.why))
    return waits


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


def _verdict(audited: Audited | None) -> str:
    if audited is None:
        return "-"
    gaps = ", ".join(f"{n} {kind}" for kind, n in audited.gaps.items() if n)
    return f"{stamp(audited.at.replace(microsecond=0))}: {gaps or 'no gap'}"


def _lag(view: Status) -> Table:
    def when(moment: datetime | None) -> str:
        return stamp(moment.replace(microsecond=0)) if moment is not None else "-"

    lag = Table(title="how far", title_justify="left", header_style="bold")
    lag.add_column("")
    for s in view.sources:
        lag.add_column(s.source)
    lag.add_row("newest published", *(when(s.newest_published) for s in view.sources))
    lag.add_row("newest seen", *(when(s.newest_seen) for s in view.sources))
    lag.add_row("newest done", *(when(s.newest_done) for s in view.sources))
    lag.add_row("done in 1 h / 24 h", *(f"{s.done_last_hour} / {s.done_last_day}" for s in view.sources))
    lag.add_row("to do", *(str(s.unfinished) for s in view.sources))
    lag.add_row("ready about", *(when(s.eta) for s in view.sources))
    lag.add_row("read again", *(_overlap(s) for s in view.sources))
    lag.add_row("withdrawn", *(str(s.withdrawn) for s in view.sources))
    lag.add_row("swept", *(when(s.swept) for s in view.sources))
    lag.add_row("audited", *(_verdict(s.audited) for s in view.sources))
    return lag
