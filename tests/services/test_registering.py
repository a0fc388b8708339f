"""Outputs are registered in a real STAC API whose answers get lost, by a process that dies: each is there once, and never away."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
import requests
from registering import Killed, Reader, dies_at, passing
from shop import COLLECTION, Shop

from stac_watch.catalog.writing import TargetCollection, WritingHttp
from stac_watch.model.errors import Refused, Temporary
from stac_watch.model.publication import PublicationState as P
from stac_watch.register.compared import difference

OUTPUTS, REPLACED = 60, 20
FAULTS = ("500", "503", "reset", "truncate")  # the last: done, and the answer to it is lost
ITEMS = f"/collections/{COLLECTION}/items"


@pytest.fixture
def served(pgstac, ledger, make, clock):
    """A ledger whose outputs go through a proxy into a collection that is not there yet."""
    clock.time = make.now
    ledger.publications.enrol_done()
    with passing(pgstac.api.url) as proxy:
        yield Shop(ledger, make, clock, proxy.url, None, proxy.faults), pgstac
        pgstac.http.delete(f"{pgstac.api.url}/collections/{COLLECTION}", timeout=60)


def registrar(shop: Shop):
    http = WritingHttp(shop.url, now=shop.clock, sleep=lambda _: None, rng=random.Random(1), timeout=(5, 60))
    return shop.registrar(TargetCollection(http, COLLECTION))


def until_registered(shop: Shop, names: list[str], problems: Counter[str], rounds: int = 120) -> None:
    working = registrar(shop)
    for _ in range(rounds):
        if working.is_due():
            try:
                working.round()
            except (Temporary, Refused) as error:
                problems[type(error).__name__] += 1
        shop.clock.forward(minutes=10)
        if all(shop.publication(name).state is P.REGISTERED for name in names):
            return
    pytest.fail(str(Counter((shop.publication(n).state.value, shop.publication(n).reason) for n in names)))


def die(shop: Shop, commit: int) -> None:
    """Registers until the process dies before a commit: what it sent last, the ledger does not know of."""
    with dies_at(shop.ledger._session.engine, commit):
        for _ in range(50):
            try:
                registrar(shop).round()
            except Temporary:
                pass
            except Killed:
                return
            shop.clock.forward(hours=1)
    pytest.fail("it outlived every commit")


def there(place) -> list[dict]:
    """All items of the collection, past the proxy."""
    found = place.http.post(f"{place.api.url}/search", json={"collections": [COLLECTION], "limit": 500}, timeout=60).json()
    return found["features"]


def test_each_output_is_registered_once_whatever_is_lost_and_whoever_dies(served, capsys):
    shop, place = served
    names, problems = [shop.finish(n) for n in range(OUTPUTS)], Counter[str]()
    shop.faults.set(wire=("401",), wire_paths=("/collections",))  # once, before there is anything
    with pytest.raises(Refused):
        registrar(shop).round()
    assert {shop.publication(name).state for name in names} == {P.PENDING}
    shop.faults.set(wire=tuple(itertools.islice(itertools.cycle(FAULTS), 24)), wire_paths=(ITEMS,), retry_after=None)
    die(shop, commit=7)
    assert P.PENDING in {shop.publication(name).state for name in names}
    until_registered(shop, names, problems)
    assert Counter(item["id"] for item in there(place)) == Counter(names)

    replaced = names[:REPLACED]
    with Reader([f"{place.api.url}{ITEMS}/{name}" for name in replaced]) as reader:
        for revision in ("rev-b", "rev-c", "rev-d"):
            for n in range(REPLACED):
                shop.finish(n, revision=revision, **{"eo:cloud_cover": 1.5})
            shop.faults.set(wire=tuple(itertools.islice(itertools.cycle(FAULTS), 8)), wire_paths=(ITEMS,), retry_after=None)
            die(shop, commit=3)
            until_registered(shop, replaced, problems)
    items = there(place)
    with capsys.disabled():
        faults = dict(Counter(shop.faults.delivered))
        print(f"\npgstac {place.api.generation}: {len(items)} items, faults {faults}, {reader.reads} reads, {dict(problems)}")
    assert reader.missed == []
    assert reader.reads > REPLACED
    assert shop.faults.delivered.count("truncate") >= 8
    assert Counter(item["id"] for item in items) == Counter(names)
    working = registrar(shop)
    for item in items:
        assert difference(working.prepare(shop.publication(item["id"])).document, item) == ""
    collection = requests.get(f"{place.api.url}/collections/{COLLECTION}", timeout=30).json()
    assert collection["extent"]["spatial"]["bbox"] == [[11.4, 41.4, 12.7, 42.4]]
    assert not working.is_due()

    place.http.delete(f"{place.api.url}{ITEMS}/{names[0]}", timeout=60)  # a person was first
    gone = names[:5]
    shop.ledger.publications.withdraw([shop.publication(name).key for name in gone], shop.clock())
    shop.faults.set(wire=FAULTS, wire_paths=(ITEMS,), retry_after=None)
    die(shop, commit=3)
    for _ in range(20):
        if working.is_due():
            working.round()
        shop.clock.forward(minutes=10)
    assert {shop.publication(name).state for name in gone} == {P.WITHDRAWN}
    assert sorted(item["id"] for item in there(place)) == names[5:]
