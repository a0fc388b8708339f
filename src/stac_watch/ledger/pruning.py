"""What may be forgotten: found, and removed a few hundred conversions at a time.

An item, a conversion, a count and a conversion's last event are never removed, and nothing of what is not final, or failed.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, LargeBinary, bindparam, delete, func, or_, select, text, type_coerce, update

from stac_watch.ledger import schema as t
from stac_watch.ledger.session import Session
from stac_watch.model.outcome import Check, Outcome
from stac_watch.model.states import State

FORGETTABLE = (State.DONE.value, State.SKIPPED.value, State.EXPIRED.value)
"""Failed ones keep everything: a person is still to look at them."""
MOVE_BYTES = 70  # of a row of the history besides its sentence


@dataclass(frozen=True)
class Bookmark:
    """How far a pass is: conversions of earlier states, and of this one up to here, were looked at."""

    state: str = FORGETTABLE[0]
    changed_at: datetime | None = None
    key: str = ""


@dataclass(frozen=True)
class Part:
    """What a part of the conversions has that nobody asks for."""

    looked_at: int
    keys: tuple[str, ...]  # conversions that have anything of it
    events: tuple[str, ...]  # of earlier attempts
    moves: tuple[int, ...]  # between the first and the last
    bodies: Mapping[str, bytes]  # last events by id, as they can be packed
    outcomes: Mapping[str, Outcome]  # outcomes by key, as they can be summed up
    bytes: int  # that this frees, indexes apart
    end: Bookmark | None  # where the next part begins; None when there is none


class Pruning:
    """What may be forgotten, found and removed."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def forgettable(self, before: datetime, after: Bookmark, limit: int) -> Part:
        """Returns what there is to forget of the next `limit` conversions of a state that did not change since `before`."""
        c = t.conversion.c
        # a state at a time: its index is in the order in which they are read
        query = select(c.key, c.attempt, c.outcome, c.changed_at).where(c.state == after.state, c.changed_at < before)
        if after.changed_at is not None:
            beyond = or_(c.changed_at > after.changed_at, c.key > after.key)
            query = query.where(c.changed_at >= after.changed_at, beyond)
        with self._session.read() as tx:
            rows = tx.execute(query.order_by(c.changed_at, c.key).limit(limit)).all()
            part = _examined(tx, rows)
        if len(rows) == limit:
            return Part(len(rows), end=Bookmark(after.state, rows[-1].changed_at, rows[-1].key), **part)
        following = FORGETTABLE[FORGETTABLE.index(after.state) + 1 :]
        return Part(len(rows), end=Bookmark(following[0]) if following else None, **part)

    def forget(self, part: Part, before: datetime) -> Part:
        """Removes it, of those conversions that still have not changed; returns what was removed."""
        c = t.conversion.c
        with self._session.write() as tx:
            still = select(c.key, c.attempt, c.outcome).where(c.key.in_(part.keys), c.changed_at < before)
            rows = tx.execute(still.where(c.state.in_(FORGETTABLE))).all()
            found = Part(part.looked_at, end=part.end, **_examined(tx, rows))
            if found.events:
                tx.execute(delete(t.event).where(t.event.c.id.in_(found.events)))
            if found.moves:
                tx.execute(delete(t.history).where(t.history.c.id.in_(found.moves)))
            if found.bodies:
                pack = update(t.event).where(t.event.c.id == bindparam("which")).values(body=bindparam("packed"))
                tx.execute(pack, [{"which": which, "packed": packed} for which, packed in found.bodies.items()])
            if found.outcomes:
                cut = update(t.conversion).where(c.key == bindparam("which")).values(outcome=bindparam("summary"))
                tx.execute(cut, [{"which": which, "summary": summary} for which, summary in found.outcomes.items()])
            return found

    def file_size(self) -> tuple[int, int] | None:
        """Returns the bytes of the ledger's file, and those of them that are free for what comes; None where it is no file."""
        if self._session.engine.dialect.name != "sqlite":
            return None
        with self._session.read() as tx:
            pages, free, size = (
                int(tx.execute(text(f"PRAGMA {name}")).scalar_one()) for name in ("page_count", "freelist_count", "page_size")
            )
            return pages * size, free * size


def _examined(tx: Connection, rows: Sequence[Any]) -> dict[str, Any]:
    """Returns the fields of a `Part` for these conversions."""
    attempts = {row.key: row.attempt for row in rows}
    events, bodies, freed, keys = _events(tx, attempts)
    moves = _moves(tx, attempts)
    outcomes = {}
    for row in rows:
        if row.outcome is not None and (short := summary(row.outcome)) != row.outcome:
            outcomes[row.key] = short
            freed += len(json.dumps(row.outcome.document())) - len(json.dumps(short.document()))
    freed += sum(size for _, size, _ in moves)
    keys |= {key for _, _, key in moves} | outcomes.keys()
    return {
        "keys": tuple(sorted(keys)), "events": tuple(events), "moves": tuple(move for move, _, _ in moves), "bodies": bodies,
        "outcomes": outcomes, "bytes": freed,
    }  # fmt: skip


def _events(tx: Connection, attempts: Mapping[str, int]) -> tuple[list[str], dict[str, bytes], int, set[str]]:
    """Returns the events of earlier attempts, the packed bodies of the last ones, the bytes, and whose they are."""
    e = t.event.c
    raw = type_coerce(e.body, LargeBinary)
    query = select(e.id, e.key, e.attempt, raw.label("raw")).where(e.key.in_(attempts))
    earlier, bodies, freed, keys = list[str](), dict[str, bytes](), 0, set[str]()
    for row in tx.execute(query):
        body = bytes(row.raw)
        if row.attempt < attempts[row.key]:
            earlier.append(row.id)
            freed += len(body)
        elif body.startswith(b"{"):
            bodies[row.id] = zlib.compress(body, 9)
            freed += len(body) - len(bodies[row.id])
        else:
            continue
        keys.add(row.key)
    return earlier, bodies, freed, keys


def _moves(tx: Connection, keys: Collection[str]) -> list[tuple[int, int, str]]:
    """Returns the moves between the first and the last of each conversion: id, bytes, key."""
    h = t.history.c
    query = select(h.id, h.key, func.length(h.why).label("size")).where(h.key.in_(keys)).order_by(h.key, h.id)
    found: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for row in tx.execute(query):
        found[row.key].append((row.id, row.size + MOVE_BYTES, row.key))
    return [move for moves in found.values() for move in moves[1:-1]]


def summary(outcome: Outcome) -> Outcome:
    """Returns what is kept: what an audit, a plan and a page read. The rest stands in the conversion's row or its event."""
    return replace(
        outcome,
        checks=tuple(Check(check.name, check.verdict) for check in outcome.checks),
        stage="", run="", item_id="", source="", output_zarr="", groups=(), others={},
        empty=outcome.empty - {"stage", "run", "item_id", "source", "output_zarr", "groups"},
    )  # fmt: skip
