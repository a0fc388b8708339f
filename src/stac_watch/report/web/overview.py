"""What the status page shows of a scope: a status, how long steps take, how far backfills are, where items lie."""

from __future__ import annotations

from dataclasses import dataclass

from stac_watch.jobs.backfill import BackfillProgress, ordered
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Footprint, Order, Scope
from stac_watch.model.states import State
from stac_watch.report.status import Status, narrow
from stac_watch.report.web.timeline import StepTime, timeline

JOURNEYS = 500  # the last ones; a page that is asked for every two seconds must not read more
MAP_ORDER = (State.SKIPPED, State.EXPIRED, State.DONE, State.QUEUED, State.SUBMITTED, State.RUNNING, State.FAILED)


@dataclass(frozen=True)
class Overview:
    """What the status page shows of a scope."""

    status: Status
    names: list[str]  # of all sources
    steps: list[StepTime]
    backfills: list[tuple[Order, BackfillProgress]]
    footprints: list[Footprint]


def read(ledger: Ledger, whole: Status, footprints: list[Footprint], scope: Scope) -> Overview:
    """Narrows a status to a scope, and reads the rest of the page."""
    return Overview(
        whole if scope == Scope() else narrow(ledger, whole, scope),
        [s.source for s in whole.sources],
        timeline(ledger.counts.journeys(scope, JOURNEYS)),
        [(o, ordered(ledger, o, whole.at)) for o in ledger.orders.all() if scope.has(o.source, "backfill")],
        footprints,
    )


def read_footprints(ledger: Ledger, limit: int = 400) -> list[Footprint]:
    """Reads where items lie: of each state the last changed, at most `limit`; what needs eyes comes last, on top of a map."""
    return [f for state in MAP_ORDER for f in ledger.items.footprints(state, limit)]
