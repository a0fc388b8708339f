"""The question `items`, and its answer: conversions as lines, and the items that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.table import Table
from rich.text import Text

from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.naming import Sort
from stac_watch.ledger.records import Scope, Where
from stac_watch.model.states import State
from stac_watch.report.lines import Line, line, one_line
from stac_watch.runs.engine import Runs

NO_RUNS, EVERYTHING = Runs(), Scope()


@dataclass(frozen=True)
class UnreadableItem:
    """An item that cannot be acted on, and why."""

    source: str
    item: str
    why: str


def read(
    ledger: Ledger,
    now: datetime,
    *,
    scope: Scope = EVERYTHING,
    state: State | None = None,
    error: str | None = None,
    runner: str | None = None,
    where: Where | None = None,
    limit: int = 50,
    offset: int = 0,
    sort: Sort = Sort.CHANGED,
    runs: Runs = NO_RUNS,
) -> list[Line]:
    """Reads conversions, the last changed first unless sorted otherwise; `runs` tell how far those in flight are."""
    rows = ledger.conversions.find(
        source=scope.source, lane=scope.lane, since=scope.since, state=state, error=error, runner=runner, place=where,
        limit=limit, offset=offset, sort=sort,
    )  # fmt: skip
    waits = ledger.outbox.of([row.key for row in rows if row.state is State.QUEUED])
    said, replaced = ledger.items.of(rows), ledger.conversions.replaced(rows)
    return [
        line(
            row,
            now,
            run=runs.of(row),
            due=waits[row.key].due if row.key in waits else None,
            item=said.get((row.source, row.item_id)),
            replaced=replaced.get(row.key),
        )
        for row in rows
    ]


def read_unreadable(ledger: Ledger, limit: int) -> list[UnreadableItem]:
    """Reads the items that cannot be acted on."""
    return [UnreadableItem(*row) for row in ledger.absences.unreadable()[:limit]]


def plain_unreadable(rows: Sequence[UnreadableItem]) -> str:
    """Returns a line of text for each, with tabs between its parts."""
    return "\n".join("\t".join((row.source, row.item, one_line(row.why))) for row in rows)


def render_unreadable(rows: Sequence[UnreadableItem]) -> Table:
    """Returns the items that cannot be acted on, and why."""
    result = Table(header_style="bold")
    for column in ("source", "item", "why"):
        result.add_column(column, overflow="fold")
    for row in rows:
        result.add_row(Text(row.source), Text(row.item), Text(row.why))
    return result
