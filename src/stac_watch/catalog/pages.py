"""How many items a catalog gives at once, and how much of each."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from stac_watch.catalog.abilities import Abilities
from stac_watch.catalog.answers import BadAnswer, Rejected, TooLarge
from stac_watch.catalog.client import LEAN, SWEEP_PAGE, Catalog
from stac_watch.catalog.sample import ATTEMPTS, SAMPLE, in_few_words
from stac_watch.catalog.windows import SECOND
from stac_watch.model.item import ItemDocument
from stac_watch.model.signatures import unsigned
from stac_watch.model.stamps import parse_stamp, stamp

BARE = ("id", "collection")
SIZES = (
    1000,
    500,
    250,
    200,
    100,
    50,
    20,
    10,
    5,
    1,
)  # items a page that are tried where more are refused: what servers have as limits


def single(catalog: Catalog, sample: list[ItemDocument]) -> dict[str, Any]:
    """Returns whether a complete page has no `next`, and whether `fields` is honoured."""
    found: dict[str, Any] = {"honest_next": True}
    try:
        asked = {"ids": [str(sample[0].get("id"))]}
        page = catalog.ask(asked, limit=catalog.abilities.page(SAMPLE), fields=BARE, attempts=ATTEMPTS)
        found = {"honest_next": not page.has_next}
    except Rejected:  # `ids` is not taken
        page = catalog.ask({}, limit=1, fields=BARE, attempts=ATTEMPTS)
    # `links` and the like do not count: stac-fastapi adds them to whatever was left
    return found | {"fields": catalog.abilities.fields and not any("assets" in i for i in page.items)}


def page_size(catalog: Catalog, sample: list[ItemDocument], wanted: int) -> dict[str, Any]:
    """Returns how many items come at most."""
    catalog.assume(max_page=Abilities().max_page)
    largest = catalog.abilities.page(max(wanted, SWEEP_PAGE))
    refused = ""
    for size in (largest, *(s for s in SIZES if s < largest)):
        try:
            page = catalog.ask({}, limit=size, fields=BARE, attempts=ATTEMPTS)
        except (Rejected, TooLarge) as error:
            refused = f"more than {{}} items at once are refused ({in_few_words(error)})"
            continue
        except BadAnswer:  # an item that cannot be served says nothing about the size
            return {"max_page": size}
        clipped = len(page.items) < size and (page.has_next or _there_is_more(catalog, sample, page.items, size))
        notes = (*catalog.abilities.notes, *([refused.replace("{}", str(size))] if refused else []))
        return {"max_page": max(1, len(page.items)) if clipped else size, "notes": notes}
    return {"max_page": 1}


def product_alone(catalog: Catalog, sample: list[ItemDocument]) -> bool:
    """Tells whether all items have an asset `product`, and it comes when it is asked for without the others."""
    hrefs = {str(item.get("id")): _product(item) for item in sample}
    if not catalog.abilities.fields or None in hrefs.values():
        return False
    lean = ("id", "collection", "assets.product", *LEAN)
    try:
        found = catalog.ask({"ids": list(hrefs)}, limit=catalog.abilities.page(SAMPLE), fields=lean, attempts=ATTEMPTS).items
    except Rejected:
        return False
    return {str(item.get("id")): _product(item) for item in found} == hrefs and all(_asset_count(i) == 1 for i in found)


def _there_is_more(catalog: Catalog, sample: list[ItemDocument], page: list[ItemDocument], size: int) -> bool:
    """Tells whether a page that is not full, and says nothing of more, is not all.

    OGC API Features lets a server return fewer than were asked for, and only recommends `next`. What is met before, after and on
    either side of a moment within the sample, and was not on the page, says so; twice, because something may have come meanwhile.
    All of a sample may be of one moment: the tiles of one overpass.
    """
    times = sorted(time.replace(microsecond=0) for item in sample if (time := _time(item)) is not None)
    if not times or not page:
        return False
    middle = stamp(times[len(times) // 2])
    spans = (f"../{stamp(times[0] - SECOND)}", f"../{middle}", f"{middle}/..", f"{stamp(times[-1] + 2 * SECOND)}/..")
    try:
        for span in spans:
            met = _ids(catalog.ask({"datetime": span}, limit=size, fields=BARE, attempts=ATTEMPTS).items)
            if met - _ids(page) and met - _ids(catalog.ask({}, limit=size, fields=BARE, attempts=ATTEMPTS).items):
                return True
    except (Rejected, BadAnswer):  # it takes no such span, or has an item there that it cannot serve
        return False
    return False


def _time(item: ItemDocument) -> datetime | None:
    properties = item.get("properties")
    given = properties if isinstance(properties, dict) else {}
    return parse_stamp(given.get("datetime")) or parse_stamp(given.get("start_datetime"))


def _ids(items: list[ItemDocument]) -> set[str]:
    return {str(item.get("id")) for item in items}


def _asset_count(item: ItemDocument) -> int:
    assets = item.get("assets")
    return len(assets) if isinstance(assets, dict) else 0


def _product(item: ItemDocument) -> object:
    assets = item.get("assets")
    product = assets.get("product") if isinstance(assets, dict) else None
    href = product.get("href") if isinstance(product, dict) else None
    return unsigned(href) if isinstance(href, str) else None  # it may be signed anew in each answer
