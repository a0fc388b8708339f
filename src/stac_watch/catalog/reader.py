"""A window, read completely: whatever the server's limits are, and whichever single item it cannot serve.

It comes as leaves, oldest first, each one complete: a full page is not taken for a whole window, and no window is given up because
of one item in it, or because of a second that cannot be told apart: that is said, and the rest is read.

An item without an instant, with a start and an end, lies in every window of the acquisition time between the two. Halving does not
make fewer of these; such a window is walked by id.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from stac_watch.catalog.answers import BadAnswer, Rejected, TooLarge
from stac_watch.catalog.client import Catalog, ItemPage
from stac_watch.catalog.windows import SECOND, Window, after, bisect
from stac_watch.model.item import ItemDocument, Unreadable
from stac_watch.model.stamps import parse_stamp, stamp

_HIDDEN = "(unreadable) "
MOST = 500_000  # items of one window that cannot be halved; a bulk update gives as many the same stamp
AHEAD = 2  # pages of a window that wait to be compared
CAREFUL = 64  # items per request where one of them is known to break the answer


@dataclass(frozen=True)
class Leaf:
    """A window that was read completely, and what it holds."""

    window: Window
    documents: list[ItemDocument]
    server_now: datetime
    hidden: Unreadable | None = None  # items of it that the server itself cannot serve
    part: bool = False  # more of the same window comes next: nothing follows from what is not in this one


def leaves(catalog: Catalog, window: Window, limit: int, *, floor: datetime | None = None) -> Iterator[Leaf]:
    """Yields windows, oldest first, each read completely: a full page is bisected, a full second is walked by value and id.

    A request that the server cannot answer (5xx, a body that breaks off) is made smaller until what it cannot serve is alone.

    Raises:
        CatalogUnavailable: the server answers nothing at all.
    """
    size, pending = catalog.abilities.page(limit), [window]
    while pending:
        current = pending.pop()
        halves = bisect(current)
        try:
            page = catalog.search(current, limit=size, floor=floor)
            if not page.full:
                yield Leaf(current, list(page.items), page.server_now)
                continue
            if halves is None or _lasting(current, page.items):
                whole = yield from _walked(catalog, current, page, size, alone=halves is None)
                if whole:
                    continue
        except BadAnswer as error:
            if not isinstance(error, TooLarge) and not catalog.answers():  # an outage, not one item
                raise
            if halves is None:
                yield _around_poison(catalog, current, min(size, CAREFUL), error)
                continue
        pending += [halves[1], halves[0]] if halves else []


def hidden_name(field: str, second: datetime) -> str:
    """Returns what stands for the items of a second that the server cannot serve; the names of one field sort by time."""
    return f"{_HIDDEN}{field} {stamp(second)}"


def is_hidden(name: str) -> bool:
    """Tells such a name from an item's id."""
    return name.startswith(_HIDDEN)


def sweep_leaves(catalog: Catalog, windows: Iterable[Window], limit: int, *, workers: int) -> Iterator[Leaf]:
    """Yields the leaves of many windows, in order.

    Up to `workers` windows are asked at once, each some pages ahead: memory stays bounded, whatever a window holds.
    """
    pending, source = list[_Ahead](), iter(windows)
    try:
        pending += [_Ahead(catalog, w, limit) for w in islice(source, workers)]
        while pending:
            yield from pending[0].leaves()
            pending.pop(0)
            pending += [_Ahead(catalog, w, limit) for w in islice(source, 1)]
    finally:
        for ahead in pending:  # what follows begins its own
            ahead.end()


class _Ahead:
    """A window that is read in a daemon: a stop waits for a ThreadPoolExecutor's threads, so for a catalog's time-outs."""

    def __init__(self, catalog: Catalog, window: Window, limit: int) -> None:
        self._leaves = leaves(catalog, window, limit)
        self._found: queue.Queue[Leaf | BaseException | None] = queue.Queue(AHEAD)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="sweep", daemon=True)
        self._thread.start()

    def leaves(self) -> Iterator[Leaf]:
        """Yields what is read."""
        while (found := self._found.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found

    def end(self) -> None:
        """Ends it after the request that is under way."""
        self._over.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._found.get(timeout=0.05)

    def _read(self) -> None:
        try:
            for leaf in self._leaves:
                self._found.put(leaf)
                if self._over.is_set():
                    return
            self._found.put(None)
        except BaseException as error:  # noqa: BLE001  # carried to who asks for the leaves, and raised there
            self._found.put(error)


def _lasting(window: Window, items: list[ItemDocument]) -> bool:
    """Tells whether a full page of a window of the acquisition time holds items that both its halves would hold, too."""
    if window.field != "datetime":
        return False
    return any(isinstance(p := item.get("properties"), dict) and parse_stamp(p.get("datetime")) is None for item in items)


def _walked(catalog: Catalog, window: Window, page: ItemPage, limit: int, *, alone: bool) -> Generator[Leaf, None, bool]:
    """Reads on after a full page, by value and id or by id alone, and yields page by page: one second can hold a whole archive.

    Returns whether the window was read; if not, it can be halved instead.

    Args:
        catalog: where it is read.
        window: what the page is the first of.
        page: what came first.
        limit: items per request.
        alone: the window cannot be halved.

    Raises:
        BadAnswer: it has no end.
    """
    by_id = window.field == "datetime"  # from the first item again, in another order
    last, count = [] if by_id else list(page.items), len(page.items)
    try:
        for items in _by_id(catalog, window, limit) if by_id else _by_value(catalog, window, page, limit):
            if last:
                yield Leaf(window, last, page.server_now, part=True)
            last, count = list(items), count + len(items)
            if count > MOST:
                said = f"{catalog.api} shows more than {MOST} items with {window.field} {stamp(window.start)}, and no end"
                raise BadAnswer(said, hint="what was read is kept; ask the catalog's operator what these are")
    except _StuckError as error:
        covering = sum(_covers(item, window) for item in page.items)
        if not alone and covering < limit:
            return False
        why = f"{catalog.api} has more items with {window.field} {stamp(window.start)} than it returns at once, and {error}"
        seen = {str(item.get("id")): item for item in (*page.items, *last)} if by_id else {}
        hidden = Unreadable(hidden_name(window.field, window.start), why)
        yield Leaf(window, list(seen.values()) or last, page.server_now, hidden)
        return True
    yield Leaf(window, last, page.server_now)
    return True


def _covers(item: ItemDocument, window: Window) -> bool:
    """Tells whether an item lies in every part of a window of the acquisition time; without an end it goes on."""
    properties = item.get("properties")
    if window.field != "datetime" or not isinstance(properties, dict) or parse_stamp(properties.get("datetime")) is not None:
        return False
    start, end = parse_stamp(properties.get("start_datetime")), parse_stamp(properties.get("end_datetime"))
    return (start is None or start <= window.start) and (end is None or end >= window.end - SECOND)


def _by_value(catalog: Catalog, window: Window, page: ItemPage, limit: int) -> Iterator[list[ItemDocument]]:
    while page.full:
        following = _search(catalog, window, limit, _beyond(catalog, window, page))
        if following.items and following.items[0].get("id") == page.items[0].get("id"):
            raise _StuckError("the server ignores the condition that leads on")
        page = following
        if not page.items:
            return
        yield page.items


def _by_id(catalog: Catalog, window: Window, limit: int) -> Iterator[list[ItemDocument]]:
    """Yields pages in the order of ids, which no change of an item moves."""
    if not (catalog.abilities.filters and catalog.abilities.sorts):
        raise _StuckError("the server neither filters nor sorts")
    last, seen = "", set[str]()
    while True:
        page = _search(catalog, window, limit, {"op": ">", "args": [{"property": "id"}, last]} if last else None, by_id=True)
        ids = [i for item in page.items if isinstance(i := item.get("id"), str)]
        if not seen.isdisjoint(ids) or (page.full and not ids):
            raise _StuckError("the server ignores the condition that leads on")
        yield page.items
        if not page.full:
            return
        seen.update(ids)
        last = ids[-1]


def _search(catalog: Catalog, window: Window, limit: int, extra: dict[str, Any] | None, *, by_id: bool = False) -> ItemPage:
    try:
        return catalog.search(window, limit=limit, extra=extra, by_id=by_id)
    except Rejected as error:
        raise _StuckError(f"the server does not take the condition that leads on ({error.message})") from error


class _StuckError(Exception):
    """A window that cannot be read to its end."""


def _around_poison(catalog: Catalog, window: Window, limit: int, error: BadAnswer) -> Leaf:
    """Reads a second from both ends up to what breaks the answer."""
    found: dict[str, ItemDocument] = {}
    server_now: datetime | None = None
    whole = False
    for descending in (False, True):
        documents, moment, whole = _up_to_poison(catalog, window, limit, descending=descending)
        found |= {str(d.get("id")): d for d in documents}
        server_now = moment or server_now
        if whole:
            break
    hidden = None
    if not whole:
        where = f"{window.field} {stamp(window.start)}"
        why = f"the catalog cannot serve an item with {where}: {error.message}"
        hidden = Unreadable(hidden_name(window.field, window.start), why)
    return Leaf(window, list(found.values()), server_now or catalog.clock(), hidden)


def _up_to_poison(
    catalog: Catalog, window: Window, limit: int, *, descending: bool
) -> tuple[list[ItemDocument], datetime | None, bool]:
    documents: list[ItemDocument] = []
    server_now, size, condition = None, limit, None
    while True:
        try:
            page = catalog.search(window, limit=size, extra=condition, descending=descending, attempts=2)
        except BadAnswer:
            if size == 1:
                return documents, server_now, False
            size //= 2
            continue
        documents += page.items
        server_now = page.server_now
        if not page.full or not page.items:
            return documents, server_now, True
        try:
            condition = _beyond(catalog, window, page, descending=descending)
        except _StuckError:
            return documents, server_now, False


def _beyond(catalog: Catalog, window: Window, page: ItemPage, *, descending: bool = False) -> dict[str, Any]:
    if not (catalog.abilities.filters and catalog.abilities.sorts):
        raise _StuckError("the server neither filters nor sorts")
    last = page.items[-1] if page.items else {}
    properties = last.get("properties")
    value = properties.get(window.field) if isinstance(properties, dict) else None
    ident = last.get("id")
    if not isinstance(value, str) or not isinstance(ident, str):
        raise _StuckError(f"the last item of a full page has no {window.field!r}")
    return after(window, value, ident, descending=descending)
