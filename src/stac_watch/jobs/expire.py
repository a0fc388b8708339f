"""Outputs whose lifetime is over are removed: planned with their number and size, and done on request.

What is removed leaves its conversion behind as a tombstone: skipped as `lifetime_over`, which no sweep, backfill or audit takes for
something to convert. A replay makes it again, and so does a later revision of its item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from stac_watch.jobs.retire import FIRST, leaves_first
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow
from stac_watch.ledger.session import StaleState
from stac_watch.model.errors import InputError, StacWatchError
from stac_watch.runs import retiring

type Since = Literal["acquired", "done"]


@dataclass(frozen=True)
class Expiring:
    """One output whose lifetime is over."""

    source: str
    item: str
    key: str
    output: str
    acquired: datetime
    done: datetime
    bytes: int  # as its run counted them, package included
    refusal: str | None = None  # why it is not removed


@dataclass(frozen=True)
class ExpiryPlan:
    """What is to be removed, or was."""

    before: datetime  # what was acquired, or done, before then
    since: Since
    removed: bool  # whether it was done, or only planned
    count: int  # of those that are not refused
    bytes: int  # idem
    outputs: list[Expiring]


def plan(
    ledger: Ledger,
    sources: Sequence[str],
    before: datetime,
    since: Since,
    visible: Callable[[str], bool],
    at_most: int | None = None,
) -> ExpiryPlan:
    """Returns what is to be removed, the oldest first.

    Args:
        ledger: what is done.
        sources: whose outputs, by name.
        before: what was acquired, or done, before then.
        since: which of the two.
        visible: whether an output can be reached from here.
        at_most: more than so many are refused, all of them.

    Raises:
        InputError: they are more than `at_most`.
    """
    found = [
        _expiring(ledger, row, acquired, visible)
        for name in sources
        for row, acquired in ledger.retirements.aged(name, before, by_done=since == "done")
    ]
    found.sort(key=lambda one: (one.acquired if since == "acquired" else one.done, one.item))
    planned = _summed(before, since, found, removed=False)
    if at_most is not None and planned.count > at_most:
        raise InputError(
            f"{planned.count} outputs are to be removed, more than {at_most}", hint="nothing was removed; see --at-most"
        )
    return planned


def execute(planned: ExpiryPlan, ledger: Ledger, now: Callable[[], datetime], *, registers: bool) -> ExpiryPlan:
    """Removes them, one after another; returns the plan as it turned out. The same again goes on.

    Where outputs are registered (`registers`), none goes before its item is out of that catalog: the first call asks for that.
    """
    if registers:
        rows = [(one, ledger.conversions.get(one.key)) for one in planned.outputs if one.refusal is None]
        kept = {one.key for one, row in rows if row is not None and leaves_first(ledger, row, now())}
    else:
        kept = set()
    done = [
        one if one.refusal is not None else replace(one, refusal=FIRST) if one.key in kept else _removed(one, ledger, now)
        for one in planned.outputs
    ]
    return _summed(planned.before, planned.since, done, removed=True)


def _expiring(ledger: Ledger, row: ConversionRow, acquired: datetime, visible: Callable[[str], bool]) -> Expiring:
    refusal = None
    if not visible(row.output_zarr):
        refusal = "it lies on its run's own volume, and goes with it"
    elif ledger.retirements.shares_output(row):
        refusal = "another conversion is under the same name"
    return Expiring(row.source, row.item_id, row.key, row.output_zarr, acquired, row.changed_at, _bytes_of(row), refusal)


def _bytes_of(row: ConversionRow) -> int:
    outcome = row.outcome
    if outcome is None:
        return 0
    return outcome.counts.bytes_written + (outcome.package.bytes if outcome.package is not None else 0)


def _removed(one: Expiring, ledger: Ledger, now: Callable[[], datetime]) -> Expiring:
    row = ledger.conversions.get(one.key)
    try:
        if row is None or row.changed_at != one.done:
            return replace(one, refusal="it was moved meanwhile")
        if not retiring.remove(row.output_zarr, row.key, row.outcome):
            return replace(one, refusal="what is there is not this conversion's output; `stac-watch audit` says what it is")
        ledger.retirements.bury(row, f"its output was removed, {row.output_zarr}", now())
    except StaleState:
        return replace(one, refusal="it was moved meanwhile")
    except StacWatchError as error:
        return replace(one, refusal=error.message)
    return one


def _summed(before: datetime, since: Since, outputs: list[Expiring], *, removed: bool) -> ExpiryPlan:
    going = [one for one in outputs if one.refusal is None]
    return ExpiryPlan(before, since, removed, len(going), sum(one.bytes for one in going), outputs)
