"""Which span of the change stamp, or of the acquisition time, is asked next. Pure.

Windows are half-open, `[start, end)`. A live one is open to the future: whatever the clocks say, what can be seen is seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

AHEAD = timedelta(seconds=120)  # a writer's clock may run before the server's; two minutes cover badly kept ones
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)
FAR = datetime(9999, 1, 1, tzinfo=UTC)  # where no item is
LONG_AGO = datetime(1900, 1, 1, tzinfo=UTC)  # nor here; what cannot name the one may know the other
LATEST = FAR - timedelta(days=3_650)  # what a clock may say at most
EARLIEST = datetime(1, 1, 1, tzinfo=UTC)  # where a catalog does not say when it begins
LAUNCH = datetime(2015, 6, 23, tzinfo=UTC)  # of Sentinel-2A; what is dated before it has no time, or a wrong one: 0001, 1970


@dataclass(frozen=True)
class Span:
    """From a moment on, to another or open."""

    start: datetime
    end: datetime | None


@dataclass(frozen=True)
class Window:
    """Half-open span `[start, end)` of one property, whole seconds, aware."""

    field: str
    start: datetime
    end: datetime
    knee: datetime | None = None  # where a long one is halved first: before it lies nearly everything

    @property
    def seconds(self) -> int:
        """Length in whole seconds."""
        return int((self.end - self.start).total_seconds())


def floor_second(moment: datetime) -> datetime:
    """Returns the whole second that `moment` lies in, UTC."""
    return moment.astimezone(UTC).replace(microsecond=0)


def floor_day(moment: datetime) -> datetime:
    """Returns the start of the day that `moment` lies in, UTC."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def next_window(
    field: str, cursor: datetime, overlap: timedelta, server_now: datetime, *, origin: datetime | None = None
) -> Window:
    """Returns the window from the cursor, less the overlap, and on into the future; never from before the origin.

    Its knee is a little past the server's clock. A publisher's clock, or the server's own, may be hours off: an end there would
    delay what it stamps for so long.
    """
    start = cursor - overlap
    if origin is not None:
        start = max(start, min(origin, cursor))
    start = floor_second(start)
    return Window(field, start, FAR, knee=max(floor_second(min(server_now, LATEST) + AHEAD), start + SECOND))


def days(field: str, start: datetime, end: datetime) -> Iterator[Window]:
    """Yields windows of a day each, oldest first, that cover `[start, end)`; the first and the last may be shorter."""
    start, end = floor_second(start), floor_second(end)
    while start < end:
        stop = min(floor_day(start) + DAY, end)
        yield Window(field, start, stop)
        start = stop


def archive(start: datetime, end: datetime) -> Iterator[Window]:
    """Yields windows of the acquisition time that cover `[start, end)`: all that is before `LAUNCH` in one, then days."""
    early = min(LAUNCH, end)
    if start < early:
        yield Window("datetime", floor_second(start), floor_second(early))
    yield from days("datetime", max(start, early), end)


def bisect(window: Window) -> tuple[Window, Window] | None:
    """Splits a window that came back full, at its knee if it has one; None when it is one second already.

    What lies beyond a knee gets another one, a day further and then ever further: 8,000 years of the future are not halved.
    """
    if window.seconds <= 1:
        return None
    knee = window.knee
    if knee is None or not window.start < knee < window.end:
        middle = window.start + timedelta(seconds=window.seconds // 2)
        return Window(window.field, window.start, middle), Window(window.field, middle, window.end)
    further = max(DAY, 2 * min(knee - window.start, timedelta(days=365_000)))
    beyond = knee + further if window.end - knee > further else None
    return Window(window.field, window.start, knee), Window(window.field, knee, window.end, knee=beyond)


def bounds(window: Window, *, typed: bool = False, far: bool = True, fraction: bool = True) -> dict[str, Any]:
    """Returns the window as CQL2-JSON.

    Text comparison is what a server does that has no date-time queryable for the field. There `…13.5Z` < `…13Z`, because `.`
    sorts before `Z`; a bound without any suffix (`…13`) sorts before every way of writing that second, so `[…13, …14)` is right
    for `…13Z`, `…13.734678Z` and `…13+00:00`. Typed servers refuse or misread a bare second, so they get `.000000Z`.
    Literals are plain strings: `{"timestamp": …}` on a text property is HTTP 500 on pgstac 0.9 and 0.10.
    Where a year such as 9999 is none (`far`: times in nanoseconds end in 2262), or a fraction (`fraction`), they are left out.
    """
    suffix = (".000000Z" if fraction else "Z") if typed else ""
    low, high = (_written(m)[:19] + suffix for m in (window.start, window.end))
    prop = {"property": window.field}
    least, below = {"op": ">=", "args": [prop, low]}, {"op": "<", "args": [prop, high]}
    return least if window.end == FAR and not far else {"op": "and", "args": [least, below]}


def interval(window: Window | Span, *, far: bool = True, fraction: bool = True) -> str:
    """Returns the span as the value of `datetime`, whose two ends both belong to it; items keep microseconds.

    Without `far` an end, or a start, that no server of nanoseconds can name is left open. Without `fraction` it is in whole
    seconds, and begins the second that follows, too: what was met twice is known.
    """
    start = _written(window.start)
    if not fraction:
        start = f"{start[:19]}Z"
    if not far and window.start < LONG_AGO:
        start = ".."
    if window.end is None or (window.end == FAR and not far):
        return f"{start}/.."
    return f"{start}/{_written(window.end - MICROSECOND)}" if fraction else f"{start}/{_written(window.end)[:19]}Z"


def _written(moment: datetime) -> str:
    """Returns a time with microseconds and `Z`; strftime writes the year 1 as `1`, which no server takes."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def after(window: Window, value: str, item_id: str, *, descending: bool = False) -> dict[str, Any]:
    """Returns the keyset condition for going on inside one second: after this value, or at it and after this id.

    The first term is redundant and a hundred times faster on pgstac with an index (113 against 1,156 ms at 100,000 items).
    """
    prop, ident = {"property": window.field}, {"property": "id"}
    least, beyond = ("<=", "<") if descending else (">=", ">")
    return {
        "op": "and",
        "args": [
            {"op": least, "args": [prop, value]},
            {"op": "or", "args": [{"op": beyond, "args": [prop, value]}, {"op": beyond, "args": [ident, item_id]}]},
        ],
    }


def advance(cursor: datetime, window: Window, server_now: datetime) -> datetime:
    """Returns the cursor after a window was committed: never back, never past the server's own clock."""
    return max(cursor, min(window.end, floor_second(server_now)))
