"""What others are told: the CloudEvents of outputs, and of what conversions fail with. Pure; the same input, the same bytes.

An output is created, replaced or deleted: its item, where outputs are registered, else the GeoZarr itself. A cause of failures is
told once, when it begins, and once when it is over, however many items fail with it.

Sources: CloudEvents 1.0.2 (structured mode); OGC API event types as eoapi-notifier emits them.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from stac_watch.model.errors import printable
from stac_watch.model.event import TYPE_PREFIX, Kind
from stac_watch.model.stamps import stamp

FAILED, RESOLVED = "conversion.failed", "conversion.resolved"
OUTPUT_SCHEMA, CAUSE_SCHEMA = "urn:stac-watch:output:1", "urn:stac-watch:cause:1"
_PASSED_ON = ("key", "revision", "datetime", "tile", "bbox", "output_zarr", "run", "title")  # as the conversion's event has them
LONGEST = 1000  # characters of an error that is passed on

GATHER = timedelta(minutes=1)
"""Failures of one cause come together: how long the first is waited on, so that the count says something."""
QUIET = timedelta(days=1)
"""After so long without another failure a cause is over, also where what failed is failed still."""


SETTLED = timedelta(hours=1)
"""After so long without any that is failed a cause is over: what was replayed may fail with it again."""


class DeliveryState(StrEnum):
    """Where one event stands with one sink."""

    WAITING = "waiting"  #: to be posted, or posted again
    DELIVERED = "delivered"  #: the sink took it
    REFUSED = "refused"  #: the sink answers everything but this: it is not posted any more


@dataclass(frozen=True)
class Audience:
    """Who is told of what."""

    installation: str
    sinks: Mapping[str, frozenset[str]]  # by name: the types that it gets; empty = all
    registers: bool  # whether outputs are registered: then an output is there for others when its item is

    def of(self, type_: str) -> list[str]:
        """Returns the sinks that get events of a type."""
        return [name for name, types in self.sinks.items() if not types or type_ in types]


@dataclass(frozen=True)
class Posting:
    """One event that waits for one sink."""

    sink: str
    announcement: int  # its number in the ledger: later ones are later
    event_id: str
    type: str
    topic: str
    body: bytes
    attempts: int
    due: datetime
    reason: str | None = None


@dataclass(frozen=True)
class DeliveryCount:
    """How many events are how far with a sink."""

    sink: str
    state: DeliveryState
    n: int
    since: datetime  # when the first of them was made


@dataclass(frozen=True)
class Incident:
    """Conversions of a source that fail with one cause."""

    source: str
    cause: str
    since: datetime  # when the first one failed
    last: datetime  # when the last one did, or was replayed
    n: int  # that are failed now
    first_item: str
    reason: str  # of the first one
    resolved_at: datetime | None = None  # since when it is over


def output_event(kind: Kind, asked: Mapping[str, Any], *, now: datetime, installation: str, target: str) -> tuple[str, str, bytes]:
    """Returns id, type and bytes of the event of an output.

    Args:
        kind: what became of it.
        asked: attributes and data of the conversion's own event.
        now: when that was.
        installation: whose output it is.
        target: URL of the collection where it is registered; empty = nowhere.
    """
    data = asked["data"]
    type_, item_id = f"{TYPE_PREFIX}{kind}", str(data["item_id"])
    event_id = hashlib.sha256(f"{data['key']} {type_} {now.isoformat()} {target}".encode()).hexdigest()[:32]
    told = {name: data[name] for name in _PASSED_ON if name in data} | {
        "item_id": item_id, "source_name": data.get("source_name", ""), "source_item_href": data.get("item_href", ""),
        "collection": target.rpartition("/")[2] if target else data["collection"],
        "item_href": f"{target}/items/{quote(item_id, safe='')}" if target else "", "installation": installation,
    }  # fmt: skip
    source = target or str(asked["source"])
    return event_id, type_, _event(event_id, type_, source, item_id, now, OUTPUT_SCHEMA, told)


def cause_event(incident: Incident, *, now: datetime, installation: str, why: str = "") -> tuple[str, str, bytes]:
    """Returns id, type and bytes of the event of a cause of failures: that it began or, with a `why`, that it is over."""
    type_ = RESOLVED if incident.resolved_at is not None else FAILED
    again = f"stac-watch replay --error {shlex.quote(incident.cause)} --yes"
    told = {
        "source_name": incident.source, "cause": incident.cause, "count": incident.n, "first_item": incident.first_item,
        "error": printable(incident.reason, LONGEST), "since": stamp(incident.since), "last": stamp(incident.last),
        "next": f"stac-watch explain {incident.first_item}" if type_ == FAILED else "", "again": again if type_ == FAILED else "",
        "why": why, "installation": installation,
    }  # fmt: skip
    about = f"{incident.source} {incident.cause} {stamp(incident.since)}"
    event_id = hashlib.sha256(f"{installation} {type_} {about}".encode()).hexdigest()[:32]
    source = f"urn:stac-watch:{installation}:{incident.source}"
    return event_id, type_, _event(event_id, type_, source, incident.cause, now, CAUSE_SCHEMA, told)


def _event(event_id: str, type_: str, source: str, subject: str, now: datetime, schema: str, data: Mapping[str, Any]) -> bytes:
    attributes = {
        "specversion": "1.0", "id": event_id, "type": type_, "source": source, "subject": subject, "time": stamp(now),
        "datacontenttype": "application/json", "dataschema": schema,
    }  # fmt: skip
    return json.dumps({**attributes, "data": dict(data)}).encode()
