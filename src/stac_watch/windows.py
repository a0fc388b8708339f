"""Which span of the change stamp is asked next. Pure.

In: cursor, overlap, the server's own time. Out: half-open windows `[start, end)` in whole seconds, and their CQL2 bounds.
Never: I/O; a window that ends after the server's clock plus its allowance; a server token.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

AHEAD = timedelta(seconds=120)  # a writer's clock may run before the server's; two minutes cover badly kept ones
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Window:
    """Half-open span `[start, end)` of one property, whole seconds, aware."""

    field: str
    start: datetime
    end: datetime

    @property
    def seconds(self) -> int:
        """Length in whole seconds."""
        return int((self.end - self.start).total_seconds())


def floor_second(moment: datetime) -> datetime:
    """Returns the whole second that `moment` lies in, UTC."""
    return moment.astimezone(UTC).replace(microsecond=0)


def next_window(field: str, cursor: datetime, overlap: timedelta, server_now: datetime) -> Window:
    """Returns the window from the cursor, less the overlap, to a little past the server's clock."""
    start = floor_second(cursor - overlap)
    return Window(field, start, max(floor_second(server_now + AHEAD), start + SECOND))


def bisect(window: Window) -> tuple[Window, Window] | None:
    """Splits a window that came back full; None when it is one second already."""
    if window.seconds <= 1:
        return None
    middle = window.start + timedelta(seconds=window.seconds // 2)
    return Window(window.field, window.start, middle), Window(window.field, middle, window.end)


def bounds(window: Window, *, typed: bool = False) -> dict[str, Any]:
    """Returns the window as CQL2-JSON.

    Text comparison is what a server does that has no date-time queryable for the field. There `…13.5Z` < `…13Z`, because `.`
    sorts before `Z`; a bound without any suffix (`…13`) sorts before every way of writing that second, so `[…13, …14)` is right
    for `…13Z`, `…13.734678Z` and `…13+00:00`. Typed servers refuse or misread a bare second, so they get `.000000Z`.
    """
    suffix = ".000000Z" if typed else ""
    low, high = (m.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S") + suffix for m in (window.start, window.end))
    prop = {"property": window.field}
    return {"op": "and", "args": [{"op": ">=", "args": [prop, low]}, {"op": "<", "args": [prop, high]}]}


def after(window: Window, value: str, item_id: str) -> dict[str, Any]:
    """Returns the keyset condition for going on inside one second: after this value, or at it and after this id."""
    prop, ident = {"property": window.field}, {"property": "id"}
    return {
        "op": "and",
        "args": [
            {"op": ">=", "args": [prop, value]},
            {"op": "or", "args": [{"op": ">", "args": [prop, value]}, {"op": ">", "args": [ident, item_id]}]},
        ],
    }


def advance(cursor: datetime, window: Window, server_now: datetime) -> datetime:
    """Returns the cursor after a window was committed: never back, never past the server's own clock."""
    return max(cursor, min(window.end, floor_second(server_now)))
