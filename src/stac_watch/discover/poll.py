"""One look at what a catalog published since the last one.

What is new comes first: the window from a little before the cursor on, open to the future. The cursor moves with the items of its
window, in one transaction, and never past a window that was not read completely. The rest of the overlap, in which what comes late
turns up, is read again in turns, a part with each poll. A round of it reaches back to an overlap before the round before it began:
so each second is read once more after whatever could still turn up in it became visible. Where the overlap holds little, it is read
whole, in one request with what is new.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from stac_watch.catalog.abilities import EXPENSIVE
from stac_watch.catalog.answers import BadAnswer, Rejected
from stac_watch.catalog.reader import Leaf, leaves
from stac_watch.catalog.windows import Window, advance, floor_second, next_window
from stac_watch.discover.baseline import preexisting
from stac_watch.discover.intake import ORIGIN, Intake, add, hidden_names
from stac_watch.discover.overlap import hot_of, next_turn, overlap_of, round_of
from stac_watch.ledger.records import Findings, SourceState, Tally

FEW = 250  # items that are read again with each poll: a quarter of a second of pgstac's time, and what comes late is found at once
CLOCK = timedelta(minutes=1)  # between two looks at the collection: is it there still, and what does its server's clock say?


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
    source, stamp = intake.source, intake.catalog.abilities.stamp
    server_now = _time(intake, state)
    origin = _origin(intake, state, server_now)
    state = replace(state, positions={**state.positions, ORIGIN: origin})
    before = _position(intake, state, stamp, server_now)
    overlap = overlap_of(source, stamp, state.lateness)
    reading = _Reading(intake, state, stamp, origin, before)
    if before is not None and not _dear(intake) and (hot := hot_of(state.lateness, overlap)) < overlap:
        _in_turns(reading, before, hot, overlap, server_now)
        return reading.total
    start, floor = _reach(intake, state, server_now)
    window = next_window(stamp, start or before or origin, overlap, server_now, origin=origin)
    reading.read(leaves(intake.catalog, window, source.poll.page, floor=floor), floor=floor)
    if floor is None and intake.catalog.abilities.idle > EXPENSIVE:
        intake.ledger.sources.set_position(intake.cursor(f"{stamp}:all"), reading.cursor, intake.now())
    return reading.total


@dataclass
class _Reading:
    """What one poll has read so far."""

    intake: Intake
    state: SourceState
    stamp: str
    origin: datetime
    before: datetime | None  # the cursor, as it was
    total: Tally = field(default_factory=Tally)
    server_now: datetime | None = None  # as the last answer said it

    def __post_init__(self) -> None:
        self.cursor = self.before or self.origin

    def read(self, found: Iterable[Leaf], *, floor: datetime | None = None) -> None:
        """Commits windows, and the cursor with them."""
        for leaf in found:
            if not leaf.part:
                # a cache that keeps one answer may keep others, and say nothing of it
                self.cursor = advance(self.cursor, leaf.window, leaf.server_now - self.intake.catalog.kept)
            self._commit(leaf, (self.stamp, self.cursor), floor)

    def again(self, found: Iterable[Leaf], again: datetime) -> None:
        """Commits windows that were read before, and how far the round got."""
        for leaf in found:
            again = again if leaf.part else max(again, leaf.window.end)
            self._commit(leaf, (f"{self.stamp}:again", again), None)

    def _commit(self, leaf: Leaf, cursor: tuple[str, datetime], floor: datetime | None) -> None:
        intake = self.intake
        seen = intake.compare(leaf.documents, "live")
        # with a floor a window was not read completely: what is hidden may lie below it
        old = preexisting(intake, seen, self.state, polled=True)
        seen = seen.without(old.ids)
        intake.ensure_room(seen, self.total)
        cleared = hidden_names(leaf) if floor is None else None
        found = Findings(readable=seen.readable, cleared=cleared, preexisting=old.to_note)
        name, position = cursor
        tally = intake.commit(seen, leaf, cursor=(intake.cursor(name), position), late_after=self.before, besides=found)
        self.total, self.server_now = add(self.total, tally), leaf.server_now


def _in_turns(reading: _Reading, before: datetime, hot: timedelta, overlap: timedelta, server_now: datetime) -> None:
    """Reads what is new, and then a part of the overlap: all that is left of it where the last poll was too long ago."""
    intake, stamp = reading.intake, reading.stamp
    catalog, positions, lasts = intake.catalog, reading.state.positions, round_of(intake.source)
    begun, again = positions.get(f"{stamp}:begun"), positions.get(f"{stamp}:again")
    at_once = server_now - before >= lasts
    # a round cannot have begun after the last poll; where it says so, a clock was wrong
    if begun is not None and again is not None and again < begun <= before + lasts and not at_once:
        end = begun
    else:
        start = before - overlap if begun is None or again is None else min(again, min(begun, before) - overlap)
        window = next_window(stamp, before, before - start, server_now, origin=reading.origin)
        small, moment = _small(intake, window)
        moment = floor_second(moment - catalog.kept)
        if small is not None:
            reading.read([small])
            if begun is not None:
                _note_round(reading, moment, moment)
            return
        begun, again = moment, window.start
        end = min(begun, _ceil(before))  # what comes after it is read now
        # before anything is read: the cursor that `start` was told by moves with what is new
        _note_round(reading, begun, again)
    window = next_window(stamp, before, hot, server_now, origin=reading.origin)
    reading.read(leaves(catalog, window, intake.source.poll.page))
    now = reading.server_now or begun
    upto = end if at_once else next_turn(again, end, now - before, begun + lasts - now, lasts)
    if again < upto:
        reading.again(leaves(catalog, Window(stamp, again, upto), intake.source.poll.page), again)
    if upto >= end:
        _note_round(reading, begun, begun)


def _small(intake: Intake, window: Window) -> tuple[Leaf | None, datetime]:
    """Returns a window if it holds little, and the server's time; what its server cannot answer is read in parts."""
    catalog = intake.catalog
    try:
        page = catalog.search(window, limit=catalog.abilities.page(min(FEW, intake.source.poll.page)))
    except BadAnswer:
        return None, catalog.clock()
    return (None if page.full else Leaf(window, list(page.items), page.server_now)), page.server_now


def _note_round(reading: _Reading, begun: datetime, again: datetime) -> None:
    intake, stamp = reading.intake, reading.stamp
    positions = {intake.cursor(f"{stamp}:begun"): begun, intake.cursor(f"{stamp}:again"): again}
    intake.ledger.sources.set_positions(positions, intake.now())


def _ceil(moment: datetime) -> datetime:
    whole = floor_second(moment)
    return whole if whole == moment else whole + timedelta(seconds=1)


def _dear(intake: Intake) -> bool:
    """Tells whether polls are unusual: where the acquisition time is asked for, or each query takes its time."""
    abilities = intake.catalog.abilities
    return abilities.stamp == "datetime" or abilities.idle > EXPENSIVE


def _time(intake: Intake, state: SourceState) -> datetime:
    """Returns the server's time: by ours, where it was asked a moment ago and nothing hangs on it."""
    now, asked, positions = intake.now(), intake.catalog.clock_seen, state.positions
    if asked is not None and ORIGIN in positions and not _dear(intake):
        server_now = asked[1] + (now - asked[0])
        if timedelta(0) <= now - asked[0] < CLOCK and max(positions.values()) <= max(server_now, now):
            return server_now
    intake.catalog.clock_seen = None
    server_now = intake.catalog.clock()
    intake.catalog.clock_seen = (now, server_now)
    return server_now


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
