"""What can be asked of the ledger: every reading query, named.

In: keys, ids, times. Out: `records`. Never: writes; the moves are the `Ledger`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, exists, func, or_, select

from stac_watch import schema as t
from stac_watch.records import ConversionRow, HistoryRow, Known, OutboxRow
from stac_watch.states import IN_FLIGHT, State


class Queries:
    """Named reading queries over the ledger's tables."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reads = engine.execution_options(reads=True)

    def position(self, name: str) -> datetime | None:
        """Returns the cursor of that name."""
        with self._reads.connect() as tx:
            return tx.execute(select(t.cursor.c.position).where(t.cursor.c.name == name)).scalar()

    def known(self, source: str, item_ids: Sequence[str]) -> dict[str, Known]:
        """Returns what is known of these items, by id."""
        query = (
            select(t.item.c.item_id, t.item.c.revision, t.item.c.key, t.conversion.c.state)
            .join(t.conversion, t.conversion.c.key == t.item.c.key)
            .where(t.item.c.source == source, t.item.c.item_id.in_(item_ids))
        )
        with self._reads.connect() as tx:
            return {r.item_id: Known(r.revision, r.key, State(r.state)) for r in tx.execute(query)}

    def due(self, now: datetime, limit: int) -> list[OutboxRow]:
        """Returns events to send now: replay before live before backfill, and the newest acquisition first within a lane.

        An event is held back while another run for the same output is in flight, or may be because a post had no clear answer:
        the older run must not finish after the newer.
        """
        other, mine, unclear = t.conversion.alias("other"), t.conversion.alias("mine"), t.outbox.alias("unclear")
        in_flight = exists().where(
            mine.c.key == t.outbox.c.key,
            other.c.output_zarr == mine.c.output_zarr,
            other.c.key != mine.c.key,
            or_(
                other.c.state.in_([s.value for s in IN_FLIGHT]),
                # of two that both went out without an answer neither waits for the other
                and_(t.outbox.c.posts == 0, exists().where(unclear.c.key == other.c.key, unclear.c.posts > 0)),
            ),
        )
        query = (
            select(t.outbox.c.key, t.outbox.c.event_id, t.event.c.body, t.outbox.c.posts, t.outbox.c.due)
            .join(t.event, t.event.c.id == t.outbox.c.event_id)
            .where(t.outbox.c.due <= now, ~in_flight)
            .order_by(t.outbox.c.priority.desc(), t.outbox.c.sensing.desc(), t.outbox.c.key)
            .limit(limit)
        )
        with self._reads.connect() as tx:
            return [OutboxRow(r.key, r.event_id, bytes(r.body), r.posts, r.due) for r in tx.execute(query)]

    def unfinished(self) -> list[ConversionRow]:
        """Returns conversions whose run may exist: sent, running, and queued ones that were posted without a clear answer."""
        c = t.conversion.c
        posted = exists().where(t.outbox.c.key == c.key, t.outbox.c.posts > 0)
        states = [s.value for s in IN_FLIGHT]
        with self._reads.connect() as tx:
            rows = list(tx.execute(select(t.conversion).where(c.state.in_(states)).order_by(c.changed_at)))
            rows += list(tx.execute(select(t.conversion).where(c.state == State.QUEUED.value, posted)))
        return [_conversion(r) for r in rows]

    def superseded(self, row: ConversionRow) -> bool:
        """Tells whether a newer revision of the item took this conversion's place."""
        query = select(t.item.c.key).where(t.item.c.source == row.source, t.item.c.item_id == row.item_id)
        with self._reads.connect() as tx:
            return tx.execute(query).scalar() not in (None, row.key)

    def get(self, key: str) -> ConversionRow | None:
        """Returns the conversion with that key."""
        with self._reads.connect() as tx:
            return self._row(tx, key)

    def conversions(self, *, item_id: str | None = None, state: State | None = None, limit: int = 1000) -> list[ConversionRow]:
        """Returns conversions, the last changed first."""
        query = select(t.conversion).order_by(t.conversion.c.changed_at.desc(), t.conversion.c.key).limit(limit)
        if item_id is not None:
            query = query.where(t.conversion.c.item_id == item_id)
        if state is not None:
            query = query.where(t.conversion.c.state == state.value)
        with self._reads.connect() as tx:
            return [_conversion(r) for r in tx.execute(query)]

    def counts(self) -> dict[tuple[str, str | None], int]:
        """Returns how many conversions are in each (state, skip reason); reasons only for skipped ones."""
        c = t.conversion.c
        query = select(c.state, c.reason, func.count()).where(c.state == State.SKIPPED.value).group_by(c.state, c.reason)
        rest = select(c.state, func.count()).where(c.state != State.SKIPPED.value).group_by(c.state)
        with self._reads.connect() as tx:
            found: dict[tuple[str, str | None], int] = {(r[0], r[1]): r[2] for r in tx.execute(query)}
            found.update({(r[0], None): r[1] for r in tx.execute(rest)})
        return found

    def next_due(self) -> datetime | None:
        """Returns when the next event in the outbox is due."""
        with self._reads.connect() as tx:
            return tx.execute(select(func.min(t.outbox.c.due))).scalar()

    def waiting(self) -> dict[str, datetime]:
        """Returns when each queued conversion's event is due, by key."""
        with self._reads.connect() as tx:
            return {r.key: r.due for r in tx.execute(select(t.outbox.c.key, t.outbox.c.due))}

    def events(self, key: str) -> list[bytes]:
        """Returns the events of a conversion as they were or will be posted, first attempt first."""
        with self._reads.connect() as tx:
            rows = tx.execute(select(t.event.c.body).where(t.event.c.key == key).order_by(t.event.c.attempt))
            return [bytes(r.body) for r in rows]

    def history(self, key: str) -> list[HistoryRow]:
        """Returns every move of a conversion, the first one first."""
        h = t.history.c
        with self._reads.connect() as tx:
            rows = tx.execute(select(h.src, h.fact, h.dst, h.attempt, h.at, h.why).where(h.key == key).order_by(h.id))
            return [HistoryRow(*r) for r in rows]

    def quarantined(self) -> list[tuple[str, str, str]]:
        """Returns (source, item id, why) of items that could not be acted on."""
        q = t.quarantine.c
        with self._reads.connect() as tx:
            return [(r[0], r[1], r[2]) for r in tx.execute(select(q.source, q.item_id, q.why).order_by(q.source, q.item_id))]

    def _row(self, tx: Connection, key: str) -> ConversionRow | None:
        found = tx.execute(select(t.conversion).where(t.conversion.c.key == key)).first()
        return _conversion(found) if found is not None else None


def _conversion(row: Row[Any]) -> ConversionRow:
    fields = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's documented name for it
    return ConversionRow(**{**fields, "state": State(fields["state"])})
