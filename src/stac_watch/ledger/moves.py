"""One move of a conversion: a guarded update with its history, event, outbox row and counts. Functions within a transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Table

from stac_watch.ledger import announcing
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.records import ConversionRow, Move, Moved, Place
from stac_watch.ledger.session import MOVED, PUBLISHES, StaleState, chunked
from stac_watch.model.causes import LENGTH, fingerprint
from stac_watch.model.errors import Defect
from stac_watch.model.event import PRIORITY, Lane, build_event, next_attempt, run_name
from stac_watch.model.identity import event_id
from stac_watch.model.publication import PublicationState
from stac_watch.model.states import NEXT_ATTEMPT, Fact, State, next_state


def apply(tx: Connection, row: ConversionRow, move: Move, now: datetime) -> State:
    """Applies one fact to a conversion as it was read; returns the state that it led to.

    Raises:
        StaleState: it was moved by somebody else since `row` was read.
    """
    fact = move.fact
    state = next_state(row.state, fact)
    fresh = fact in NEXT_ATTEMPT
    attempt = (move.attempt or row.attempt + 1) if fresh else row.attempt
    lane, source = move.lane or row.lane, row.source
    changes = _changes(row, move, state, now) | {"attempt": attempt, "lane": lane}
    if move.conversion is not None:
        source = move.conversion.source_name or source
        changes |= {"source": source, "output_zarr": move.conversion.output_zarr}
    if row.state is State.QUEUED:  # nothing else is in the outbox
        tx.execute(sql.TAKE_OUT, {"of_key": row.key})
    body = b""
    if fresh:
        body, changes["run"] = _next_event(tx, row, attempt, move)
    guard = {"of_key": row.key, "from_state": row.state.value, "from_attempt": row.attempt}
    if tx.execute(sql.MOVE, {**guard, **changes}).rowcount != 1:
        raise StaleState(f"conversion {row.key} is no longer {row.state.value} at attempt {row.attempt}")
    if fresh:  # only now: a stale row must end as StaleState, not as an event that exists already
        values = {"id": event_id(row.key, attempt), "key": row.key, "attempt": attempt, "body": body, "created_at": now}
        tx.execute(sql.into(t.event), values)
    if state is State.QUEUED:
        sensing = tx.execute(sql.SENSING, {"of_source": source, "of_item": row.item_id}).scalar_one()
        tx.execute(sql.into(t.outbox), outbox_values(source, row.key, attempt, lane, sensing, move.due or now))
    if move.look_at is not None:
        put(tx, t.second_look, [{"key": row.key, "since": now, "due": move.look_at}], ("key",), "since", "due")
    tx.execute(sql.into(t.history), history_values(row.key, row.state, fact, state, attempt, now, move.why))
    run = changes.get("run", row.run)
    tx.info[MOVED].append(
        Moved(source, row.item_id, row.key, lane, attempt, run, row.state, fact, state, now, row.changed_at, move.why)
    )
    if state is State.DONE and tx.info.get(PUBLISHES):
        _enrol_current(tx, source, row, now)
    announcing.of_move(tx, source, row.item_id, row.key, row.state, state, now)
    before, after = Place(row.source, row.lane, row.state, row.cause), Place(source, lane, state, changes["cause"])
    if before != after:
        count(tx, {before: -1, after: 1})
    return state


def skip(tx: Connection, row: ConversionRow, move: Move, now: datetime) -> bool:
    """Skips what waits or has failed; tells whether it did.

    A run in flight, or one that a post without a clear answer may have started, is left alone: it is waited for, so that whatever
    takes its place cannot be overtaken by it.
    """
    posted = row.state is State.QUEUED and tx.execute(sql.POSTS, {"of_key": row.key}).scalar()
    if posted or row.state not in (State.QUEUED, State.FAILED):
        return False
    apply(tx, row, move, now)
    return True


def _next_event(tx: Connection, row: ConversionRow, attempt: int, move: Move) -> tuple[bytes, str]:
    if move.conversion is not None:
        return build_event(move.conversion, attempt), run_name(move.conversion, attempt)
    last = tx.execute(sql.LAST_EVENT, {"of_key": row.key}).scalar()
    if last is None:
        raise Defect(f"conversion {row.key} has no event")
    admitted = "backfill" if move.lane == "backfill" else "updated"
    why = move.asked or {Fact.REPLAYED: "replay", Fact.ADMITTED: admitted}.get(move.fact, "retry")
    return next_attempt(
        last, attempt, reason=why, lane=move.lane, overwrite=move.overwrite, allow_empty=move.allow_empty, fence=move.fence,
        allowed_hosts=move.allowed_hosts,
    )  # fmt: skip


def _enrol_current(tx: Connection, source: str, row: ConversionRow, now: datetime) -> None:
    """Has what is done registered, unless a later revision took its place: that is what people should find."""
    if tx.execute(sql.CURRENT_KEY, {"of_source": source, "of_item": row.item_id}).scalar() == row.key:
        enrol(tx, source, row.item_id, row.key, now)


def enrol(tx: Connection, source: str, item_id: str, key: str, now: datetime, *, anew: bool = False) -> None:
    """Has the item of a done conversion registered: a new row, or the one that an earlier revision had."""
    values = {
        "source": source, "item_id": item_id, "key": key, "state": PublicationState.PENDING.value, "attempts": 0, "due": now,
        "asked_at": now, "changed_at": now, "reason": None, "digest": "", "target": "", "registered_at": None,
    }  # fmt: skip
    changing = ("key", "state", "attempts", "due", "asked_at", "changed_at", "reason", *(("digest",) if anew else ()))
    put(tx, t.publication, [values], ("source", "item_id"), *changing)


def count(tx: Connection, places: Mapping[Place, int] | Counter[Place]) -> None:
    """Adds to the funnel: how many conversions came to a place, or left it (negative)."""
    rows = [{"source": p.source, "lane": p.lane, "state": p.state.value, "cause": p.cause, "n": n} for p, n in places.items() if n]
    if rows:
        tx.execute(sql.add(tx.dialect.name, t.funnel, ("source", "lane", "state", "cause")), rows)


def funnel(tx: Connection) -> dict[Place, int]:
    """Returns how many conversions are where."""
    return {Place(r.source, r.lane, State(r.state), r.cause): r.n for r in tx.execute(sql.FUNNEL)}


def put(tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]], on: tuple[str, ...], *changing: str) -> None:
    """Inserts rows, or changes what may change of those that are there by their key `on`."""
    tx.execute(sql.put(tx.dialect.name, table, on, changing), rows)


def set_cursor(tx: Connection, name: str, position: datetime, now: datetime) -> None:
    """Moves a cursor."""
    put(tx, t.cursor, [{"name": name, "position": position, "changed_at": now}], ("name",), "position", "changed_at")


def _changes(row: ConversionRow, move: Move, state: State, now: datetime) -> dict[str, Any]:
    fact, reason = move.fact, move.reason
    cause = {State.SKIPPED: (reason or "")[:LENGTH], State.FAILED: fingerprint(reason or "it gave no reason")}.get(state, "")
    changes: dict[str, Any] = {"state": state.value, "changed_at": now, "reason": reason, "cause": cause, "waits_for": None}
    if move.fence:
        changes["fence"] = move.fence
    if move.outcome is not None:
        changes |= {"outcome": move.outcome, "exit_code": move.outcome.code}
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


def rows_of(tx: Connection, keys: Collection[str]) -> dict[str, ConversionRow]:
    """Returns the conversions with these keys, by key."""
    rows = chunked(tx, sql.CONVERSIONS, list(keys))
    return {r.key: conversion_of(r) for r in rows}


def conversion_of(row: Row[Any] | Mapping[str, Any]) -> ConversionRow:
    """Returns the value of a row of the table `conversion`."""
    values = dict(row if isinstance(row, Mapping) else row._mapping)  # noqa: SLF001  # SQLAlchemy's documented name for it
    return ConversionRow(**{**values, "state": State(values["state"]), "fence": values["fence"] or ""})
