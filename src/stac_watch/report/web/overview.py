"""What the status page shows of a view: a status, a page of the list, how long steps take, backfills, where items lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stac_watch.config.model import Limits
from stac_watch.jobs.backfill import BackfillProgress, ordered
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Footprint, Order, Scope
from stac_watch.model.states import State
from stac_watch.report import items
from stac_watch.report.lines import Line
from stac_watch.report.status import Status, narrow
from stac_watch.report.web.query import View
from stac_watch.report.web.timeline import StepTime, timeline
from stac_watch.runs.engine import Runs

JOURNEYS = 500  # the last ones; a page that is asked for every two seconds must not read more
LISTED = 25  # lines of a page of the list
MAP_ORDER = (State.SKIPPED, State.EXPIRED, State.DONE, State.QUEUED, State.SUBMITTED, State.RUNNING, State.FAILED)


@dataclass(frozen=True)
class ListPage:
    """A page of the list."""

    lines: list[Line]
    first: int  # which the first of them is, from 1
    total: int | None  # None where that was not counted
    more: bool  # whether another page follows


@dataclass(frozen=True)
class Overview:
    """What the status page shows of a view."""

    status: Status
    names: list[str]  # of all sources
    listing: ListPage
    steps: list[StepTime]
    backfills: list[tuple[Order, BackfillProgress]]
    footprints: list[Footprint]


@dataclass(frozen=True)
class Extent:
    """What a page shows of a scope, whatever its list shows."""

    status: Status
    steps: list[StepTime]
    backfills: list[tuple[Order, BackfillProgress]]
    footprints: list[Footprint]


def read_extent(ledger: Ledger, whole: Status, scope: Scope, limits: Limits, runs: Runs) -> Extent:
    """Narrows a status to a scope, and reads what else is shown of it."""
    return Extent(
        whole if scope == Scope() else narrow(ledger, whole, scope, limits, runs),
        timeline(ledger.counts.journeys(scope, JOURNEYS)),
        [(o, ordered(ledger, o, whole.at)) for o in ledger.orders.all() if scope.has(o.source, "backfill")],
        read_footprints(ledger, scope),
    )


def read_listing(ledger: Ledger, extent: Extent, view: View, runs: Runs) -> ListPage:
    """Reads a page of the list; one line more than it shows tells whether another follows."""
    offset = (view.page - 1) * LISTED
    lines = items.read(
        ledger, extent.status.at, scope=view.scope(extent.status.at), state=view.state, error=view.error, where=view.where,
        limit=LISTED + 1, offset=offset, sort=view.sort, runs=runs,
    )  # fmt: skip
    counted = view.tile is view.text is view.error is None
    states = extent.status.states
    total = (sum(states.values()) if view.state is None else states[view.state.value]) if counted else None
    if total is None and len(lines) <= LISTED and (lines or not offset):
        total = offset + len(lines)
    return ListPage(lines[:LISTED], offset + 1, total, len(lines) > LISTED)


def overview(extent: Extent, listing: ListPage, names: Sequence[str]) -> Overview:
    """Puts the two together."""
    return Overview(extent.status, list(names), listing, extent.steps, extent.backfills, extent.footprints)


def read_footprints(ledger: Ledger, scope: Scope = items.EVERYTHING, limit: int = 400) -> list[Footprint]:
    """Reads where items lie: of each state the last changed, at most `limit`; what needs attention comes last."""
    return [f for state in MAP_ORDER for f in ledger.items.footprints(state, limit, scope)]
