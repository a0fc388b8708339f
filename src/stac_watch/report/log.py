"""What a watcher does as JSON for whoever collects logs: one document on one line, whatever other people's texts hold."""

from __future__ import annotations

import json
from datetime import datetime

from stac_watch.ledger.records import Moved
from stac_watch.model.errors import StacWatchError
from stac_watch.model.stamps import stamp
from stac_watch.model.states import State

LEVEL = {State.FAILED: "error"}


def as_line(moved: Moved) -> str:
    """Returns a move; `seconds` are those in the state that it left, of a new live item those since its publication."""
    return json.dumps({
        "time": stamp(moved.at), "level": LEVEL.get(moved.dst, "info"), "event": "moved", "source": moved.source,
        "item": moved.item_id, "key": moved.key, "attempt": moved.attempt, "run": moved.run, "lane": moved.lane,
        "from": moved.src.value if moved.src else None, "fact": moved.fact.value, "to": moved.dst.value,
        "seconds": round((moved.at - moved.since).total_seconds(), 3) if moved.since else None, "why": moved.why,
    })  # fmt: skip


def trouble_line(name: str, error: StacWatchError, now: datetime) -> str:
    """Returns what is wrong with a source or the engine."""
    return json.dumps({
        "time": stamp(now), "level": "warning", "event": "trouble", "name": name, "why": error.message, "hint": error.hint,
    })  # fmt: skip


def over_line(name: str, now: datetime) -> str:
    """Returns that a source, the engine or the ledger works again."""
    return json.dumps({"time": stamp(now), "level": "info", "event": "over", "name": name})


def standby_line(holder: str, now: datetime) -> str:
    """Returns that another watcher has the ledger."""
    return json.dumps({"time": stamp(now), "level": "info", "event": "standby", "holder": holder})
