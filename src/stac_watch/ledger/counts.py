"""Named queries that count, and none that reads a row for each item."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, func, select

from stac_watch.ledger import moves
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.records import Journey, Lag, Place, Scope, Sums
from stac_watch.ledger.session import Session, chunked
from stac_watch.model.event import Lane
from stac_watch.model.states import State


class Census:
    """Named queries that count."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def funnel(self) -> dict[Place, int]:
        """Returns how many conversions are where."""
        with self._session.read() as tx:
            return moves.funnel(tx)

    def begun_since(self, source: str, since: datetime, most: int) -> int:
        """Returns how many conversions of a source have begun since then, in whatever state; `most` at most."""
        with self._session.read() as tx:
            return int(tx.execute(sql.BEGUN, {"of_source": source, "since": since, "most": most}).scalar_one())

    def moved_since(self, since: datetime) -> dict[Place, int]:
        """Returns how many of the conversions that changed since then are where."""
        c = t.conversion.c
        places = (c.source, c.lane, c.state, c.cause)
        with self._session.read() as tx:
            rows = tx.execute(select(*places, func.count()).where(c.changed_at >= since).group_by(*places))
            return {Place(r[0], r[1], State(r[2]), r[3]): r[4] for r in rows}

    def journeys(self, scope: Scope, limit: int) -> list[Journey]:
        """Returns when conversions that are done came to each step, the last done first."""
        c, i = t.conversion.c, t.item.c
        mine = and_(i.source == c.source, i.item_id == c.item_id, i.key == c.key)  # a newer revision has a stamp of its own
        query = select(c.key, c.lane, i.updated, c.created_at, c.changed_at).outerjoin(t.item, mine)
        query = query.where(c.state == State.DONE.value).order_by(c.changed_at.desc()).limit(limit)
        given = ((c.source, scope.source), (c.lane, scope.lane))
        query = query.where(*(column == value for column, value in given if value is not None))
        query = query.where(c.changed_at >= scope.since) if scope.since is not None else query
        with self._session.read() as tx:
            rows = tx.execute(query).all()
            last = {(m.key, m.dst): m.at for m in chunked(tx, sql.STARTS, [r.key for r in rows])}
        sent, running = State.SUBMITTED.value, State.RUNNING.value
        return [
            Journey(
                published=r.updated if r.lane == "live" else None, seen=r.created_at, accepted=last.get((r.key, sent)),
                running=last.get((r.key, running)), done=r.changed_at,
            )
            for r in rows
        ]  # fmt: skip

    def sums(self, now: datetime) -> Sums:
        """Returns what everything adds up to: four statements, whatever there is in the ledger and from how many sources."""
        with self._session.read() as tx:
            funnel = {Place(r.source, r.lane, State(r.state), r.cause): r.n for r in tx.execute(sql.FUNNEL)}
            past = {"hour_ago": now - timedelta(hours=1), "day_ago": now - timedelta(days=1)}
            lags = {r[0]: Lag(*r[1:]) for r in tx.execute(sql.LAGS, past)}
            *waiting, unreadable = tx.execute(sql.WAITING_SINCE).one()
            since = min((moment for moment in waiting if moment is not None), default=None)
            return Sums(funnel, lags, since, unreadable, self._bytes(tx))

    def done_since(self, source: str, since: datetime, lane: Lane | None = None) -> int:
        """Returns how many conversions of a source, and of a lane or any, are done since then."""
        c = t.conversion.c
        query = select(func.count()).where(c.source == source, c.state == State.DONE.value, c.changed_at >= since)
        query = query.where(c.lane == lane) if lane is not None else query
        with self._session.read() as tx:
            return tx.execute(query).scalar_one()

    def states_within(self, source: str, start: datetime, end: datetime) -> dict[State, int]:
        """Returns how many items acquired in `[start, end)` are in each state, by their current revision."""
        i, c = t.item.c, t.conversion.c
        query = (
            select(c.state, func.count())
            .join(t.item, i.key == c.key)
            .where(i.source == source, i.sensing >= start, i.sensing < end)
            .group_by(c.state)
        )
        with self._session.read() as tx:
            return {State(r[0]): r[1] for r in tx.execute(query)}

    def waiting_within(self, source: str, start: datetime, end: datetime) -> int:
        """Returns how many items acquired in `[start, end)` wait for their product to be there."""
        i, c = t.item.c, t.conversion.c
        query = (
            select(func.count())
            .select_from(t.conversion.join(t.item, i.key == c.key))
            .where(i.source == source, i.sensing >= start, i.sensing < end, c.state == State.QUEUED.value, c.waits > 0)
        )
        with self._session.read() as tx:
            return tx.execute(query).scalar_one()

    def _bytes(self, tx: Connection) -> int:
        pages = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        query = pages if tx.dialect.name == "sqlite" else "SELECT pg_database_size(current_database())"
        return int(tx.exec_driver_sql(query).scalar_one())
