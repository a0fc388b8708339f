"""Telling others of outputs, in the transaction in which they change: what is written is told, and nothing else is.

Functions within a transaction. Who is told stands in its `info`; where nobody is, nothing is written.
"""

from __future__ import annotations

import json
from datetime import datetime

from sqlalchemy import Connection, insert, select

from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.session import ANNOUNCES
from stac_watch.model.announcement import Audience, DeliveryState, output_event
from stac_watch.model.event import TYPE_PREFIX, Kind
from stac_watch.model.states import State


def of_move(tx: Connection, source: str, item_id: str, key: str, before: State, after: State, now: datetime) -> None:
    """Tells of an output that is there, or no longer, where outputs are not registered; there its item is told of."""
    audience: Audience | None = tx.info.get(ANNOUNCES)
    if audience is None or audience.registers or State.DONE not in (before, after):
        return
    if after in (State.SKIPPED, State.EXPIRED):
        _output(tx, audience, item_id, key, "delete", "", now)
    elif after is State.DONE and tx.execute(sql.CURRENT_KEY, {"of_source": source, "of_item": item_id}).scalar() == key:
        a = t.announcement.c
        last = tx.execute(select(a.type).where(a.topic == item_id).order_by(a.id.desc()).limit(1)).scalar()
        there = last is not None and last != f"{TYPE_PREFIX}delete"
        _output(tx, audience, item_id, key, "replace" if there else "create", "", now)


def of_item(tx: Connection, item_id: str, key: str, kind: Kind, target: str, now: datetime) -> None:
    """Tells of an item that was registered in a collection, with another content, or taken out of it."""
    audience: Audience | None = tx.info.get(ANNOUNCES)
    if audience is not None:
        _output(tx, audience, item_id, key, kind, target, now)


def _output(tx: Connection, audience: Audience, item_id: str, key: str, kind: Kind, target: str, now: datetime) -> None:
    asked = tx.execute(sql.LAST_EVENT, {"of_key": key}).scalar()
    if asked is not None:
        event = output_event(kind, json.loads(asked), now=now, installation=audience.installation, target=target)
        tell(tx, audience, item_id, event, now)


def tell(tx: Connection, audience: Audience, topic: str, event: tuple[str, str, bytes], now: datetime) -> None:
    """Writes an event down (id, type, bytes), and for each sink that gets such ones that it waits."""
    event_id, type_, body = event
    values = {"event_id": event_id, "type": type_, "topic": topic, "body": body, "created_at": now}
    made = tx.execute(insert(t.announcement).values(values)).inserted_primary_key
    assert made is not None  # noqa: S101  # of one row there is one
    waits = {"announcement": made[0], "topic": topic, "state": DeliveryState.WAITING.value, "attempts": 0, "reason": None}
    rows = [{**waits, "sink": sink, "due": now, "changed_at": now} for sink in audience.of(type_)]
    if rows:
        tx.execute(insert(t.delivery), rows)
