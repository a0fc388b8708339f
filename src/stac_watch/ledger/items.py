"""What the catalog last said of each item, and what a window of it leads to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, bindparam, or_, select

from stac_watch.ledger import findings, moves, rivalry
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.admission import admit
from stac_watch.ledger.moves import conversion_of
from stac_watch.ledger.records import NOTHING, ConversionRow, Findings, Footprint, ItemRow, Known, Rivals, Scope, Sighting, Tally
from stac_watch.ledger.session import Session, chunked
from stac_watch.model.errors import Exit
from stac_watch.model.item import Unreadable
from stac_watch.model.states import State

NEAR = timedelta(seconds=2)  # reprocessings of one acquisition may differ in the fraction of their sensing second
EVERYTHING = Scope()
TIMES = 200  # intervals in one query
SAID = select(*(t.item.c[f.name] for f in fields(ItemRow))).where(
    t.item.c.source == bindparam("of_source"), t.item.c.item_id.in_(bindparam("values", expanding=True))
)


class Items:
    """What the catalog last said of each item, and what followed."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def known(self, source: str, item_ids: Sequence[str]) -> dict[str, Known]:
        """Returns what is known of these items, by id."""
        with self._session.read() as tx:
            rows = chunked(tx, sql.KNOWN, item_ids, of_source=source)
            return {
                r.item_id: Known(
                    r.revision, r.key, State(r.state), r.cause, r.updated, r.trace, r.exit_code == Exit.SUPERSEDED, r.stamp
                )
                for r in rows
            }

    def total(self, source: str) -> int:
        """Returns how many conversions there are of a source's items, in whatever state."""
        with self._session.read() as tx:
            return sum(r.n for r in tx.execute(sql.FUNNEL) if r.source == source)

    def decided(self, keys: Collection[str]) -> dict[str, Known]:
        """Returns what is known of conversions by key, of whichever source they are."""
        with self._session.read() as tx:
            return {r.key: Known(r.revision, r.key, State(r.state), r.cause) for r in chunked(tx, sql.STATES, list(keys))}

    def hrefs(self, keys: Collection[str]) -> dict[str, str]:
        """Returns where the products of conversions lay when they were last asked for, by key."""
        return {key: str(json.loads(body)["data"]["product_href"]) for key, body in self.last_events(keys).items()}

    def last_events(self, keys: Collection[str]) -> dict[str, bytes]:
        """Returns the events of conversions' current attempts, by key."""
        with self._session.read() as tx:
            return {r.key: bytes(r.body) for r in chunked(tx, sql.LAST_EVENTS, list(keys))}

    def elsewhere(self, rivals: Rivals, item_ids: Collection[str]) -> set[str]:
        """Returns which items are converted, or are to be, for a source that has them too; see `rivalry.taken`."""
        with self._session.read() as tx:
            return set(rivalry.taken(tx, rivals, item_ids))

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
            found = tx.execute(SAID, {"of_source": row.source, "values": [row.item_id]}).first()
            return _item_of(found) if found is not None else None

    def of(self, rows: Collection[ConversionRow]) -> dict[tuple[str, str], ItemRow]:
        """Returns what the catalog last said of these conversions' items, by source and id."""
        found = dict[tuple[str, str], ItemRow]()
        with self._session.read() as tx:
            for source in {row.source for row in rows}:
                for r in chunked(tx, SAID, [row.item_id for row in rows if row.source == source], of_source=source):
                    found[source, r.item_id] = _item_of(r)
        return found

    def footprints(self, state: State, limit: int, scope: Scope = EVERYTHING) -> list[Footprint]:
        """Returns where the items of a scope's conversions in a state lie, the last changed first."""
        c, i = t.conversion.c, t.item.c
        query = (
            select(c.item_id, i.bbox, i.tile)
            .join(t.item, and_(i.source == c.source, i.item_id == c.item_id))
            .where(c.state == state.value)
            .order_by(c.changed_at.desc())
            .limit(limit)
        )
        given = ((c.source, scope.source), (c.lane, scope.lane))
        query = query.where(*(column == value for column, value in given if value is not None))
        query = query.where(c.changed_at >= scope.since) if scope.since is not None else query
        with self._session.read() as tx:
            return [Footprint(r.item_id, state, r.bbox, r.tile) for r in tx.execute(query)]

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

    def commit(
        self,
        source: str,
        sightings: Iterable[Sighting],
        unreadable: Iterable[Unreadable],
        cursor: tuple[str, datetime] | None,
        now: datetime,
        found: Findings = NOTHING,
    ) -> Tally:
        """Stores what a window showed, all that follows from it, and the cursor: in one transaction, or none where nothing did."""
        seen, bad = list(sightings), list(unreadable)
        if not (seen or bad or cursor or found != replace(NOTHING, rivals=found.rivals)):
            return Tally()
        moved: Counter[State] = Counter()
        with self._session.write() as tx:
            if found.superseded:
                findings.supersede(tx, source, found, now)
            waiting = seen
            while waiting:  # once, unless a window shows an item twice: then in the order in which it showed it
                first = {s.item.item_id: s for s in reversed(waiting)}
                moved.update(admit(tx, source, list(first.values()), now, found.rivals))
                waiting = [s for s in waiting if first[s.item.item_id] is not s]
            unknown = findings.note_unreadable(tx, source, bad, now) if bad else 0
            findings.note(tx, source, found, now)
            if cursor is not None:
                moves.set_cursor(tx, *cursor, now)
        return Tally(len(seen), moved[State.QUEUED], moved[State.SKIPPED], unknown)


def _item_of(row: Sequence[Any]) -> ItemRow:
    return ItemRow(*row)
