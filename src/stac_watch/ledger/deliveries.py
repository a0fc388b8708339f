"""What others are to be told, which of it each sink has taken, and what conversions fail with."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, exists, func, literal, select, union_all, update

from stac_watch.ledger import announcing, moves
from stac_watch.ledger import schema as t
from stac_watch.ledger.session import Session
from stac_watch.model.announcement import Audience, DeliveryCount, DeliveryState, Incident, Posting
from stac_watch.model.states import State

_a, _d, _n, _c = t.announcement.c, t.delivery.c, t.incident.c, t.conversion.c
WAITING = DeliveryState.WAITING.value


@dataclass(frozen=True)
class Told:
    """One event that a sink was told, or is to be."""

    sink: str
    state: DeliveryState
    type: str
    topic: str
    event_id: str
    created_at: datetime
    changed_at: datetime
    attempts: int
    reason: str | None


class Deliveries:
    """Events of outputs and of causes, and where each stands with each sink."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def enrol(self, audience: Audience) -> None:
        """Has others told of whatever changes from now on, in this process."""
        self._session.audience = audience

    def is_due(self, sink: str, now: datetime) -> bool:
        """Tells whether there is something to post to a sink."""
        with self._session.read() as tx:
            return tx.execute(select(_d.announcement).where(*_next(sink), _d.due <= now).limit(1)).first() is not None

    def due(self, sink: str, now: datetime, limit: int) -> list[Posting]:
        """Returns what is to be posted to a sink, of each topic the earliest, in the order in which it happened."""
        query = (
            select(_a.event_id, _a.type, _a.body, t.delivery).join(t.announcement, _a.id == _d.announcement)
            .where(*_next(sink), _d.due <= now).order_by(_d.announcement).limit(limit)
        )  # fmt: skip
        with self._session.read() as tx:
            return [
                Posting(r.sink, r.announcement, r.event_id, r.type, r.topic, bytes(r.body), r.attempts, r.due, r.reason)
                for r in tx.execute(query)
            ]

    def settle(
        self, row: Posting, state: DeliveryState, now: datetime, *, due: datetime | None = None, reason: str | None = None
    ) -> None:
        """Writes what became of a post."""
        values = {"state": state.value, "attempts": row.attempts + 1, "due": due or now, "changed_at": now, "reason": reason}
        mine = and_(_d.sink == row.sink, _d.announcement == row.announcement, _d.state == WAITING, _d.attempts == row.attempts)
        with self._session.write() as tx:
            tx.execute(update(t.delivery).where(mine).values(values))

    def bring_forward(self, sink: str, now: datetime, slack: timedelta) -> None:
        """Makes due what waits for a time that was set by a clock that was further."""
        self._session.bring_forward(t.delivery, and_(_d.sink == sink, _d.state == WAITING), now, slack)

    def counts(self) -> list[DeliveryCount]:
        """Returns how many events are how far with each sink."""
        states = [  # a state at a time: its index has all that is asked
            select(_d.sink, literal(s.value).label("state"), func.count().label("n"), func.min(_d.changed_at).label("since"))
            .where(_d.state == s.value).group_by(_d.sink)
            for s in DeliveryState
        ]  # fmt: skip
        with self._session.read() as tx:
            return [DeliveryCount(r.sink, DeliveryState(r.state), r.n, r.since) for r in tx.execute(union_all(*states))]

    def find(
        self,
        *,
        topics: Collection[str] = (),
        since: datetime | None = None,
        state: DeliveryState | None = None,
        limit: int,
    ) -> list[Told]:
        """Returns what sinks were told or are to be: of topics, made since then, in a state; the last first."""
        where: list[ColumnElement[bool]] = [_a.topic.in_(topics)] if topics else []
        where += [_a.created_at >= since] if since is not None else []
        where += [_d.state == state.value] if state is not None else []
        query = select(t.delivery, _a.type, _a.event_id, _a.created_at).join(t.announcement, _a.id == _d.announcement)
        with self._session.read() as tx:
            return [_told(r) for r in tx.execute(query.where(*where).order_by(_a.id.desc(), _d.sink).limit(limit))]

    def of_item(self, item_id: str) -> dict[str, list[Told]]:
        """Returns what sinks were told of an item, or are to be, by the key of the conversion; the first first."""
        query = select(t.delivery, _a.type, _a.event_id, _a.created_at, _a.body).join(t.announcement, _a.id == _d.announcement)
        found = dict[str, list[Told]]()
        with self._session.read() as tx:
            for row in tx.execute(query.where(_d.topic == item_id).order_by(_a.id, _d.sink)):  # its index is by topic
                found.setdefault(str(json.loads(row.body)["data"]["key"]), []).append(_told(row))
        return found

    def again(self, told: Sequence[Told], now: datetime) -> int:
        """Has events posted once more, byte for byte; returns how many."""
        values = {"state": WAITING, "attempts": 0, "due": now, "changed_at": now, "reason": None}
        count = 0
        with self._session.write() as tx:
            for one in told:
                mine = select(_a.id).where(_a.event_id == one.event_id).scalar_subquery()
                query = update(t.delivery).where(_d.sink == one.sink, _d.announcement == mine)
                count += tx.execute(query.values(values)).rowcount
        return count

    # -- causes of failures ----------------------------------------------------------------------------------------------------

    def failing(self) -> dict[tuple[str, str], int]:
        """Returns how many conversions are failed, by source and cause."""
        with self._session.read() as tx:
            found = dict[tuple[str, str], int]()
            for place, n in moves.funnel(tx).items():
                if place.state is State.FAILED:
                    found[place.source, place.cause] = found.get((place.source, place.cause), 0) + n
            return found

    def incidents(self) -> dict[tuple[str, str], Incident]:
        """Returns the causes that are known, also those that are over."""
        with self._session.read() as tx:
            rows = tx.execute(select(t.incident))
            return {(r.source, r.cause): Incident(**dict(r._mapping)) for r in rows}  # noqa: SLF001  # SQLAlchemy's own name

    def seen(self, source: str, cause: str, after: datetime | None) -> Incident | None:
        """Returns what has failed with a cause, of what failed after a moment; None where nothing has."""
        failed = and_(_c.source == source, _c.state == State.FAILED.value, _c.cause == cause)
        failed = and_(failed, _c.changed_at > after) if after is not None else failed
        with self._session.read() as tx:
            n, last = tx.execute(select(func.count(), func.max(_c.changed_at)).where(failed)).one()
            query = select(_c.item_id, _c.reason, _c.changed_at).where(failed).order_by(_c.changed_at, _c.item_id).limit(1)
            first = tx.execute(query).first()
        if first is None:
            return None
        return Incident(source, cause, first.changed_at, last, n, first.item_id, first.reason or "")

    def note(self, incident: Incident, event: tuple[str, str, bytes] | None, audience: Audience, now: datetime) -> None:
        """Writes down how a cause stands, and the event of it if there is one."""
        values = asdict(incident)
        changing = [name for name in values if name not in ("source", "cause")]
        with self._session.write() as tx:
            moves.put(tx, t.incident, [values], ("source", "cause"), *changing)
            if event is not None:
                announcing.tell(tx, audience, f"cause:{incident.source}:{incident.cause}", event, now)


def _next(sink: str) -> list[ColumnElement[bool]]:
    """Says that an event waits for a sink, and none of its topic that happened before."""
    earlier = t.delivery.alias("earlier")
    before = exists().where(
        earlier.c.topic == _d.topic, earlier.c.sink == _d.sink, earlier.c.state == WAITING, earlier.c.announcement < _d.announcement
    )
    return [_d.sink == sink, _d.state == WAITING, ~before]


def _told(row: Row[Any]) -> Told:
    return Told(
        row.sink, DeliveryState(row.state), row.type, row.topic, row.event_id, row.created_at, row.changed_at, row.attempts,
        row.reason,
    )  # fmt: skip
