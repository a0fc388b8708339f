"""What is new is sent when it is known: not when its window, its round, or another source is done; and at once after a hint."""

import random
import socket
import threading
from contextlib import contextmanager

from fakes.engine import Taker

from stac_watch.catalog.client import Catalog
from stac_watch.catalog.http import CatalogHttp
from stac_watch.config.model import Limits, Recipe, Source
from stac_watch.demo.catalog import COLLECTION, Server, Store, create_app
from stac_watch.watch.loop import Parts, Watcher

PATIENCE = 60.0  # seconds until a test gives up; nothing takes so long


class Telling(Taker):
    """An engine that takes everything, and says so."""

    def __init__(self):
        super().__init__()
        self.took = threading.Semaphore(0)

    def submit(self, event):
        receipt = super().submit(event)
        self.took.release()
        return receipt


class Waiting(Store):
    """A catalog that answers nothing more, once an item is in the ledger, until its event was sent."""

    def __init__(self):
        super().__init__()
        self.is_known, self.is_sent = lambda: False, threading.Event()
        self.waited = []

    def search(self, query):
        if self.is_known():
            self.waited.append(self.is_sent.wait(PATIENCE))
        return super().search(query)


@contextmanager
def running(world, engine, urls, **settings):
    """A loop in a thread; by its clock only the first poll of each source is ever due."""
    stop = threading.Event()
    sources = tuple(
        Source(name=name, api=url, collection=COLLECTION, poll={"interval": "1h", "since": "30d"} | settings)
        for name, url in urls.items()
    )
    catalogs = {
        s.name: Catalog(
            CatalogHttp(s.api, now=world.clock, sleep=lambda _: None, rng=random.Random(1), timeout=(1, PATIENCE)), s.collection
        )
        for s in sources
    }
    parts = Parts(
        sources=sources, recipe=Recipe(), limits=Limits(rate="1000/s"), ledger=world.ledger, engine=engine, catalogs=catalogs,
        read_marker=lambda _: None, now=world.clock, wait=stop.wait, rng=random.Random(1), beat=0.2,
    )  # fmt: skip
    loop = threading.Thread(target=Watcher(parts).run, args=(lambda _: None,))
    loop.start()
    try:
        yield parts
    finally:
        stop.set()
        loop.join()


def hinted(world, parts, engine, number):
    """Publishes an item, gives a hint, and sees its event sent."""
    world.store.put(world.item(number, updated=world.clock()))
    parts.hints.give("s2")
    sent(world, engine)


def sent(world, engine):
    """Sees an event sent; the clock is turned, for the pause between hints and the rate of events, by less than an hour."""
    for _ in range(int(PATIENCE / 2 * 10)):
        if engine.took.acquire(timeout=0.1):
            return
        world.clock.forward(seconds=1)
    raise AssertionError("nothing was sent: it waits for its time, or for another source")


def test_a_hint_has_a_source_polled_long_before_its_time(world):
    world.fill(1)
    engine = Telling()
    with running(world, engine, {"s2": world.url}) as parts:
        assert engine.took.acquire(timeout=PATIENCE)
        for number in (90, 91, 92):
            hinted(world, parts, engine, number)
    assert parts.hints.counts()[1]["s2", "news"] >= 2


def test_what_one_window_shows_is_sent_while_the_next_is_read(world):
    with Waiting() as store, Server(create_app(store, now=world.clock)) as server:
        store.put_many([world.item(n) for n in range(8)])
        engine = Telling()
        store.is_known = lambda: bool(world.ledger.conversions.find(limit=1))
        with running(world, engine, {"s2": server.url}, page=3):
            assert engine.took.acquire(timeout=PATIENCE), "it waits for the end of the poll"
            store.is_sent.set()
            for _ in range(7):
                sent(world, engine)
    assert store.waited
    assert all(store.waited)


def test_a_source_that_says_nothing_keeps_no_other_waiting(world):
    world.fill(2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = Telling()
        urls = {"a-silent-one": f"http://127.0.0.1:{silent.getsockname()[1]}", "s2": world.url}
        with running(world, engine, urls) as parts:
            for _ in range(2):
                sent(world, engine)
            hinted(world, parts, engine, 90)


def test_a_hint_to_a_watcher_that_stands_by_costs_no_more_looks_at_the_ledger(world, tmp_path, open_ledger):
    ticks, waited = [], []
    parts = Parts(
        sources=(world.source(),), recipe=Recipe(), limits=Limits(), ledger=world.ledger, engine=Taker(), now=world.clock,
        catalogs={"s2": world.catalog()}, read_marker=lambda _: None, rng=random.Random(1), holder="this one",
        wait=lambda seconds: waited.append(seconds) or len(ticks) > 2,
    )  # fmt: skip
    other = open_ledger(tmp_path / "ledger.db")
    assert other.lease.hold("another", world.clock)
    watcher = Watcher(parts)
    parts.hints.give("s2")
    watcher.run(ticks.append)
    assert all(tick.standby for tick in ticks)
    assert sum(waited) >= 5.0, "only the bell that the hint rang cut one pause short"
    other.close()
