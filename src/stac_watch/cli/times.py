"""Times and sizes as people type them: `--start`, `--since`, `--sensed`, `--pace`; days are UTC. Pure; now is an argument.

Every function is told which option it reads, and its error names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from stac_watch.catalog.windows import DAY, floor_day
from stac_watch.config.values import parse_duration, parse_size
from stac_watch.model.errors import InputError
from stac_watch.model.stamps import parse_stamp


def read_range(start: str, end: str, now: datetime) -> tuple[datetime, datetime]:
    """Reads `--start` and `--end`, each a day, a month, an RFC 3339 time or a span before now; a day as the end is included.

    A span in days leads to the start of its day, and a day that is not over ends with today, so that the same command is the
    same range for a day: a backfill goes on.

    Raises:
        InputError: one is none of these, or nothing that is past lies between them.
    """
    with _option("--start"):
        days = _named(start, now)
        first = days[0] if days else _read_bound(start, now)
    with _option("--end"):
        days = _named(end, now)
        last = days[1] if days else _read_bound(end, now)
    return _past(first, last, now, f"nothing lies between --start={start} and --end={end}", ORDERED)


def read_days(text: str, now: datetime, option: str = "--sensed") -> tuple[datetime, datetime]:
    """Reads a day (`2026-08-01`, `yesterday`), a month (`2026-08`), two of them (`2026-06..2026-08`), or a span before now (`3d`).

    Returns:
        The first moment, and the first one after.

    Raises:
        InputError: it is none of these, or nothing that is past lies in it.
    """
    start, between, end = text.partition("..")
    with _option(option):
        first = _named(start, now)
        last = _named(end, now) if between else first
        begin = first[0] if first else _read_bound(start, now)
        until = last[1] if last else _read_bound(end, now) if between else now
        remedy = "write what is past, the earlier first: yesterday, 2026-06..2026-08, 3d"
        return _past(begin, until, now, f"nothing that is past lies in {text!r}", remedy)


ORDERED = "--start must be before --end, and before now: two days, times, or spans before now (--start=30d --end=1d)"


def _past(first: datetime, last: datetime, now: datetime, said: str, hint: str) -> tuple[datetime, datetime]:
    last = min(last, floor_day(now) + DAY)
    if first >= min(last, now):
        raise InputError(said, hint=hint)
    return first, last


@contextmanager
def _option(name: str) -> Iterator[None]:
    """Names the option in an error about its value."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error.message}", hint=error.hint) from None


def _named(text: str, now: datetime) -> tuple[datetime, datetime] | None:
    """Returns the start and the end of a day or month by its name, in UTC; None for what is neither."""
    text = text.strip().lower()
    text = {"today": f"{floor_day(now):%Y-%m-%d}", "yesterday": f"{floor_day(now) - DAY:%Y-%m-%d}"}.get(text, text)
    month = re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text, re.ASCII) is not None
    if not month and not _is_day(text):
        return None
    first = read_moment(f"{text}-01" if month else text)
    try:
        return first, (first + 31 * DAY).replace(day=1) if month else first + DAY
    except OverflowError:
        raise InputError(f"{text} is the end of the calendar", hint="name a day that is past") from None


def _read_bound(text: str, now: datetime) -> datetime:
    moment = _read_moment_or_span(text, now)
    in_days = text.strip().endswith("d")
    return moment.replace(hour=0, minute=0, second=0, microsecond=0) if in_days else moment


def read_since(text: str, now: datetime, option: str = "--since") -> datetime:
    """Reads a span before now (`10h`, `3d`), the start of a day or month, or an RFC 3339 time.

    Raises:
        InputError: it is none of these.
    """
    with _option(option):
        return _read_moment_or_span(text, now)


def _read_moment_or_span(text: str, now: datetime) -> datetime:
    try:
        return now - parse_duration(text)
    except ValueError:
        days = _named(text, now)
        return days[0] if days else read_moment(text)


def read_span(text: str, option: str = "--older-than") -> timedelta:
    """Reads a span of time, as in `90s`, `1h`, `3d`.

    Raises:
        InputError: it is none.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InputError(f"{option}: {text!r} is no span of time: {error}", hint="write 90s, 1h or 3d") from None


def read_size(text: str, option: str = "--pace") -> int:
    """Reads a number of bytes, as in `50M`, `1Gi`.

    Raises:
        InputError: it is none.
    """
    try:
        return parse_size(text)
    except ValueError as error:
        raise InputError(f"{option}: {text!r} is no number of bytes: {error}", hint="write 50M or 1Gi") from None


def read_moment(text: str) -> datetime:
    """Reads a day (its start, UTC) or an RFC 3339 time.

    Raises:
        InputError: it is neither.
    """
    moment = parse_stamp(f"{text}T00:00:00Z" if _is_day(text) else text)
    if moment is None:
        raise InputError(
            f"{text!r} is neither a day nor a time",
            hint="write 2025-10-01, 2025-10, yesterday, 2025-10-01T12:00:00Z, or a span before now: 30d, 10h",
        )
    return moment


def _is_day(text: str) -> bool:
    return re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) is not None
