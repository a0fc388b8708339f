"""Compares the catalog with the ledger, by acquisition day: finds what no window on a change stamp can.

Back-dated and silently changed items become events, withdrawn ones are noted. An item that was missing once is not taken for
withdrawn, and an archive is not converted: what was there before the source was watched is its baseline.

Recent days are compared every few hours, everything once a week. A step is a few days' windows; the loop takes one step at a time,
so that the catalog and the other sources do not notice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from stac_watch.catalog.client import SWEEP_PAGE
from stac_watch.catalog.reader import Leaf, is_hidden, sweep_leaves
from stac_watch.catalog.windows import DAY, EARLIEST, LONG_AGO, archive, floor_day
from stac_watch.discover.baseline import preexisting
from stac_watch.discover.intake import BASELINE, ORIGIN, Comparison, Intake, add, hidden_names, read_document
from stac_watch.ledger.findings import MORE
from stac_watch.ledger.records import Findings, SourceState, SweepRow, Tally
from stac_watch.model.item import Item
from stac_watch.model.patience import waited

DAYS = 4  # windows of one step
ASKED = 100  # unreadable items that are asked for one by one after a sweep of everything
WORKERS = 2  # of them asked at once: a poll of another program at the same server is not to wait behind us


@dataclass(frozen=True)
class _Before:
    """What was known when a step began; windows of one step tell nothing of each other."""

    row: SweepRow
    state: SourceState
    absent: set[str]
    unreadable: set[str]


def sweep(intake: Intake) -> Tally | None:
    """Sweeps a few days; returns what that found, None when no sweep is due.

    Raises:
        CatalogUnavailable: no usable answer; the same days are swept again.
    """
    state = intake.state()
    row = _current(intake, state)
    if row is None:
        return None
    before = _Before(row, state, *intake.ledger.absences.noted(intake.source.name))
    # until recent days were swept once, what was there cannot be told from what comes: the first time is one step
    first = row.kind == "recent" and BASELINE not in state.positions
    windows = list(islice(archive(row.position, row.end), None if first else DAYS))
    total = Tally()
    pages = sweep_leaves(intake.catalog, windows, max(SWEEP_PAGE, intake.source.poll.page), workers=WORKERS)
    parts = set[str]()  # ids of a window that comes in parts
    for leaf, seen in intake.scan(pages, "live"):
        parts |= {i for d in leaf.documents if isinstance(i := d.get("id"), str)}
        total = add(total, _commit(intake, leaf, seen, before, parts, total))
        if not leaf.part:
            parts = set()
    position = windows[-1].end if windows else row.end
    if position < row.end:
        intake.ledger.sources.note_sweep(replace(row, position=position))
        return total
    if row.kind == "all":
        _forget_unreadable(intake, row)
    # where the first item of all was asked for, nothing was there before it either
    start = LONG_AGO if row.kind == "all" and intake.catalog.abilities.sorts else row.start
    baseline = min(start, state.positions.get(BASELINE, start))
    intake.ledger.sources.note_sweep(
        replace(row, position=position, done_at=intake.now()), cursor=(intake.cursor(BASELINE), baseline)
    )
    return total


def _commit(intake: Intake, leaf: Leaf, seen: Comparison, before: _Before, present: set[str], so_far: Tally) -> Tally:
    """Writes down how a window of the catalog differs from the ledger, where it does."""
    source, ledger = intake.source.name, intake.ledger
    old = preexisting(intake, seen, before.state, polled=False)
    seen = seen.without(old.ids)
    intake.ensure_room(seen, so_far)
    whole = leaf.hidden is None and not leaf.part
    missing = ledger.items.acquired(source, leaf.window.start, leaf.window.end) - present if whole else set()
    names = hidden_names(leaf)
    hidden = names is not None and any(names[0] <= i < names[1] for i in before.unreadable)
    tally = intake.commit(
        seen,
        leaf,
        late_after=before.state.positions.get(intake.catalog.abilities.stamp),
        besides=Findings(
            readable=seen.readable & before.unreadable, cleared=names if hidden else None, preexisting=old.to_note,
            present=present & before.absent, missing=missing, sweep=before.row.number if missing else 0,
        ),
    )  # fmt: skip
    if missing:
        _look_for(intake, ledger.absences.missed_twice(source, missing))
    return tally


def _look_for(intake: Intake, candidates: Iterable[str]) -> None:
    """Asks for each item that two sweeps did not find: it is gone, or its acquisition time is another one now."""
    for item_id in candidates:
        document, source = intake.catalog.item(item_id), intake.source
        if document is None:
            intake.ledger.absences.withdraw(source.name, item_id, intake.now())
            continue
        item = read_document(document, source)
        if isinstance(item, Item):
            intake.ledger.absences.move_item(source.name, item_id, item.datetime)


def _forget_unreadable(intake: Intake, row: SweepRow) -> None:
    """Marks as readable what a sweep of everything did not meet and the catalog does not have."""
    catalog, absences = intake.catalog, intake.ledger.absences
    unmet = absences.not_met(intake.source.name, row.begun_at, ASKED)
    if gone := [i for i in unmet if is_hidden(i) or i == MORE or catalog.item(i) is None]:
        absences.mark_readable(intake.source.name, gone)


def _current(intake: Intake, state: SourceState) -> SweepRow | None:
    """Returns the sweep that is to go on or to begin; recent days come first."""
    name, poll, now = intake.source.name, intake.source.poll, intake.now()
    origin = state.positions.get(ORIGIN)
    if origin is None:  # not polled yet
        return None
    number = 1 + max((row.number for row in state.sweeps.values()), default=0)
    recent, every = state.sweeps.get("recent"), state.sweeps.get("all")
    if _due(recent, poll.sweep, now, first=origin):
        if recent is not None and recent.done_at is None:
            return recent
        start = floor_day(now - poll.sweep_back)
        return SweepRow(name, "recent", number, start, floor_day(now) + 2 * DAY, start, now, None)
    if poll.sweep_all == "off":
        return None
    # what no stamp tells is told by a baseline only: the sooner it is whole, the less is taken for what was there
    first = origin if intake.catalog.abilities.unstamped else origin + poll.since + poll.sweep_all
    if _due(every, poll.sweep_all, now, first=first):
        if every is not None and every.done_at is None:
            return every
        start = floor_day(intake.catalog.first() or EARLIEST)
        return SweepRow(name, "all", number, start, floor_day(now) + 2 * DAY, start, now, None)
    return None


def _due(row: SweepRow | None, every: timedelta, now: datetime, *, first: datetime) -> bool:
    if row is None:
        return now >= first
    return row.done_at is None or waited(row.begun_at, now, every)
