"""Times and sizes as people type them: `--start`, `--end`, `--since`, `--pace`. Pure; now is an argument."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from stac_watch.catalog.windows import DAY, floor_day
from stac_watch.config.values import parse_duration, parse_size
from stac_watch.model.errors import InputError
from stac_watch.model.stamps import parse_stamp, stamp

if TYPE_CHECKING:
    pass


def read_range(start: str, end: str, now: datetime) -> tuple[datetime, datetime]:
    """Reads `--start` and `--end`, each a day, an RFC 3339 time or a span before now; a day as the end is included.

    A span in days leads to the start of its day, and a day that is not over ends with today, so that the same command is the
    same range for a day: a backfill goes on.

    Raises:
        InputError: one is none of these, or nothing that is past lies between them.
    """
    first, last = _read_bound(start, now), _read_bound(end, now) + timedelta(days=int(_is_day(end)))
    last = min(last, floor_day(now) + DAY)
    if first >= min(last, now):
        raise InputError(
            f"nothing lies between {stamp(first.replace(microsecond=0))} and {stamp(last.replace(microsecond=0))}",
            hint="--start is before --end, and before now: two days, times, or spans before now (--start=30d --end=1d)",
        )
    return first, last


def _read_bound(text: str, now: datetime) -> datetime:
    moment = read_since(text, now)
    in_days = text.strip().endswith("d")
    return moment.replace(hour=0, minute=0, second=0, microsecond=0) if in_days else moment


def read_since(text: str, now: datetime) -> datetime:
    """Reads `--since`: a span before now (`10h`, `3d`), a day, or an RFC 3339 time.

    Raises:
        InputError: it is none of these.
    """
    try:
        return now - parse_duration(text)
    except ValueError:
        return read_moment(text)


def read_span(text: str) -> timedelta:
    """Reads a span of time, as in `90s`, `1h`, `3d`.

    Raises:
        InputError: it is none.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InputError(f"{text!r} is no span of time: {error}", hint="write 90s, 1h or 3d") from None


def read_size(text: str) -> int:
    """Reads a number of bytes, as in `50M`, `1Gi`.

    Raises:
        InputError: it is none.
    """
    try:
        return parse_size(text)
    except ValueError as error:
        raise InputError(f"{text!r} is no number of bytes: {error}", hint="write 50M or 1Gi") from None


def read_moment(text: str) -> datetime:
    """Reads a day (its start, UTC) or an RFC 3339 time.

    Raises:
        InputError: it is neither.
    """
    moment = parse_stamp(f"{text}T00:00:00Z" if _is_day(text) else text)
    if moment is None:
        raise InputError(
            f"{text!r} is neither a day nor a time", hint="write 2025-10-01, 2025-10-01T12:00:00Z, or a span before now: 30d, 10h"
        )
    return moment


def _is_day(text: str) -> bool:
    return re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) is not None
