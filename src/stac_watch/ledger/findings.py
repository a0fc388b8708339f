"""What a window tells besides its items: what can be read again, how late items were, what is missing or was there before.

Functions within a transaction: who calls them opens it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, Table, delete, func, select, update

from stac_watch.ledger import moves
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.moves import rows_of
from stac_watch.ledger.records import Findings, Move
from stac_watch.ledger.session import CHUNK, chunked
from stac_watch.model.event import relocated
from stac_watch.model.item import SkipReason, Unreadable
from stac_watch.model.states import Fact

MOST_UNREADABLE = 10_000  # of one source that are listed by name: 4 KB each
MORE = "(and more)"
"""Stands in the list for those that are not."""


def note(tx: Connection, source: str, found: Findings, now: datetime) -> None:
    """Writes down all of it but what is superseded, which goes before what takes its place."""
    if found.readable or found.cleared is not None:
        forget_unreadable(tx, source, found.readable, found.cleared)
    if found.lateness:
        rows = [{"source": source, "bucket": bucket, "n": n} for bucket, n in found.lateness.items()]
        tx.execute(sql.add(tx.dialect.name, t.lateness, ("source", "bucket")), rows)
    if found.preexisting:
        rows = [{"source": source, "item_id": i, "revision": trace} for i, trace in found.preexisting.items()]
        moves.put(tx, t.baseline, rows, ("source", "item_id"), "revision")
    if found.moved:
        rows = [{"source": source, "item_id": i, "at": now} for i in found.moved]
        moves.put(tx, t.moved, rows, ("source", "item_id"), "at")
    if found.places:
        _relocate(tx, source, found.places)
    if found.restamped:
        _restamp(tx, source, found.restamped, now)
    if found.present:
        _return(tx, source, found.present)
    if found.missing:
        rows = [
            {"source": source, "item_id": i, "missed_at": now, "sweeps": 1, "last_sweep": found.sweep, "withdrawn_at": None}
            for i in found.missing
        ]
        tx.execute(sql.miss(tx.dialect.name), rows)


def supersede(tx: Connection, source: str, found: Findings, now: datetime) -> None:
    """Skips items that a newer processing of the same acquisition takes the place of, unless a run of theirs may exist."""
    keys = {r.item_id: r.key for r in chunked(tx, sql.KEYS, list(found.superseded), of_source=source)}
    rows = rows_of(tx, keys.values())
    for item_id, key in keys.items():
        if rows[key].source == source:
            moves.skip(tx, rows[key], Move(Fact.SUPERSEDED, found.superseded[item_id], reason=SkipReason.SUPERSEDED), now)


def _relocate(tx: Connection, source: str, places: Mapping[str, str]) -> None:
    """Lets events that were never posted name the place where their product can be had now; the others stay as they went out."""
    keys = {r.key: r.item_id for r in chunked(tx, sql.KEYS, list(places), of_source=source)}
    for row in list(chunked(tx, sql.WAITING, list(keys))):
        body = relocated(bytes(row.body), places[keys[row.key]])
        if row.posts == 0 and body != row.body:
            tx.execute(sql.REWRITE, {"of_event": row.event_id, "rewritten": body})


def _restamp(tx: Connection, source: str, stamps: Mapping[str, tuple[datetime, str]], now: datetime) -> None:
    """Notes what is to be looked at: item id -> its new stamp, and where its product lies. A look answers all stamps before it."""
    rows = [
        {
            "source": source,
            "item_id": i,
            "stamp": stamp,
            "href": href,
            "since": now,
            "due": now,
            "tries": 0,
            "found": "",
            "looked_at": None,
        }
        for i, (stamp, href) in stamps.items()
    ]
    moves.put(tx, t.restamp, rows, ("source", "item_id"), "stamp", "href", "since", "due", "tries", "found", "looked_at")


def _return(tx: Connection, source: str, item_ids: Collection[str]) -> None:
    """Notes that items are there again; of an output that was marked meanwhile `stac-watch retire` takes the mark away."""
    a = t.absent.c
    marked = {r.item_id for r in chunked(tx, sql.MARKED, list(item_ids), of_source=source)}
    if marked:
        tx.execute(update(t.absent).where(a.source == source, a.item_id.in_(marked)).values(withdrawn_at=None, sweeps=0))
    _delete(tx, t.absent, source, set(item_ids) - marked)


def note_unreadable(tx: Connection, source: str, bad: Sequence[Unreadable], now: datetime) -> int:
    """Writes down what cannot be read, and returns of how many that was not known.

    So many of a source are listed, and that there are more: what one catalog invents fills no disk.
    """
    u = t.unreadable.c
    named = {b.item_id: b.why for b in bad}
    there = tx.execute(select(func.count()).where(u.source == source)).scalar_one()
    known = {r.item_id for r in chunked(tx, sql.UNREADABLE_OF, list(named), of_source=source)}
    fresh = [item_id for item_id in named if item_id not in known]
    if there + len(named) > MOST_UNREADABLE:
        room = max(0, MOST_UNREADABLE - there)
        named = {i: why for i, why in named.items() if i in known or i in fresh[:room]}
        if len(fresh) > room:
            named[MORE] = f"more than {MOST_UNREADABLE} items of this source cannot be read; the others are not listed"
    rows = [{"source": source, "item_id": i, "why": why, "first_seen": now, "last_seen": now} for i, why in named.items()]
    moves.put(tx, t.unreadable, rows, ("source", "item_id"), "why", "last_seen")
    return len(fresh)


def forget_unreadable(tx: Connection, source: str, item_ids: Collection[str], names: tuple[str, str] | None = None) -> None:
    """Forgets that items could not be read: by id, and what has a name in `[low, high)`."""
    bad = set(tx.execute(sql.UNREADABLE, {"of_source": source}).scalars())
    well = [i for i in bad if i in item_ids or (names is not None and names[0] <= i < names[1])]
    _delete(tx, t.unreadable, source, well)


def _delete(tx: Connection, table: Table, source: str, item_ids: Collection[str]) -> None:
    ids = list(item_ids)
    for start in range(0, len(ids), CHUNK):
        tx.execute(delete(table).where(table.c.source == source, table.c.item_id.in_(ids[start : start + CHUNK])))
