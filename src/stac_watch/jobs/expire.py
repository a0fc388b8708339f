"""Outputs whose lifetime is over are removed: planned with their number and size, and done on request.

What is removed leaves its conversion behind as a tombstone: skipped as `lifetime_over`, which no sweep, backfill or audit takes for
something to convert. A replay makes it again, and so does a later revision of its item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from stac_watch.jobs import removing
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow
from stac_watch.model.errors import InputError

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
        kept = {one.key for one, row in rows if row is not None and removing.leaves_first(ledger, row, now())}
    else:
        kept = set()
    done = [
        one if one.refusal is not None else replace(one, refusal=removing.FIRST if one.key in kept else _refused(one, ledger, now))
        for one in planned.outputs
    ]
    return _summed(planned.before, planned.since, done, removed=True)


def _expiring(ledger: Ledger, row: ConversionRow, acquired: datetime, visible: Callable[[str], bool]) -> Expiring:
    refusal = removing.refusal(ledger, row, visible)
    return Expiring(row.source, row.item_id, row.key, row.output_zarr, acquired, row.changed_at, _bytes_of(row), refusal)


def _bytes_of(row: ConversionRow) -> int:
    outcome = row.outcome
    if outcome is None:
        return 0
    return outcome.counts.bytes_written + (outcome.package.bytes if outcome.package is not None else 0)


def _refused(one: Expiring, ledger: Ledger, now: Callable[[], datetime]) -> str | None:
    """Removes one; returns why it was not removed."""
    row = ledger.conversions.get(one.key)
    if row is None or row.changed_at != one.done:
        return removing.MOVED
    return removing.remove(row, lambda: ledger.retirements.bury(row, f"its output was removed, {row.output_zarr}", now()))


def _summed(before: datetime, since: Since, outputs: list[Expiring], *, removed: bool) -> ExpiryPlan:
    going = [one for one in outputs if one.refusal is None]
    return ExpiryPlan(before, since, removed, len(going), sum(one.bytes for one in going), outputs)
