"""What the catalog last said of each item, and what a window of it leads to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta

from sqlalchemy import and_, or_, select

from stac_watch.ledger import moves
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.admission import admit
from stac_watch.ledger.moves import conversion_of, rows_of
from stac_watch.ledger.records import ConversionRow, Footprint, ItemRow, Known, Move, Sighting, Tally
from stac_watch.ledger.session import Session, chunked
from stac_watch.model.item import SkipReason, Unreadable
from stac_watch.model.states import Fact, State

NEAR = timedelta(seconds=2)  # reprocessings of one acquisition may differ in the fraction of their sensing second
TIMES = 200  # intervals in one query


class Items:
    """What the catalog last said of each item, and what followed."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def known(self, source: str, item_ids: Sequence[str]) -> dict[str, Known]:
        """Returns what is known of these items, by id."""
        with self._session.read() as tx:
            rows = chunked(tx, sql.KNOWN, item_ids, of_source=source)
            return {r.item_id: Known(r.revision, r.key, State(r.state)) for r in rows}

    def current(self, source: str, item_ids: Collection[str]) -> dict[str, ConversionRow]:
        """Returns the conversions of these items' current revisions, by item id."""
        with self._session.read() as tx:
            return {r.item_id: conversion_of(r) for r in chunked(tx, sql.CURRENT, list(item_ids), of_source=source)}

    def within(self, source: str, start: datetime, end: datetime) -> Iterator[ConversionRow]:
        """Yields the conversions of current revisions of items acquired in `[start, end)`, oldest first."""
        i = t.item.c
        query = (
            select(t.conversion)
            .join(t.item, i.key == t.conversion.c.key)
            .where(i.source == source, i.sensing >= start, i.sensing < end)
            .order_by(i.sensing)
        )
        with self._session.read() as tx:
            yield from (conversion_of(r) for r in tx.execute(query.execution_options(yield_per=1000)))

    def get(self, row: ConversionRow) -> ItemRow | None:
        """Returns what the catalog last said of a conversion's item."""
        with self._session.read() as tx:
            mine = (t.item.c.source == row.source, t.item.c.item_id == row.item_id)
            found = tx.execute(select(*(t.item.c[f.name] for f in fields(ItemRow))).where(*mine)).first()
            return ItemRow(*found) if found is not None else None

    def footprints(self, state: State, limit: int) -> list[Footprint]:
        """Returns where the items of conversions in a state lie, the last changed first."""
        c, i = t.conversion.c, t.item.c
        query = (
            select(c.item_id, i.bbox)
            .join(t.item, and_(i.source == c.source, i.item_id == c.item_id))
            .where(c.state == state.value)
            .order_by(c.changed_at.desc())
            .limit(limit)
        )
        with self._session.read() as tx:
            return [Footprint(r.item_id, state, r.bbox) for r in tx.execute(query)]

    def acquired(self, source: str, start: datetime, end: datetime) -> set[str]:
        """Returns the ids of known items acquired in `[start, end)`."""
        with self._session.read() as tx:
            return set(tx.execute(sql.ACQUIRED, {"of_source": source, "start": start, "end": end}).scalars())

    def acquired_at(self, source: str, moments: Collection[datetime]) -> dict[str, Known]:
        """Returns what is known of the items that were acquired at these moments, give or take two seconds."""
        i, c = t.item.c, t.conversion.c
        query = select(i.item_id, i.revision, i.key, c.state, c.cause).join(t.conversion, c.key == i.key).where(i.source == source)
        seconds, found = sorted({m.replace(microsecond=0) for m in moments}), dict[str, Known]()
        with self._session.read() as tx:
            for start in range(0, len(seconds), TIMES):
                spans = [and_(i.sensing >= s - NEAR, i.sensing < s + NEAR) for s in seconds[start : start + TIMES]]
                for r in tx.execute(query.where(or_(*spans))):
                    found[r.item_id] = Known(r.revision, r.key, State(r.state), r.cause)
        return found

    def supersede(self, source: str, item_ids: Collection[str], why: Mapping[str, str], now: datetime) -> int:
        """Skips what waits or has failed of these items; what runs, or may, is waited for. Returns how many were skipped."""
        rows, n = self.current(source, item_ids), 0
        for item_id, row in rows.items():
            with self._session.write() as tx:
                before = rows_of(tx, [row.key])[row.key]
                posted = tx.execute(sql.POSTS, {"of_key": row.key}).scalar()
                if before.state is State.FAILED or (before.state is State.QUEUED and not posted):
                    moves.apply(tx, before, Move(Fact.SUPERSEDED, why[item_id], reason=SkipReason.SUPERSEDED), now)
                    n += 1
        return n

    def commit(
        self,
        source: str,
        sightings: Iterable[Sighting],
        unreadable: Iterable[Unreadable],
        cursor: tuple[str, datetime] | None,
        now: datetime,
    ) -> Tally:
        """Stores what a window showed, its events, and the cursor: in one transaction."""
        seen, bad = list(sightings), list(unreadable)
        moved: Counter[State] = Counter()
        with self._session.write() as tx:
            waiting = seen
            while waiting:  # once, unless a window shows an item twice: then in the order in which it showed it
                first = {s.item.item_id: s for s in reversed(waiting)}
                moved.update(admit(tx, source, list(first.values()), now))
                waiting = [s for s in waiting if first[s.item.item_id] is not s]
            if bad:
                rows = [{"source": source, "item_id": b.item_id, "why": b.why, "first_seen": now, "last_seen": now} for b in bad]
                moves.put(tx, t.unreadable, rows, ("source", "item_id"), "why", "last_seen")
            if cursor is not None:
                row = {"name": cursor[0], "position": cursor[1], "changed_at": now}
                moves.put(tx, t.cursor, [row], ("name",), "position", "changed_at")
        return Tally(len(seen), moved[State.QUEUED], moved[State.SKIPPED], len(bad))
