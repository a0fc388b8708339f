"""What keeps an output from being removed, and its removal: the same for what is gone from its catalog and for what is too old.

Each refusal is a sentence for the plan, and the same wherever it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow
from stac_watch.ledger.session import StaleState
from stac_watch.model.errors import StacWatchError
from stac_watch.model.publication import PublicationState
from stac_watch.runs import retiring

FIRST = "its item is taken out of the catalog first, which the watcher does; then the same command removes the output"
OUT_OF_REACH = "it lies on its run's own volume, and goes with it"
SHARED = "another conversion is under the same name"
ANOTHERS = "what is there is not this conversion's output; `stac-watch audit` says what it is"
MOVED = "it was moved meanwhile"


def refusal(ledger: Ledger, row: ConversionRow, visible: Callable[[str], bool], *, removes: bool = True) -> str | None:
    """Returns why an output cannot be removed (or, without `removes`, changed beside); None where it can."""
    if not visible(row.output_zarr):
        return OUT_OF_REACH
    return SHARED if removes and ledger.retirements.shares_output(row) else None


def leaves_first(ledger: Ledger, row: ConversionRow, now: datetime) -> bool:
    """Tells whether an item is, or is to be, in the catalog of outputs; has the watcher take it out then."""
    states = [p.state for p in ledger.publications.of(row.item_id) if p.key == row.key]
    if PublicationState.WITHDRAWN in states or not states:
        return False
    ledger.publications.withdraw([row.key], now)
    return True


def remove(row: ConversionRow, note: Callable[[], None]) -> str | None:
    """Removes an output, then has it noted; returns why not, where it was not. The same call goes on with it."""

    def removed() -> str | None:
        if not retiring.remove(row.output_zarr, row.key, row.outcome):
            return ANOTHERS
        note()
        return None

    return tried(removed)


def tried(change: Callable[[], str | None]) -> str | None:
    """Does what changes an output; returns why it was not done, also where that was found out on the way."""
    try:
        return change()
    except StaleState:
        return MOVED
    except StacWatchError as error:
        return error.message
