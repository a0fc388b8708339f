"""Publications: which item of which conversion is to be registered, was, or could not be. One row for each item.

A row is made in the transaction in which its conversion becomes done, as long as `enrol_done` says so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, func, literal, or_, select, union_all, update

from stac_watch.ledger import announcing, moves
from stac_watch.ledger import schema as t
from stac_watch.ledger.session import Session, chunked
from stac_watch.model.event import Kind
from stac_watch.model.publication import WAITING, Publication, PublicationCount, PublicationState
from stac_watch.model.states import State

_p, _c, _i = t.publication.c, t.conversion.c, t.item.c
_WAITS = _p.state.in_(sorted(state.value for state in WAITING))
_OUT = (PublicationState.WITHDRAWING.value, PublicationState.WITHDRAWN.value)


class Publications:
    """What is registered, and what is to be."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def enrol_done(self) -> None:
        """Has whatever becomes done from now on, in this process, registered."""
        self._session.publishes = True

    def due(self, now: datetime, limit: int) -> list[Publication]:
        """Returns what is to be sent, or taken out, now, the one that waits longest first."""
        query = _whole().where(_WAITS, _p.due <= now)
        return self._read(query.order_by(_p.due, _p.source, _p.item_id).limit(limit))

    def next_due(self) -> datetime | None:
        """Returns when the next one is to be sent, or taken out."""
        with self._session.read() as tx:
            return tx.execute(select(func.min(_p.due)).where(_WAITS)).scalar()

    def is_due(self, now: datetime) -> bool:
        """Tells whether there is something to send, or to take out, now."""
        due = self.next_due()
        return due is not None and due <= now

    def bring_forward(self, now: datetime, slack: timedelta) -> None:
        """Makes due what waits for a time that was set by a clock that was further."""
        self._session.bring_forward(t.publication, _WAITS, now, slack)

    def of(self, item_id: str) -> list[Publication]:
        """Returns the publications of an item, of each source."""
        return self._read(_whole().where(_p.item_id == item_id).order_by(_p.source))

    def find(self, state: PublicationState, *, limit: int, since: datetime | None = None) -> list[Publication]:
        """Returns those in a state, the last changed first."""
        query = _whole().where(_p.state == state.value)
        query = query.where(_p.changed_at >= since) if since is not None else query
        return self._read(query.order_by(_p.changed_at.desc(), _p.item_id).limit(limit))

    def troubled(self, limit: int) -> list[Publication]:
        """Returns those that failed, and those that wait after a try that went wrong, the last changed first."""
        wrong = or_(_p.state == PublicationState.FAILED.value, and_(_WAITS, _p.attempts > 0))
        return self._read(_whole().where(wrong).order_by(_p.changed_at.desc(), _p.item_id).limit(limit))

    def within(self, source: str, start: datetime, end: datetime) -> list[Publication]:
        """Returns those of items of a source that were acquired in `[start, end)`."""
        met = and_(_i.source == source, _i.sensing >= start, _i.sensing < end)
        return self._read(_whole().join(t.item, and_(_i.source == _p.source, _i.item_id == _p.item_id)).where(met))

    def settle(self, row: Publication, after: Publication) -> bool:
        """Writes what became of one; False where it was changed since it was read: a later revision is done meanwhile."""
        guard = and_(_p.source == row.source, _p.item_id == row.item_id, _p.key == row.key, _p.asked_at == row.asked_at)
        values = asdict(after)
        for name in ("source", "item_id", "key", "asked_at", "output_zarr"):
            values.pop(name)
        with self._session.write() as tx:
            before = tx.execute(select(_p.digest, _p.target, _p.registered_at).where(guard)).first()
            done = tx.execute(update(t.publication).where(guard, _p.state == row.state.value).values(values)).rowcount == 1
            if done and before is not None:
                _announce(tx, before, after)
            return done

    def refresh(self, key: str, now: datetime) -> None:
        """Has an item that is registered, or is to be, sent as it is now: what lies beside its output was changed."""
        values = {"state": PublicationState.PENDING.value, "attempts": 0, "due": now, "asked_at": now, "changed_at": now}
        with self._session.write() as tx:
            there = _p.state.in_((PublicationState.REGISTERED.value, PublicationState.PENDING.value))
            tx.execute(update(t.publication).where(_p.key == key, there).values(values))

    def withdraw(self, keys: Collection[str], now: datetime) -> int:
        """Has the items of these conversions taken out of the catalog; returns how many were not on their way out already."""
        values = {"state": PublicationState.WITHDRAWING.value, "attempts": 0, "due": now, "asked_at": now, "changed_at": now}
        with self._session.write() as tx:
            query = update(t.publication).where(_p.state.not_in(_OUT)).values(**values, reason=None)
            return sum(tx.execute(query.where(_p.key == key)).rowcount for key in keys)

    def ask(self, keys: Collection[str], now: datetime, *, anew: bool) -> int:
        """Has the items of these conversions registered, where they are done and current; returns how many.

        `anew` sends again what is registered as it is.
        """
        count = 0
        with self._session.write() as tx:
            for row in list(chunked(tx, _CURRENT, list(keys))):
                moves.enrol(tx, row.source, row.item_id, row.key, now, anew=anew)
                count += 1
        return count

    def unregistered(self, since: datetime | None, limit: int) -> list[tuple[str, str, str]]:
        """Returns source, item and key of what is done and current, and of which no publication tells."""
        joined = t.conversion.join(t.item, and_(_i.source == _c.source, _i.item_id == _c.item_id, _i.key == _c.key)).outerjoin(
            t.publication, and_(_p.source == _c.source, _p.item_id == _c.item_id)
        )
        query = select(_c.source, _c.item_id, _c.key).select_from(joined).where(_c.state == State.DONE.value)
        query = query.where(or_(_p.key.is_(None), _p.key != _c.key))
        query = query.where(_c.changed_at >= since) if since is not None else query
        with self._session.read() as tx:
            return [(r.source, r.item_id, r.key) for r in tx.execute(query.order_by(_c.changed_at).limit(limit))]

    def counts(self) -> list[PublicationCount]:
        """Returns how many there are of each source in each state, and since when the longest one waits."""
        states = [  # a state at a time: its index has all that is asked
            select(_p.source, literal(state.value).label("state"), func.count().label("n"), func.min(_p.asked_at).label("since"))
            .where(_p.state == state.value)
            .group_by(_p.source)
            for state in PublicationState
        ]
        with self._session.read() as tx:
            rows = tx.execute(union_all(*states)).all()
        return [PublicationCount(r.source, PublicationState(r.state), r.n, r.since) for r in rows]

    def _read(self, query: Select[Any]) -> list[Publication]:
        with self._session.read() as tx:
            return [_publication(r) for r in tx.execute(query)]


def _announce(tx: Connection, before: Row[Any, Any, Any], after: Publication) -> None:
    """Tells others of an item that readers find, find changed, or find no longer."""
    known = before.registered_at is not None
    if after.state is PublicationState.WITHDRAWN and known:
        announcing.of_item(tx, after.item_id, after.key, "delete", before.target, after.changed_at)
    changed = not known or (after.digest, after.target) != (before.digest, before.target)
    if after.state is PublicationState.REGISTERED and changed:
        kind: Kind = "replace" if known and after.target == before.target else "create"
        announcing.of_item(tx, after.item_id, after.key, kind, after.target, after.changed_at)


def _whole() -> Select[Any]:
    return select(t.publication, _c.output_zarr).join(t.conversion, _c.key == _p.key)


def _publication(row: Row[Any]) -> Publication:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's documented name for it
    return Publication(**{**values, "state": PublicationState(values["state"])})


_CURRENT = (
    select(_c.source, _c.item_id, _c.key)
    .join(t.item, and_(_i.source == _c.source, _i.item_id == _c.item_id, _i.key == _c.key))
    .where(_c.state == State.DONE.value, _c.key.in_(bindparam("values", expanding=True)))
)
