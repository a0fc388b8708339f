"""The ledger: what is known of every item, conversion and event, and the only code that speaks SQL.

In: facts and sightings. Out: rows as dataclasses. Every public method is one transaction: it happens entirely, or not at all.
Never: decides what follows (that is `states`), opens a network connection besides the database's, or reads the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError, OperationalError

from stac_watch import schema as t
from stac_watch.changes import Quarantine
from stac_watch.errors import CannotWrite, ConfigError, Defect, Temporary
from stac_watch.events import PRIORITY, Lane, build_event, event_id, next_attempt, run_name
from stac_watch.policy import SkipReason
from stac_watch.queries import Queries
from stac_watch.records import ConversionRow, Move, OutboxRow, Sighting, Tally
from stac_watch.states import FINAL, NEXT_ATTEMPT, Fact, State, next_state


class StaleState(Defect):
    """Somebody else moved the conversion first; what was decided about it no longer holds."""


class Ledger(Queries):
    """The moves; the questions are inherited from `Queries`."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._upsert = sqlite_insert if engine.dialect.name == "sqlite" else pg_insert

    def prepare(self) -> None:
        """Creates the tables where there are none.

        Raises:
            ConfigError: the database cannot be reached, is no ledger, or is of a newer schema.
        """
        where = self._engine.url.render_as_string()
        try:
            with self._engine.begin() as tx:
                t.metadata.create_all(tx)
                found = tx.execute(select(t.schema_version.c.version)).scalar()
                if found is None:
                    tx.execute(insert(t.schema_version).values(version=t.SCHEMA_VERSION))
        except DBAPIError as error:
            hint = "check that `ledger:` names a database of ours, that it can be reached, and that its folder can be written"
            raise ConfigError(f"cannot use the ledger {where}: {error.orig}", hint=hint) from error
        if found is not None and found > t.SCHEMA_VERSION:
            newer = f"the ledger {where} has schema {found}, this stac-watch knows {t.SCHEMA_VERSION}"
            raise ConfigError(newer, hint="install the newer stac-watch")

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """One transaction; a database that cannot take it becomes an error of ours."""
        try:
            with self._engine.begin() as tx:
                yield tx
        except OperationalError as error:
            where, text = self._engine.url.render_as_string(), str(error.orig)
            if any(word in text for word in ("full", "readonly", "No space", "I/O error")):
                raise CannotWrite(
                    f"cannot write the ledger {where}: {text}", hint="free space there, or check its mount"
                ) from error
            raise Temporary(f"the ledger {where} did not answer: {text}", hint="it is tried again") from error

    # -- discovery ---------------------------------------------------------------------------------------------------

    def commit_window(
        self,
        source: str,
        sightings: Iterable[Sighting],
        quarantined: Iterable[Quarantine],
        cursor: tuple[str, datetime] | None,
        now: datetime,
    ) -> Tally:
        """Stores what a window showed, its events, and the cursor: in one transaction."""
        seen = admitted = skipped = bad = 0
        with self._write() as tx:
            for sighting in sightings:
                seen += 1
                moved = self._sight(tx, source, sighting, now)
                admitted += moved is State.QUEUED
                skipped += moved is State.SKIPPED
            for entry in quarantined:
                bad += 1
                values = {"source": source, "item_id": entry.item_id, "why": entry.why, "first_seen": now, "last_seen": now}
                tx.execute(self._put(t.quarantine, values, ("source", "item_id"), ("why", "last_seen")))
            if cursor is not None:
                values = {"name": cursor[0], "position": cursor[1], "changed_at": now}
                tx.execute(self._put(t.cursor, values, ("name",), ("position", "changed_at")))
        return Tally(seen, admitted, skipped, bad)

    def _sight(self, tx: Connection, source: str, s: Sighting, now: datetime) -> State | None:
        """Applies one sighting; returns the state that it led to, None when nothing moved."""
        item, key = s.item, s.conversion.key
        previous = tx.execute(select(t.item.c.key).where(t.item.c.source == source, t.item.c.item_id == item.item_id)).scalar()
        row = self._row(tx, key)
        moved = self._admit(tx, source, s, row, now) if s.skip is None or row is None else None
        if previous is not None and previous != key:
            old = self._row(tx, previous)
            # a run in flight, or one that a post without an answer may have started, is left alone: it is waited for, so that
            # the newer revision's run cannot be overtaken by it
            if old is not None and (old.state is State.DEAD or (old.state is State.QUEUED and not self._posted(tx, previous))):
                why = f"revision {item.revision} took its place"
                self._move(tx, old, Move(Fact.SUPERSEDED, why, reason=SkipReason.SUPERSEDED), now)
        values = {
            "source": source, "item_id": item.item_id, "revision": item.revision, "key": key, "updated": item.updated,
            "sensing": item.datetime, "tile": item.tile, "bbox": list(item.bbox), "cloud_cover": item.cloud_cover,
            "first_seen": now, "last_seen": now,
        }  # fmt: skip
        tx.execute(self._put(t.item, values, ("source", "item_id"), tuple(values.keys() - {"source", "item_id", "first_seen"})))
        return moved

    def _posted(self, tx: Connection, key: str) -> bool:
        return bool(tx.execute(select(t.outbox.c.posts).where(t.outbox.c.key == key)).scalar())

    def _admit(self, tx: Connection, source: str, s: Sighting, row: ConversionRow | None, now: datetime) -> State | None:
        if row is None:
            fact = Fact.ADMITTED if s.skip is None else Fact.SKIPPED
            why = f"{s.conversion.kind} seen in {source}" if s.skip is None else f"rule {s.skip.value}"
            return self._insert(tx, source, s, fact, now, why)
        if row.state is State.SKIPPED:
            return self._move(tx, row, Move(Fact.ADMITTED, "the source's rules admit it now"), now)
        if row.state in FINAL:  # this very revision was here before another one; what stands under its name now is the other's
            return self._move(tx, row, Move(Fact.REPLAYED, "the item returned to an earlier revision"), now)
        return None

    def _insert(self, tx: Connection, source: str, s: Sighting, fact: Fact, now: datetime, why: str) -> State:
        c, state = s.conversion, next_state(None, fact)
        tx.execute(
            insert(t.conversion).values(
                key=c.key, source=source, item_id=c.item_id, revision=c.revision, state=state.value, attempt=1, failures=0, waits=0,
                lane=c.lane, reason=s.skip.value if s.skip else None, run=run_name(c, 1), output_zarr=c.output_zarr,
                queued_at=now, created_at=now, changed_at=now,
            )
        )  # fmt: skip
        tx.execute(insert(t.event).values(id=event_id(c.key, 1), key=c.key, attempt=1, body=build_event(c, 1), created_at=now))
        if state is State.QUEUED:
            self._enqueue(tx, c.key, 1, c.lane, c.datetime, now)
        self._note(tx, c.key, None, fact, state, 1, now, why)
        return state

    # -- moves -------------------------------------------------------------------------------------------------------

    def move(self, row: ConversionRow, move: Move, now: datetime) -> State:
        """Applies one fact to a conversion as it was read: state, history, event and outbox together.

        Raises:
            StaleState: it was moved by somebody else since `row` was read.
        """
        with self._write() as tx:
            return self._move(tx, row, move, now)

    def _move(self, tx: Connection, row: ConversionRow, move: Move, now: datetime) -> State:
        fact = move.fact
        state = next_state(row.state, fact)
        fresh = fact in NEXT_ATTEMPT
        attempt = row.attempt + 1 if fresh else row.attempt
        changes: dict[str, Any] = {"state": state.value, "attempt": attempt, "changed_at": now, "reason": move.reason}
        if move.outcome is not None:
            changes |= {"outcome": move.outcome, "exit_code": move.outcome.get("code")}
        if fact in (Fact.FAILED_TEMPORARY, Fact.VANISHED):
            changes["failures"] = row.failures + 1
        elif fact is Fact.NOT_READY:
            changes["waits"] = row.waits + 1
        elif fact in (Fact.REPLAYED, Fact.ADMITTED):
            changes |= {"failures": 0, "waits": 0, "queued_at": now}
        if move.lane is not None:
            changes["lane"] = move.lane
        tx.execute(delete(t.outbox).where(t.outbox.c.key == row.key))
        body = b""
        if fresh:
            body, changes["run"] = self._next_event(tx, row, attempt, move)
        guard = (t.conversion.c.key == row.key, t.conversion.c.state == row.state.value, t.conversion.c.attempt == row.attempt)
        if tx.execute(update(t.conversion).where(*guard).values(changes)).rowcount != 1:
            raise StaleState(f"conversion {row.key} is no longer {row.state.value} at attempt {row.attempt}")
        if fresh:  # only now: a stale row must end as StaleState, not as an event that exists already
            values = {"id": event_id(row.key, attempt), "key": row.key, "attempt": attempt, "body": body, "created_at": now}
            tx.execute(insert(t.event).values(values))
        if state is State.QUEUED:
            sensing = tx.execute(
                select(t.item.c.sensing).where(t.item.c.source == row.source, t.item.c.item_id == row.item_id)
            ).scalar_one()
            self._enqueue(tx, row.key, attempt, move.lane or row.lane, sensing, move.due or now)
        self._note(tx, row.key, row.state, fact, state, attempt, now, move.why)
        return state

    def _next_event(self, tx: Connection, row: ConversionRow, attempt: int, move: Move) -> tuple[bytes, str]:
        last = tx.execute(select(t.event.c.body).where(t.event.c.key == row.key).order_by(t.event.c.attempt.desc())).scalar()
        if last is None:
            raise Defect(f"conversion {row.key} has no event")
        why = {Fact.REPLAYED: "replay", Fact.ADMITTED: "updated"}.get(move.fact, "retry")
        return next_attempt(last, attempt, reason=why, lane=move.lane)

    def _enqueue(self, tx: Connection, key: str, attempt: int, lane: Lane, sensing: datetime, due: datetime) -> None:
        values = {
            "key": key, "event_id": event_id(key, attempt), "priority": PRIORITY[lane], "due": due, "posts": 0,
            "sensing": sensing,
        }  # fmt: skip
        tx.execute(insert(t.outbox).values(values))

    def _note(
        self, tx: Connection, key: str, src: State | None, fact: Fact, dst: State, attempt: int, now: datetime, why: str
    ) -> None:
        values = {"key": key, "src": src.value if src else None, "fact": fact.value, "dst": dst.value}
        tx.execute(insert(t.history).values(**values, attempt=attempt, at=now, why=why))

    # -- dispatch and reconcile ----------------------------------------------------------------------------------------

    def postpone(self, row: OutboxRow, due: datetime) -> None:
        """Keeps an event whose post had no clear answer; the same event goes out again at `due`."""
        with self._write() as tx:
            guard = (t.outbox.c.key == row.key, t.outbox.c.event_id == row.event_id)
            tx.execute(update(t.outbox).where(*guard).values(due=due, posts=t.outbox.c.posts + 1))

    def _put(self, table: Any, values: dict[str, Any], on: Sequence[str], changing: Sequence[str]) -> Any:  # noqa: ANN401
        statement = self._upsert(table).values(values)
        return statement.on_conflict_do_update(index_elements=on, set_={c: statement.excluded[c] for c in changing})
