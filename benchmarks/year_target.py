"""The catalog in which a simulated year's outputs are registered: it is out for hours, loses answers, and remembers who wrote what.

In: items. Out: a value that stands where `TargetCollection` stands, a registrar in front of it, and what should never have
happened. Never: HTTP.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any

from year_catalog import NATIVES, Killed
from year_clock import Clock, moment
from year_engine import Cluster
from year_plan import Plan, is_down, is_native, name_of, number_of

from stac_watch.config.model import Recipe
from stac_watch.config.register import Register
from stac_watch.ledger.ledger import Ledger
from stac_watch.model.errors import CatalogUnavailable
from stac_watch.model.stamps import stamp
from stac_watch.register.item import outputs_of
from stac_watch.register.registrar import Made, Registrar, Round

API, COLLECTION = "https://stac.mine.example", "geozarr"
RECENT = 256  # documents that are kept whole: each is read back when it was sent
MOST_ROUNDS = 50  # between two rounds of the watcher, which are half an hour apart


class Target:
    """One collection; what `TargetCollection` is to the registrar."""

    collection = COLLECTION
    url = f"{API}/collections/{COLLECTION}"

    def __init__(self, plan: Plan, clock: Clock, rng: random.Random) -> None:
        self._plan, self._clock, self._rng = plan, clock, rng
        self.made: dict[int, str] = {}  # by item: when the output was made that is registered
        self._whole: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._collection: dict[str, Any] | None = None
        self.fuse = -1  # so many requests until the watcher is killed in one, which has done its work
        self.killed = False
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    def _answer(self) -> None:
        if is_down(self._plan.down["target"], self._clock.seconds):
            self.seen["registrations into an outage"] += 1
            raise CatalogUnavailable(f"catalog {API} answers 503", hint="it is asked again")

    def _done(self) -> None:
        """Loses an answer now and then; the work is done."""
        if self.fuse >= 0:
            self.fuse -= 1
            if self.fuse < 0:
                self.killed = True
                raise Killed
        if self._rng.random() < 0.01:
            self.seen["answers of the target lost"] += 1
            raise CatalogUnavailable(f"catalog {API} did not answer", hint="it is asked again")

    def put(self, item: dict[str, Any]) -> None:
        """Takes an item."""
        self._answer()
        name, made = str(item["id"]), str(item["properties"]["processing:datetime"])
        i = number_of(name)
        before = self.made.get(i)
        if before is not None and before > made:
            self.wrong.append(f"{name}: the item of an older output took the place of a newer one's in the target")
        self.seen["registrations" if before is None else "registrations again" if before == made else "items replaced"] += 1
        self.made[i] = made
        self._whole[name] = item
        if len(self._whole) > RECENT:
            self._whole.popitem(last=False)
        self._done()

    def item(self, item_id: str) -> dict[str, Any] | None:
        """Returns an item that was sent a moment ago; None when there is none."""
        self._answer()
        return self._whole[item_id] if number_of(item_id) in self.made else None

    def remove(self, item_id: str) -> bool:
        """Removes an item."""
        self._answer()
        self._whole.pop(item_id, None)
        self.seen["items taken out"] += (found := self.made.pop(number_of(item_id), None) is not None)
        self._done()
        return found

    def described(self) -> dict[str, Any] | None:
        """Returns the collection."""
        self._answer()
        return self._collection

    def describe(self, collection: dict[str, Any], *, there: bool) -> None:
        """Takes its description."""
        del there
        self._answer()
        self._collection = collection


class Rounds:
    """A registrar's rounds, all that are due at once; and when they are over, which a world without waits must know."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar
        self.idle = threading.Event()
        self.idle.set()

    def is_due(self) -> bool:
        """Tells whether there is something to send: then a round follows."""
        due = self._registrar.is_due()
        if due:
            self.idle.clear()
        return due

    def round(self) -> Round:
        """Sends what is due."""
        total = Round()
        try:
            for _ in range(MOST_ROUNDS):
                one = self._registrar.round()
                sums = (total.registered + one.registered, total.failed + one.failed, total.later + one.later)
                total = Round(*sums, total.withdrawn + one.withdrawn)
                if not self._registrar.is_due():
                    break
            return total
        finally:
            self.idle.set()


def rounds(ledger: Ledger, target: Target, cluster: Cluster, recipe: Recipe, now: Callable[[], datetime]) -> Rounds:
    """Returns what registers the outputs of a cluster."""
    register = Register.model_validate(
        {"api": API, "collection": COLLECTION, "href_base": "https://data.mine.example/geozarr", "at_once": 1, "rate": "1000000/s"}
    )
    made = Made(cluster.marker, lambda output: _described(cluster, output), lambda *_: None)
    outputs = outputs_of(recipe.output, register.href_base)
    ledger.publications.enrol_done()
    return Rounds(Registrar(ledger, target, register, outputs, made, now, random.Random(7)))  # type: ignore[arg-type]  # noqa: S311


def _described(cluster: Cluster, output: str) -> dict[str, Any] | None:
    """Returns the item that lies beside an output."""
    name = output.rpartition("/")[2].removesuffix(".zarr")
    i, p = number_of(name), cluster.catalog.plan
    if cluster.holds[i] < 0 or (f"/{NATIVES}/" in output) != is_native(i):
        return None
    ring = [[11.4, 41.4], [12.8, 41.4], [12.8, 42.5], [11.4, 42.5], [11.4, 41.4]]
    return {
        "type": "Feature", "id": name_of(p, i), "bbox": [11.4, 41.4, 12.8, 42.5],
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"datetime": stamp(moment(p.sensing[i])), "processing:datetime": cluster.finished(i)},
        "assets": {"product": {"href": f"./{name}.zarr", "type": "application/vnd.zarr; version=3"}}, "links": [],
    }  # fmt: skip
