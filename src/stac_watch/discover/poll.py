"""One look at what a catalog published since the last one.

The cursor moves with the items of its window, in one transaction, and never past a window that was not read completely.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from stac_watch.catalog.abilities import EXPENSIVE
from stac_watch.catalog.answers import BadAnswer, Rejected
from stac_watch.catalog.reader import leaves
from stac_watch.catalog.windows import advance, next_window
from stac_watch.discover.baseline import preexisting
from stac_watch.discover.intake import ORIGIN, Intake, add, hidden_names
from stac_watch.discover.overlap import overlap_of
from stac_watch.ledger.records import Findings, SourceState, Tally


def poll(intake: Intake) -> Tally:
    """Reads everything that changed since the cursor, window by window; each is committed before the next is asked.

    Raises:
        CatalogUnavailable: no usable answer; what was committed stays, the cursor stands before the window that failed.
        ConfigError: there is no such collection.
    """
    state = intake.state()
    intake.ensure_abilities(state)
    try:
        return _poll(intake, state)
    except (Rejected, BadAnswer):
        intake.ledger.sources.invalidate_abilities(intake.source.name)
        raise


def _poll(intake: Intake, state: SourceState) -> Tally:
    source, catalog = intake.source, intake.catalog
    stamp, server_now = catalog.abilities.stamp, catalog.clock()
    origin = _origin(intake, state, server_now)
    state = replace(state, positions={**state.positions, ORIGIN: origin})
    before = _position(intake, state, stamp, server_now)
    start, floor = _reach(intake, state, server_now)
    overlap = overlap_of(source, stamp, state.lateness)
    window = next_window(stamp, start or before or origin, overlap, server_now, origin=origin)
    cursor, total = before or origin, Tally()
    for leaf, seen in intake.scan(leaves(catalog, window, source.poll.page, floor=floor), "live"):
        if not leaf.part:
            # a cache that keeps one answer may keep others, and say nothing of it
            cursor = advance(cursor, leaf.window, leaf.server_now - catalog.kept)
        # with a floor a window was not read completely: what is hidden may lie below it
        old = preexisting(intake, seen, state, polled=True)
        seen = seen.without(old.ids)
        intake.ensure_room(seen, total)
        cleared = hidden_names(leaf) if floor is None else None
        found = Findings(readable=seen.readable, cleared=cleared, preexisting=old.to_note)
        total = add(total, intake.commit(seen, leaf, cursor=(intake.cursor(stamp), cursor), late_after=before, besides=found))
    if floor is None and catalog.abilities.idle > EXPENSIVE:
        intake.ledger.sources.set_position(intake.cursor(f"{stamp}:all"), cursor, intake.now())
    return total


def _origin(intake: Intake, state: SourceState, server_now: datetime) -> datetime:
    """Returns where the watch began; it begins now where it did not."""
    if ORIGIN in state.positions:
        return state.positions[ORIGIN]
    origin = min(server_now, intake.now()) - intake.source.poll.since  # a `Date` ahead once would make all until then no news
    intake.ledger.sources.set_position(intake.cursor(ORIGIN), origin, intake.now())
    return origin


def _position(intake: Intake, state: SourceState, name: str, server_now: datetime) -> datetime | None:
    """Returns a cursor, the server's time where it lies in the future: a `Date` that was wrong once would blind us until then.

    Both clocks must say so: a server's that is behind once would take the cursor back to before the watch.
    """
    position, now = state.positions.get(name), intake.now()
    if position is None or position <= max(server_now, now):
        return position
    intake.ledger.sources.set_position(intake.cursor(name), server_now, now)
    return server_now


def _reach(intake: Intake, state: SourceState, server_now: datetime) -> tuple[datetime | None, datetime | None]:
    """Returns where an unusual window starts, and the acquisition time that a usual one is limited to.

    Without an index on the stamp a query costs 0.6-1.2 s per 100,000 items on pgstac, with a limit on the acquisition time a
    tenth of it. So polls have that limit, and once per sweep one goes without it, from where the last such one ended.
    """
    abilities, timing = intake.catalog.abilities, intake.source.poll
    if abilities.idle <= EXPENSIVE or abilities.stamp == "datetime":
        return None, None
    last = _position(intake, state, f"{abilities.stamp}:all", server_now)
    if last is None or server_now - last >= timing.sweep:
        return last, None
    return None, server_now - timing.sweep_back
