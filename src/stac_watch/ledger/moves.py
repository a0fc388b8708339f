"""Moves conversions: one guarded update with its history, event, outbox row and counts, in one transaction.

In: a row as it was read, and a fact about it. Out: the new state, or `StaleState`; and to who listens each move, once it is
committed. Never: decides what follows (that is `states`), or reads the clock by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Table, select, update

from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.conversions import answering
from stac_watch.ledger.counts import Sums
from stac_watch.ledger.records import ConversionRow, Move, Moved, OutboxRow, Place
from stac_watch.model.causes import LENGTH, fingerprint
from stac_watch.model.errors import Defect, Temporary
from stac_watch.model.event import PRIORITY, Lane, next_attempt
from stac_watch.model.identity import event_id
from stac_watch.model.states import NEXT_ATTEMPT, Fact, State, next_state

LEASE = timedelta(seconds=30)
"""How long a watcher that says nothing keeps the ledger: longer than a slow tick, shorter than anybody's patience.

A killed watcher's lease is waited for to its end, also on its own host: a process number may be somebody else's by now, and
containers have host names and process numbers in common.
"""
WATCH, WISH = "watch", "wish"
"""Rows of the lease table: who watches, and who would if the one that does gave way."""
MOVED = "moved"  # what a transaction has moved so far, kept with its connection


class StaleState(Defect):
    """Somebody else moved the conversion first; what was decided about it no longer holds."""


class LeaseLost(Temporary):
    """Another watcher took the ledger over, because this one said nothing for too long."""


class Moves(Sums):
    """Everything that moves a conversion that exists."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._listeners: list[Callable[[Moved], None]] = []
        self._fence: tuple[str, Callable[[], datetime]] | None = None  # who once had the lease writes only while it has it
        self._renewed: datetime | None = None  # the lease; None = it has it not

    def listen(self, listener: Callable[[Moved], None]) -> None:
        """Tells a listener of each move of this process that was committed, in the thread that moved it."""
        self._listeners.append(listener)

    def move(self, row: ConversionRow, move: Move, now: datetime) -> State:
        """Applies one fact to a conversion as it was read: state, history, event, outbox and counts together.

        Raises:
            StaleState: it was moved by somebody else since `row` was read.
        """
        with self._write() as tx:
            return self._move(tx, row, move, now)

    def note_post(self, row: OutboxRow, due: datetime, *, happened: bool = True) -> bool:
        """Notes that an event goes out, before it does, and when it goes out again; or that it did not, after all.

        Until there is a clear answer a run of it may exist: its conversion is not superseded, and no other one with the same output
        is sent. False: it waits no longer, it was superseded or replayed since the outbox was read.
        """
        guard = {"of_key": row.key, "of_event": row.event_id}
        with self._write() as tx:
            return bool(tx.execute(sql.POST, {**guard, "posts": row.posts + happened, "due": due}).rowcount == 1)

    def note_wait(self, row: ConversionRow, waits_for: str | None) -> None:
        """Notes why a run does not start; no move, and nothing of its history."""
        c = t.conversion.c
        with self._write() as tx:
            guard = (c.key == row.key, c.attempt == row.attempt, c.state == row.state.value)
            tx.execute(update(t.conversion).where(*guard).values(waits_for=waits_for))

    # -- who may watch -------------------------------------------------------------------------------------------------

    def hold(self, holder: str, now: Callable[[], datetime], *, gives_way: bool = False) -> bool:
        """Takes the lease if nobody else has it; from then on each write renews it, and fails once it is lost.

        One that gives way has it only while nobody who does not give way wants it: a backfill that is followed must not keep a
        watcher from discovering what is new.
        """
        moment = now()
        if gives_way and self._wanted(holder, moment):
            self.release()
            return False
        if self._renewed is not None and moment - self._renewed < LEASE / 3:
            return True  # an idle watcher need not write every second; if it was lost meanwhile, the next write says so
        with self._transaction() as tx:
            mine = self._claim(tx, WATCH, holder, moment)
            if mine:
                tx.execute(sql.GIVE_BACK, {"of_name": WISH, "of_holder": holder})
            elif not gives_way:
                self._claim(tx, WISH, holder, moment)
        self._renewed = moment if mine else None
        if mine:
            self._fence = (holder, now)
        return mine

    def _claim(self, tx: Connection, name: str, holder: str, moment: datetime) -> bool:
        """Writes one's name where there is none, or one whose time is over; tells whether it stands there."""
        mine = {"name": name, "holder": holder, "until": moment + LEASE}
        tx.execute(sql.claim(tx.dialect.name), {**mine, "moment": moment})
        return bool(tx.execute(sql.HOLDER, {"of_name": name}).scalar() == holder)

    def _wanted(self, holder: str, moment: datetime) -> bool:
        """Tells whether somebody else watches, or wishes to."""
        with self._read() as tx:
            return bool(tx.execute(select(t.lease.c.name).where(t.lease.c.holder != holder, t.lease.c.until > moment)).first())

    @property
    def is_held(self) -> bool:
        """Whether this ledger's writer is the one that may watch, as far as it knows."""
        return self._renewed is not None

    def release(self) -> None:
        """Gives the lease back, so that the next watcher need not wait for its end."""
        if self._renewed is not None and self._fence is not None:
            with self._transaction() as tx:
                tx.execute(sql.GIVE_BACK, {"of_name": WATCH, "of_holder": self._fence[0]})
            self._renewed = None

    def holder(self) -> tuple[str, datetime] | None:
        """Returns who has the lease, and until when."""
        with self._read() as tx:
            found = tx.execute(sql.HOLDER, {"of_name": WATCH}).first()
            return (found[0], found[1]) if found is not None else None

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """One transaction; of a watcher only as long as the ledger is its own."""
        with self._transaction() as tx:
            if self._fence is not None:
                holder, now = self._fence
                renewed = {"of_name": WATCH, "of_holder": holder, "until": now() + LEASE}
                if tx.execute(sql.RENEW, renewed).rowcount != 1:
                    self._renewed = None
                    raise LeaseLost("another watcher took over the ledger", hint="this one waits until it is free again")
            yield tx

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with answering(self._engine), self._engine.begin() as tx:
            moved: list[Moved] = []
            tx.info[MOVED] = moved
            yield tx
        for entry in moved:  # only now: what was rolled back did not happen
            for listener in self._listeners:
                listener(entry)

    # -- the move ------------------------------------------------------------------------------------------------------

    def _move(self, tx: Connection, row: ConversionRow, move: Move, now: datetime) -> State:
        fact = move.fact
        state = next_state(row.state, fact)
        fresh = fact in NEXT_ATTEMPT
        attempt = row.attempt + 1 if fresh else row.attempt
        lane = move.lane or row.lane
        changes = _changes(row, move, state, now) | {"attempt": attempt, "lane": lane}
        if row.state is State.QUEUED:  # nothing else is in the outbox
            tx.execute(sql.TAKE_OUT, {"of_key": row.key})
        body = b""
        if fresh:
            body, changes["run"] = self._next_event(tx, row, attempt, move)
        guard = {"of_key": row.key, "from_state": row.state.value, "from_attempt": row.attempt}
        if tx.execute(sql.MOVE, {**guard, **changes}).rowcount != 1:
            raise StaleState(f"conversion {row.key} is no longer {row.state.value} at attempt {row.attempt}")
        if fresh:  # only now: a stale row must end as StaleState, not as an event that exists already
            values = {"id": event_id(row.key, attempt), "key": row.key, "attempt": attempt, "body": body, "created_at": now}
            tx.execute(sql.into(t.event), values)
        if state is State.QUEUED:
            sensing = tx.execute(sql.SENSING, {"of_source": row.source, "of_item": row.item_id}).scalar_one()
            tx.execute(sql.into(t.outbox), outbox_values(row.source, row.key, attempt, lane, sensing, move.due or now))
        tx.execute(sql.into(t.history), history_values(row.key, row.state, fact, state, attempt, now, move.why))
        run = changes.get("run", row.run)
        tx.info[MOVED].append(
            Moved(row.source, row.item_id, row.key, lane, attempt, run, row.state, fact, state, now, row.changed_at, move.why)
        )
        before, after = Place(row.source, row.lane, row.state, row.cause), Place(row.source, lane, state, changes["cause"])
        if before != after:
            self._count(tx, {before: -1, after: 1})
        return state

    def _next_event(self, tx: Connection, row: ConversionRow, attempt: int, move: Move) -> tuple[bytes, str]:
        last = tx.execute(sql.LAST_EVENT, {"of_key": row.key}).scalar()
        if last is None:
            raise Defect(f"conversion {row.key} has no event")
        admitted = "backfill" if move.lane == "backfill" else "updated"
        why = {Fact.REPLAYED: "replay", Fact.ADMITTED: admitted}.get(move.fact, "retry")
        return next_attempt(last, attempt, reason=why, lane=move.lane, overwrite=move.overwrite)

    def _count(self, tx: Connection, places: Mapping[Place, int] | Counter[Place]) -> None:
        rows = [
            {"source": p.source, "lane": p.lane, "state": p.state.value, "cause": p.cause, "n": n} for p, n in places.items() if n
        ]
        if rows:
            tx.execute(sql.add(tx.dialect.name, t.funnel, ("source", "lane", "state", "cause")), rows)

    def _put(self, tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]], on: tuple[str, ...], *changing: str) -> None:
        """Inserts rows, or changes what may change of those that are there by their key `on`."""
        tx.execute(sql.put(tx.dialect.name, table, on, changing), rows)


def _changes(row: ConversionRow, move: Move, state: State, now: datetime) -> dict[str, Any]:
    fact, reason = move.fact, move.reason
    cause = {State.SKIPPED: (reason or "")[:LENGTH], State.DEAD: fingerprint(reason or "it gave no reason")}.get(state, "")
    changes: dict[str, Any] = {"state": state.value, "changed_at": now, "reason": reason, "cause": cause, "waits_for": None}
    if move.outcome is not None:
        changes |= {"outcome": move.outcome, "exit_code": move.outcome.get("code")}
    if fact in (Fact.FAILED_TEMPORARY, Fact.VANISHED):
        changes["failures"] = row.failures + 1
    elif fact is Fact.NOT_READY:
        changes["waits"] = row.waits + 1
    elif fact in (Fact.REPLAYED, Fact.ADMITTED):
        changes |= {"failures": 0, "waits": 0, "queued_at": now}
    return changes


def outbox_values(source: str, key: str, attempt: int, lane: Lane, sensing: datetime, due: datetime) -> dict[str, Any]:
    """Returns a row of the outbox."""
    return {
        "key": key, "event_id": event_id(key, attempt), "source": source, "priority": PRIORITY[lane], "due": due, "posts": 0,
        "sensing": sensing,
    }  # fmt: skip


def history_values(key: str, src: State | None, fact: Fact, dst: State, attempt: int, now: datetime, why: str) -> dict[str, Any]:
    """Returns a row of the history."""
    return {
        "key": key, "src": src.value if src else None, "fact": fact.value, "dst": dst.value, "attempt": attempt, "at": now,
        "why": why,
    }  # fmt: skip
