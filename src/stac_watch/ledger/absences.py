"""Items that are not what they should be: there before the watch, missing, gone, or unreadable."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import delete, func, select, update

from stac_watch.ledger import moves
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.moves import rows_of
from stac_watch.ledger.records import Move
from stac_watch.ledger.session import CHUNK, Session, chunked
from stac_watch.model.item import SkipReason
from stac_watch.model.states import Fact, State


class Absences:
    """What was there before the watch, what is missing, what is gone, and what cannot be read."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def preexisting(self, source: str, item_ids: Sequence[str]) -> set[str]:
        """Returns those of the items that were there before the source was watched."""
        with self._session.read() as tx:
            return {r.item_id for r in chunked(tx, sql.BASED, item_ids, of_source=source)}

    def mark_preexisting(self, source: str, item_ids: Collection[str]) -> None:
        """Notes items that were there before the source was watched."""
        rows = [{"source": source, "item_id": item_id} for item_id in item_ids]
        if rows:
            with self._session.write() as tx:
                tx.execute(sql.unless_there(tx.dialect.name, t.baseline), rows)

    def mark_missing(self, source: str, missing: Collection[str], number: int, now: datetime) -> list[str]:
        """Notes items that this sweep did not find; returns those that an earlier one did not find either."""
        a = t.absent.c
        rows = [
            {"source": source, "item_id": i, "missed_at": now, "sweeps": 1, "last_sweep": number, "withdrawn_at": None}
            for i in missing
        ]
        if not rows:
            return []
        with self._session.write() as tx:
            tx.execute(sql.miss(tx.dialect.name), rows)
            gone = select(a.item_id).where(a.source == source, a.sweeps >= 2, a.withdrawn_at.is_(None))
            return sorted(set(tx.execute(gone).scalars()) & set(missing))

    def mark_found(self, source: str, present: Collection[str]) -> None:
        """Forgets that these items were missing."""
        a = t.absent.c
        with self._session.read() as tx:
            back = set(tx.execute(sql.ABSENT, {"of_source": source}).scalars()) & set(present)
        if back:
            with self._session.write() as tx:
                for item_id in back:
                    tx.execute(delete(t.absent).where(a.source == source, a.item_id == item_id))

    def withdraw(self, source: str, item_id: str, now: datetime) -> bool:
        """Notes that the catalog no longer has an item; False while a run for it may exist, which is waited for.

        What waits or has failed is skipped; what is done stays done: an output does not vanish with its source.
        """
        a = t.absent.c
        with self._session.write() as tx:
            key = tx.execute(sql.CURRENT_KEY, {"of_source": source, "of_item": item_id}).scalar()
            row = rows_of(tx, [key]).get(key) if key is not None else None
            if row is not None:
                posted = tx.execute(sql.POSTS, {"of_key": key}).scalar()
                if row.state in (State.SUBMITTED, State.RUNNING) or posted:
                    return False
                if row.state in (State.QUEUED, State.FAILED):
                    why = "two sweeps did not find it, and the catalog answers 404"
                    moves.apply(tx, row, Move(Fact.WITHDRAWN, why, reason=SkipReason.WITHDRAWN), now)
            tx.execute(update(t.absent).where(a.source == source, a.item_id == item_id).values(withdrawn_at=now))
            return True

    def move_item(self, source: str, item_id: str, sensing: datetime) -> None:
        """Notes that an item's acquisition time is another one now: that is where sweeps look for it."""
        i = t.item.c
        with self._session.write() as tx:
            tx.execute(update(t.item).where(i.source == source, i.item_id == item_id).values(sensing=sensing))
            tx.execute(delete(t.absent).where(t.absent.c.source == source, t.absent.c.item_id == item_id))

    def withdrawn(self, source: str) -> int:
        """Returns how many items the catalog no longer has."""
        a = t.absent.c
        with self._session.read() as tx:
            query = select(func.count()).where(a.source == source, a.withdrawn_at.is_not(None))
            return tx.execute(query).scalar_one()

    def unreadable(self) -> list[tuple[str, str, str]]:
        """Returns (source, item id, why) of items that could not be acted on."""
        q = t.unreadable.c
        with self._session.read() as tx:
            return [(r[0], r[1], r[2]) for r in tx.execute(select(q.source, q.item_id, q.why).order_by(q.source, q.item_id))]

    def mark_readable(self, source: str, readable: Collection[str], hidden: tuple[str, str] | None) -> None:
        """Marks as readable what can be read now: items by id, and names in `[low, high)` of what was hidden."""
        q = t.unreadable.c
        with self._session.read() as tx:
            bad = set(tx.execute(sql.UNREADABLE, {"of_source": source}).scalars())
        well = [i for i in bad if i in readable or (hidden is not None and hidden[0] <= i < hidden[1])]
        if well:
            with self._session.write() as tx:
                for start in range(0, len(well), CHUNK):
                    tx.execute(delete(t.unreadable).where(q.source == source, q.item_id.in_(well[start : start + CHUNK])))

    def not_met(self, source: str, since: datetime, limit: int) -> list[str]:
        """Returns what is unreadable and was not met again since then, the longest ago first."""
        q = t.unreadable.c
        query = select(q.item_id).where(q.source == source, q.last_seen < since).order_by(q.last_seen, q.item_id).limit(limit)
        with self._session.read() as tx:
            return list(tx.execute(query).scalars())
