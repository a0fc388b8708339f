"""What people are shown: rows of the ledger as dataclasses, and those as tables or JSON. Pure.

In: rows and times. Out: dataclasses with `as_json`, and rich renderables. Never: asks the ledger or prints.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stac_watch.engines import Run
from stac_watch.errors import Temporary
from stac_watch.events import stamp
from stac_watch.records import ConversionRow, HistoryRow, Tally
from stac_watch.states import IN_FLIGHT, Fact, State

STYLE = {
    State.QUEUED: "cyan",
    State.SENT: "blue",
    State.RUNNING: "yellow",
    State.DONE: "green",
    State.SKIPPED: "dim",
    State.DEAD: "bold red",
}


@dataclass(frozen=True)
class Line:
    """One conversion in a table."""

    item: str
    key: str
    revision: str
    state: State
    stage: str  # of the run, or what it waits for
    attempt: int
    seconds: float  # in this state
    run: str | None
    output: str
    reason: str | None


@dataclass(frozen=True)
class Status:
    """How many conversions are where."""

    states: dict[str, int]
    skipped: dict[str, int]  # by reason
    quarantined: int
    in_flight: list[Line]
    dead: list[Line]


@dataclass(frozen=True)
class Explanation:
    """The whole chain of one conversion."""

    line: Line
    history: list[HistoryRow]
    events: list[dict[str, Any]]
    outcome: dict[str, Any] | None
    due: datetime | None
    log: str | None


def as_json(value: Any) -> str:  # noqa: ANN401  # any dataclass of this module, or a list of them
    """Returns indented JSON with RFC 3339 times; a documented contract (docs/cli.md)."""

    def default(entry: Any) -> Any:  # noqa: ANN401
        return stamp(entry) if isinstance(entry, datetime) else str(entry)

    plain = [asdict(v) for v in value] if isinstance(value, list) else asdict(value)
    return json.dumps(plain, indent=2, default=default)


def line(row: ConversionRow, now: datetime, *, run: Run | None = None, due: datetime | None = None) -> Line:
    """Returns a conversion as a line; `due` is when its queued event goes out."""
    stage = row.reason or ""
    if row.state is State.QUEUED and due is not None and due > now:
        stage = f"{row.reason or 'waits'} · again at {due.astimezone().strftime('%H:%M')}"
    elif row.state in IN_FLIGHT:
        done = f" {run.progress[0]}/{run.progress[1]}" if run is not None and run.progress and run.progress[1] else ""
        stage = f"{run.stage}{done}" if run is not None else "waits for its run"
    elif row.state is State.DONE and row.outcome is not None:
        stage = f"verified, {len(row.outcome.get('checks', []))} checks"
    seconds = (row.changed_at - row.created_at if row.state is State.DONE else now - row.changed_at).total_seconds()
    return Line(
        row.item_id, row.key, row.revision, row.state, stage, row.attempt, round(seconds, 1), row.run, row.output_zarr, row.reason
    )


def table(lines: Iterable[Line], title: str = "") -> Table:
    """Returns the live table: item, state, stage, seconds."""
    result = Table(title=title or None, title_justify="left", expand=False, header_style="bold")
    result.add_column("item", no_wrap=True, overflow="ellipsis", max_width=62)
    result.add_column("state")
    result.add_column("try", justify="right")
    result.add_column("stage", overflow="fold", max_width=60)
    result.add_column("s", justify="right")
    for entry in lines:
        state = Text(entry.state.value, style=STYLE[entry.state])
        result.add_row(entry.item, state, str(entry.attempt), Text(entry.stage), f"{entry.seconds:.0f}")
    return result


def status(counts: Mapping[tuple[str, str | None], int], quarantined: int, lines: Sequence[Line]) -> Status:
    """Sums up the ledger."""
    states = {s.value: sum(n for (name, _), n in counts.items() if name == s.value) for s in State}
    skipped = {str(reason): n for (name, reason), n in sorted(counts.items(), key=str) if name == State.SKIPPED.value}
    return Status(
        states, skipped, quarantined, [x for x in lines if x.state in IN_FLIGHT], [x for x in lines if x.state is State.DEAD]
    )


def render_status(view: Status) -> RenderableType:
    """Returns the funnel, and the conversions that need eyes."""
    funnel = Table(title="conversions", title_justify="left", header_style="bold")
    for state in State:
        funnel.add_column(Text(state.value, style=STYLE[state]), justify="right")
    funnel.add_row(*(str(view.states[s.value]) for s in State))
    parts: list[RenderableType] = [funnel]
    if view.skipped:
        parts.append(Text("skipped: " + ", ".join(f"{n} {reason}" for reason, n in view.skipped.items()), style="dim"))
    if view.quarantined:
        parts.append(Text(f"{view.quarantined} items cannot be read; see `stac-watch items --quarantined`", style="yellow"))
    if view.in_flight:
        parts.append(table(view.in_flight, "in flight"))
    if view.dead:
        parts.append(table(view.dead, "dead: `stac-watch explain ITEM` says why"))
    return Group(*parts)


def explanation(
    row: ConversionRow,
    now: datetime,
    *,
    history: list[HistoryRow],
    bodies: list[bytes],
    due: datetime | None,
    log: Path | None,
) -> Explanation:
    """Puts the chain of one conversion together."""
    events = [json.loads(body) for body in bodies]
    return Explanation(line(row, now, due=due), history, events, row.outcome, due, str(log) if log else None)


def watching(lines: Iterable[Line], problems: Mapping[str, Temporary]) -> RenderableType:
    """Returns the live picture of a watcher."""
    notes = [Text(f"source {name}: {e.message}; asked again at the next poll", style="yellow") for name, e in problems.items()]
    return Group(table(lines), *notes)


def sentence(tallies: Mapping[str, Tally], facts: Mapping[Fact, int], accepted: int, unknown: int) -> str:
    """Returns one line that says what a tick moved."""
    parts = [
        f"{name}: {t.admitted} admitted, {t.skipped} skipped, {t.quarantined} unreadable" for name, t in tallies.items() if t.seen
    ]
    parts += [f"{n} {fact.value.replace('_', ' ')}" for fact, n in facts.items()]
    parts += [f"{accepted} sent"] if accepted else []
    parts += [f"{unknown} without a clear answer, sent again later"] if unknown else []
    return "; ".join(parts) or "looked again"


def render_explanation(view: Explanation) -> RenderableType:
    """Returns the chain of one conversion, oldest first."""
    entry = view.line
    head = Table.grid(padding=(0, 2))
    for name, value in (
        ("item", entry.item), ("key", f"{entry.key} (revision {entry.revision})"), ("state", entry.state.value), ("run", entry.run),
        ("output", entry.output), ("reason", entry.reason), ("log", view.log),
    ):  # fmt: skip
        if value:
            head.add_row(Text(name, style="bold"), Text(str(value)))
    moves = Table(title="what happened", title_justify="left", header_style="bold")
    moves.add_column("when", no_wrap=True)
    for column in ("from", "fact", "to", "try", "why"):
        moves.add_column(column, overflow="fold")
    for h in view.history:
        moves.add_row(stamp(h.at.replace(microsecond=0)), h.src or "-", h.fact, h.dst, str(h.attempt), Text(h.why))
    after = Text("")
    if view.due is not None:
        after = Text(f"next: event {view.events[-1]['id']} goes out at {stamp(view.due.replace(microsecond=0))}")
    elif entry.state is State.DEAD:
        after = Text("next: nothing by itself; it needs a person", style="bold red")
    checks = (view.outcome or {}).get("checks") or []
    verdicts = Text(" · ".join(f"{c['name']}: {c['verdict']}" for c in checks), style="green")
    return Group(head, moves, verdicts, after)


def render_explanations(chains: Sequence[Explanation]) -> RenderableType:
    """Returns the chains of an item's conversions, the latest revision first."""
    return Group(*(render_explanation(chain) for chain in chains))
