"""Events that wait to be sent: which are due, in which order, and what is known of a post that had no answer."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import update

from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.moves import funnel, rows_of
from stac_watch.ledger.records import ConversionRow, Load, OutboxRow, Queue
from stac_watch.ledger.session import Session, chunked
from stac_watch.model.event import PRIORITY, allowing_empty


class Outbox:
    """Events that wait to be sent."""

    def __init__(self, session: Session) -> None:
        self._session = session

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
        with self._session.read() as tx:
            return [OutboxRow(r.key, r.event_id, bytes(r.body), r.posts, r.due) for r in tx.execute(query, asked)]

    def next_due(self) -> datetime | None:
        """Returns when the next event in the outbox is due."""
        with self._session.read() as tx:
            return tx.execute(sql.NEXT_DUE).scalar()

    def bring_forward(self, now: datetime, slack: timedelta) -> int:
        """Makes due what waits for a time that was set by a clock that was further; returns how many events that are."""
        with self._session.write() as tx:
            return tx.execute(sql.BRING_FORWARD, {"now": now, "future": now + slack}).rowcount

    def hasten(self, key: str, now: datetime, *, allow_empty: bool = False) -> bool:
        """Makes a conversion's waiting event due now; returns whether there is one.

        With `allow_empty` it asks to take chunks that are missing for nodata; one that has gone out is left as it is, and counts
        as none.
        """
        with self._session.write() as tx:
            for row in chunked(tx, sql.WAITING, [key]) if allow_empty else ():
                if row.posts:
                    return False
                tx.execute(sql.REWRITE, {"of_event": row.event_id, "rewritten": allowing_empty(bytes(row.body))})
            return tx.execute(update(t.outbox).where(t.outbox.c.key == key).values(due=now)).rowcount == 1

    def load(self, now: datetime) -> Load | None:
        """Returns how much is where and what is unclear, for who sends; None when no event is due."""
        with self._session.read() as tx:
            due = tx.execute(sql.NEXT_DUE).scalar()
            if due is None or due > now:
                return None
            return Load(funnel(tx), int(tx.execute(sql.UNCLEAR, {"now": now}).scalar_one()))

    def of(self, keys: Collection[str]) -> dict[str, OutboxRow]:
        """Returns the waiting events of these conversions, by key."""
        with self._session.read() as tx:
            rows = chunked(tx, sql.WAITING, list(keys))
            return {r.key: OutboxRow(r.key, r.event_id, bytes(r.body), r.posts, r.due) for r in rows}

    def note_post(self, row: OutboxRow, due: datetime, *, happened: bool = True) -> ConversionRow | None:
        """Notes that an event goes out, before it does, and when it goes out again; or that it did not, after all.

        Until there is a clear answer a run of it may exist: its conversion is not superseded, and no other one with the same output
        is sent. Returns its conversion; None where it waits no longer: it was superseded or replayed since the outbox was read.
        """
        guard = {"of_key": row.key, "of_event": row.event_id}
        with self._session.write() as tx:
            waits = tx.execute(sql.POST, {**guard, "posts": row.posts + happened, "due": due}).rowcount == 1
            return rows_of(tx, [row.key])[row.key] if waits else None
