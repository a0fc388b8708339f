"""Times and durations as people read them. UTC, and it says so."""

from __future__ import annotations

from datetime import UTC, datetime

from stac_watch.model.stamps import stamp

YEAR = 330  # days: a month's name alone says which one is meant


def when(moment: datetime | None) -> str:
    """Returns a time in whole seconds."""
    return stamp(moment.replace(microsecond=0)) if moment is not None else "-"


def minute(moment: datetime) -> str:
    """Returns a time in whole minutes: what stands in the page only because time passes should not make it another one."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def clock(moment: datetime, now: datetime) -> str:
    """Returns the hour and minute of today, with the day of another one."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    return f"{moment:%H:%M} UTC" if moment.date() == now.date() else minute(moment)


def short(moment: datetime, now: datetime) -> str:
    """Returns a time as a table has room for: of today the hour, of this year the day too, else the day alone. UTC."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    if moment.date() == now.date():
        return f"{moment:%H:%M}"
    return f"{moment.day} {moment:%b %H:%M}" if abs((now - moment).days) < YEAR else f"{moment:%Y-%m-%d}"


def span(seconds: float | None) -> str:
    """Returns a duration in the unit that people would use."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
