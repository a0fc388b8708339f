"""The SQL that every tick, or every conversion, needs: built once.

The ledger's parts run them, with values; what is asked for now and then they build on the spot. To build a statement, and to find
that it is the same as last time, costs more than to run it: 269 against 108 µs for one row of a SQLite ledger, and a conversion
takes thirty of them.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    DateTime,
    Delete,
    Exists,
    Insert,
    Integer,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from stac_watch.ledger import schema as t
from stac_watch.model.event import PRIORITY
from stac_watch.model.item import Look, Retirement
from stac_watch.model.states import FINAL, IN_FLIGHT, State

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

type Upsert = sqlite.Insert | postgresql.Insert

NEVER: ColumnElement[int] = literal_column("0")
"""In `posts > 0`, spelled as the partial index `outbox_posted` does: with a bound 0 it is not used."""


def one_of(column: Column[Any]) -> ColumnElement[bool]:
    """Says that a column has one of the `values`."""
    return column.in_(bindparam("values", expanding=True))


def _held_back() -> Exists:
    """Says that another run for the same output is in flight, or may be."""
    other, mine, unclear = t.conversion.alias("other"), t.conversion.alias("mine"), t.outbox.alias("unclear")
    return exists().where(
        mine.c.key == t.outbox.c.key,
        other.c.output_zarr == mine.c.output_zarr,
        other.c.key != mine.c.key,
        or_(
            other.c.state.in_([s.value for s in IN_FLIGHT]),
            # of two that both went out without an answer neither waits for the other
            and_(t.outbox.c.posts == 0, exists().where(unclear.c.key == other.c.key, unclear.c.posts > NEVER)),
        ),
    )


_b, _c, _f, _h, _i, _l, _o, _q = (
    table.c for table in (t.baseline, t.conversion, t.funnel, t.history, t.item, t.lease, t.outbox, t.unreadable)
)
_source: BindParameter[str] = bindparam("of_source")
_item_id: BindParameter[str] = bindparam("of_item")
_key: BindParameter[str] = bindparam("of_key")
_this_item = and_(_i.source == _source, _i.item_id == _item_id)

# -- discovery -------------------------------------------------------------------------------------------------------------

POSITION = select(t.cursor.c.position).where(t.cursor.c.name == bindparam("of_name"))
POSITIONS = select(t.cursor.c.name, t.cursor.c.position).where(one_of(t.cursor.c.name))
ABILITIES = select(t.probe.c.found, t.probe.c.at, t.probe.c.invalidated).where(t.probe.c.source == _source)
LATENESS = select(t.lateness.c.bucket, t.lateness.c.n).where(t.lateness.c.source == _source)
SWEEPS = select(t.sweep).where(t.sweep.c.source == _source)
KNOWN = (
    select(_i.item_id, _i.revision, _i.key, _c.state, _c.cause, _c.exit_code, _i.updated, _i.trace, t.restamp.c.stamp)
    .join(t.conversion, _c.key == _i.key)
    .outerjoin(t.restamp, and_(t.restamp.c.source == _i.source, t.restamp.c.item_id == _i.item_id))
    .where(_i.source == _source, one_of(_i.item_id))
)
KEYS = select(_i.item_id, _i.key).where(_i.source == _source, one_of(_i.item_id))
CURRENT = select(t.conversion).join(t.item, _i.key == _c.key).where(_i.source == _source, one_of(_i.item_id))
ELSEWHERE = (
    select(t.conversion, _i.source.label("seen_by"))
    .join(t.item, _i.key == _c.key)
    .where(_i.source.in_(bindparam("sources", expanding=True)), one_of(_i.item_id))
)
"""Current conversions of the same ids for other sources."""
UNREADABLE_OF = select(t.unreadable.c.item_id).where(t.unreadable.c.source == _source, one_of(t.unreadable.c.item_id))
BASED = select(_b.item_id, _b.revision).where(_b.source == _source, one_of(_b.item_id))
MOVED = select(t.moved.c.item_id).where(t.moved.c.source == _source, t.moved.c.at >= bindparam("since"))
LAST_EVENTS = (
    select(t.event.c.key, t.event.c.body)
    .join(t.conversion, and_(_c.key == t.event.c.key, _c.attempt == t.event.c.attempt))
    .where(one_of(t.event.c.key))
)
STATES = select(_c.key, _c.revision, _c.state, _c.cause).where(one_of(_c.key))
ACQUIRED = select(_i.item_id).where(_i.source == _source, _i.sensing >= bindparam("start"), _i.sensing < bindparam("end"))
ABSENT = select(t.absent.c.item_id).where(t.absent.c.source == _source)
MARKED = select(t.absent.c.item_id).where(
    t.absent.c.source == _source, t.absent.c.output == Retirement.DEPRECATED.value, one_of(t.absent.c.item_id)
)
UNREADABLE = select(_q.item_id).where(_q.source == _source)

# -- dispatch and reconcile ------------------------------------------------------------------------------------------------

CONVERSIONS = select(t.conversion).where(one_of(_c.key))
NEXT_DUE = select(func.min(_o.due))
UNCLEAR = select(func.count()).where(_o.posts > NEVER, _o.due > bindparam("now"))
IN_STATE = select(t.conversion).where(_c.state == bindparam("of_state")).order_by(_c.changed_at)
POSTED = select(t.conversion).where(_c.key.in_(select(_o.key).where(_o.posts > NEVER)))
CURRENT_KEY = select(_i.key).where(_this_item)
SENSING = select(_i.sensing).where(_this_item)
POSTS = select(_o.posts).where(_o.key == _key)
LAST_EVENT = select(t.event.c.body).where(t.event.c.key == _key).order_by(t.event.c.attempt.desc())
_waiting = select(_o.key, _o.event_id, t.event.c.body, _o.posts, _o.due).join(t.event, t.event.c.id == _o.event_id)
WAITING = _waiting.where(one_of(_o.key))
_due = _waiting.where(_o.due <= bindparam("now"), ~_held_back()).limit(bindparam("most", type_=Integer))
_of_queue = _due.where(_o.source == _source, _o.priority == bindparam("of_priority"))
DUE = _due.order_by(_o.priority.desc(), case((_o.priority == PRIORITY["backfill"], _o.sensing)), _o.sensing.desc(), _o.key.desc())
DUE_OLDEST_FIRST = _of_queue.order_by(_o.sensing, _o.key)
DUE_NEWEST_FIRST = _of_queue.order_by(_o.sensing.desc(), _o.key.desc())

_look = t.second_look.c
LOOKS = select(_look.key, _look.since).where(_look.due <= bindparam("now", type_=_look.due.type)).order_by(_look.due)
LOOK_AGAIN: Update = update(t.second_look).where(_look.key == _key).values(due=bindparam("next_due", type_=_look.due.type))
LOOKED: Delete = delete(t.second_look).where(_look.key == _key)

_restamp = t.restamp.c
RESTAMPED = (
    select(_restamp.item_id, _restamp.stamp, _restamp.href, _restamp.tries, _i.key)
    .join(t.item, and_(_i.source == _restamp.source, _i.item_id == _restamp.item_id))
    .join(t.conversion, _c.key == _i.key)
    .where(_restamp.source == _source, _restamp.found == "", _restamp.due <= bindparam("now", type_=_restamp.due.type))
    .where(_c.state.in_([s.value for s in FINAL]))
    .order_by(_restamp.due, _restamp.item_id)
    .limit(bindparam("most", type_=Integer))
)
"""What was stamped anew, is to be looked at, and is not under way."""

# -- sums ------------------------------------------------------------------------------------------------------------------

STARTS = select(_h.key, _h.dst, _h.at).where(_h.dst.in_([s.value for s in IN_FLIGHT]), one_of(_h.key)).order_by(_h.id)
FUNNEL = select(_f.source, _f.lane, _f.state, _f.cause, _f.n).where(_f.n > 0)
WAITING_SINCE = select(
    *(select(func.min(_c.queued_at)).where(_c.state == s.value).scalar_subquery() for s in State if s not in FINAL),
    select(func.count()).select_from(t.unreadable).scalar_subquery(),
)
"""Since when the one waits that waits longest, and, so that it takes no statement of its own, what is unreadable."""


def _lags() -> Select[Any]:
    """Returns how far each source has got: each figure is looked up in an index, none is found by reading all of a source."""
    s, gone = select(_f.source).distinct().subquery("each_source"), t.absent.c
    done = and_(_c.source == s.c.source, _c.state == State.DONE.value)
    return select(
        s.c.source,
        select(func.max(_i.updated)).where(_i.source == s.c.source).scalar_subquery(),
        select(func.max(_i.first_seen)).where(_i.source == s.c.source).scalar_subquery(),
        select(func.max(_c.changed_at)).where(done).scalar_subquery(),
        select(func.count()).where(done, _c.changed_at >= bindparam("hour_ago")).scalar_subquery(),
        select(func.count()).where(done, _c.changed_at >= bindparam("day_ago")).scalar_subquery(),
        select(func.count()).where(gone.source == s.c.source, gone.withdrawn_at.is_not(None)).scalar_subquery(),
        select(func.count()).where(_restamp.source == s.c.source, _restamp.found == "").scalar_subquery(),
        *(
            select(func.count())
            .where(_restamp.source == s.c.source, _restamp.looked_at >= bindparam("day_ago"), _restamp.found == found)
            .scalar_subquery()
            for found in (f.value for f in Look)
        ),
        *(
            select(func.count()).where(gone.source == s.c.source, gone.output == what.value).scalar_subquery()
            for what in Retirement
        ),
    )


LAGS = _lags()
ALL_ABILITIES = select(t.probe.c.source, t.probe.c.found, t.probe.c.at)
ALL_LATENESS = select(t.lateness.c.source, t.lateness.c.bucket, t.lateness.c.n)
ALL_SWEPT = select(t.sweep.c.source, t.sweep.c.done_at).where(t.sweep.c.kind == "recent", t.sweep.c.done_at.is_not(None))

BEGUN = select(func.count()).select_from(
    select(_c.key)
    .where(_c.source == _source, _c.created_at >= bindparam("since"), _c.changed_at >= bindparam("since"))  # the latter is indexed
    .limit(bindparam("most"))
    .subquery()
)

# -- moves; what is to be set is given with the rest -------------------------------------------------------------------------

MOVE: Update = update(t.conversion).where(
    _c.key == _key, _c.state == bindparam("from_state"), _c.attempt == bindparam("from_attempt")
)
TAKE_OUT: Delete = delete(t.outbox).where(_o.key == _key)
BRING_FORWARD: Update = (
    update(t.outbox)
    .values(due=bindparam("now", type_=_o.due.type))
    .where(
        _o.due > bindparam("now", type_=_o.due.type),
        _o.event_id.in_(select(t.event.c.id).where(t.event.c.key == _o.key, t.event.c.created_at > bindparam("future"))),
    )
)
POST: Update = update(t.outbox).where(_o.key == _key, _o.event_id == bindparam("of_event"))
REWRITE: Update = update(t.event).where(t.event.c.id == bindparam("of_event")).values(body=bindparam("rewritten"))
GIVE_BACK: Delete = delete(t.lease).where(_l.name == bindparam("of_name"), _l.holder == bindparam("of_holder"))
HOLDER = select(_l.holder, _l.until).where(_l.name == bindparam("of_name"))


@cache
def into(table: Table) -> Insert:
    """Returns an insert."""
    return insert(table)


@cache
def put(dialect: str, table: Table, on: tuple[str, ...], changing: tuple[str, ...]) -> Upsert:
    """Returns an insert that changes some columns of a row that is there already."""
    statement = _insert(dialect, table)
    return statement.on_conflict_do_update(index_elements=on, set_={c: statement.excluded[c] for c in changing})


@cache
def add(dialect: str, table: Table, on: tuple[str, ...]) -> Upsert:
    """Returns an insert that adds to the `n` of a row that is there already."""
    statement = _insert(dialect, table)
    return statement.on_conflict_do_update(index_elements=on, set_={"n": table.c.n + statement.excluded.n})


@cache
def miss(dialect: str) -> Upsert:
    """Returns an insert into the table of absent items that counts another sweep which did not find one."""
    statement = _insert(dialect, t.absent)
    once_more = {"sweeps": t.absent.c.sweeps + 1, "last_sweep": statement.excluded.last_sweep}
    earlier = t.absent.c.last_sweep < statement.excluded.last_sweep
    return statement.on_conflict_do_update(index_elements=["source", "item_id"], set_=once_more, where=earlier)


@cache
def renew(lasts: timedelta, *, by_database: bool) -> Update:
    """Returns what prolongs a lease, by the database's own clock; `until` is given where that does not count."""
    statement = update(t.lease).where(_l.name == bindparam("of_name"), _l.holder == bindparam("of_holder"))
    return statement.values(until=CLOCK + lasts) if by_database else statement


CLOCK = func.clock_timestamp(type_=DateTime(timezone=True))
"""PostgreSQL's clock: one for all watchers of a ledger, however far those of their hosts are apart."""


@cache
def claim(dialect: str) -> Upsert:
    """Returns an insert into the lease table that leaves alone what somebody else holds at `moment`.

    One that ends after `latest` was written by a clock that has been set since: nobody holds that.
    """
    statement = _insert(dialect, t.lease)
    over = or_(_l.until <= bindparam("moment"), _l.until > bindparam("latest"))
    free = or_(_l.holder == statement.excluded.holder, over)
    taken = {c: statement.excluded[c] for c in ("holder", "until")}
    return statement.on_conflict_do_update(index_elements=["name"], set_=taken, where=free)


def _insert(dialect: str, table: Table) -> Upsert:
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.Insert(table)
    from sqlalchemy.dialects import postgresql  # who asks a SQLite ledger does not wait for it: a tenth of `status`

    return postgresql.Insert(table)
