"""Conversions as they stand and as they came there: found, followed and moved."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import JSON, Connection, and_, or_, select, type_coerce, update

from stac_watch.ledger import moves, naming
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.moves import conversion_of, rows_of
from stac_watch.ledger.records import ConversionRow, HistoryRow, Move, SecondLook, Where
from stac_watch.ledger.session import Session, chunked
from stac_watch.model.event import Lane
from stac_watch.model.outcome import DATA
from stac_watch.model.states import IN_FLIGHT, State


class Conversions:
    """The conversion of each item revision, and its moves."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, key: str) -> ConversionRow | None:
        """Returns the conversion with that key."""
        with self._session.read() as tx:
            return rows_of(tx, [key]).get(key)

    def find(
        self,
        *,
        item_id: str | None = None,
        state: State | None = None,
        source: str | None = None,
        lane: Lane | None = None,
        since: datetime | None = None,
        error: str | None = None,
        place: Where | None = None,
        runner: str | None = None,
        limit: int = 1000,
        offset: int = 0,
        sort: naming.Sort = naming.Sort.CHANGED,
    ) -> list[ConversionRow]:
        """Returns conversions, the last changed first unless sorted otherwise; `runner` is the release that made their outputs."""
        c = t.conversion.c
        query = select(t.conversion).order_by(*naming.order(sort)).limit(limit).offset(offset)
        for column, value in ((c.item_id, item_id), (c.state, state and state.value), (c.source, source), (c.lane, lane)):
            if value is not None:
                query = query.where(column == value)
        if since is not None:
            query = query.where(c.changed_at >= since)
        if error is not None:  # as somebody read it: whole, or as what failures have in common
            query = query.where(or_(c.reason.icontains(error, autoescape=True), c.cause.icontains(error, autoescape=True)))
        query = query.where(*naming.lying(place)) if place is not None else query
        if runner is not None:  # as it says itself which release it is
            query = query.where(type_coerce(c.outcome, JSON)["versions"]["geozarr-runner"].as_string() == runner)
        with self._session.read() as tx:
            return [conversion_of(r) for r in tx.execute(query)]

    def called(self, name: str) -> list[ConversionRow]:
        """Returns the conversions of the one item that a name means: its id, a key, a run's name, a tile, or a part of one.

        Raises:
            InputError: several items have it.
        """
        with self._session.read() as tx:
            return naming.called(tx, name)

    def on_volumes(self) -> list[ConversionRow]:
        """Returns what is done and whose output lies on its run's own volume."""
        c = t.conversion.c
        low, high = f"{DATA}/", f"{DATA}0"  # SQLite finds a span in its index; PostgreSQL may order texts otherwise
        lies = c.output_zarr.startswith(low, autoescape=True)
        if self._session.engine.dialect.name == "sqlite":
            lies = and_(c.output_zarr >= low, c.output_zarr < high)
        with self._session.read() as tx:
            return [conversion_of(r) for r in tx.execute(select(t.conversion).where(c.state == State.DONE.value, lies))]

    def unfinished(self) -> list[ConversionRow]:
        """Returns conversions whose run may exist: sent, running, and queued ones that were posted without a clear answer."""
        with self._session.read() as tx:
            return self._unfinished(tx)

    def under_way(self, now: datetime) -> tuple[list[ConversionRow], list[SecondLook]]:
        """Returns what is unfinished, and superseded conversions whose output is to be looked at now: a run may have come late."""
        with self._session.read() as tx:
            due = {r.key: r.since for r in tx.execute(sql.LOOKS, {"now": now})}
            looks = [SecondLook(row, due[key]) for key, row in rows_of(tx, due).items()] if due else []
            return self._unfinished(tx), looks

    def _unfinished(self, tx: Connection) -> list[ConversionRow]:
        # a query for each state, ordered as its index is: with statistics SQLite reads all of the table for two states in one
        moving = [conversion_of(r) for s in IN_FLIGHT for r in tx.execute(sql.IN_STATE, {"of_state": s.value})]
        unanswered = [conversion_of(r) for r in tx.execute(sql.POSTED)]
        return [*sorted(moving, key=lambda row: row.changed_at), *unanswered]

    def waiting_for(self, key: str) -> ConversionRow | None:
        """Returns a conversion whose run for the same output keeps this one's event back."""
        mine, other = t.conversion.c, t.conversion.alias("other")
        query = (
            select(other)
            .join(t.conversion, mine.output_zarr == other.c.output_zarr)
            .where(mine.key == key, other.c.key != key, other.c.state.in_([s.value for s in IN_FLIGHT]))
            .limit(1)
        )
        with self._session.read() as tx:
            found = tx.execute(query).first()
            return conversion_of(found) if found is not None else None

    def replaced(self, rows: Collection[ConversionRow]) -> dict[str, str]:
        """Returns by which revision's output those of these conversions were replaced, by key."""
        mine, other = t.conversion.c, t.conversion.alias("other")
        query = (
            select(mine.key, other.c.revision)
            .join(other, mine.output_zarr == other.c.output_zarr)
            .where(sql.one_of(mine.key), other.c.state == State.DONE.value, other.c.changed_at > mine.changed_at)
            .order_by(other.c.changed_at)
        )
        done = [row.key for row in rows if row.state is State.DONE]
        with self._session.read() as tx:
            return {r.key: r.revision for r in chunked(tx, query, done)}

    def superseded(self, row: ConversionRow) -> bool:
        """Tells whether a newer revision of the item took this conversion's place."""
        with self._session.read() as tx:
            return tx.execute(sql.CURRENT_KEY, {"of_source": row.source, "of_item": row.item_id}).scalar() not in (None, row.key)

    def look_again(self, key: str, due: datetime | None) -> None:
        """Notes when to look the next time; None = never more."""
        with self._session.write() as tx:
            tx.execute(*((sql.LOOK_AGAIN, {"of_key": key, "next_due": due}) if due else (sql.LOOKED, {"of_key": key})))

    def events(self, key: str) -> list[bytes]:
        """Returns the events of a conversion as they were or will be posted, first attempt first."""
        with self._session.read() as tx:
            rows = tx.execute(select(t.event.c.body).where(t.event.c.key == key).order_by(t.event.c.attempt))
            return [bytes(r.body) for r in rows]

    def products(self, key: str) -> tuple[str, ...]:
        """Returns where the product of a conversion lay when it was asked for, each place once."""
        return tuple({str(json.loads(body)["data"]["stac_url"]): None for body in self.events(key)})

    def history(self, key: str) -> list[HistoryRow]:
        """Returns every move of a conversion, the first one first."""
        h = t.history.c
        with self._session.read() as tx:
            rows = tx.execute(select(h.src, h.fact, h.dst, h.attempt, h.at, h.why).where(h.key == key).order_by(h.id))
            return [HistoryRow(*r) for r in rows]

    def move(self, row: ConversionRow, move: Move, now: datetime) -> State:
        """Applies one fact to a conversion as it was read: state, history, event, outbox and counts together.

        Raises:
            StaleState: it was moved by somebody else since `row` was read.
        """
        with self._session.write() as tx:
            return moves.apply(tx, row, move, now)

    def note_wait(self, row: ConversionRow, waits_for: str | None) -> None:
        """Notes why a run does not start; no move, and nothing of its history."""
        c = t.conversion.c
        with self._session.write() as tx:
            guard = (c.key == row.key, c.attempt == row.attempt, c.state == row.state.value)
            tx.execute(update(t.conversion).where(*guard).values(waits_for=waits_for))
