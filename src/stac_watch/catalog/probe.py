"""What a catalog can do, found out by asking it and not by what it claims.

No conformance class is believed. Every answer here decides how windows are asked; research behind it: pgstac 0.9.11 and 0.10.0 both
compare a stamp as text unless it is declared, servers ignore `sortby`, `filter`, `fields` and `limit` without a word, and others
refuse them.

A refusal (4xx) is an answer: the next smaller request is asked. Trouble (5xx, 429, a time-out) is none: what could not be asked
stays as it was known, or is assumed in the way that loses nothing, and is asked again soon.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from stac_watch.catalog.abilities import STAMPS, Abilities
from stac_watch.catalog.answers import BadAnswer, Rejected, TooLarge, printable
from stac_watch.catalog.client import Catalog, ItemPage
from stac_watch.catalog.pages import page_size, product_alone, single
from stac_watch.catalog.sample import ATTEMPTS, SAMPLE, first_sample, in_few_words
from stac_watch.catalog.windows import FAR, SECOND, Window, floor_second
from stac_watch.model.errors import CatalogUnavailable, ConfigError, Refused
from stac_watch.model.item import ItemDocument
from stac_watch.model.patience import Backoff
from stac_watch.model.stamps import parse_stamp

GOOD_FOR = timedelta(days=1)
GOOD_FOR_EMPTY = timedelta(0)  # an empty collection tells nothing, and its first items are news: one or two requests more a poll
DOUBTED = Backoff(timedelta(minutes=1), timedelta(hours=1))  # how long doubts rest, from the second probe on that ends in some
STAMPED = ("stamp", "typed", "filters", "stamps", "rejected")
SPELLINGS = ((True, True), (False, True), (True, False), (False, False))
"""Whether a year 9999, and microseconds, are in the times that a server is asked for: what is tried, the best first."""
ODD = 0.1  # of neighbours that may be out of order where a server sorts: stamps of another form

CAUTIOUS = Abilities(stamp="datetime", filters=False, sorts=False, stamps=(), max_page=100, samples=0)
"""What is assumed where nothing could be found out: slow, and nothing is lost by it."""


def good_for(found: Abilities) -> timedelta:
    """Returns how long abilities are believed."""
    if found.doubts:
        return timedelta(0) if found.doubted <= 1 else DOUBTED.pause(found.doubted - 2)
    return GOOD_FOR if found.samples else GOOD_FOR_EMPTY


def probe(catalog: Catalog, wanted: int, earlier: Abilities | None = None) -> Abilities:
    """Finds out what the catalog can do for its collection, in about two dozen cheap requests.

    Args:
        catalog: it believes what was found when this returns.
        wanted: items per request that the source wants.
        earlier: what was known of it; it stays so where the server is in trouble.

    Raises:
        ConfigError: there is no such collection, the API redirects, or it cannot be asked for a time.
        CatalogUnavailable: no usable answer.
        Refused: it wants credentials, or others.
    """
    catalog.gently(True)
    try:
        return _probed(catalog, wanted, earlier)
    finally:
        catalog.gently(False)


def _probed(catalog: Catalog, wanted: int, earlier: Abilities | None) -> Abilities:
    kept = earlier if earlier is not None and earlier.samples else CAUTIOUS
    catalog.abilities = replace(CAUTIOUS, fields=True, samples=1)
    sample, doubts = first_sample(catalog, catalog.clock())
    found = _Findings(catalog, kept, doubts)
    sample = _in_time(found, sample)
    bare = any(all(parse_stamp(_property(item, name)) is None for name in STAMPS) for item in sample.items)
    catalog.assume(samples=len(sample.items), unstamped=bare)
    if sample.items:
        found.ask(
            "which stamp can be filtered",
            STAMPED,
            lambda: _stamp(catalog, sample.items),
        )
        found.ask("whether `sortby` is honoured", ("sorts",), lambda: _sorts(catalog))
        found.ask("which other stamps are sorted", (), lambda: _others(catalog))
        found.ask("how many items come at once", ("max_page",), lambda: page_size(catalog, sample.items, wanted))
        found.ask("whether assets come alone", ("product",), lambda: {"product": product_alone(catalog, sample.items)})
        found.ask("what a query costs", ("idle",), lambda: {"idle": _idle(catalog, sample.server_now)})
        catalog.assume(notes=(*catalog.abilities.notes, *_strange(catalog, sample.items)))
    doubted = 1 + (earlier.doubted if earlier is not None else 0) if found.doubts else 0
    catalog.assume(doubts=tuple(found.doubts), doubted=doubted)
    return catalog.abilities


def _in_time(found: _Findings, sample: ItemPage) -> ItemPage:
    """Returns the sample, by GET where a search by POST gives whatever it likes: a gateway on the way may drop the body."""
    catalog = found.catalog
    if not sample.items:
        return sample
    try:
        _basics(found, sample)
    except ConfigError as wrong:
        if catalog.abilities.method == "GET" or "GET" not in catalog.places.methods():
            raise
        try:
            sample, found.doubts[:] = first_sample(catalog, sample.server_now, methods=("GET",))
        except (CatalogUnavailable, ConfigError, Refused):
            raise wrong from None
        catalog.assume(notes=(*catalog.abilities.notes, "a search by POST ignores what is asked for"))
        _basics(found, sample)
    return sample


def _basics(found: _Findings, sample: ItemPage) -> None:
    catalog = found.catalog
    found.ask("whether a whole page has a `next`", ("honest_next", "fields"), lambda: single(catalog, sample.items))
    found.ask("whether `datetime` is honoured", ("far", "fraction"), lambda: _check_time(catalog))


@dataclass
class _Findings:
    """What is found out, question by question; what trouble leaves open is as it was kept."""

    catalog: Catalog
    kept: Abilities
    doubts: list[str]

    def ask(self, what: str, names: tuple[str, ...], question: Callable[[], dict[str, Any]]) -> None:
        """Asks one question; its answer is believed."""
        try:
            answer = question()
        except ConfigError:
            raise
        except (CatalogUnavailable, Refused) as error:  # refused: gateways that limit the rate say that, too
            self.doubts.append(f"{what}: {error.message}")
            answer = {name: getattr(self.kept, name) for name in names}
        self.catalog.assume(**answer)


def _check_time(catalog: Catalog) -> dict[str, Any]:
    """Asks for a second where no instant is; items without an end may be there. A server may say "none" by 404."""
    first: Rejected | BadAnswer | None = None
    for far, fraction in SPELLINGS:
        catalog.assume(far=far, fraction=fraction)
        found, window = {"far": far, "fraction": fraction}, catalog.nowhere()
        try:
            items = catalog.search(window, limit=catalog.abilities.page(SAMPLE), attempts=ATTEMPTS).items
        except (Rejected, BadAnswer) as error:
            if isinstance(error, Rejected) and error.status == 404:
                return found | {"empty_404": True}
            first = first or error
            continue
        if any(_outside(item, window) for item in items):
            raise ConfigError(
                f"catalog {catalog.api} ignores `datetime` in a search: nothing that it returns is known to be complete",
                hint="is `api:` a STAC API with item search?",
            )
        return found
    raise first or AssertionError("there are spellings")


def _outside(item: ItemDocument, window: Window) -> bool:
    """Tells whether an item certainly does not lie in a window of the acquisition time."""
    instant, end = parse_stamp(_property(item, "datetime")), parse_stamp(_property(item, "end_datetime"))
    start = instant or parse_stamp(_property(item, "start_datetime"))
    last = instant or end
    return (last is not None and last < window.start) or (start is not None and start >= window.end)


def _stamp(catalog: Catalog, items: list[ItemDocument]) -> dict[str, Any]:
    """Returns the change stamps that can be asked for, and how the first of them, which is used, is compared.

    A stamp is used where most items have it: a sweep finds the others.
    """
    declared, rejected, notes = catalog.queryables(), list[str](), list[str]()
    # an item without properties says nothing of the others; it is unreadable when it is read
    items = [item for item in items if isinstance(item.get("properties"), dict)] or items
    modes: dict[str, bool] = {}  # of each stamp that works: compared as time
    trouble: CatalogUnavailable | Refused | None = None
    for name in STAMPS:
        stamped = [(str(i.get("id")), parsed) for i in items if (parsed := parse_stamp(_property(i, name)))]
        missing = f"`{name}` is missing or no time on {len(items) - len(stamped)} of {len(items)} items"
        if 2 * len(stamped) <= len(items):
            rejected.append(missing)
            continue
        says = declared.get(name)
        typed = isinstance(says, dict) and says.get("format") == "date-time"
        why = "is ignored by `filter`"
        for mode in (typed, not typed):
            catalog.assume(typed=mode)
            try:
                works, why = _selects(catalog, name, *stamped[0])
            except Rejected as error:
                works, why = False, f"cannot be filtered ({in_few_words(error)})"
            except (CatalogUnavailable, Refused) as error:
                works, trouble = False, error
                why = "could not be asked for"
            if works:
                modes[name] = mode
                if len(stamped) < len(items):
                    notes.append(f"{missing}: such items are found by sweeps")
                break
        else:
            rejected.append(f"`{name}` {why}")
        if trouble is not None and not modes:
            raise trouble
    told = {"stamps": tuple(modes), "rejected": tuple(rejected), "notes": (*catalog.abilities.notes, *notes)}
    if modes:
        stamp = next(iter(modes))
        return told | {"stamp": stamp, "typed": modes[stamp], "filters": True}
    catalog.assume(typed=False)
    return told | {"stamp": "datetime", "typed": False, "filters": _filters_ids(catalog, items)}


def _selects(catalog: Catalog, name: str, item_id: str, moment: datetime) -> tuple[bool, str]:
    """Tells whether a window around a known stamp has its item and a window in the year 9999 has none."""
    second, size = floor_second(moment), catalog.abilities.page(1000)
    if catalog.search(catalog.nowhere(name), limit=1).items:
        return False, "is ignored by `filter`"
    page = catalog.search(Window(name, second, second + SECOND), limit=size)
    return page.full or any(item.get("id") == item_id for item in page.items), "is filtered wrongly: its own second is empty"


def _filters_ids(catalog: Catalog, items: list[ItemDocument]) -> bool:
    condition = {"op": "=", "args": [{"property": "id"}, str(items[0].get("id"))]}
    try:
        found = catalog.ask({"filter": condition}, limit=catalog.abilities.page(2), attempts=ATTEMPTS).items
    except Rejected:
        return False
    return [item.get("id") for item in found] == [items[0].get("id")]


def _sorts(catalog: Catalog) -> dict[str, Any]:
    """Returns whether ascending is not descending, for windows and for sweeps, by what comes back."""
    try:
        return {"sorts": all(_sorts_by(catalog, name) for name in dict.fromkeys((catalog.abilities.stamp, "datetime")))}
    except Rejected as error:
        refused = {"notes": (*catalog.abilities.notes, f"`sortby` is refused ({in_few_words(error)})")}
        return refused | {"sorts": False, "stamps": catalog.abilities.stamps[:1]}


def _others(catalog: Catalog) -> dict[str, Any]:
    """Returns the stamps that could take the place of the one in use, which must be sorted too, and why others cannot."""
    a = catalog.abilities
    usable = [name for name in a.stamps if name == a.stamp or (a.sorts and _sorts_by(catalog, name))]
    unsorted = (f"`{name}` is ignored by `sortby`" for name in a.stamps if name not in usable)
    return {"stamps": tuple(usable), "rejected": (*a.rejected, *unsorted)}


def _sorts_by(catalog: Catalog, name: str) -> bool:
    """Within a second a text order is not the order of time, and an odd stamp among many says nothing of the server."""
    pages: list[list[datetime]] = []
    query: dict[str, Any] = {}
    if name != "datetime" and catalog.abilities.filters:  # what has no stamp comes first, or last, and fills the page
        least = "1970-01-01T00:00:00" + (".000000Z" if catalog.abilities.typed else "")
        query = {"filter": {"op": ">=", "args": [{"property": name}, least]}}
    for sign in ("+", "-"):
        try:
            asked = query | {"sortby": [f"{sign}properties.{name}", f"{sign}id"]}
            page = catalog.ask(asked, limit=catalog.abilities.page(SAMPLE), fields=("id", "properties"), attempts=ATTEMPTS)
        except TooLarge:
            raise
        except BadAnswer:
            if not catalog.answers():
                raise
            return True  # an item that cannot be served says nothing about the order
        pages.append(list(_moments(page.items, name)))
    first, last = pages
    if not (first and last):
        return name == "datetime"  # these items have no instant, only start and end
    wrong = sum(a > b + SECOND for a, b in pairwise(first)) + sum(a + SECOND < b for a, b in pairwise(last))
    middle = sorted(first)[len(first) // 2] <= sorted(last)[len(last) // 2] + SECOND
    return wrong <= ODD * (len(first) + len(last)) and middle


def _strange(catalog: Catalog, sample: list[ItemDocument]) -> list[str]:
    """Returns what a person should know who reads of a catalog that works, and of which nothing can be used."""
    others = Counter(str(item.get("collection")) for item in sample if item.get("collection") not in (None, catalog.collection))
    if not others:
        return []
    name, count = others.most_common(1)[0]
    none = " and cannot be used" if count == len(sample) else ""
    these = f"{count} of {len(sample)} items belong to collection {printable(name)!r}{none}"
    return [f"{these}; write that into `collection:` to convert them"]


def _idle(catalog: Catalog, server_now: datetime) -> float:
    """Returns the fastest of three polls that find nothing, in seconds: what the query costs, and not the network's mood."""
    window = Window(catalog.abilities.stamp, floor_second(server_now) + timedelta(days=3650), FAR)
    try:
        return min(catalog.search(window, limit=1, attempts=ATTEMPTS).seconds for _ in range(3))
    except Rejected:
        return 0.0


def _moments(items: list[ItemDocument], name: str) -> Iterator[datetime]:
    return (parsed for item in items if (parsed := parse_stamp(_property(item, name))))


def _property(item: ItemDocument, name: str) -> object:
    properties = item.get("properties")
    return properties.get(name) if isinstance(properties, dict) else None
