"""What can be asked of the ledger: every reading query, named.

In: keys, ids, times. Out: `records`. Never: writes; the moves are the `Ledger`'s. Reads every row of a table only where that
table is small (`quarantine`, `backfill`): a test asks the database for its plans.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, and_, or_, select
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError

from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.records import ConversionRow, Footprint, HistoryRow, ItemRow, Known, Order, OutboxRow, Queue
from stac_watch.model.errors import CannotWrite, Temporary
from stac_watch.model.event import PRIORITY, Lane
from stac_watch.model.states import IN_FLIGHT, State

CHUNK = 5_000  # values in one IN list; SQLite takes 32,766, PostgreSQL 65,535


@contextmanager
def answering(engine: Engine) -> Iterator[None]:
    """Turns a database that cannot answer, or cannot take what is written, into an error of ours."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError) as error:  # the latter two: a connection that was cut, a failover
        refused = unwritable(engine, error) if isinstance(error, OperationalError) else None
        if refused is not None:
            raise refused from error
        raise Temporary(f"the ledger {_where(engine)} did not answer: {_said(error)}", hint="it is tried again") from error


def unwritable(engine: Engine, error: DBAPIError) -> CannotWrite | None:
    """Returns the error to raise when the database says that it cannot be written, else None."""
    if not any(word in _said(error) for word in ("full", "readonly", "read-only", "No space", "I/O error")):
        return None
    return CannotWrite(f"cannot write the ledger {_where(engine)}: {_said(error)}", hint="free space there, or check its mount")


def _where(engine: Engine) -> str:
    return engine.url.render_as_string()


def _said(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())


class Queries:
    """Named reading queries over the ledger's tables."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reads = engine.execution_options(reads=True)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with answering(self._engine), self._reads.connect() as tx:
            yield tx

    # -- discovery -----------------------------------------------------------------------------------------------------

    def position(self, name: str) -> datetime | None:
        """Returns the cursor of that name."""
        with self._read() as tx:
            return tx.execute(sql.POSITION, {"of_name": name}).scalar()

    def known(self, source: str, item_ids: Sequence[str]) -> dict[str, Known]:
        """Returns what is known of these items, by id."""
        with self._read() as tx:
            rows = chunked(tx, sql.KNOWN, item_ids, of_source=source)
            return {r.item_id: Known(r.revision, r.key, State(r.state)) for r in rows}

    # -- dispatch and reconcile ----------------------------------------------------------------------------------------

    def due(self, now: datetime, limit: int, queue: Queue | None = None) -> list[OutboxRow]:
        """Returns events to send now, of one queue or of all.

        Replay goes before live before backfill; within a lane the newest acquisition first, of a backfill the oldest. An event is
        held back while another run for the same output is in flight, or may be because a post had no clear answer: the older run
        must not finish after the newer.
        """
        asked: dict[str, Any] = {"now": now, "most": limit}
        query = sql.DUE
        if queue is not None:
            asked |= {"of_source": queue.source, "of_priority": PRIORITY[queue.lane]}
            query = sql.DUE_OLDEST_FIRST if queue.lane == "backfill" else sql.DUE_NEWEST_FIRST
        with self._read() as tx:
            return [OutboxRow(r.key, r.event_id, bytes(r.body), r.posts, r.due) for r in tx.execute(query, asked)]

    def waiting_for(self, key: str) -> ConversionRow | None:
        """Returns a conversion whose run for the same output keeps this one's event back."""
        mine, other = t.conversion.c, t.conversion.alias("other")
        query = (
            select(other)
            .join(t.conversion, mine.output_zarr == other.c.output_zarr)
            .where(mine.key == key, other.c.key != key, other.c.state.in_([s.value for s in IN_FLIGHT]))
            .limit(1)
        )
        with self._read() as tx:
            found = tx.execute(query).first()
            return _conversion(found) if found is not None else None

    def unfinished(self) -> list[ConversionRow]:
        """Returns conversions whose run may exist: sent, running, and queued ones that were posted without a clear answer."""
        with self._read() as tx:
            # a query for each state, ordered as its index is: with statistics SQLite reads all of the table for two states in one
            moving = [_conversion(r) for s in IN_FLIGHT for r in tx.execute(sql.IN_STATE, {"of_state": s.value})]
            unanswered = [_conversion(r) for r in tx.execute(sql.POSTED)]
        return [*sorted(moving, key=lambda row: row.changed_at), *unanswered]

    def unclear(self, now: datetime) -> int:
        """Returns how many events wait to be posted again because a post had no clear answer: a run of theirs may exist."""
        with self._read() as tx:
            return int(tx.execute(sql.UNCLEAR, {"now": now}).scalar_one())

    def superseded(self, row: ConversionRow) -> bool:
        """Tells whether a newer revision of the item took this conversion's place."""
        with self._read() as tx:
            return tx.execute(sql.CURRENT_KEY, {"of_source": row.source, "of_item": row.item_id}).scalar() not in (None, row.key)

    def next_due(self) -> datetime | None:
        """Returns when the next event in the outbox is due."""
        with self._read() as tx:
            return tx.execute(sql.NEXT_DUE).scalar()

    def orders(self) -> list[Order]:
        """Returns what the last backfill of each source asked for."""
        with self._read() as tx:
            return [Order(**r._mapping) for r in tx.execute(select(t.backfill))]  # noqa: SLF001  # SQLAlchemy's documented name

    # -- conversions ---------------------------------------------------------------------------------------------------

    def get(self, key: str) -> ConversionRow | None:
        """Returns the conversion with that key."""
        with self._read() as tx:
            return self._rows(tx, [key]).get(key)

    def conversions(
        self,
        *,
        item_id: str | None = None,
        state: State | None = None,
        source: str | None = None,
        lane: Lane | None = None,
        since: datetime | None = None,
        error: str | None = None,
        limit: int = 1000,
        oldest: bool = False,
    ) -> list[ConversionRow]:
        """Returns conversions, the last changed first (or last, with `oldest`)."""
        c = t.conversion.c
        order = (c.changed_at, c.key) if oldest else (c.changed_at.desc(), c.key)
        query = select(t.conversion).order_by(*order).limit(limit)
        for column, value in ((c.item_id, item_id), (c.state, state and state.value), (c.source, source), (c.lane, lane)):
            if value is not None:
                query = query.where(column == value)
        if since is not None:
            query = query.where(c.changed_at >= since)
        if error is not None:  # as somebody read it: whole, or as what failures have in common
            query = query.where(or_(c.reason.icontains(error, autoescape=True), c.cause.icontains(error, autoescape=True)))
        with self._read() as tx:
            return [_conversion(r) for r in tx.execute(query)]

    def current(self, source: str, item_ids: Collection[str]) -> dict[str, ConversionRow]:
        """Returns the conversions of these items' current revisions, by item id."""
        with self._read() as tx:
            return {r.item_id: _conversion(r) for r in chunked(tx, sql.CURRENT, list(item_ids), of_source=source)}

    def within(self, source: str, start: datetime, end: datetime) -> Iterator[ConversionRow]:
        """Yields the conversions of current revisions of items acquired in `[start, end)`, oldest first."""
        i = t.item.c
        query = (
            select(t.conversion)
            .join(t.item, i.key == t.conversion.c.key)
            .where(i.source == source, i.sensing >= start, i.sensing < end)
            .order_by(i.sensing)
        )
        with self._read() as tx:
            yield from (_conversion(r) for r in tx.execute(query.execution_options(yield_per=1000)))

    def item(self, row: ConversionRow) -> ItemRow | None:
        """Returns what the catalogue last said of a conversion's item."""
        with self._read() as tx:
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
        with self._read() as tx:
            return [Footprint(r.item_id, state, r.bbox) for r in tx.execute(query)]

    def events(self, key: str) -> list[bytes]:
        """Returns the events of a conversion as they were or will be posted, first attempt first."""
        with self._read() as tx:
            rows = tx.execute(select(t.event.c.body).where(t.event.c.key == key).order_by(t.event.c.attempt))
            return [bytes(r.body) for r in rows]

    def outbox(self, keys: Collection[str]) -> dict[str, OutboxRow]:
        """Returns the waiting events of these conversions, by key."""
        with self._read() as tx:
            rows = chunked(tx, sql.WAITING, list(keys))
            return {r.key: OutboxRow(r.key, r.event_id, bytes(r.body), r.posts, r.due) for r in rows}

    def history(self, key: str) -> list[HistoryRow]:
        """Returns every move of a conversion, the first one first."""
        h = t.history.c
        with self._read() as tx:
            rows = tx.execute(select(h.src, h.fact, h.dst, h.attempt, h.at, h.why).where(h.key == key).order_by(h.id))
            return [HistoryRow(*r) for r in rows]

    def quarantined(self) -> list[tuple[str, str, str]]:
        """Returns (source, item id, why) of items that could not be acted on."""
        q = t.quarantine.c
        with self._read() as tx:
            return [(r[0], r[1], r[2]) for r in tx.execute(select(q.source, q.item_id, q.why).order_by(q.source, q.item_id))]

    def _rows(self, tx: Connection, keys: Collection[str]) -> dict[str, ConversionRow]:
        rows = chunked(tx, sql.CONVERSIONS, list(keys))
        return {r.key: _conversion(r) for r in rows}


def chunked(tx: Connection, query: Select[Any], values: Sequence[str], **asked: object) -> Iterator[Row[Any]]:
    """Yields the rows that have one of the values, asked for in parts that a database takes."""
    for start in range(0, len(values), CHUNK):
        yield from tx.execute(query, {**asked, "values": values[start : start + CHUNK]})


def _conversion(row: Row[Any]) -> ConversionRow:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's documented name for it
    return ConversionRow(**{**values, "state": State(values["state"])})
