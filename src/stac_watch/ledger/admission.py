"""The ledger: what is known of every item, conversion and event; with the modules it is made of, all that speaks SQL.

In: sightings, orders. Out: rows as dataclasses. Every public method is one transaction: it happens entirely, or not at all.
Never: decides what follows (that is `states`), opens a network connection besides the database's, or reads the clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, update
from sqlalchemy.exc import DBAPIError

from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.conversions import chunked, unwritable
from stac_watch.ledger.migrations import migrate
from stac_watch.ledger.moves import MOVED, history_values, outbox_values
from stac_watch.ledger.pruning import Retention
from stac_watch.ledger.records import ConversionRow, Move, Moved, Order, Place, Sighting, Tally
from stac_watch.model.errors import ConfigError
from stac_watch.model.event import Lane, build_event, run_name
from stac_watch.model.identity import event_id
from stac_watch.model.item import Quarantine, SkipReason
from stac_watch.model.states import FINAL, Fact, State, next_state


class Ledger(Retention):
    """Admission and orders; questions are inherited from `Queries`, moves from `Moves`."""

    def prepare(self, *, upgrade: bool = True) -> None:
        """Creates the tables where there are none, and brings an older ledger up to date if it may; closes what cannot be used.

        Raises:
            ConfigError: the database cannot be reached, is no ledger, is of a newer schema, or of an older one that must stay.
            CannotWrite: its disk is full or read-only.
        """
        try:
            with self._engine.begin() as tx:
                migrate(tx, upgrade=upgrade)
        except DBAPIError as error:
            self.close()
            refused = unwritable(self._engine, error)
            if refused is not None:
                raise refused from error
            where = self._engine.url.render_as_string()
            hint = "check that `ledger:` names a database of ours, that it can be reached, and that its folder can be written"
            said = " ".join(str(error.orig).split())
            raise ConfigError(f"cannot use the ledger {where}: {said}", hint=hint) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

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
        seen, bad = list(sightings), list(quarantined)
        moved: Counter[State] = Counter()
        with self._write() as tx:
            waiting = seen
            while waiting:  # once, unless a window shows an item twice: then in the order in which it showed it
                first = {s.item.item_id: s for s in reversed(waiting)}
                moved.update(self._sight(tx, source, list(first.values()), now))
                waiting = [s for s in waiting if first[s.item.item_id] is not s]
            if bad:
                rows = [{"source": source, "item_id": b.item_id, "why": b.why, "first_seen": now, "last_seen": now} for b in bad]
                self._put(tx, t.quarantine, rows, ("source", "item_id"), "why", "last_seen")
            if cursor is not None:
                row = {"name": cursor[0], "position": cursor[1], "changed_at": now}
                self._put(tx, t.cursor, [row], ("name",), "position", "changed_at")
        return Tally(len(seen), moved[State.QUEUED], moved[State.SKIPPED], len(bad))

    def _sight(self, tx: Connection, source: str, sightings: Sequence[Sighting], now: datetime) -> list[State]:
        """Applies sightings of different items; returns the states that they led to, none where nothing moved."""
        items = chunked(tx, sql.KEYS, [s.item.item_id for s in sightings], of_source=source)
        previous: dict[str, str] = {r.item_id: r.key for r in items}
        rows = self._rows(tx, {s.conversion.key for s in sightings} | set(previous.values()))
        moved = self._insert(tx, source, [s for s in sightings if s.conversion.key not in rows], now)
        for s in sightings:
            row = rows.get(s.conversion.key)
            if row is not None and s.skip is None:
                moved += self._readmit(tx, row, s.conversion.lane, now)
            before = previous.get(s.item.item_id)
            if before is not None and before != s.conversion.key and before in rows:
                self._supersede(tx, rows[before], f"revision {s.item.revision} took its place", now)
        changing = ("revision", "key", "updated", "sensing", "tile", "bbox", "cloud_cover", "last_seen")
        self._put(tx, t.item, [_item_values(source, s, now) for s in sightings], ("source", "item_id"), *changing)
        return moved

    def _insert(self, tx: Connection, source: str, sightings: Sequence[Sighting], now: datetime) -> list[State]:
        """Inserts new conversions with event, outbox row and history: one statement for each table, not for each row."""
        states: list[State] = []
        conversions, events, outbox, history = [], [], [], []
        places: Counter[Place] = Counter()
        for s in sightings:
            c, fact = s.conversion, Fact.ADMITTED if s.skip is None else Fact.SKIPPED
            run = run_name(c, 1)
            state, key, cause = next_state(None, fact), c.key, s.skip.value if s.skip else ""
            conversions.append({
                "key": key, "source": source, "item_id": c.item_id, "revision": c.revision, "state": state.value, "attempt": 1,
                "failures": 0, "waits": 0, "lane": c.lane, "reason": cause or None, "cause": cause, "run": run,
                "output_zarr": c.output_zarr, "queued_at": now, "created_at": now, "changed_at": now,
            })  # fmt: skip
            events.append({"id": event_id(key, 1), "key": key, "attempt": 1, "body": build_event(c, 1), "created_at": now})
            if state is State.QUEUED:
                outbox.append(outbox_values(source, key, 1, c.lane, c.datetime, now))
            why = f"{c.kind} seen in {source}" if s.skip is None else f"rule {s.skip.value}"
            history.append(history_values(key, None, fact, state, 1, now, why))
            published = s.item.updated if c.lane == "live" else None
            tx.info[MOVED].append(Moved(source, c.item_id, key, c.lane, 1, run, None, fact, state, now, published, why))
            places[Place(source, c.lane, state, cause)] += 1
            states.append(state)
        for table, rows in ((t.conversion, conversions), (t.event, events), (t.outbox, outbox), (t.history, history)):
            if rows:
                tx.execute(sql.into(table), rows)
        self._count(tx, places)
        return states

    def _readmit(self, tx: Connection, row: ConversionRow, lane: Lane, now: datetime) -> list[State]:
        if row.state is State.SKIPPED:
            asked = None if lane == "live" else lane  # what comes back by itself keeps its lane
            return [self._move(tx, row, Move(Fact.ADMITTED, "the source's rules admit it now", lane=asked), now)]
        if row.state in FINAL:  # this very revision was here before another one; what stands under its name now is the other's
            return [self._move(tx, row, Move(Fact.REPLAYED, "the item returned to an earlier revision"), now)]
        return []

    def _supersede(self, tx: Connection, old: ConversionRow, why: str, now: datetime) -> None:
        # a run in flight, or one that a post without an answer may have started, is left alone: it is waited for, so that the
        # newer revision's run cannot be overtaken by it
        posted = old.state is State.QUEUED and tx.execute(sql.POSTS, {"of_key": old.key}).scalar()
        if old.state is State.DEAD or (old.state is State.QUEUED and not posted):
            self._move(tx, old, Move(Fact.SUPERSEDED, why, reason=SkipReason.SUPERSEDED), now)

    # -- backfills -----------------------------------------------------------------------------------------------------

    def order(self, order: Order) -> None:
        """Keeps what a backfill of a source asks for, in place of what an earlier one did."""
        values = asdict(order)
        with self._write() as tx:
            self._put(tx, t.backfill, [values], ("source",), *sorted(values.keys() - {"source"}))

    def hold_back(self, source: str, why: str) -> None:
        """Stops sending a source's backfill."""
        self._amend(source, {"held": why})

    def trust(self, source: str) -> None:
        """Notes that a backfill's canary went well: the rest may go."""
        self._amend(source, {"canary": 0})

    def _amend(self, source: str, values: Mapping[str, Any]) -> None:
        with self._write() as tx:
            tx.execute(update(t.backfill).where(t.backfill.c.source == source).values(values))


def _item_values(source: str, s: Sighting, now: datetime) -> dict[str, Any]:
    item = s.item
    return {
        "source": source, "item_id": item.item_id, "revision": item.revision, "key": s.conversion.key, "updated": item.updated,
        "sensing": item.datetime, "tile": item.tile, "bbox": list(item.bbox), "cloud_cover": item.cloud_cover,
        "first_seen": now, "last_seen": now,
    }  # fmt: skip
