"""What was found of a lost ledger's conversions, written into a new one or one of yesterday: many in a transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from stac_watch.ledger import moves
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.admission import item_values
from stac_watch.ledger.moves import rows_of
from stac_watch.ledger.records import ConversionRow, Move, Place, Regained
from stac_watch.ledger.session import Session, chunked
from stac_watch.model.causes import fingerprint
from stac_watch.model.event import Lane
from stac_watch.model.identity import event_id
from stac_watch.model.states import Fact, State, next_state

LANE: Lane = "backfill"  # nobody knows any more how it came here; as live it would count as published just now
CHANGING = ("revision", "trace", "key", "updated", "sensing", "tile", "bbox", "cloud_cover", "last_seen")


class Rebuilding:
    """What of lost conversions is known already, and what is added."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def done_at(self, outputs: Collection[str]) -> set[str]:
        """Returns those of these outputs that a conversion which is done has written."""
        c = t.conversion.c
        query = select(c.output_zarr).where(c.state == State.DONE.value, sql.one_of(c.output_zarr))
        with self._session.read() as tx:
            return {r.output_zarr for r in chunked(tx, query, list(outputs))}

    def add(self, found: Sequence[Regained], now: datetime) -> int:
        """Adds what is not known, and ends what is known and was done after all; returns how many conversions that changed."""
        best = {r.key: r for r in sorted(found, key=lambda r: r.attempt)}
        with self._session.write() as tx:
            rows = rows_of(tx, best)
            new = [r for key, r in best.items() if key not in rows]
            ended = [(rows[key], r) for key, r in best.items() if key in rows and _was_done(rows[key], r)]
            for row, r in ended:
                why = "its output is there, and says that it is done"
                moves.apply(tx, row, Move(Fact.SUCCEEDED, why, outcome=r.outcome), now)
            _insert(tx, new, now)
            return len(new) + len(ended)


def _was_done(row: ConversionRow, found: Regained) -> bool:
    """Tells whether the ledger has forgotten that this attempt was done; a later one may be asked to make it again."""
    return found.fact is Fact.SUCCEEDED and row.state not in (State.DONE, State.EXPIRED) and found.attempt >= row.attempt


def _insert(tx: Connection, found: Sequence[Regained], now: datetime) -> None:
    current = _current(tx, found)
    conversions, events, history, items = [], [], [], dict[tuple[str, str], dict[str, Any]]()
    places: Counter[Place] = Counter()
    for r in sorted(found, key=lambda r: (r.fence, r.at)):
        state = next_state(State.QUEUED, r.fact)
        reason = (r.outcome.reason if r.outcome is not None else "") or None if state is State.FAILED else None
        cause = fingerprint(reason or "it gave no reason") if state is State.FAILED else ""
        conversions.append({
            "key": r.key, "source": r.source, "item_id": r.item.item_id, "revision": r.item.revision, "state": state.value,
            "attempt": r.attempt, "failures": 0, "waits": 0, "lane": LANE, "reason": reason, "cause": cause, "run": r.run,
            "output_zarr": r.output_zarr, "fence": r.fence or None, "outcome": r.outcome,
            "exit_code": r.outcome.code if r.outcome is not None else None, "queued_at": r.at, "created_at": r.at,
            "changed_at": r.at,
        })  # fmt: skip
        row = {"id": event_id(r.key, r.attempt), "key": r.key, "attempt": r.attempt, "body": r.body, "created_at": r.at}
        events.append(row)
        first = moves.history_values(r.key, None, Fact.ADMITTED, State.QUEUED, r.attempt, r.at, "found by `ledger rebuild`")
        why = "its output is there, and says that it is done" if r.fact is Fact.SUCCEEDED else f"its run {r.run} was found"
        history += [first, moves.history_values(r.key, State.QUEUED, r.fact, state, r.attempt, r.at, why)]
        places[Place(r.source, LANE, state, cause)] += 1
        name = (r.source, r.item.item_id)
        if current.get(name, "") <= r.fence:
            current[name] = r.fence
            items[name] = item_values(r.source, r.item, r.key, now)
    for table, rows in ((t.conversion, conversions), (t.event, events), (t.history, history)):
        if rows:
            tx.execute(sql.into(table), rows)
    if items:
        moves.put(tx, t.item, list(items.values()), ("source", "item_id"), *CHANGING)
    moves.count(tx, places)


def _current(tx: Connection, found: Sequence[Regained]) -> dict[tuple[str, str], str]:
    """Returns the fences of the current conversions of these items."""
    fences: dict[tuple[str, str], str] = {}
    for source in {r.source for r in found}:
        ids = [r.item.item_id for r in found if r.source == source]
        for row in chunked(tx, sql.CURRENT, ids, of_source=source):
            fences[source, row.item_id] = row.fence or ""
    return fences
