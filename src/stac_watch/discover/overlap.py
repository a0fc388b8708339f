"""How late items become visible, and how far before the cursor a poll reads again because of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from stac_watch.config.model import Source

SHORTEST_OVERLAP = timedelta(minutes=15)  # at 1,300 items a day about 14 rows are read twice
FIRST_OVERLAP = timedelta(hours=1)  # while too few new items were seen to say how late they come
MEASURED = 100  # new items; 1,300 a day are there after two hours
LONGEST_OVERLAP = timedelta(hours=24)  # what is later is back-dated, not late: the sweep's business
DATETIME_OVERLAP = timedelta(days=3)  # without a change stamp: items appear hours to days after their acquisition
LATEST_BUCKET = 17  # 2^16 s = 18 h


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
    total, seen = sum(lateness.values()), 0
    for bucket in sorted(lateness):
        seen += lateness[bucket]
        if seen * 1000 >= total * 999:
            worst = timedelta(seconds=2**bucket) if bucket else timedelta()
            return min(max(2 * worst, SHORTEST_OVERLAP if total >= MEASURED else FIRST_OVERLAP), LONGEST_OVERLAP)
    return FIRST_OVERLAP


def overlap_of(source: Source, stamp: str, lateness: Mapping[int, int]) -> timedelta:
    """Returns how far before the cursor is read again."""
    if source.poll.overlap != "auto":
        return source.poll.overlap
    return DATETIME_OVERLAP if stamp == "datetime" else auto_overlap(lateness)
