"""The catalog that a simulated year's watcher reads: two collections that change as planned.

In: the plan and the clock. Out: a value for each that stands where `Catalog` stands. Never: HTTP. A year is some hundred
thousand requests of 6 to 2,300 ms each, and what goes wrong on their way is the business of tests/discover and of
`make test-services`. What is left is what discovery makes of the answers.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from year_clock import START, Clock, moment
from year_plan import EVIL, Kind, Plan, evil_name, has_evil, is_down, is_native, name_of, number_of

from stac_watch.catalog.abilities import Abilities
from stac_watch.catalog.client import ItemPage
from stac_watch.catalog.windows import Window
from stac_watch.model.errors import CatalogUnavailable
from stac_watch.model.stamps import stamp

API, COLLECTION, NATIVES = "https://stac.example", "sentinel-2-l2a", "sentinel-2-l2a-zarr3"


class Killed(BaseException):
    """The watcher's process ends here, between one instruction and the next."""


@dataclass
class Catalog:
    """One collection that changes as planned; what `Catalog` is to the stages. Its server's clock is ours."""

    plan: Plan
    clock: Clock
    api: str = API
    collection: str = COLLECTION
    abilities: Abilities = field(default_factory=Abilities)
    fuse: int = -1  # so many searches until the watcher is killed in one; negative = it is not
    killed: bool = False  # it was, in a thread of its own
    asked: int = 0
    clock_seen: tuple[datetime, datetime] | None = None  # of polls: when the collection was asked for last
    kept: timedelta = timedelta(0)  # there is no cache between
    lag: float = 0.0  # seconds by which the replica that answers is behind

    def __post_init__(self) -> None:
        self.current = array("q", [-1]) * len(self.plan.sensing)  # by item: what it shows now
        self._next = 0

    def advance(self) -> None:
        """Publishes what has become visible."""
        p, now = self.plan, self.clock.seconds
        while self._next < len(p.visible) and p.visible[self._next] <= now:
            self.current[p.item[self._next]] = self._next
            self._next += 1

    def has(self, i: int) -> bool:
        """Tells whether an item is of this collection."""
        return is_native(i) == (self.collection == NATIVES)

    def shows(self, i: int) -> bool:
        """Tells whether an item is there now."""
        return self.has(i) and self._current(i) >= 0 and self.plan.kind[self._current(i)] != Kind.GONE

    def _current(self, i: int) -> int:
        """Returns the publication of an item that whoever answers knows: a replica that lags has not heard of the last ones.

        What was changed without a word is left alone: nobody could tell which of the two is older.
        """
        pub, p = self.current[i], self.plan
        while pub >= 0 and p.visible[pub] > self.clock.seconds - self.lag:
            before = p.before[pub]
            if before >= 0 and p.stamp[before] >= p.stamp[pub]:
                break
            pub = before
        return pub

    def _answer(self) -> datetime:
        self.asked += 1
        if is_down(self.plan.down["catalog"], self.clock.seconds):
            raise CatalogUnavailable(f"catalog {API} answers 503", hint="it is asked again")
        if self.fuse >= 0:
            self.fuse -= 1
            if self.fuse < 0:
                self.killed = True
                raise Killed
        return self.clock()

    # -- what the stages ask -------------------------------------------------------------------------------------------

    def search(self, window: Window, *, limit: int, extra: dict[str, Any] | None = None, **_: object) -> ItemPage:
        """Returns a window's first items, by what the window is about, and by id."""
        now, p = self._answer(), self.plan
        start, end = ((m - START).total_seconds() for m in (window.start, window.end))
        if window.field == "datetime":
            span = range(bisect_left(p.sensing, start), bisect_left(p.sensing, end))
            found = [(p.sensing[i], name_of(p, i), i) for i in span if self.shows(i)]
            found += [(p.sensing[i], evil_name(p, i), ~i) for i in span if has_evil(i) and self.has(i) and self.current[i] >= 0]
        else:
            span = range(bisect_left(p.stamps, start), bisect_left(p.stamps, end))
            known = [pub for n in span if self.has(p.item[pub := p.by_stamp[n]])]
            pubs = [pub for pub in known if self._current(p.item[pub]) == pub and p.kind[pub] != Kind.GONE]
            found = [(p.stamp[pub], name_of(p, p.item[pub]), p.item[pub]) for pub in pubs]
            first = [p.item[pub] for pub in known if has_evil(p.item[pub]) and p.before[pub] < 0 <= self.current[p.item[pub]]]
            found += [(self._stamp(i), evil_name(p, i), ~i) for i in first]
        found.sort()
        if extra is not None:  # windows.after: this value and a greater id, or a greater value
            _, either = extra["args"]
            value, ident = either["args"][0]["args"][1], either["args"][1]["args"][1]
            found = [f for f in found if (stamp(moment(f[0])), f[1]) > (value, ident)]
        documents = [self.document(i) for _, _, i in found[:limit]]
        return ItemPage(documents, len(found) >= limit, now, has_next=len(found) > limit)

    def item(self, item_id: str) -> dict[str, Any] | None:
        """Returns one item; None where there is none."""
        self._answer()
        i = number_of(item_id)
        return self.document(i) if self.shows(i) else None

    def fetch(self, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Returns those of the items that are there."""
        return [document for item_id in item_ids if (document := self.item(item_id)) is not None]

    def first(self) -> datetime | None:
        """Returns when the first item was acquired."""
        self._answer()
        return moment(self.plan.sensing[0])

    def _stamp(self, i: int) -> int:
        """Returns the stamp of an item's first publication."""
        pub = self.current[i]
        while self.plan.before[pub] >= 0:
            pub = self.plan.before[pub]
        return self.plan.stamp[pub]

    def _evil(self, i: int) -> dict[str, Any]:
        """Returns the evil item beside an item: whichever way it takes, it is unreadable, and no neighbour is the worse for it."""
        p, name = self.plan, evil_name(self.plan, i)
        document: dict[str, Any] = {
            "type": "Feature", "id": name, "collection": COLLECTION, "bbox": [1e308, 0, 1e300, 1e308],
            "properties": {"datetime": stamp(moment(p.sensing[i])), "updated": stamp(moment(self._stamp(i)))},
            "assets": {"A" * 60_000: {"href": "a.png"}},
        }  # fmt: skip
        href = ("http://169.254.169.254/x.zarr", "file:///etc/x.zarr", "https://objects.example/{{workflow.name}}.zarr", [["x"]])
        document["assets"]["product"] = {"type": "application/vnd+zarr", "href": href[i // EVIL % len(href)]}
        return document

    def document(self, i: int) -> dict[str, Any]:
        """Returns an item as whoever answers knows it; the evil one beside an item for the complement of its number."""
        if i < 0:
            return self._evil(~i)
        p, pub, name = self.plan, self._current(i), name_of(self.plan, i)
        properties: dict[str, Any] = {
            "datetime": stamp(moment(p.sensing[i])), "updated": stamp(moment(p.stamp[pub])), "grid:code": f"MGRS-{name[39:44]}",
            "eo:cloud_cover": 95.0 if p.cloudy[i] else 12.5, "processing:version": "05.11",
        }  # fmt: skip
        if p.kind[pub] == Kind.DEPRECATED:
            properties["deprecated"] = True
        product: dict[str, Any] = {"type": "application/vnd+zarr"}
        if is_native(i):
            product = {"type": "application/vnd.zarr; version=3", "zarr:consolidated": True}
        if p.kind[pub] != Kind.UNREADABLE:
            product["href"] = f"https://objects.example/{'native' if is_native(i) else f'v{p.version[pub]}'}/{name}.zarr"
        return {
            "type": "Feature", "id": name, "collection": self.collection, "bbox": [11.4, 41.4, 12.8, 42.5],
            "properties": properties, "assets": {"product": product},
        }  # fmt: skip
