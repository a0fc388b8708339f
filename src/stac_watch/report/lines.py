"""Conversions as lines of a table, and what a watcher shows while it works. Pure.

In: conversions, runs, what a tick moved. Out: `Line`s, tables and sentences. Never: asks the ledger or prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stac_watch.config.model import OURS
from stac_watch.ledger.records import ConversionRow, Tally
from stac_watch.model.causes import fingerprint
from stac_watch.model.errors import StacWatchError
from stac_watch.model.states import IN_FLIGHT, Fact, State
from stac_watch.runs.engine import Run

STYLE = {
    State.QUEUED: "cyan",
    State.SUBMITTED: "blue",
    State.RUNNING: "yellow",
    State.DONE: "green",
    State.SKIPPED: "dim",
    State.FAILED: "bold red",
}


@dataclass(frozen=True)
class Line:
    """One conversion in a table."""

    item: str
    key: str
    revision: str
    source: str
    lane: str
    state: State
    stage: str  # of the run, or what it waits for
    attempt: int
    seconds: float  # in this state
    run: str | None
    output: str
    reason: str | None


def line(row: ConversionRow, now: datetime, *, run: Run | None = None, due: datetime | None = None) -> Line:
    """Returns a conversion as a line; `due` is when its queued event goes out."""
    stage = row.reason or ""
    if row.state is State.QUEUED and due is not None and due > now:
        stage = f"{row.reason or 'waits'} · again at {due.astimezone().strftime('%H:%M')}"
    elif row.state in IN_FLIGHT:
        done = f" {run.progress[0]}/{run.progress[1]}" if run is not None and run.progress and run.progress[1] else ""
        stage = f"{run.stage}{done}" if run is not None else row.waits_for or "waits for its run"
    elif row.state is State.DONE and row.outcome is not None:
        stage = f"verified, {len(row.outcome.checks)} checks"
    seconds = (row.changed_at - row.created_at if row.state is State.DONE else now - row.changed_at).total_seconds()
    return Line(
        row.item_id, row.key, row.revision, row.source, row.lane, row.state, stage, row.attempt, round(seconds, 1), row.run,
        row.output_zarr, row.reason,
    )  # fmt: skip


def table(lines: Iterable[Line], title: str = "") -> Table:
    """Returns the live table: item, state, stage, seconds."""
    result = Table(title=title or None, title_justify="left", expand=False, header_style="bold")
    result.add_column("item", overflow="fold", max_width=62)
    result.add_column("state", no_wrap=True, min_width=7)
    result.add_column("attempt", justify="right", no_wrap=True)
    result.add_column("stage", overflow="fold", min_width=20, max_width=60)
    result.add_column("s", justify="right", no_wrap=True)
    for entry in lines:
        state = Text(entry.state.value, style=STYLE[entry.state])
        result.add_row(Text(entry.item), state, str(entry.attempt), Text(entry.stage), f"{entry.seconds:.0f}")
    return result


def watching(lines: Iterable[Line], problems: Mapping[str, StacWatchError], standby: str = "") -> RenderableType:
    """Returns the live picture of a watcher."""
    notes = [Text(trouble(name, error), style="yellow") for name, error in problems.items()]
    notes += [Text(waiting(standby), style="yellow")] if standby else []
    return Group(table(lines), *notes)


def trouble(name: str, error: StacWatchError) -> str:
    """Returns one line about a source, the engine or the ledger that gives no answer; nothing is lost meanwhile."""
    remedy = f" ({error.hint})" if error.hint else ""
    return f"{_who(name)}: {error.message}{remedy}; asked again"


def over(name: str) -> str:
    """Returns the line that ends a trouble."""
    return f"{_who(name)}: answers again"


def _who(name: str) -> str:
    return name if name in OURS else f"source {name}"


@dataclass(frozen=True)
class News:
    """What is said once and not in every round."""

    begun: Mapping[str, StacWatchError]  # trouble that began, or says something else than before
    ended: Sequence[str]  # names of what works again
    standby: str | None  # who has the ledger now, empty when it is this watcher; None when that is nothing new


class Troubles:
    """Which of a round's troubles are news."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._standby: str | None = None

    def news(self, ailing: Mapping[str, StacWatchError], standby: str = "") -> News:
        """Returns what the round before had not; counts and times make no other trouble."""
        changed = standby if standby != self._standby else None
        self._standby = standby
        if standby:  # it asks nobody: what was wrong is not over
            return News({}, (), changed)
        before, self._said = self._said, {name: fingerprint(error.message) for name, error in ailing.items()}
        begun = {name: ailing[name] for name, text in self._said.items() if before.get(name) != text}
        return News(begun, sorted(before.keys() - self._said.keys()), changed)


def waiting(standby: str) -> str:
    """Returns the line of a watcher that waits for another one's end."""
    return f"standby: {standby} has this ledger; this one takes over when it ends, or 30 s after it was killed"


def sentence(tallies: Mapping[str, Tally], facts: Mapping[Fact, int], accepted: int, unknown: int) -> str:
    """Returns one line that says what a tick moved."""
    parts = [
        f"{name}: {t.admitted} admitted, {t.skipped} skipped, {t.unreadable} unreadable"
        for name, t in tallies.items()
        if t.admitted or t.skipped or t.unreadable
    ]
    parts += [f"{n} {fact.value.replace('_', ' ')}" for fact, n in facts.items()]
    parts += [f"{accepted} sent"] if accepted else []
    parts += [f"{unknown} without a clear answer, sent again later"] if unknown else []
    return "; ".join(parts) or "looked again"
