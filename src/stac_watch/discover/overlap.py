"""How late items become visible, and how far before the cursor a poll reads again because of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

from stac_watch.catalog.windows import SECOND
from stac_watch.config.model import Source

SHORTEST_OVERLAP = timedelta(minutes=15)  # at 1,300 items a day about 14 rows are read twice
FIRST_OVERLAP = timedelta(hours=1)  # while too few new items were seen to say how late they come
MEASURED = 100  # new items; 1,300 a day are there after two hours
LONGEST_OVERLAP = timedelta(hours=24)  # what is later is back-dated, not late: the sweep's business
DATETIME_OVERLAP = timedelta(days=3)  # without a change stamp: items appear hours to days after their acquisition
LATEST_BUCKET = 17  # 2^16 s = 18 h
SHORTEST_HOT = timedelta(seconds=30)
ROUND = 60  # polls in which the overlap is read again once
TURNS = 15  # polls of a round that read a part of it: in pages that are worth a request
LONGEST_ROUND = timedelta(minutes=10)  # what is later than nearly all is found that late at most


def lateness_bucket(cursor: datetime, stamp: datetime) -> int | None:
    """Returns how far before the cursor a new item is stamped: 0 = not at all, n = less than 2^n s; None = too far to be late.

    Not "first seen less stamp": that would also measure how long the watcher slept.
    """
    seconds = (cursor - stamp).total_seconds()
    if seconds <= 0:
        return 0
    bucket = max(1, int(seconds).bit_length())
    return bucket if bucket <= LATEST_BUCKET else None


def auto_overlap(lateness: Mapping[int, int]) -> timedelta:
    """Returns twice the lateness that 99.9 % of new items stay below, 15 minutes to 24 hours; at first an hour at least."""
    worst = _below(lateness, 999)
    if worst is None:
        return FIRST_OVERLAP
    return min(max(2 * worst, SHORTEST_OVERLAP if sum(lateness.values()) >= MEASURED else FIRST_OVERLAP), LONGEST_OVERLAP)


def _below(lateness: Mapping[int, int], thousandths: int) -> timedelta | None:
    """Returns the lateness that so many of a thousand new items stay below; None where none was seen."""
    total, seen = sum(lateness.values()), 0
    for bucket in sorted(lateness):
        seen += lateness[bucket]
        if seen * 1000 >= total * thousandths:
            return timedelta(seconds=2**bucket) if bucket else timedelta()
    return None


def overlap_of(source: Source, stamp: str, lateness: Mapping[int, int]) -> timedelta:
    """Returns how far before the cursor is read again."""
    if source.poll.overlap != "auto":
        return source.poll.overlap
    return DATETIME_OVERLAP if stamp == "datetime" else auto_overlap(lateness)


def hot_of(lateness: Mapping[int, int], overlap: timedelta) -> timedelta:
    """Returns how far before the cursor each poll reads: where 99 % of what comes late is, half a minute at least.

    The rest of the overlap is read in turns. Until it is known how late this catalog is, every poll reads all of it.
    """
    usual = _below(lateness, 990)
    if usual is None or sum(lateness.values()) < MEASURED:
        return overlap
    return min(max(usual, SHORTEST_HOT), overlap)


def round_of(source: Source) -> timedelta:
    """Returns within what time each second of the overlap is read again."""
    return min(ROUND * source.poll.interval, LONGEST_ROUND)


def next_turn(again: datetime, end: datetime, gap: timedelta, left: timedelta, lasts: timedelta) -> datetime:
    """Returns up to where this poll reads the overlap again, so that its round ends in time: `again` where a later one can do it.

    Args:
        again: how far the round got.
        end: where it ends.
        gap: since the last poll; the next one is taken to be as far away.
        left: until the round is to be over.
        lasts: how long a round is.
    """
    if gap >= left:
        return end
    turn = lasts / TURNS
    if math.ceil((left - gap) / turn) == math.ceil(left / turn):
        return again
    part = (end - again) * (max(gap, turn) / left)
    return min(end, again + max(SECOND, timedelta(seconds=math.ceil(part.total_seconds()))))
