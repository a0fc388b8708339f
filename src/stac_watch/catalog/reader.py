"""A window, read completely: whatever the server's limits are, and whichever single item it cannot serve.

It comes as leaves, oldest first, each one complete: a full page is not taken for a whole window, and no window is given up because
of one item in it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from stac_watch.catalog.answers import BadAnswer
from stac_watch.catalog.client import Catalog, ItemPage
from stac_watch.catalog.windows import Window, after, bisect
from stac_watch.model.errors import CatalogUnavailable
from stac_watch.model.item import ItemDocument, Unreadable
from stac_watch.model.stamps import stamp

_HIDDEN = "(unreadable) "
CAREFUL = 64  # items per request where one of them is known to break the answer


@dataclass(frozen=True)
class Leaf:
    """A window that was read completely, and what it holds."""

    window: Window
    documents: list[ItemDocument]
    server_now: datetime
    hidden: Unreadable | None = None  # items of it that the server itself cannot serve


def leaves(catalog: Catalog, window: Window, limit: int, *, floor: datetime | None = None) -> Iterator[Leaf]:
    """Yields windows, oldest first, each read completely: a full page is bisected, a full second is walked by value and id.

    A request that the server cannot answer (5xx, a body that breaks off) is made smaller until what it cannot serve is alone.

    Raises:
        CatalogUnavailable: the server answers nothing at all, or one second cannot be told apart.
    """
    size, pending = catalog.abilities.page(limit), [window]
    while pending:
        current = pending.pop()
        halves = bisect(current)
        try:
            page = catalog.search(current, limit=size, floor=floor)
            if not page.full or halves is None:
                yield Leaf(current, _whole_second(catalog, current, page, size), page.server_now)
                continue
        except BadAnswer as error:
            if not catalog.answers():  # an outage, not one item
                raise
            if halves is None:
                yield _around_poison(catalog, current, min(size, CAREFUL), error)
                continue
        pending += [halves[1], halves[0]]


def hidden_name(field: str, second: datetime) -> str:
    """Returns what stands for the items of a second that the server cannot serve; the names of one field sort by time."""
    return f"{_HIDDEN}{field} {stamp(second)}"


def is_hidden(name: str) -> bool:
    """Tells such a name from an item's id."""
    return name.startswith(_HIDDEN)


def sweep_leaves(catalog: Catalog, windows: Iterable[Window], limit: int, *, workers: int) -> Iterator[Leaf]:
    """Yields the leaves of many windows, in order; up to `workers` windows are asked at once, so that memory stays bounded."""
    pending, source = list[Future[list[Leaf]]](), iter(windows)
    try:
        pending += [_begun(catalog, w, limit) for w in islice(source, workers)]
        while pending:
            done = pending.pop(0).result()
            pending += [_begun(catalog, w, limit) for w in islice(source, 1)]
            yield from done
    finally:
        wait(pending)  # what follows begins its own


def _begun(catalog: Catalog, window: Window, limit: int) -> Future[list[Leaf]]:
    """Reads a window in a daemon: a stop waits for a ThreadPoolExecutor's threads, so for a catalog's time-outs."""
    found = Future[list[Leaf]]()

    def read() -> None:
        try:
            found.set_result(list(leaves(catalog, window, limit)))
        except BaseException as error:  # noqa: BLE001  # carried to who asks for the result, and raised there
            found.set_exception(error)

    threading.Thread(target=read, name="sweep", daemon=True).start()
    return found


def _whole_second(catalog: Catalog, window: Window, page: ItemPage, limit: int) -> list[ItemDocument]:
    documents = list(page.items)
    while page.full:
        following = catalog.search(window, limit=limit, extra=_beyond(catalog, window, page))
        if following.items and following.items[0].get("id") == page.items[0].get("id"):
            raise _cannot_go_on(catalog, window, "the server ignores the condition that leads on")
        page = following
        documents += page.items
        if not page.items:
            break
    return documents


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
        condition = _beyond(catalog, window, page, descending=descending)


def _beyond(catalog: Catalog, window: Window, page: ItemPage, *, descending: bool = False) -> dict[str, Any]:
    if not (catalog.abilities.filters and catalog.abilities.sorts):
        raise _cannot_go_on(catalog, window, "the server neither filters nor sorts")
    last = page.items[-1] if page.items else {}
    properties = last.get("properties")
    value = properties.get(window.field) if isinstance(properties, dict) else None
    ident = last.get("id")
    if not isinstance(value, str) or not isinstance(ident, str):
        raise _cannot_go_on(catalog, window, f"the last item of a full page has no {window.field!r}")
    return after(window, value, ident, descending=descending)


def _cannot_go_on(catalog: Catalog, window: Window, why: str) -> CatalogUnavailable:
    return CatalogUnavailable(
        f"{catalog.api} has more items with {window.field} {stamp(window.start)} than it returns at once, and {why}",
        hint="raise `poll.page`, or ask the catalog's operator to honour `fields`, `filter` and `sortby`",
    )
