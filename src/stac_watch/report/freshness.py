"""The question `report`, and its answer: of what catalogs announced, how much was available when, and what is missing.

An item counts from the stamp that the catalog gave it, or from when it was found where that is earlier or there is no stamp, but
never from before its source was watched. It is available when its output was first complete and verified. An item that is younger
than a limit and not available yet says nothing about that limit: it is not among those that are due.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rich.console import Group
from rich.table import Table
from rich.text import Text

from stac_watch.config.objective import Objective
from stac_watch.ledger.freshness import Announced
from stac_watch.ledger.ledger import Ledger
from stac_watch.model.item import SkipReason
from stac_watch.model.states import IN_FLIGHT, State
from stac_watch.report.lines import one_line
from stac_watch.report.times import span

HOURS = (1, 6, 24)
SHOWN = 20  # missing items on a terminal
DAY = timedelta(days=1)
WINDOWS = {"1h": timedelta(hours=1), "6h": timedelta(hours=6), "3d": timedelta(days=3)}
"""Over which the use of the error budget is told: the first two for what burns now, the third for what smoulders."""


@dataclass(frozen=True)
class Within:
    """How many were available within so many hours, of those of which that is known."""

    hours: float
    due: int  # available in time, or old enough
    met: int


@dataclass(frozen=True)
class Sum:
    """What became of what was announced: `announced` = `available` + `missing`."""

    announced: int
    available: int
    missing: int  # failed, waiting or under way
    reasons: dict[str, int]  # why they are missing, the most frequent first
    dropped: dict[str, int]  # not counted: replaced or withdrawn before they were available, by reason
    within: list[Within]
    median: float | None  # seconds from announced to available, of those available
    p95: float | None


@dataclass(frozen=True)
class DayFreshness:
    """What was announced on one day (UTC)."""

    day: str
    sums: Sum


@dataclass(frozen=True)
class SourceFreshness:
    """One source."""

    source: str
    watched_since: datetime | None  # when its first item was found
    whole: Sum
    days: list[DayFreshness]
    skipped: int  # found, and not wanted by the source's rules
    backdated: int  # found in these days, and stamped before them: not counted
    rebuilt: int  # of a ledger that was made again: when they were announced is not known; not counted
    unreadable: int  # first met in these days, and cannot be acted on; not counted
    objective: Within | None  # as configured


@dataclass(frozen=True)
class Missing:
    """An item that is not available."""

    source: str
    item: str
    key: str | None  # None where it cannot be read
    announced: datetime
    seconds: float  # since then
    state: str
    reason: str


@dataclass(frozen=True)
class Promise:
    """The objective, as configured."""

    hours: float
    share: float


@dataclass(frozen=True)
class Freshness:
    """The answer."""

    at: datetime
    start: datetime
    end: datetime
    installation: str
    objective: Promise | None
    sources: list[SourceFreshness]
    missing: list[Missing]  # the longest first


@dataclass(frozen=True)
class Case:
    """What is counted of one revision."""

    announced: datetime
    available: datetime | None
    row: Announced


def read(
    ledger: Ledger, sources: Sequence[str], now: datetime, days: int, *, objective: Objective | None = None, installation: str = ""
) -> Freshness:
    """Reads the last so many days (UTC), today included, of these sources."""
    start = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - (days - 1) * DAY
    watched = ledger.freshness.watched_since()
    cases: dict[str, list[Case]] = {name: [] for name in sources}
    beside: dict[str, Counter[str]] = defaultdict(Counter)
    for row in ledger.freshness.announced(start):
        if row.source not in cases:
            continue
        case, counted = _case(row, watched), _set_aside(row)
        if counted is None and case.announced < start:
            counted = "backdated"
        if counted is None:
            cases[row.source].append(case)
        else:
            beside[row.source][counted] += 1
    unreadable = [u for u in ledger.freshness.unreadable(start) if u[0] in cases]
    for source, *_ in unreadable:
        beside[source]["unreadable"] += 1
    missing = [_missing(case, now) for each in cases.values() for case in each if _is_missing(case)]
    missing += [Missing(s, i, None, at, (now - at).total_seconds(), "unreadable", why) for s, i, why, at in unreadable]
    span = [start + n * DAY for n in range(days)]
    found = [_source(name, cases[name], beside[name], watched.get(name), span, now, objective) for name in sources]
    missing.sort(key=lambda m: (-m.seconds, m.source, m.item))
    promise = Promise(objective.within.total_seconds() / 3600, objective.share) if objective is not None else None
    return Freshness(now, start, now, installation, promise, found, missing)


def _source(
    name: str,
    cases: list[Case],
    beside: Mapping[str, int],
    watched: datetime | None,
    span: Sequence[datetime],
    now: datetime,
    objective: Objective | None,
) -> SourceFreshness:
    by_day: dict[str, list[Case]] = {f"{day:%Y-%m-%d}": [] for day in span}
    for case in cases:
        by_day[f"{case.announced.astimezone(UTC):%Y-%m-%d}"].append(case)
    promised = _within(cases, objective.within, now) if objective is not None else None
    days = [DayFreshness(day, _sum(each, now)) for day, each in by_day.items()]
    skipped, backdated, rebuilt, unreadable = (beside.get(what, 0) for what in ("skipped", "backdated", "rebuilt", "unreadable"))
    return SourceFreshness(name, watched, _sum(cases, now), days, skipped, backdated, rebuilt, unreadable, promised)


def _case(row: Announced, watched: Mapping[str, datetime]) -> Case:
    stamped = min(row.published, row.seen) if row.published is not None else row.seen
    return Case(max(stamped, min(watched.get(row.source, stamped), row.seen)), row.done, row)


def _set_aside(row: Announced) -> str | None:
    """Returns why a revision is not counted, None where it is."""
    if row.began is State.SKIPPED:
        return "skipped"
    return None if row.began is State.QUEUED else "rebuilt"


def _is_dropped(case: Case) -> bool:
    return case.available is None and case.row.state is State.SKIPPED


def _is_missing(case: Case) -> bool:
    return case.available is None and case.row.state is not State.SKIPPED


def _sum(cases: Sequence[Case], now: datetime) -> Sum:
    took = sorted((c.available - c.announced).total_seconds() for c in cases if c.available is not None)
    reasons = Counter(_reason(c.row) for c in cases if _is_missing(c))
    dropped = Counter(c.row.cause or SkipReason.SUPERSEDED.value for c in cases if _is_dropped(c))
    missing = reasons.total()
    return Sum(
        announced=len(took) + missing,
        available=len(took),
        missing=missing,
        reasons=dict(reasons.most_common()),
        dropped=dict(dropped.most_common()),
        within=[_within(cases, timedelta(hours=hours), now) for hours in HOURS],
        median=_at(took, 0.5),
        p95=_at(took, 0.95),
    )


def _at(ordered: Sequence[float], share: float) -> float | None:
    """Returns the smallest value that at least this share does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _within(cases: Iterable[Case], limit: timedelta, now: datetime) -> Within:
    verdicts = [v for c in cases if not _is_dropped(c) and (v := _in_time(c, limit, now)) is not None]
    return Within(limit.total_seconds() / 3600, len(verdicts), sum(verdicts))


def _in_time(case: Case, limit: timedelta, now: datetime) -> bool | None:
    """Tells whether it was available in time; None while that is not known."""
    if case.available is not None:
        return case.available - case.announced <= limit
    return None if now - case.announced < limit else False


def _reason(row: Announced) -> str:
    if row.state is State.FAILED:
        return f"failed: {row.cause}"
    if row.state is State.QUEUED and row.waits:
        return "its product is not there yet"
    if row.state is State.QUEUED:
        return "tried again soon" if row.reason else "waits to be sent"
    return "under way" if row.state in IN_FLIGHT else row.state.value


def _missing(case: Case, now: datetime) -> Missing:
    row = case.row
    said = row.reason or _reason(row)
    return Missing(row.source, row.item_id, row.key, case.announced, (now - case.announced).total_seconds(), row.state.value, said)


# -- the objective ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Burn:
    """How a source used its error budget up, of what became due within a window."""

    source: str
    window: str  # a key of WINDOWS
    due: int
    late: int
    rate: float  # 1 = exactly as much as the objective allows; 0 where nothing was due


def burns(ledger: Ledger, sources: Sequence[str], objective: Objective, now: datetime) -> list[Burn]:
    """Returns how fast each source uses its error budget up."""
    return list(_burns(ledger, sources, objective, now))


def _burns(ledger: Ledger, sources: Sequence[str], objective: Objective, now: datetime) -> Iterator[Burn]:
    watched = ledger.freshness.watched_since()
    due: Counter[tuple[str, str]] = Counter()
    late: Counter[tuple[str, str]] = Counter()
    for row in ledger.freshness.announced(now - max(WINDOWS.values()) - objective.within):
        case = _case(row, watched)
        deadline = case.announced + objective.within
        if _set_aside(row) or _is_dropped(case) or deadline > now:
            continue
        for window, length in WINDOWS.items():
            if deadline > now - length:
                due[row.source, window] += 1
                late[row.source, window] += case.available is None or case.available > deadline
    for source in sources:
        for window in WINDOWS:
            n, behind = due[source, window], late[source, window]
            yield Burn(source, window, n, behind, behind / n / (1 - objective.share) if n else 0.0)


# -- as text ---------------------------------------------------------------------------------------------------------------------


def share(within: Within) -> str:
    """Returns how many were in time, of those of which it is known; rounded down, so that 100 % are all of them."""
    return f"{1000 * within.met // within.due / 10:g} %" if within.due else "-"


def render_freshness(found: Freshness) -> Group:
    """Returns a table of the sources, and the items that are missing longest."""
    table = Table(header_style="bold")
    for column in ("source", "announced", *(f"within {h} h" for h in HOURS), "available", "missing", "median", "95 % within"):
        table.add_column(column, justify="left" if column == "source" else "right")
    for s in found.sources:
        table.add_row(*_cells(s))
    parts: list[Table | Text] = [table]
    if (promised := found.objective) is not None:
        parts += [Text(f"{s.source}: {kept(s.objective, promised)}") for s in found.sources if s.objective is not None]
    if found.missing:
        late = Table(title="Missing", title_justify="left", header_style="bold")
        for column in ("item", "source", "for", "state", "reason"):
            late.add_column(column, overflow="fold")
        for m in found.missing[:SHOWN]:
            late.add_row(Text(m.item), m.source, span(m.seconds), m.state, Text(one_line(m.reason)))
        parts.append(late)
    if len(found.missing) > SHOWN:
        parts.append(Text(f"the {SHOWN} that are missing longest, of {len(found.missing)}; --json has all of them"))
    return Group(*parts)


def plain(found: Freshness) -> str:
    """Returns a line for each source and for each missing item, with tabs between their parts."""
    lines = ["\t".join(_cells(s)) for s in found.sources]
    lines += ["\t".join(("missing", m.source, m.item, span(m.seconds), m.state, one_line(m.reason))) for m in found.missing]
    return "\n".join(lines)


def _cells(source: SourceFreshness) -> tuple[str, ...]:
    whole = source.whole
    met = (share(w) for w in whole.within)
    took = (span(whole.median), span(whole.p95))
    return (source.source, str(whole.announced), *met, str(whole.available), str(whole.missing), *took)


def kept(reached: Within, promise: Promise) -> str:
    """Returns how well the objective was kept, as a sentence."""
    promised = f"{100 * promise.share:g} % within {promise.hours:g} h"
    return f"objective {promised}: {share(reached)} reached ({reached.met} of {reached.due})"
