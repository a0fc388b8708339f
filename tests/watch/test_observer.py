"""Several sources in one process: one that hangs keeps nobody waiting, one that is wrong stops nobody."""

import random
import socket
import time

import pytest

from stac_watch.catalog.client import Catalog
from stac_watch.catalog.http import CatalogHttp
from stac_watch.config.model import Limits, Recipe, Source
from stac_watch.demo.catalog import COLLECTION, Server, Store, create_app
from stac_watch.model.errors import ConfigError
from stac_watch.watch.loop import Parts, Watcher

SILENCE = 60.0
"""Seconds until a client gives up one that says nothing; whatever else the machine does, four rounds with others take less."""


class FullEngine:
    """An engine without room."""

    def headroom(self) -> int:
        return 0

    def runs(self, keys):
        return []


@pytest.fixture
def hanging(world):
    with Store() as store, Server(create_app(store, now=world.clock)) as server:
        yield store, server


@pytest.fixture
def silent():
    """The URL of a server that takes connections and says nothing; when it goes, so do they."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def watcher(world, urls, **over) -> Watcher:
    sources = tuple(
        Source(name=name, api=url, collection=COLLECTION, poll={"interval": "1s", "since": "30d"}) for name, url in urls.items()
    )
    now, silence = over.pop("now", world.clock), over.pop("silence", 3)
    catalogs = {
        s.name: Catalog(CatalogHttp(s.api, now=now, sleep=lambda _: None, rng=random.Random(1), timeout=(1, silence)), s.collection)
        for s in sources
    }
    parts = Parts(
        sources=sources, recipe=Recipe(), limits=Limits(rate="1/d"), ledger=world.ledger, engine=FullEngine(), catalogs=catalogs,
        read_marker=lambda _: None, now=now, wait=lambda _: True, rng=random.Random(1), **over,
    )  # fmt: skip
    return Watcher(parts)


def test_a_source_that_hangs_delays_no_other(world, silent):
    world.fill(3)
    loop = watcher(world, {"hangs": silent, "works": world.url}, patience=0.5, silence=SILENCE)
    started = time.monotonic()
    found = 0
    for known in (3, 4, 5, 6):
        while found < known:
            tick = loop.tick()
            assert "hangs" not in {*tick.tallies, *tick.problems}
            found += tick.tallies["works"].admitted if "works" in tick.tallies else 0
            assert time.monotonic() - started < SILENCE, "it waited for the one that hangs"
        world.clock.forward(seconds=30)
        world.store.put(world.item(90 + known, updated=world.clock()))


def test_a_source_that_fails_is_a_problem_of_its_own(world, hanging):
    store, server = hanging
    store.put(world.item(1))
    world.fill(2)
    loop = watcher(world, {"fails": server.url, "works": world.url})
    server.faults.set(wire=("500",) * 1000, wire_paths=("/",))
    tick = loop.tick()
    assert "HTTP 500" in tick.problems["fails"].message
    assert tick.tallies["works"].admitted == 2
    server.faults.set(wire=())
    world.clock.forward(minutes=30)
    assert loop.tick().tallies["fails"].admitted == 1


def test_a_collection_that_is_not_there_is_said_and_waited_for_at_the_start_too(world):
    loop = watcher(world, {"typo": world.url})
    assert "no collection" in loop.tick().problems["typo"].message
    world.fill(1)
    world.clock.forward(minutes=1)
    assert loop.tick().tallies["typo"].admitted == 1
    for row in world.store.collections():
        world.store._db.execute("DELETE FROM collections WHERE id = ?", (row["id"],))
    world.clock.forward(minutes=5)
    assert "no collection" in loop.tick().problems["typo"].message


def test_once_sees_others_through_before_it_says_what_is_wrong_with_one(world, hanging):
    _, server = hanging  # it has no such collection
    world.settings, ticks = {}, []
    loop = watcher(world, {"typo": server.url, "works": world.url})
    world.store.put_many([world.item(1) | {"id": ".."}])  # unreadable: there is something to see, and nothing to convert
    with pytest.raises(ConfigError, match="no collection"):
        loop.drain(ticks.append)
    assert ticks[0].tallies["works"].unreadable


def test_once_sees_the_whole_of_a_sweep(world):
    world.fill(3)
    loop = watcher(world, {"s2": world.url})
    assert loop.tick(to_the_end=True).tallies["s2"].admitted == 3
    assert world.ledger.sources.state("s2", ()).sweeps.get("recent").done_at is not None
