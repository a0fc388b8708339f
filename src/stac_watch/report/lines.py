"""One conversion as one line: what `status`, `items`, `explain` and the live table of a watcher all show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rich.table import Table
from rich.text import Text

from stac_watch.ledger.records import ConversionRow, ItemRow
from stac_watch.model.states import IN_FLIGHT, State
from stac_watch.report.times import clock, span, when
from stac_watch.runs.engine import Run

STYLE = {
    State.QUEUED: "cyan",
    State.SUBMITTED: "blue",
    State.RUNNING: "yellow",
    State.DONE: "green",
    State.EXPIRED: "magenta",
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
    tile: str | None  # as far as it was asked for, like the next two
    sensed: datetime | None
    published: datetime | None
    changed: datetime  # when it came to this state


def line(
    row: ConversionRow,
    now: datetime,
    *,
    run: Run | None = None,
    due: datetime | None = None,
    item: ItemRow | None = None,
    replaced: str | None = None,
) -> Line:
    """Returns a conversion as a line.

    `due` is when its queued event goes out, `item` what the catalog last said, `replaced` the revision in the place of its output.
    """
    stage = row.reason or ""
    if row.state is State.QUEUED and due is not None and due > now:
        stage = f"{row.reason or 'waits'} · again at {clock(due, now)}"
    elif row.state in IN_FLIGHT:
        done = f" {run.progress[0]}/{run.progress[1]}" if run is not None and run.progress and run.progress[1] else ""
        stage = f"{run.stage}{done}" if run is not None else row.waits_for or "waits for its run"
    elif replaced is not None:
        stage = f"replaced by revision {replaced}"
    elif row.state is State.DONE and row.outcome is not None:
        stage = f"verified, {len(row.outcome.checks)} checks"
    seconds = (row.changed_at - row.created_at if row.state is State.DONE else now - row.changed_at).total_seconds()
    return Line(
        row.item_id, row.key, row.revision, row.source, row.lane, row.state, stage, row.attempt, round(seconds, 1), row.run,
        row.output_zarr, row.reason, item.tile or None if item else None, item.sensing if item else None,
        item.updated if item else None, row.changed_at,
    )  # fmt: skip


def table(lines: Iterable[Line], title: str = "") -> Table:
    """Returns the live table: item, state, attempt, stage, and for how long."""
    result = Table(title=title or None, title_justify="left", expand=False, header_style="bold")
    result.add_column("item", overflow="fold", max_width=62)
    result.add_column("state", no_wrap=True, min_width=7)
    result.add_column("attempt", justify="right", no_wrap=True)
    result.add_column("stage", overflow="fold", min_width=20, max_width=60)
    result.add_column("for", justify="right", no_wrap=True)
    for entry in lines:
        state = Text(entry.state.value, style=STYLE[entry.state])
        result.add_row(Text(entry.item), state, str(entry.attempt), Text(entry.stage), span(entry.seconds))
    return result


def plain(lines: Iterable[Line]) -> str:
    """Returns a line of text for each, with tabs between its parts and nothing cut: for `grep`, `cut` and `less -S`."""
    return "\n".join(
        "\t".join((x.item, x.state.value, x.tile or "-", when(x.sensed), str(x.attempt), span(x.seconds), x.key, one_line(x.stage)))
        for x in lines
    )


def one_line(text: str) -> str:
    """Returns a text without its line breaks."""
    return " ".join(text.split())
