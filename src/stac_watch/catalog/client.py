"""The STAC API, asked one window at a time.

A server's `next` token is not followed (on pgstac it is an item id that a re-publish moves: the rest of the pages is lost with HTTP
200). Items are dicts: pystac's objects leak 63 KB each and die on assets without an href.

pystac-client's `ItemSearch` writes the parameters, for POST and for GET; `http` sends them. What a server can do is not taken from
what it claims: `abilities` holds what `probe` found out by asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import quote

from pystac_client import ItemSearch

from stac_watch.catalog.abilities import Abilities
from stac_watch.catalog.answers import BadAnswer, Rejected, TooLarge
from stac_watch.catalog.http import ATTEMPTS, CatalogHttp, Reply
from stac_watch.catalog.places import Places
from stac_watch.catalog.windows import FAR, LONG_AGO, SECOND, Span, Window, bounds, interval
from stac_watch.model.errors import CatalogUnavailable, ConfigError, Refused
from stac_watch.model.item import ItemDocument
from stac_watch.model.product import product_href
from stac_watch.model.stamps import parse_stamp

# whole properties: on pgstac each path inside costs more than the bytes that it saves (1,000 items: 0.7 s, with eleven paths 2.2 s)
FIELDS = ("id", "collection", "bbox", "assets", "properties")
PROPERTIES = (  # what is kept of them: a sweep has some thousand items in memory
    "datetime", "start_datetime", "end_datetime", "updated", "published", "created", "deprecated", "eo:cloud_cover", "grid:code",
    "processing:version", "processing:software", "processing:datetime", "product:type",
)  # fmt: skip
LEAN = ("-links",)  # stac-fastapi writes 1 KB of them for each item, also where `fields` has none
SWEEP_PAGE = 2_500  # items per request of a sweep: a day of the real catalog has 1,400, and a full page is asked for twice


@dataclass(frozen=True)
class ItemPage:
    """What one request returned."""

    items: list[ItemDocument]
    full: bool  # there may be more in this window
    server_now: datetime  # when the server made it: what a cache has kept shows nothing of what came since
    seconds: float = 0.0
    has_next: bool = False


class Catalog:
    """One collection of one STAC API; safe to use from several threads."""

    def __init__(
        self,
        http: CatalogHttp,
        collection: str,
        *,
        fields: Sequence[str] = FIELDS,
        whole: bool = False,
        abilities: Abilities | None = None,
    ) -> None:
        self.api = http.api
        self.collection = collection
        self.abilities = abilities or Abilities()
        self._fields, self._whole = tuple(fields), whole
        self.http = self._http = http
        self.places = Places(http, collection)
        self.clock_seen: tuple[datetime, datetime] | None = None  # of polls: our time and the server's, when it was last asked
        self.kept = timedelta(0)  # how old the answer was that gave the server's time last: there is a cache between

    def clock(self) -> datetime:
        """Asks for the collection; returns the server's time.

        Raises:
            ConfigError: there is no such collection, `api:` is no root of a STAC API, or it redirects.
            CatalogUnavailable: no usable answer.
            Refused: it wants credentials, or others.
        """
        self.places.landing()  # what is wrong with the root is said first: everything below it is wrong then, too
        answer = self.places.described()
        self.kept = answer.server_now - answer.as_of
        return answer.server_now

    def queryables(self) -> dict[str, Any]:
        """Returns what the collection declares as queryable; nothing where it does not say."""
        try:
            found = self._http.ask(f"{self.places.collection_url}/queryables").document.get("properties")
        except (Rejected, BadAnswer, ConfigError, Refused):
            return {}
        return found if isinstance(found, dict) else {}

    def item(self, item_id: str) -> ItemDocument | None:
        """Returns one item as it is now; None when the catalog says that there is none."""
        try:
            answer = self._http.ask(f"{self.places.collection_url}/items/{quote(item_id, safe='')}")
        except Rejected as error:
            if error.status in (404, 410):
                return None
            raise
        document = answer.document
        if answer.status == 204 or (
            document.get("type") != "Feature" and str(document.get("code")).startswith(("404", "NotFound"))
        ):
            return None
        return cast("ItemDocument", document)

    def search(
        self,
        window: Window,
        *,
        limit: int,
        extra: dict[str, Any] | None = None,
        floor: datetime | None = None,
        descending: bool = False,
        by_id: bool = False,
        attempts: int = ATTEMPTS,
    ) -> ItemPage:
        """Asks for one window in one request, oldest first (or last, with `descending`).

        Args:
            window: what is asked.
            limit: items that are wanted at most; the page says when there may be more.
            extra: a CQL2 condition that must hold besides.
            floor: only items acquired since then.
            descending: newest first.
            by_id: in the order of ids instead.
            attempts: whole requests before it is given up.

        Raises:
            CatalogUnavailable: no usable answer after all attempts.
        """
        query: dict[str, Any] = {}
        conditions = [c for c in (extra,) if c is not None]
        spelled = {"far": self.abilities.far, "fraction": self.abilities.fraction}
        if window.field == "datetime":
            # the one query that every STAC API takes; it finds items without an instant too, by their start and end
            query["datetime"] = interval(window, **spelled)
        else:
            conditions.insert(0, bounds(window, typed=self.abilities.typed, **spelled))
            if floor is not None:
                query["datetime"] = interval(Span(floor, None), **spelled)
        if conditions:
            query["filter"] = conditions[0] if len(conditions) == 1 else {"op": "and", "args": conditions}
        if self.abilities.sorts:
            query["sortby"] = _order("id" if by_id else window.field, descending=descending)
        return self.ask(query, limit=limit, attempts=attempts)

    def first(self) -> datetime | None:
        """Returns the acquisition time of the first item; where that cannot be read, what the collection says, if it does."""
        if self.abilities.sorts:
            for item in self.ask({"sortby": _order("datetime", descending=False)}, limit=1).items:
                properties = item.get("properties")
                if isinstance(properties, dict):
                    found = parse_stamp(properties.get("datetime")) or parse_stamp(properties.get("start_datetime"))
                    if found is not None:
                        return found
        try:
            start = self.places.described().document["extent"]["temporal"]["interval"][0][0]
        except (KeyError, IndexError, TypeError):
            return None
        return parse_stamp(start)

    def fetch(self, item_ids: Sequence[str]) -> list[ItemDocument]:
        """Asks for items by id; for fewer at once where the server does not take so many, and at last for each by itself."""
        size = self.abilities.page(100)
        found = list[ItemDocument]()
        for start in range(0, len(item_ids), size):
            chunk = list(item_ids[start : start + size])
            try:
                found += self.ask({"ids": chunk}, limit=max(1, len(chunk)), fields=self._fields).items
            except (TooLarge, Rejected):
                if len(chunk) > 1:
                    half = len(chunk) // 2
                    found += self.fetch(chunk[:half]) + self.fetch(chunk[half:])
                elif (item := self.item(chunk[0])) is not None:
                    found.append(item if self._whole else _slim(item))
        return found

    def answers(self) -> bool:
        """Tells whether the server can answer a search that finds nothing; a refusal is an answer."""
        try:
            self.search(self.nowhere(), limit=1, attempts=2)
        except Rejected:
            return True
        except CatalogUnavailable:
            return False
        return True

    def nowhere(self, field: str = "datetime") -> Window:
        """Returns a second in which no item is, as the server can name it."""
        start = FAR if self.abilities.far else LONG_AGO
        return Window(field, start, start + SECOND)

    def gently(self, gently: bool) -> None:  # as the switch that it is
        """Keeps to a few requests a second, or no longer, where the server is not visibly one's own."""
        self._http.gently(gently)

    def ask(
        self,
        query: dict[str, Any],
        *,
        limit: int,
        fields: Sequence[str] | None = None,
        attempts: int = ATTEMPTS,
        anywhere: bool = False,
    ) -> ItemPage:
        """Asks for one page of a search; `query` has the parameters of pystac-client's `ItemSearch`.

        Args:
            query: what is asked.
            limit: items that are wanted at most.
            fields: what of each item; None = what the source needs, empty = everything.
            attempts: whole requests before it is given up.
            anywhere: in every collection.

        Raises:
            CatalogUnavailable: no usable answer after all attempts.
        """
        if "filter" in query:
            query = {"filter_lang": "cql2-json", **query}
        query = {
            **query,
            "limit": limit,
            "fields": (self._asked() if fields is None or not self.abilities.fields else list(fields)) or None,
        }
        if not anywhere:
            query["collections"] = [self.collection]
        for _ in range(ATTEMPTS):
            answer = self._answer(query, attempts)
            page = self._page(answer, limit)
            if fields is None and self.abilities.product:
                page = replace(page, items=self._with_assets(page.items))
            if page.items or not page.has_next or not self.abilities.honest_next:
                return page
        raise BadAnswer(
            f"catalog {self.api} answers an empty page and says that there is more", hint="tell its operator; it is asked again"
        )

    def _answer(self, query: dict[str, Any], attempts: int) -> Reply:
        method = self.abilities.method

        def parameters(url: str) -> dict[str, Any]:
            return ItemSearch(url, method=method, stac_io=self._http, **query).get_parameters()

        try:
            return self.places.search(method, parameters, attempts)
        except Rejected as error:
            if error.status != 404 or not self.abilities.empty_404:
                raise
            now = self.places.described().server_now  # still there: nothing was found
            return Reply({}, now, 0.0, now, 204)

    def _page(self, answer: Reply, limit: int) -> ItemPage:
        if answer.status == 204:
            return ItemPage([], full=False, server_now=answer.as_of, seconds=answer.seconds)
        features = answer.document.get("features")
        if features is None and answer.document.get("type") == "FeatureCollection":
            features = []  # as Go writes a list that has nothing
        if not isinstance(features, list):
            raise CatalogUnavailable(f"{self.api} answered a search without a list of features", hint="is it a STAC API?")
        links = answer.document.get("links")
        more = isinstance(links, list) and any(isinstance(link, dict) and link.get("rel") == "next" for link in links)
        full = len(features) >= limit or (more and self.abilities.honest_next)
        items = [cast("ItemDocument", f) for f in features if isinstance(f, dict)]
        items = items if self._whole else [_slim(item) for item in items]
        return ItemPage(items, full, answer.as_of, answer.seconds, has_next=more)

    def _asked(self) -> list[str]:
        """Returns what is asked of each item; 21 of its 22 assets are bands, and nine tenths of its bytes."""
        if not self.abilities.fields:
            return []
        if not self.abilities.product:
            return list(self._fields)
        return [*("assets.product" if name == "assets" else name for name in self._fields), *LEAN]

    def _with_assets(self, items: list[ItemDocument]) -> list[ItemDocument]:
        """Asks again, and for all assets, for those few items that have no `product`."""
        bare = [name for i in items if isinstance(name := i.get("id"), str) and product_href(i) is None]
        if not bare:
            return items
        whole = {item.get("id"): item for item in self.fetch(bare)}
        return [whole.get(item.get("id"), item) for item in items]

    def assume(self, **found: Any) -> None:  # noqa: ANN401  # the fields of Abilities
        """Changes what is believed of the server."""
        self.abilities = replace(self.abilities, **found)


def _slim(item: ItemDocument) -> ItemDocument:
    properties = item.get("properties")
    if isinstance(properties, dict):
        item["properties"] = {name: properties[name] for name in PROPERTIES if name in properties}
    return item


def _order(field: str, *, descending: bool) -> list[dict[str, str]]:
    direction = "desc" if descending else "asc"
    if field == "id":
        return [{"field": "id", "direction": direction}]
    return [{"field": f"properties.{field}", "direction": direction}, {"field": "id", "direction": direction}]
