"""Times as STAC, CloudEvents and our JSON write them: RFC 3339. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta


def stamp(value: datetime) -> str:
    """Returns an RFC 3339 time in UTC with `Z`, microseconds only where there are any."""
    text = value.astimezone(UTC).isoformat(timespec="microseconds" if value.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def ordered_stamp(value: datetime) -> str:
    """Returns a time that sorts as text as it does in time: always UTC, always microseconds."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_stamp(value: object) -> datetime | None:
    """Returns an aware datetime for an RFC 3339 string (catalogs mix `…13Z`, `….734678Z` and `+00:00`), else None.

    RFC 3339 allows `t` and `z` in lower case, and 60 as a leap second, which is the second after 59 here.
    """
    if not isinstance(value, str):
        return None
    text, leap = value.upper(), timedelta(0)
    if ":60" in text and (found := _LEAP.match(text)):
        text, leap = f"{found[1]}:59{found[2]}", timedelta(seconds=1)
    try:
        parsed = datetime.fromisoformat(text) + leap
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):  # overflow: year 1 or 9999 with an offset that leads out of the calendar
        return None


_LEAP = re.compile(r"(.*T\d\d:\d\d):60(\D.*|)$")
