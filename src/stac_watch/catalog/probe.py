"""What a catalog can do, found out by asking it and not by what it claims.

No conformance class is believed. Every answer here decides how windows are asked; research behind it: pgstac 0.9.11 and 0.10.0 both
compare a stamp as text unless it is declared, servers ignore `sortby`, `filter`, `fields` and `limit` without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from stac_watch.catalog.abilities import STAMPS, Abilities
from stac_watch.catalog.client import LEAN, SWEEP_PAGE, Catalog, ItemPage
from stac_watch.catalog.http import BadAnswer, Rejected
from stac_watch.catalog.windows import FAR, SECOND, Window, floor_second
from stac_watch.model.errors import CatalogUnavailable, ConfigError, Refused
from stac_watch.model.item import ItemDocument
from stac_watch.model.stamps import parse_stamp, stamp

GOOD_FOR = timedelta(days=1)
GOOD_FOR_EMPTY = timedelta(minutes=10)  # an empty collection tells nothing: it is looked at again soon
SAMPLE = 20
ATTEMPTS = 2


def probe(catalog: Catalog, wanted: int) -> Abilities:
    """Finds out what the catalog can do for its collection, in about two dozen cheap requests.

    Args:
        catalog: it believes what was found when this returns.
        wanted: items per request that the source wants.

    Raises:
        ConfigError: there is no such collection, the API redirects, or it cannot be asked for a time.
        CatalogUnavailable: no usable answer.
    """
    catalog.assume(**asdict(Abilities()))
    sample = _sample(catalog, catalog.clock())
    catalog.assume(samples=len(sample.items))
    if sample.items:
        _check_time(catalog)
        catalog.assume(**_stamp(catalog, sample.items))
        catalog.assume(sorts=_sorts(catalog))
        catalog.assume(**_others(catalog))
        catalog.assume(**_page_size(catalog, sample.items, max(wanted, SWEEP_PAGE)))
        catalog.assume(product=catalog.abilities.fields and _product_alone(catalog, sample.items))
    catalog.assume(idle=_idle(catalog, sample.server_now))
    return catalog.abilities


def _sample(catalog: Catalog, server_now: datetime) -> ItemPage:
    try:
        return catalog.ask({}, limit=SAMPLE, attempts=ATTEMPTS)
    except BadAnswer:
        for back in (1, 7, 30, 365):  # days: one item that the server cannot serve must not hide all the others
            try:
                return catalog.ask({"datetime": f"../{stamp(server_now - timedelta(days=back))}"}, limit=SAMPLE, attempts=ATTEMPTS)
            except BadAnswer:
                continue
        raise
    except (Rejected, ConfigError):
        catalog.assume(method="GET")  # many read-only APIs have no POST, and some proxies redirect it
        return catalog.ask({}, limit=SAMPLE)


def _check_time(catalog: Catalog) -> None:
    if catalog.search(Window("datetime", FAR, FAR + SECOND), limit=1).items:
        raise ConfigError(
            f"catalog {catalog.api} ignores `datetime` in a search: nothing that it returns is known to be complete",
            hint="is `api:` a STAC API with item search?",
        )


def _stamp(catalog: Catalog, items: list[ItemDocument]) -> dict[str, Any]:
    """Returns the change stamps that can be asked for, and how the first of them, which is used, is compared."""
    declared, rejected = catalog.queryables(), []
    # an item without properties says nothing of the others; it is unreadable when it is read
    items = [item for item in items if isinstance(item.get("properties"), dict)] or items
    modes: dict[str, bool] = {}  # of each stamp that works: compared as time
    for name in STAMPS:
        stamped = [(str(i.get("id")), parsed) for i in items if (parsed := parse_stamp(_property(i, name)))]
        if len(stamped) < len(items):
            rejected.append(f"`{name}` is missing or no time on {len(items) - len(stamped)} of {len(items)} items")
            continue
        says = declared.get(name)
        typed = isinstance(says, dict) and says.get("format") == "date-time"
        why = "is ignored by `filter`"
        for mode in (typed, not typed):
            catalog.assume(typed=mode)
            works, why = _selects(catalog, name, *stamped[0])
            if works:
                modes[name] = mode
                break
        else:
            rejected.append(f"`{name}` {why}")
    told = {"stamps": tuple(modes), "rejected": tuple(rejected)}
    if modes:
        stamp = next(iter(modes))
        return told | {"stamp": stamp, "typed": modes[stamp], "filters": True}
    catalog.assume(typed=False)
    return told | {"stamp": "datetime", "typed": False, "filters": _filters_ids(catalog, items)}


def _selects(catalog: Catalog, name: str, item_id: str, moment: datetime) -> tuple[bool, str]:
    """Tells whether a window around a known stamp has its item and a window in the year 9999 has none."""
    second = floor_second(moment)
    try:
        if catalog.search(Window(name, FAR, FAR + SECOND), limit=1, attempts=ATTEMPTS).items:
            return False, "is ignored by `filter`"
        page = catalog.search(Window(name, second, second + SECOND), limit=catalog.abilities.page(1000), attempts=ATTEMPTS)
    except (CatalogUnavailable, Refused) as error:
        return False, f"cannot be filtered ({error.message})"
    return page.full or any(item.get("id") == item_id for item in page.items), "is filtered wrongly: its own second is empty"


def _filters_ids(catalog: Catalog, items: list[ItemDocument]) -> bool:
    condition = {"op": "=", "args": [{"property": "id"}, str(items[0].get("id"))]}
    try:
        found = catalog.ask({"filter": condition}, limit=2, attempts=ATTEMPTS).items
    except CatalogUnavailable:
        return False
    return [item.get("id") for item in found] == [items[0].get("id")]


def _sorts(catalog: Catalog) -> bool:
    """Tells whether ascending is not descending, for windows and for sweeps, by what comes back."""
    return all(_sorts_by(catalog, name) for name in dict.fromkeys((catalog.abilities.stamp, "datetime")))


def _others(catalog: Catalog) -> dict[str, Any]:
    """Returns the stamps that could take the place of the one in use, which must be sorted too, and why others cannot."""
    a = catalog.abilities
    usable = [name for name in a.stamps if name == a.stamp or _sorts_by(catalog, name)]
    unsorted = (f"`{name}` is ignored by `sortby`" for name in a.stamps if name not in usable)
    return {"stamps": tuple(usable), "rejected": (*a.rejected, *unsorted)}


def _sorts_by(catalog: Catalog, name: str) -> bool:
    """Within a second a text order is not the order of time."""
    first: list[datetime] = []
    last: list[datetime] = []
    try:
        for found, sign in ((first, "+"), (last, "-")):
            page = catalog.ask({"sortby": [f"{sign}properties.{name}", f"{sign}id"]}, limit=SAMPLE, attempts=ATTEMPTS)
            found += _moments(page.items, name)
    except BadAnswer:
        return True  # an item that cannot be served says nothing about the order
    except CatalogUnavailable:
        return False
    if name == "datetime" and not (first and last):
        return True  # these items have no instant, only start and end
    rising = all(a <= b + SECOND for a, b in pairwise(first))
    falling = all(a + SECOND >= b for a, b in pairwise(last))
    return rising and falling and bool(first) and bool(last) and first[0] <= last[0] + SECOND


def _page_size(catalog: Catalog, sample: list[ItemDocument], wanted: int) -> dict[str, Any]:
    """Returns whether `fields` is honoured, how many items come at most, and whether a complete page has no `next`."""
    bare = ("id", "collection")
    single = catalog.ask({"ids": [str(sample[0].get("id"))]}, limit=SAMPLE, fields=bare, attempts=ATTEMPTS)
    # `links` and the like do not count: stac-fastapi adds them to whatever was left
    found: dict[str, Any] = {"fields": not any("assets" in i for i in single.items), "honest_next": not single.has_next}
    wanted = replace(catalog.abilities, fields=found["fields"]).page(wanted)
    try:
        page = catalog.ask({}, limit=wanted, fields=bare, attempts=ATTEMPTS)
    except BadAnswer:  # an item that cannot be served says nothing about the size
        return found | {"max_page": wanted}
    clipped = page.has_next and len(page.items) < wanted
    return found | {"max_page": len(page.items) if clipped else wanted}


def _product_alone(catalog: Catalog, sample: list[ItemDocument]) -> bool:
    """Tells whether all items have an asset `product`, and it comes when it is asked for without the others."""
    hrefs = {str(item.get("id")): _product(item) for item in sample}
    if None in hrefs.values():
        return False
    try:
        lean = ("id", "collection", "assets.product", *LEAN)
        found = catalog.ask({"ids": list(hrefs)}, limit=SAMPLE, fields=lean, attempts=ATTEMPTS).items
    except CatalogUnavailable:
        return False
    return {str(item.get("id")): _product(item) for item in found} == hrefs and all(_asset_count(item) == 1 for item in found)


def _asset_count(item: ItemDocument) -> int:
    assets = item.get("assets")
    return len(assets) if isinstance(assets, dict) else 0


def _product(item: ItemDocument) -> object:
    assets = item.get("assets")
    product = assets.get("product") if isinstance(assets, dict) else None
    return product.get("href") if isinstance(product, dict) else None


def _idle(catalog: Catalog, server_now: datetime) -> float:
    """Returns the fastest of three polls that find nothing, in seconds: what the query costs, and not the network's mood."""
    window = Window(catalog.abilities.stamp, floor_second(server_now) + timedelta(days=3650), FAR)
    return min(catalog.search(window, limit=1, attempts=ATTEMPTS).seconds for _ in range(3))


def _moments(items: list[ItemDocument], name: str) -> Iterator[datetime]:
    return (parsed for item in items if (parsed := parse_stamp(_property(item, name))))


def _property(item: ItemDocument, name: str) -> object:
    properties = item.get("properties")
    return properties.get(name) if isinstance(properties, dict) else None
