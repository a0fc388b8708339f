"""Compares the catalog with the ledger, by acquisition day: finds what no window on a change stamp can.

In: a source whose windows are being read. Out: back-dated and silently changed items as events, withdrawn ones noted; how far it
got, so that it goes on after a restart. Never: takes an item for withdrawn that was missing once; converts an archive: what was
there before the source was watched is its baseline.

Recent days are compared every few hours, everything once a week. A step is a few days' windows; the loop takes one step at a time,
so that the catalog and the other sources do not notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from stac_watch.catalog.client import SWEEP_PAGE, Catalog
from stac_watch.catalog.reader import Leaf, is_hidden, sweep_leaves
from stac_watch.catalog.windows import DAY, EARLIEST, archive, floor_day
from stac_watch.config.model import Recipe, Source
from stac_watch.discover.intake import Look, add, commit, heal, look, note_lateness
from stac_watch.discover.items import read_item
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import SweepRow, Tally
from stac_watch.model.item import Item

DAYS = 4  # windows of one step
ASKED = 100  # unreadable items that are asked for one by one after a sweep of everything
WORKERS = 2  # of them asked at once: a poll of another program at the same server is not to wait behind us


@dataclass(frozen=True)
class Context:
    """What a sweep compares with."""

    source: Source
    recipe: Recipe
    catalog: Catalog
    ledger: Ledger
    now: Callable[[], datetime]


def step(context: Context) -> Tally | None:
    """Sweeps a few days; returns what that found, None when no sweep is due.

    Raises:
        CatalogUnavailable: no usable answer; the same days are swept again.
    """
    c = context
    row = _current(c)
    if row is None:
        return None
    windows = list(islice(archive(row.position, row.end), DAYS))
    total = Tally()
    for leaf in sweep_leaves(c.catalog, windows, max(SWEEP_PAGE, c.source.poll.page), workers=WORKERS):
        total = add(total, compare(c, leaf, row))
    position = windows[-1].end if windows else row.end
    done = position >= row.end
    c.ledger.sources.note_sweep(replace(row, position=position, done_at=c.now() if done else None))
    if done and row.kind == "all":
        _forget(c, row)
    if done:
        name = f"{c.source.name}:baseline"
        c.ledger.sources.set_position(name, min(row.start, c.ledger.sources.position(name) or row.start), c.now())
    return total


def compare(c: Context, leaf: Leaf, row: SweepRow) -> Tally:
    """Writes down how a window of the catalog differs from the ledger."""
    now = c.now()
    seen = look(leaf.documents, c.source, c.recipe, c.ledger, now, lane="live")
    old = _before_watching(c, seen)
    if old:
        c.ledger.absences.mark_preexisting(c.source.name, old)
        seen = replace(
            seen,
            sightings=[s for s in seen.sightings if s.item.item_id not in old],
            fresh=[i for i in seen.fresh if i.item_id not in old],
        )
    cursor = c.ledger.sources.position(f"{c.source.name}:{c.catalog.abilities.stamp}")
    if cursor is not None and seen.fresh:
        note_lateness(c.source, c.ledger, cursor, seen.fresh)
    if seen.sightings or seen.bad or seen.older or leaf.hidden:
        tally = commit(seen, leaf.hidden, c.source, c.ledger, now, cursor=None)
    else:
        tally = Tally()
    heal(seen, leaf, c.source, c.ledger, whole=True)
    present = {d["id"] for d in leaf.documents if isinstance(d.get("id"), str)}
    c.ledger.absences.mark_found(c.source.name, present)
    if leaf.hidden is None:
        missing = c.ledger.items.acquired(c.source.name, leaf.window.start, leaf.window.end) - present
        _look_for(c, c.ledger.absences.mark_missing(c.source.name, missing, row.number, now))
    return tally


def _before_watching(c: Context, seen: Look) -> set[str]:
    """Returns which unknown items were there before the source was watched.

    A day that is swept for the first time shows what was there: of it only what is stamped since the start is new. Whatever a
    later sweep of that day shows besides has appeared since, whatever its stamp says.
    """
    unknown = [i for i in seen.fresh if i.item_id not in seen.known]
    if not unknown:
        return set()
    origin = c.ledger.sources.position(f"{c.source.name}:origin")
    swept_from = c.ledger.sources.position(f"{c.source.name}:baseline")
    first = [i for i in unknown if swept_from is None or i.datetime < swept_from]
    based = c.ledger.absences.preexisting(c.source.name, [i.item_id for i in unknown])
    return based | {i.item_id for i in first if origin is not None and _stamp(c, i) < origin}


def _stamp(c: Context, item: Item) -> datetime:
    return item.datetime if c.catalog.abilities.stamp == "datetime" else item.updated or item.datetime


def _look_for(c: Context, candidates: Iterable[str]) -> None:
    """Asks for each item that two sweeps did not find: it is gone, or its acquisition time is another one now."""
    for item_id in candidates:
        document = c.catalog.item(item_id)
        if document is None:
            c.ledger.absences.withdraw(c.source.name, item_id, c.now())
            continue
        source = c.source
        item = read_item(document, collection=source.collection, api=source.api, on=source.on, allowed_hosts=source.hosts())
        if isinstance(item, Item):
            c.ledger.absences.move_item(source.name, item_id, item.datetime)


def _forget(c: Context, row: SweepRow) -> None:
    """Marks as readable what a sweep of everything did not meet and the catalog does not have."""
    gone = {i for i in c.ledger.absences.not_met(c.source.name, row.begun_at, ASKED) if is_hidden(i) or c.catalog.item(i) is None}
    c.ledger.absences.mark_readable(c.source.name, gone, None)


def _current(c: Context) -> SweepRow | None:
    """Returns the sweep that is to go on or to begin; recent days come first."""
    name, poll, now = c.source.name, c.source.poll, c.now()
    rows = {kind: c.ledger.sources.sweep(name, kind) for kind in ("recent", "all")}
    origin = c.ledger.sources.position(f"{name}:origin")
    if origin is None:  # not polled yet
        return None
    number = 1 + max((row.number for row in rows.values() if row is not None), default=0)
    recent, every = rows["recent"], rows["all"]
    if _due(recent, poll.sweep, now, first=origin):
        if recent is not None and recent.done_at is None:
            return recent
        start = floor_day(now - poll.sweep_back)
        return SweepRow(name, "recent", number, start, floor_day(now) + 2 * DAY, start, now, None)
    if poll.sweep_all != "off" and _due(every, poll.sweep_all, now, first=origin + poll.since + poll.sweep_all):
        if every is not None and every.done_at is None:
            return every
        start = floor_day(c.catalog.first() or EARLIEST)
        return SweepRow(name, "all", number, start, floor_day(now) + 2 * DAY, start, now, None)
    return None


def _due(row: SweepRow | None, every: timedelta, now: datetime, *, first: datetime) -> bool:
    if row is None:
        return now >= first
    return row.done_at is None or now - row.begun_at >= every
