"""Items that are not what they should be: there before the watch, missing, gone, or unreadable."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import delete, func, select, update

from stac_watch.ledger import findings, moves
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.moves import rows_of
from stac_watch.ledger.records import Move
from stac_watch.ledger.session import Session, chunked
from stac_watch.model.item import Retirement, SkipReason
from stac_watch.model.states import FINAL, Fact, State


class Absences:
    """What was there before the watch, what is missing, what is gone, and what cannot be read."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def preexisting(self, source: str, item_ids: Sequence[str]) -> dict[str, str | None]:
        """Returns those of the items that were there before the source was watched, and their traces, None where not known."""
        with self._session.read() as tx:
            return {r.item_id: r.revision for r in chunked(tx, sql.BASED, item_ids, of_source=source)}

    def moved(self, source: str, since: datetime) -> set[str]:
        """Returns the items that were announced since then although nothing changed but the host of their product."""
        with self._session.read() as tx:
            return set(tx.execute(sql.MOVED, {"of_source": source, "since": since}).scalars())

    def missed_twice(self, source: str, missing: Collection[str]) -> list[str]:
        """Returns those of the missing that an earlier sweep did not find either."""
        a = t.absent.c
        query = select(a.item_id).where(a.source == source, a.sweeps >= 2, a.withdrawn_at.is_(None))
        with self._session.read() as tx:
            return sorted(set(tx.execute(query).scalars()) & set(missing))

    def noted(self, source: str) -> tuple[set[str], set[str]]:
        """Returns the items that were missing, and those that could not be read."""
        with self._session.read() as tx:
            absent = tx.execute(sql.ABSENT, {"of_source": source}).scalars()
            return set(absent), set(tx.execute(sql.UNREADABLE, {"of_source": source}).scalars())

    def withdraw(self, source: str, item_id: str, now: datetime) -> bool:
        """Notes that the catalog no longer has an item; False while a run for it may exist, which is waited for.

        What waits or has failed is skipped; what is done stays done: an output does not vanish with its source. A conversion of
        another source is left to that one.
        """
        a = t.absent.c
        with self._session.write() as tx:
            key = tx.execute(sql.CURRENT_KEY, {"of_source": source, "of_item": item_id}).scalar()
            row = rows_of(tx, [key]).get(key) if key is not None else None
            gone = Move(Fact.WITHDRAWN, "two sweeps did not find it, and the catalog answers 404", reason=SkipReason.WITHDRAWN)
            if row is not None and row.source == source and not moves.skip(tx, row, gone, now) and row.state not in FINAL:
                return False
            made = Retirement.KEPT.value if row is not None and row.source == source and row.state is State.DONE else None
            note = update(t.absent).where(a.source == source, a.item_id == item_id)
            tx.execute(note.values(withdrawn_at=now, output=func.coalesce(a.output, made)))  # marked, if it was away before
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

    def mark_readable(self, source: str, item_ids: Collection[str]) -> None:
        """Forgets that these items could not be read."""
        with self._session.write() as tx:
            findings.forget_unreadable(tx, source, item_ids)

    def not_met(self, source: str, since: datetime, limit: int) -> list[str]:
        """Returns what is unreadable and was not met again since then, the longest ago first."""
        q = t.unreadable.c
        query = select(q.item_id).where(q.source == source, q.last_seen < since).order_by(q.last_seen, q.item_id).limit(limit)
        with self._session.read() as tx:
            return list(tx.execute(query).scalars())
