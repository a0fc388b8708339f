"""What sightings lead to: new conversions with event, outbox row and history; old ones that come back or are superseded.

Functions within a transaction: who calls them opens it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from stac_watch.ledger import moves, rivalry
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.moves import rows_of
from stac_watch.ledger.records import NO_RIVALS, ConversionRow, Move, Moved, Place, Rivals, Sighting
from stac_watch.ledger.session import MOVED, chunked
from stac_watch.model.errors import IdentityError
from stac_watch.model.event import Conversion, Kind, Lane, build_event, fence_of, run_name
from stac_watch.model.forms import Form
from stac_watch.model.identity import event_id
from stac_watch.model.item import Item, SkipReason
from stac_watch.model.states import FINAL, Fact, State, next_state

NEWS: dict[Kind, str] = {"create": "new item", "replace": "new revision or recipe", "delete": "item taken out"}
"""What an event's kind is called in a conversion's history."""
AFTER_ADMISSION = frozenset(
    r.value for r in (SkipReason.WITHDRAWN, SkipReason.SUPERSEDED, SkipReason.RETIRED, SkipReason.LIFETIME_OVER)
)
"""Skipped for what happened later: some source had admitted it before."""


def admit(tx: Connection, source: str, sightings: Sequence[Sighting], now: datetime, rivals: Rivals = NO_RIVALS) -> list[State]:
    """Applies sightings of different items; returns the states that they led to, none where nothing moved.

    One item and one recipe are one conversion, whichever sources see it: it is of the first that admitted it, and what another
    thinks of it neither moves it nor takes its place.
    """
    items = chunked(tx, sql.KEYS, [s.item.item_id for s in sightings], of_source=source)
    previous: dict[str, str] = {r.item_id: r.key for r in items}
    rows = rows_of(tx, {s.conversion.key for s in sightings} | set(previous.values()))
    _require_distinct(sightings, rows)
    before = {s.item.item_id: rows.get(previous.get(s.item.item_id, "")) for s in sightings}
    sightings = rivalry.settled(tx, sightings, before, rivals, now) if rivals else sightings
    sightings = [s for s in sightings if s.conversion.key in rows or not _skipped_before(s, before[s.item.item_id])]
    sightings = [_fenced(s, before[s.item.item_id], now) for s in sightings]
    if not sightings:
        return []
    changing = ("revision", "trace", "key", "updated", "sensing", "tile", "bbox", "cloud_cover", "last_seen")
    moves.put(tx, t.item, [item_values(source, s.item, s.conversion.key, now) for s in sightings], ("source", "item_id"), *changing)
    moved = _insert(tx, source, [s for s in sightings if s.conversion.key not in rows], now)
    for s in sightings:
        row, old = rows.get(s.conversion.key), before[s.item.item_id]
        if row is not None and s.skip is None:
            moved += _readmit(tx, row, s.conversion, old, now)
        if old is not None and old.key != s.conversion.key and (s.skip is None or old.source == source):
            what = f"revision {s.item.revision}" if old.revision != s.item.revision else "another recipe"
            why = f"{what} took its place"
            moves.skip(tx, old, Move(Fact.SUPERSEDED, why, reason=SkipReason.SUPERSEDED), now)
    return moved


def _require_distinct(sightings: Sequence[Sighting], rows: Mapping[str, ConversionRow]) -> None:
    """Makes sure that no item takes another's conversion for its own: a key has 80 bits of a hash, and says nothing of chance.

    Raises:
        IdentityError: an item has another one's key.
    """
    owners = {key: row.item_id for key, row in rows.items()}
    for s in sightings:
        owner = owners.setdefault(s.conversion.key, s.item.item_id)
        if owner != s.item.item_id:
            raise IdentityError(
                f"item {s.item.item_id!r} has the key {s.conversion.key} that item {owner!r} has: it is not converted",
                hint="two ids were made to collide: tell the catalog's operator; a change of item or recipe gives it another key",
            )


def _skipped_before(s: Sighting, before: ConversionRow | None) -> bool:
    """Tells whether this very revision is skipped already, under the key of another recipe: it is not skipped twice."""
    return s.skip is not None and before is not None and (before.state, before.revision) == (State.SKIPPED, s.item.revision)


def _fenced(s: Sighting, before: ConversionRow | None, now: datetime) -> Sighting:
    """Puts what was seen behind the revision that it follows, whatever the catalog's clock says."""
    if before is None or before.key == s.conversion.key:
        return s
    return replace(s, conversion=replace(s.conversion, fence=fence_of(s.item.updated, now, before.fence)))


def _insert(tx: Connection, source: str, sightings: Sequence[Sighting], now: datetime) -> list[State]:
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
            "output_zarr": c.output_zarr, "fence": c.fence, "queued_at": now, "created_at": now, "changed_at": now,
        })  # fmt: skip
        events.append({"id": event_id(key, 1), "key": key, "attempt": 1, "body": build_event(c, 1), "created_at": now})
        if state is State.QUEUED:
            outbox.append(moves.outbox_values(source, key, 1, c.lane, c.datetime, now))
        why = f"{NEWS[c.kind]} in {source}" if s.skip is None else f"rule {s.skip.value}"
        history.append(moves.history_values(key, None, fact, state, 1, now, why))
        published = s.item.updated if c.lane == "live" else None
        tx.info[MOVED].append(Moved(source, c.item_id, key, c.lane, 1, run, None, fact, state, now, published, why, c.form))
        places[Place(source, c.lane, state, cause)] += 1
        states.append(state)
    for table, rows in ((t.conversion, conversions), (t.event, events), (t.outbox, outbox), (t.history, history)):
        if rows:
            tx.execute(sql.into(table), rows)
    moves.count(tx, places)
    return states


def _readmit(tx: Connection, row: ConversionRow, asked: Conversion, before: ConversionRow | None, now: datetime) -> list[State]:
    """Queues what rules kept out until now, and what is the item's revision once more; nothing else moves what is there."""
    if row.cause == SkipReason.LIFETIME_OVER and asked.lane == "live":
        return []  # whichever source sees it
    if row.state is State.SKIPPED:
        lane = row.lane if asked.lane == "live" else asked.lane  # what comes back by itself keeps its lane
        reason = "backfill" if lane == "backfill" else "updated"
        stays = asked.source_name not in ("", row.source) and row.cause in AFTER_ADMISSION
        anew = None if stays else replace(asked, lane=lane, reason=reason)
        admitted = Move(Fact.ADMITTED, "the source's rules admit it now", lane=lane, fence=asked.fence, conversion=anew)
        return [moves.apply(tx, row, admitted, now)]
    # another source may have seen it return before, and asked for it
    returned = before is not None and before.key != row.key and before.queued_at >= row.queued_at
    if row.state in FINAL and returned:  # what stands under its name now is the other's
        hosts = asked.allowed_hosts if asked.source_name in ("", row.source) else ""
        wanted: Lane | None = None if asked.lane == "live" else asked.lane
        why = "the item returned to an earlier revision, or to the recipe of then"
        # of a finished store neither its item nor the output's marker tells whether it was published anew meanwhile
        overwrite = asked.form == Form.GEOZARR and row.state is State.DONE
        again = Move(Fact.REPLAYED, why, lane=wanted, fence=asked.fence, allowed_hosts=hosts, overwrite=overwrite)
        return [moves.apply(tx, row, again, now)]
    return []


def item_values(source: str, item: Item, key: str, now: datetime) -> dict[str, Any]:
    """Returns a row of the table `item`; `key` is that of its current conversion."""
    return {
        "source": source, "item_id": item.item_id, "revision": item.revision, "trace": item.trace or None, "key": key,
        "updated": item.updated, "sensing": item.datetime, "tile": item.tile, "bbox": list(item.bbox),
        "cloud_cover": item.cloud_cover, "first_seen": now, "last_seen": now,
    }  # fmt: skip
