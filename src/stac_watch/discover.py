"""Asks the catalogue for what changed and writes it down: windows, pages, changes, verdicts, ledger, cursor.

In: one source. Out: ledger rows, each window's items, events and cursor in one transaction. Never: moves the cursor before the
commit; drops an item without a reason; fails a page because of one item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from stac_watch.catalog import Catalog, Page
from stac_watch.changes import ChangeKind, Item, Quarantine, classify, read_item
from stac_watch.config import Recipe, Source
from stac_watch.errors import CatalogUnavailable
from stac_watch.events import Conversion, Lane, conversion_key, tile_of
from stac_watch.ledger import Ledger
from stac_watch.policy import Skip, judge
from stac_watch.records import Known, Sighting, Tally
from stac_watch.states import State
from stac_watch.windows import Window, advance, after, bisect, next_window

AUTO_OVERLAP = timedelta(minutes=15)  # at 1,300 items a day about 14 rows are read twice


@dataclass(frozen=True)
class Leaf:
    """A window that was read completely, and what it holds."""

    window: Window
    documents: list[dict[str, Any]]
    server_now: datetime


def discover(
    source: Source, recipe: Recipe, catalog: Catalog, ledger: Ledger, now: Callable[[], datetime], *, field: str = "updated"
) -> Tally:
    """Reads everything that changed since the cursor, window by window; each is committed before the next is asked.

    Raises:
        CatalogUnavailable: no usable answer; what was committed stays, the cursor stands before the window that failed.
    """
    name = f"{source.name}:{field}"
    server_now = catalog.probe()
    cursor = ledger.position(name) or server_now - source.poll.since
    overlap = AUTO_OVERLAP if source.poll.overlap == "auto" else source.poll.overlap
    total = Tally()
    for leaf in leaves(catalog, next_window(field, cursor, overlap, server_now), source.poll.page):
        cursor = advance(cursor, leaf.window, leaf.server_now)
        sightings, bad = read(leaf.documents, source, recipe, ledger, now(), lane="live")
        tally = ledger.commit_window(source.name, sightings, bad, (name, cursor), now())
        total = Tally(*(a + b for a, b in zip(_counts(total), _counts(tally), strict=True)))
    return total


def leaves(catalog: Catalog, window: Window, limit: int) -> Iterator[Leaf]:
    """Yields windows, oldest first, each read completely: a full page is bisected, a full second is walked by value and id."""
    pending = [window]
    while pending:
        current = pending.pop()
        page = catalog.search(current, limit=limit)
        halves = bisect(current) if page.full else None
        if halves is not None:
            pending += [halves[1], halves[0]]
            continue
        documents = list(page.items)
        while page.full:
            page = _rest_of_second(catalog, current, page, limit)
            documents += page.items
        yield Leaf(current, documents, page.server_now)


def _rest_of_second(catalog: Catalog, window: Window, page: Page, limit: int) -> Page:
    last = page.items[-1]
    value, ident = last.get("properties", {}).get(window.field), last.get("id")
    if not isinstance(value, str) or not isinstance(ident, str):
        raise CatalogUnavailable(
            f"{catalog.api} returned {limit} items of one second without {window.field!r} on the last: cannot go on from there",
            hint="raise `poll.page`, or ask the catalogue's operator to honour `fields` and `sortby`",
        )
    return catalog.search(window, limit=limit, extra=after(window, value, ident))


def read(
    documents: list[dict[str, Any]], source: Source, recipe: Recipe, ledger: Ledger, now: datetime, *, lane: Lane
) -> tuple[list[Sighting], list[Quarantine]]:
    """Turns documents into sightings: what each item is, how it differs from what is known, and whether it is wanted."""
    items: dict[str, Item] = {}
    bad = []
    for document in documents:
        entry = read_item(document, collection=source.collection, api=source.api, on=source.on, allowed_hosts=source.hosts())
        if isinstance(entry, Quarantine):
            bad.append(entry)
        else:
            items[entry.item_id] = entry
    known = ledger.known(source.name, list(items))
    sightings = [s for s in (_sighting(i, known.get(i.item_id), source, recipe, now, lane) for i in items.values()) if s]
    return sightings, bad


def _sighting(item: Item, known: Known | None, source: Source, recipe: Recipe, now: datetime, lane: Lane) -> Sighting | None:
    change = classify(item, known.revision if known else None)
    # an unchanged item is looked at again only where a rule kept it out: a property may have come, or the rules have changed
    if change.kind is ChangeKind.NONE and known is not None and known.state is not State.SKIPPED:
        return None
    verdict = judge(item, source.filter, now)
    replaced = change.kind is ChangeKind.REPLACE
    key = conversion_key(source.api, item.collection, item.item_id, item.revision, recipe.digest_fields())
    output = recipe.output.format(
        collection=item.collection, item_id=item.item_id, tile=item.tile or tile_of(item.item_id), key=key
    )
    conversion = Conversion(
        catalog=source.api, collection=item.collection, item_id=item.item_id, revision=item.revision,
        recipe=recipe.digest_fields(), kind="replace" if replaced else "create", reason="updated" if replaced else "new", lane=lane,
        time=item.updated or item.datetime, datetime=item.datetime, item_href=item.item_href, product_href=item.product_href,
        output_zarr=output, groups=recipe.groups, bbox=item.bbox,
        options={
            "spatial_chunk": str(recipe.spatial_chunk), "sharding": str(recipe.sharding).lower(), "package": recipe.package,
            "overwrite": "false", "dask_perf_html": "",
        },
    )  # fmt: skip
    return Sighting(item, conversion, verdict.reason if isinstance(verdict, Skip) else None)


def _counts(tally: Tally) -> tuple[int, int, int, int]:
    return (tally.seen, tally.admitted, tally.skipped, tally.quarantined)
