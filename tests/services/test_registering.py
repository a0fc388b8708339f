"""Outputs are registered in a real STAC API whose answers get lost, by a process that dies: each is there once, and never away."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import requests
from auth_servers import Guarded, guarded
from issuer_clients import credentials
from pgstac_servers import MissingServiceError
from place import Place
from registering import Killed, Reader, dies_at, passing
from shop import COLLECTION, Shop

from stac_watch.catalog.writing import TargetCollection, WritingHttp
from stac_watch.jobs.audit import Audit
from stac_watch.jobs.registered import compared
from stac_watch.model.announcement import Audience
from stac_watch.model.errors import Refused, Temporary
from stac_watch.model.publication import PublicationState as P
from stac_watch.register.compared import difference
from stac_watch.register.registrar import Registrar

OUTPUTS, GUARDED, KILLED, REPLACED = 500, 80, 8, 20
FAULTS = ("500", "503", "reset", "truncate", "401")  # the last but one: done, and the answer to it is lost
ITEMS = f"/collections/{COLLECTION}/items"


SINK = "https://hooks.example/outputs"


@dataclass
class Served:
    """A ledger whose outputs go through faults and a proxy that wants tokens into a collection that is not there yet."""

    shop: Shop
    place: Place
    door: Guarded
    behind: list[str]  # where the faults' proxy leads: to the last of them
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def registrar(self) -> Registrar:
        """Tokens are good for seconds, and the clock that would tell so stands still: each is refused at last."""
        let_in = credentials(self.door, "brief", now=lambda: self.began)
        http = WritingHttp(
            self.shop.url, now=self.shop.clock, sleep=lambda _: None, rng=random.Random(1), timeout=(5, 60), credentials=let_in
        )
        return self.shop.registrar(TargetCollection(http, COLLECTION))


@pytest.fixture
def served(pgstac, ledger, make, clock):
    clock.time = make.now
    ledger.publications.enrol_done()
    ledger.deliveries.enrol(Audience("test", {SINK: frozenset()}, registers=True))
    try:
        with guarded(pgstac.api.url) as door:
            behind = [door.url]
            with passing(lambda: behind[-1]) as proxy:
                yield Served(Shop(ledger, make, clock, proxy.url, None, proxy.faults), pgstac, door, behind)
    except MissingServiceError as error:
        pytest.skip(str(error))
    finally:
        pgstac.http.delete(f"{pgstac.api.url}/collections/{COLLECTION}", timeout=60)


def until_registered(served: Served, names: list[str], problems: Counter[str], rounds: int = 200) -> None:
    working, shop = served.registrar(), served.shop
    for _ in range(rounds):
        if working.is_due():
            try:
                working.round()
            except (Temporary, Refused) as error:
                problems[type(error).__name__] += 1
        shop.clock.forward(minutes=10)
        if not {c.state for c in shop.ledger.publications.counts()} - {P.REGISTERED}:
            return
    pytest.fail(str(Counter((shop.publication(n).state.value, shop.publication(n).reason) for n in names)))


def die(served: Served, commit: int) -> bool:
    """Registers until the process dies before a commit, whose item was sent; False where nothing is left."""
    shop = served.shop
    with dies_at(shop.ledger._session.engine, commit):
        for _ in range(50):
            try:
                if not served.registrar().round().registered:
                    return False
            except (Temporary, Refused):
                pass
            except Killed:
                return True
            shop.clock.forward(hours=1)
    return False


def there(place) -> list[dict]:
    """All items of the collection, past the proxy."""
    found = place.http.post(f"{place.api.url}/search", json={"collections": [COLLECTION], "limit": 1000}, timeout=60).json()
    return found["features"]


def faults(served: Served, count: int, paths: str = ITEMS) -> None:
    """Breaks so many of the next requests to items."""
    wire = tuple(itertools.islice(itertools.cycle(FAULTS), count))
    served.shop.faults.set(wire=wire, wire_paths=(paths,), retry_after=None)


def told(shop: Shop) -> dict[str, list[str]]:
    """What the sink is to be told of each item, in order."""
    found = dict[str, list[str]]()
    for one in reversed(shop.ledger.deliveries.find(limit=10_000)):
        found.setdefault(one.topic, []).append(one.type.rpartition(".")[2])
    return found


def test_each_output_is_registered_once_whatever_is_lost_and_whoever_dies(served, capsys):
    shop, place, problems = served.shop, served.place, Counter[str]()
    names = [shop.finish(n) for n in range(KILLED)]
    shop.faults.set(wire=("401",) * 2, wire_paths=("/collections",))  # before there is anything
    with pytest.raises(Refused):
        served.registrar().round()
    assert {shop.publication(name).state for name in names} == {P.PENDING}
    killed = 0
    while die(served, killed + 1):  # at its first commit, at its second, …
        killed += 1
    assert killed >= 3
    names += [shop.finish(n) for n in range(KILLED, GUARDED)]
    faults(served, 20)
    until_registered(served, names, problems)
    names += [shop.finish(n) for n in range(GUARDED, OUTPUTS)]
    served.behind.append(place.api.url)  # the proxy that wants tokens costs as much as the API itself
    faults(served, 40)
    until_registered(served, names, problems)
    served.behind.pop()
    assert Counter(item["id"] for item in there(place)) == Counter(names)
    assert told(shop) == {name: ["create"] for name in names}

    replaced = names[:REPLACED]
    with Reader([f"{place.api.url}{ITEMS}/{name}" for name in replaced]) as reader:
        for revision in ("rev-b", "rev-c"):
            for n in range(REPLACED):
                shop.finish(n, revision=revision, **{"eo:cloud_cover": 1.5})
            faults(served, 10)
            die(served, commit=3)
            until_registered(served, replaced, problems)
    items = there(place)
    with capsys.disabled():
        delivered = dict(Counter(shop.faults.delivered))
        told_of = f"{killed} kills, faults {delivered}, {reader.reads} reads, {dict(problems)}"
        print(f"\npgstac {place.api.generation}: {len(items)} items, {told_of}")
    assert reader.missed == []
    assert reader.reads > REPLACED
    assert set(shop.faults.delivered) == set(FAULTS)
    assert Counter(item["id"] for item in items) == Counter(names)
    assert told(shop) == {name: ["create", *["replace"] * 2 * (name in replaced)] for name in names}
    working = served.registrar()
    for item in items:
        assert difference(working.prepare(shop.publication(item["id"])).document, item) == ""
    nothing = Audit("s2", shop.make.now - timedelta(days=9), shop.clock(), shop.clock(), 0, 0, 0, 0, 0, 0, {}, [])
    assert compared(nothing, shop.ledger, lambda: items).gaps == []
    collection = requests.get(f"{place.api.url}/collections/{COLLECTION}", timeout=30).json()
    assert collection["extent"]["spatial"]["bbox"] == [[11.4, 41.4, 12.7, 42.4]]
    assert not working.is_due()

    place.http.delete(f"{place.api.url}{ITEMS}/{names[0]}", timeout=60)  # a person was first
    gone = names[:5]
    shop.ledger.publications.withdraw([shop.publication(name).key for name in gone], shop.clock())
    faults(served, 4)
    die(served, commit=3)
    for _ in range(20):
        if working.is_due():
            with contextlib.suppress(Temporary, Refused):
                working.round()
        shop.clock.forward(minutes=10)
    assert {shop.publication(name).state for name in gone} == {P.WITHDRAWN}
    assert sorted(item["id"] for item in there(place)) == names[5:]
    assert [told(shop)[name][-1] for name in gone] == ["delete"] * 5
