"""Whose turn it is: how the room for runs is shared between lanes and sources, and when a backfill stops. Pure.

Shares are of the runs in flight, not of the turns taken: a slot that comes free once a minute must not always go to the same lane.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from stac_watch.ledger.records import Order, Queue
from stac_watch.model.event import PRIORITY, Lane

WEIGHT: dict[Lane, int] = {"replay": 4, "live": 4, "backfill": 1}
"""While all wait: of nine slots four each for what people asked for and what is new, one for the archive. Alone, a lane has all."""


def next_queue(waiting: Collection[Queue], in_flight: Mapping[Queue, int], caps: Mapping[str, int]) -> Queue | None:
    """Returns the waiting queue that is furthest below its share; None when nothing may go.

    `caps` is the most runs in flight of a source, where it has a limit of its own.
    """
    lanes, sources = dict.fromkeys(WEIGHT, 0), dict.fromkeys((q.source for q in waiting), 0)
    for queue, runs in in_flight.items():
        lanes[queue.lane] += runs
        sources[queue.source] = sources.get(queue.source, 0) + runs
    free = [q for q in waiting if sources[q.source] < caps.get(q.source, sources[q.source] + 1)]
    return min(
        free,
        key=lambda q: ((lanes[q.lane] + 1) / WEIGHT[q.lane], -PRIORITY[q.lane], sources[q.source], q.source),
        default=None,
    )


def reserved(sources: Collection[str], room: int, own: Mapping[str, int]) -> dict[str, int]:
    """Returns the most runs in flight of each source: so many that each other source finds one slot free, whatever this one holds.

    At most half of the room is kept free in this way. A source with a limit of its own has that.

    Args:
        sources: their names.
        room: the most runs in flight of all.
        own: limits of their own.
    """
    kept = min(len(sources) - 1, room // 2)
    return {name: own.get(name, max(1, room - kept)) for name in sources}


def allowed(order: Order, *, done: int, failed: int, in_flight: int, room: int) -> int | str:
    """Returns how many more events of a backfill may go out now, or the sentence that says why none goes from now on.

    `done` and `failed` are counted since the order was given.
    """
    if order.max_failures is not None and failed >= order.max_failures:
        return f"{failed} of its conversions failed, {order.max_failures} were the limit"
    if order.canary and failed:
        return f"{failed} of the first {order.canary} failed"
    if order.canary and done < order.canary:
        return max(0, min(room, order.canary - done - in_flight))
    return room
