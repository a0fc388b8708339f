"""A catalog that changes under its readers' hands: publishers, the watcher's discovery, and pollers of the usual kinds.

In: a place. Out: what was published in the end, and what each reader believes. Never: judges.

Writers stamp an item and publish it some time later, in whole seconds or not, publish it again, change it without a word, date it
back, delete it, or publish it without any stamp.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from stac_watch.config.model import Recipe
from stac_watch.discover.intake import Intake
from stac_watch.discover.poll import poll as poll_once
from stac_watch.discover.sweep import sweep
from stac_watch.ledger.records import NO_RIVALS, Rivals
from stac_watch.model.errors import CatalogUnavailable
from stac_watch.model.signatures import unsigned

SECONDS = 12
RATE = 15  # writes per second
POLL = 2.0  # seconds
DELAY = 0.8  # mean seconds from stamp to visibility
STAMPS = ("updated", "created", "published")
USUAL = {"new": 80, "back-dated": 4, "again": 8, "silent": 4, "deleted": 4}
WITH_BARE = USUAL | {"new": 78, "bare": 2}
LOUD = {"new": 80, "again": 16, "deleted": 4}  # of two answers the later one can be told


@dataclass
class Truth:
    """What the writers did: the product of every item as it is in the end, None when it was deleted."""

    final: dict[str, str | None] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Writers:
    """Concurrent publishers."""

    def __init__(
        self, place, seed: int, seconds: float = SECONDS, *, kinds: Mapping[str, int] = USUAL, told=lambda *_: None
    ) -> None:
        self.place, self.rng, self.truth, self.errors = place, random.Random(seed), Truth(), []
        self._weights, self._told = kinds, told
        self.kinds: Counter[str] = Counter()
        self._seconds, self._until = seconds, 0.0
        self._threads = [threading.Thread(target=self._publish, args=(n,)) for n in range(18)]

    def __enter__(self):
        self._until = time.monotonic() + self._seconds
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        for thread in self._threads:
            thread.join()

    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _publish(self, worker: int) -> None:
        rng, mine, number = random.Random(self.rng.randrange(1 << 30) + worker), [], worker * 100_000
        try:
            while time.monotonic() < self._until:
                number += 1
                self._act(rng, mine, number)
                time.sleep(rng.expovariate(RATE / len(self._threads)))
        except Exception as error:  # noqa: BLE001  # a publisher that fails makes the test void, and must say so
            self.errors.append(error)

    def _act(self, rng: random.Random, mine: list[dict], number: int) -> None:
        kind = rng.choices(list(self._weights), list(self._weights.values()))[0] if mine else "new"
        stamp = datetime.now(UTC) - (timedelta(hours=1) if kind == "back-dated" else timedelta())
        text = stamp.strftime("%Y-%m-%dT%H:%M:%SZ" if rng.random() < 0.25 else "%Y-%m-%dT%H:%M:%S.%fZ")
        time.sleep(rng.expovariate(1 / DELAY))
        self.kinds[kind] += 1
        if kind in ("new", "back-dated", "bare"):
            item = self.place.item(number, text, sensed=self.place.sensed + timedelta(seconds=rng.randrange(86_400)))
            for name in STAMPS if kind == "bare" else ():
                del item["properties"][name]
            self._told("post", item)
            self.place.post(item)
            mine.append(item)
        elif kind == "deleted":
            item = mine.pop(rng.randrange(len(mine)))
            self._told("delete", item["id"])
            self.place.delete(item["id"])
            with self.truth.lock:
                self.truth.final[item["id"]] = None
            return
        else:
            item = rng.choice(mine)
            product = item["assets"]["product"]
            product["href"] = product["href"].replace("/v", "/v1", 1)
            if kind == "again":
                item["properties"]["updated"] = text
            self._told("put", item)
            self.place.put(item)
        with self.truth.lock:
            self.truth.final[item["id"]] = item["assets"]["product"]["href"]


class Both:
    """A collection and another one of the same catalog, with the same items under the same ids: what is done is done to both."""

    def __init__(self, place, other) -> None:
        self.sensed, self.item = place.sensed, place.item
        self._places = (place, other)

    def post(self, item: dict) -> None:
        self._each(lambda place, mine: place.post(mine), item)

    def put(self, item: dict) -> None:
        self._each(lambda place, mine: place.put(mine), item)

    def delete(self, item_id: str) -> None:
        for place in self._places:
            place.delete(item_id)

    def _each(self, act, item: dict) -> None:
        for place in self._places:
            act(place, item | {"collection": place.collection})


class UsualPoller:
    """What people write: fixed windows without overlap, or everything newer than the newest seen."""

    def __init__(self, place, kind: str) -> None:
        self.place, self.kind, self.seen = place, kind, {}
        self.mark = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def poll(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        prop = {"property": "updated"}
        if self.kind == "fixed windows":
            condition = {"op": "between", "args": [prop, self.mark, now]}
        else:
            condition = {"op": ">", "args": [prop, self.mark]}
        features = self.place.search(filter=condition, limit=5000).json()["features"]
        self.seen |= {f["id"]: f["assets"]["product"]["href"] for f in features}
        stamps = [f["properties"]["updated"] for f in features]
        self.mark = now if self.kind == "fixed windows" else max([self.mark, *stamps])


def missed(final: dict[str, str | None], seen: dict[str, str | None]) -> list[str]:
    return [item_id for item_id, href in final.items() if href is not None and seen.get(item_id) != href]


class Ours:
    """The watcher's discovery, as its loop runs it: polls, and a step of a sweep in between."""

    def __init__(self, place, ledger, *, api: str | None = None, name: str = "s2", rivals: Rivals = NO_RIVALS, **catalog) -> None:
        self.ledger, self.failed, self.name = ledger, Counter[str](), name
        source = place.source(api=api, name=name, sweep="1s", interval="2s")
        seen = place.catalog(api=api, probed=False, **catalog)
        self.intake = Intake(source, Recipe(), seen, ledger, lambda: datetime.now(UTC), "", rivals)

    def round(self, *, poll: bool = True) -> None:
        try:
            if poll:
                poll_once(self.intake)
            sweep(self.intake)
        except CatalogUnavailable as error:
            self.failed[error.message.rpartition(": ")[2]] += 1

    def finish(self) -> None:
        """One more poll and two whole sweeps, which is what is promised: visible for longer than one sweep."""
        row = self.ledger.sources.state(self.name, ()).sweeps.get("recent")
        until, deadline = (row.number if row else 0) + 3, time.monotonic() + 120
        self.round()
        while time.monotonic() < deadline:
            self.round(poll=False)
            row = self.ledger.sources.state(self.name, ()).sweeps.get("recent")
            if row is not None and row.number >= until:
                return
        raise AssertionError(f"two sweeps did not end in two minutes: {self.failed}")

    def state(self) -> dict[str, str | None]:
        """The product that the ledger believes each item to have; None for withdrawn ones."""
        bodies = {}
        for row in reversed(self.ledger.conversions.find(source=self.name, limit=10_000)):
            known = self.ledger.items.known(self.name, [row.item_id])[row.item_id]
            if known.key == row.key:
                withdrawn = row.reason == "withdrawn"
                href = json.loads(self.ledger.conversions.events(row.key)[-1])["data"]["product_href"]
                bodies[row.item_id] = None if withdrawn else unsigned(href)
        return bodies

    def events(self) -> list[dict]:
        return [
            json.loads(body)
            for row in self.ledger.conversions.find(limit=10_000)
            for body in self.ledger.conversions.events(row.key)
        ]


@contextmanager
def churn(place, seed: int, **writers):
    """Publishes what was there before, then lets the writers loose."""
    old = there_before(place)
    for item in old:
        place.post(item)
    yield {item["id"] for item in old}, Writers(place, seed, **writers)


def there_before(place) -> list[dict]:
    """What was there before the watch."""
    then = datetime.now(UTC) - timedelta(days=3)
    return [place.item(900_000 + n, then, sensed=place.sensed - timedelta(minutes=n)) for n in range(25)]


def restamp(place, *, only: Sequence[str] = STAMPS) -> None:
    """Changes nothing but the stamps of what was there before the watch."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for item in there_before(place):
        item["properties"] |= dict.fromkeys(only, now)
        place.put(item)


def watched(place, ledger, seed: int) -> tuple[Ours, list[UsualPoller], Writers, set[str]]:
    """Lets the watcher and the usual pollers watch the same churn to its end."""
    with churn(place, seed) as (before, writers):
        ours = Ours(place, ledger)
        ours.round()
        usual = [UsualPoller(place, kind) for kind in ("fixed windows", "high-water mark")]
        with writers:
            while writers.alive():
                started = time.monotonic()
                ours.round()
                for poller in usual:
                    poller.poll()
                time.sleep(max(0.0, POLL - (time.monotonic() - started)))
    assert writers.errors == []
    ours.finish()
    for poller in usual:
        poller.poll()
    return ours, usual, writers, before
