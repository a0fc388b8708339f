"""What becomes of outputs whose items are gone from the catalog: planned, and done on request.

A rolling archive drops its items by design, and an output does not become wrong by that: it is kept unless `on_gone` asks for more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from stac_watch.config.model import Source
from stac_watch.jobs import removing
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Retired
from stac_watch.model.errors import InputError
from stac_watch.model.item import Retirement
from stac_watch.model.states import State
from stac_watch.runs import retiring

SHARE = 10  # no more than one in so many of what a source has done is removed without being told the number,
FEW = 10  # unless it is no more than these
_WANTED = {"keep": Retirement.KEPT, "deprecate": Retirement.DEPRECATED, "delete": Retirement.DELETED}


@dataclass(frozen=True)
class Retiring:
    """One output, and what becomes of it."""

    source: str
    item: str
    output: str
    gone_since: datetime | None  # None = the item is back
    action: str  # deprecate, delete, restore
    refusal: str | None = None  # why it is not done
    retired: Retired | None = None


def plan(ledger: Ledger, sources: Sequence[Source], visible: Callable[[str], bool], at_most: int | None = None) -> list[Retiring]:
    """Returns what is to be done.

    Args:
        ledger: what is known to be gone.
        sources: whose outputs.
        visible: whether an output can be reached from here.
        at_most: so many are removed of each source, however large a part of it they are.

    Raises:
        InputError: more are to be removed than looks right.
    """
    found: list[Retiring] = []
    for source in sources:
        mine = [
            _retiring(ledger, source, retired, visible)
            for retired in ledger.retirements.pending(source.name, _WANTED[source.on_gone])
        ]
        removed = sum(r.action == "delete" for r in mine)
        done = sum(n for place, n in ledger.counts.funnel().items() if place.source == source.name and place.state is State.DONE)
        limit = at_most if at_most is not None else max(FEW, done // SHARE)
        if removed > limit:
            raise InputError(
                f"{removed} of the {done} outputs of {source.name} are to be removed, more than {limit}",
                hint=f"is its catalog what it was? If all of them are meant: --at-most {removed}",
            )
        found += mine
    return found


def _retiring(ledger: Ledger, source: Source, retired: Retired, visible: Callable[[str], bool]) -> Retiring:
    row = retired.row
    action = "restore" if retired.since is None else "delete" if source.on_gone == "delete" else "deprecate"
    refusal = removing.refusal(ledger, row, visible, removes=action == "delete")
    return Retiring(source.name, row.item_id, row.output_zarr, retired.since, action, refusal, retired)


def execute(targets: Sequence[Retiring], ledger: Ledger, now: Callable[[], datetime], *, registers: bool = False) -> list[Retiring]:
    """Does it, one after another; returns the targets as they turned out. The same again goes on.

    Where outputs are registered (`registers`), no output goes before its item is out of that catalog: readers would find nothing.
    """
    return [
        target if target.refusal is not None else replace(target, refusal=_refused(target, ledger, now, registers=registers))
        for target in targets
    ]


def _refused(target: Retiring, ledger: Ledger, now: Callable[[], datetime], *, registers: bool) -> str | None:
    """Does one; returns why it was not done."""
    retired = target.retired
    assert retired is not None  # noqa: S101  # a plan's
    row = retired.row
    if target.action == "delete":
        if registers and removing.leaves_first(ledger, row, now()):
            return removing.FIRST
        return removing.remove(row, lambda: ledger.retirements.note(retired, Retirement.DELETED, now()))

    def marked() -> str | None:
        if not retiring.deprecate(row.output_zarr, row.key, row.outcome, deprecated=target.action == "deprecate"):
            return removing.ANOTHERS
        ledger.retirements.note(retired, Retirement.DEPRECATED, now())
        if registers:
            ledger.publications.refresh(row.key, now())
        return None

    return removing.tried(marked)
