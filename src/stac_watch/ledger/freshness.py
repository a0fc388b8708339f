"""When what the catalog announced was there as an output: read for reports, a few thousand conversions at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, or_, select

from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.session import CHUNK, Session, chunked
from stac_watch.model.stamps import parse_stamp
from stac_watch.model.states import State

_EVENTS = select(t.event.c.key, t.event.c.body).where(sql.one_of(t.event.c.key)).order_by(t.event.c.attempt.desc())
_MOVES = select(t.history.c.key, t.history.c.dst, t.history.c.at).where(sql.one_of(t.history.c.key)).order_by(t.history.c.id)


@dataclass(frozen=True)
class Announced:
    """One item revision that discovery found: not by a backfill, and by nobody's hand."""

    source: str
    item_id: str
    key: str
    published: datetime | None  # as the catalog stamped it when it was found; None where it has no stamp
    seen: datetime  # when it was found
    began: State  # skipped at once, queued, or, in a ledger that was rebuilt, whatever was known
    done: datetime | None  # when an output of it was first complete and verified
    state: State
    cause: str  # why it is skipped; what its error has in common with others
    reason: str | None
    waits: int  # times that its product was not there


class Announcements:
    """What was announced, and when it was available."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def watched_since(self) -> dict[str, datetime]:
        """Returns when the first item of each source was found."""
        i = t.item.c
        with self._session.read() as tx:
            return {r[0]: r[1] for r in tx.execute(select(i.source, func.min(i.first_seen)).group_by(i.source))}

    def announced(self, since: datetime) -> Iterator[Announced]:
        """Yields what was found since then, in no order; the ledger is read as it is when this begins."""
        c = t.conversion.c
        query = select(c.key, c.source, c.item_id, c.state, c.cause, c.reason, c.waits, c.created_at, c.changed_at)
        found_live = or_(c.lane != "backfill", c.attempt > 1)  # what came back within a backfill may have been found by a watcher
        recent = query.where(c.changed_at >= since, c.created_at >= since, found_live)  # the first of them is indexed
        with self._session.read() as tx:
            for rows in tx.execute(recent).partitions(CHUNK):
                keys = [r.key for r in rows]
                stamps, moves = _stamps(tx, keys), _moves(tx, keys)
                for r in rows:
                    published, lane = stamps[r.key]
                    if lane == "backfill":  # and it was tried again since
                        continue
                    state, (began, done) = State(r.state), moves[r.key]
                    done = done or (r.changed_at if state is State.EXPIRED else None)  # its moves before that may be pruned
                    yield Announced(
                        r.source, r.item_id, r.key, published, r.created_at, began, done, state, r.cause, r.reason, r.waits
                    )

    def unreadable(self, since: datetime) -> list[tuple[str, str, str, datetime]]:
        """Returns (source, item id, why, when) of items that were first met since then, and cannot be acted on."""
        q = t.unreadable.c
        query = select(q.source, q.item_id, q.why, q.first_seen).where(q.first_seen >= since).order_by(q.source, q.item_id)
        with self._session.read() as tx:
            return [(r[0], r[1], r[2], r[3]) for r in tx.execute(query)]


def _stamps(tx: Connection, keys: list[str]) -> dict[str, tuple[datetime | None, str]]:
    """Returns stamp and lane of each conversion's first event; an item without a stamp was given its acquisition's time."""
    found: dict[str, tuple[datetime | None, str]] = {}
    for r in chunked(tx, _EVENTS, keys):
        document = json.loads(r.body)
        stamped, acquired = parse_stamp(document["time"]), parse_stamp(document["data"]["datetime"])
        found[r.key] = (stamped if stamped != acquired else None, document["data"]["lane"])
    return found


def _moves(tx: Connection, keys: list[str]) -> dict[str, tuple[State, datetime | None]]:
    """Returns the first state of each conversion, and when it was first done."""
    found: dict[str, tuple[State, datetime | None]] = {}
    for r in chunked(tx, _MOVES, keys):
        began, done = found.get(r.key, (State(r.dst), None))
        found[r.key] = (began, r.at if done is None and r.dst == State.DONE.value else done)
    return found
