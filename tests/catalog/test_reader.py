"""What happens between two requests: each case loses items, or memory, to a client that pages as usual, and none to ours."""

import gc
import json
import tracemalloc
from datetime import timedelta

import pytest
from pystac_client import ItemSearch

from stac_watch.catalog.reader import leaves, sweep_leaves
from stac_watch.catalog.windows import SECOND, Window, days
from stac_watch.demo.catalog import COLLECTION, Server, Store, create_app

FROM_ALL = timedelta(days=10)


class Meanwhile(Store):
    """A catalog in which something happens after the first page that has items, or has some and is not full."""

    def __init__(self) -> None:
        super().__init__()
        self.then, self.full = None, True

    def search(self, query):
        page = super().search(query)
        if page.keys and query.limit > 1 and (self.full or not page.after) and self.then is not None:
            then, self.then = self.then, None
            then()
        return page


@pytest.fixture
def meanwhile(world):
    """The same world on such a catalog."""
    with Meanwhile() as store, Server(create_app(store, now=world.clock)) as server:
        world.url, world.store, world.faults = server.url, store, server.faults
        yield world


def read(world, start, end, limit, **abilities) -> list[str]:
    catalog, window = world.catalog(), Window("updated", start, end)
    catalog.assume(**abilities)
    return [d["id"] for leaf in leaves(catalog, window, limit) for d in leaf.documents]


@pytest.mark.parametrize("what", ["re-published", "deleted"])
def test_of_400_items_of_one_second_none_is_lost_when_a_page_s_last_one_moves(meanwhile, what):
    world, second = meanwhile, meanwhile.clock() - timedelta(days=4)
    stamp = second.strftime("%Y-%m-%dT%H:%M:%SZ")
    wanted = world.fill(400, updated=stamp)
    world.faults.set(text_updated=True, id_tokens=True)

    def then():
        if what == "deleted":
            world.store.delete(COLLECTION, wanted[49])
        else:
            world.store.put(world.item(49, updated=world.clock()))

    world.store.then = then
    assert read(world, second, second + SECOND, 50, typed=False) == wanted
    assert world.store.then is None
    # by token, as pystac-client does
    world.store.put(world.item(49, updated=stamp))
    world.store.then = then
    search = ItemSearch(f"{world.url}/search", collections=[COLLECTION], limit=50, sortby=["+properties.updated", "+id"])
    found = 0
    try:
        for page in search.pages_as_dicts():
            found += len(page["features"])
    except Exception as error:  # noqa: BLE001  # how pystac-client ends is not our business, only where
        assert "Could not find item using token" in str(error)  # noqa: PT017  # it does not always raise
    assert found == 50


def test_a_stamp_that_moves_back_behind_what_was_read_is_found_by_the_next_poll_or_sweep(meanwhile):
    world = meanwhile
    world.fill(40)
    world.poll()
    world.sweep()
    near, far = world.clock() - timedelta(minutes=5), world.clock() - timedelta(hours=30)
    world.clock.forward(minutes=1)
    world.store.put_many([world.item(n, version=2, updated=world.clock() + timedelta(seconds=n)) for n in range(30)])

    def then():  # once the first part was read, the last ones move into it
        world.store.put(world.item(28, version=3, updated=near))
        world.store.put(world.item(29, version=3, updated=far))

    world.settings["poll"] = {"since": "30d", "page": 10}
    world.store.then, world.store.full = then, False
    world.clock.forward(seconds=45)
    world.poll()
    assert world.store.then is None
    assert sum("/v3/" in href for href in world.hrefs()) == 0
    world.clock.forward(minutes=1)
    world.poll()
    assert sum("/v3/" in href for href in world.hrefs()) == 1  # within the overlap
    world.clock.forward(hours=6)
    world.sweep()
    assert sum("/v3/" in href for href in world.hrefs()) == 2


def test_what_is_published_while_a_poll_reads_is_found_by_it_or_by_the_next(meanwhile):
    world = meanwhile
    world.fill(40)
    world.settings["poll"] = {"since": "30d", "page": 10}
    world.store.then = lambda: world.store.put(world.item(90, updated=world.clock() - timedelta(seconds=1)))
    world.poll()
    assert world.store.then is None
    world.clock.forward(minutes=1)
    world.poll()
    assert len(world.states()) == 41


def test_counts_that_are_out_of_date_are_not_believed(world):
    wanted = world.fill(38)
    world.faults.set(matched=5)
    assert read(world, world.clock() - FROM_ALL, world.clock(), 10, typed=True) == wanted
    assert world.poll().admitted == 38


def test_items_of_another_collection_are_never_taken_for_ours(world):
    world.fill(3)
    strays = [world.item(n) | {"collection": "other", "id": world.item(n)["id"].replace("T32TQM", "T33TUN")} for n in (7, 8)]
    world.store.put_many(strays)
    world.faults.set(ignore=frozenset({"collections"}))
    tally = world.poll()
    assert (tally.admitted, tally.unreadable) == (3, 2)
    assert {why for _, _, why in world.ledger.absences.unreadable()} == {
        "the item belongs to collection 'other', asked was 'sentinel-2-l2a'"
    }


def test_an_item_without_an_instant_is_found_by_its_start(world):
    world.fill(5)
    spanning = world.item(7)
    spanning["properties"]["datetime"] = None
    assert spanning["properties"]["start_datetime"] == spanning["properties"]["end_datetime"] == "2025-11-20T07:00:00Z"
    world.store.put(spanning)
    assert world.poll().admitted == 6
    catalog = world.catalog()
    start = world.clock() - FROM_ALL
    swept = [
        d["id"] for leaf in sweep_leaves(catalog, days("datetime", start, world.clock()), 3, workers=2) for d in leaf.documents
    ]
    assert spanning["id"] in swept


def test_a_sweep_keeps_nothing_of_what_it_read(world):
    wanted = world.fill(300)
    size = len(json.dumps(world.store.get(COLLECTION, wanted[0])))
    catalog, start = world.catalog(), world.clock() - FROM_ALL

    def sweep() -> None:
        windows = days("datetime", start, start + timedelta(days=20))
        assert sum(len(leaf.documents) for leaf in sweep_leaves(catalog, windows, 50, workers=2)) == 300

    sweep()  # connections, threads and caches are there now
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    sweep()
    gc.collect()
    grown = (tracemalloc.get_traced_memory()[0] - before) / 300
    tracemalloc.stop()
    assert grown < size / 20, (grown, size)  # bytes for each item; the catalog runs in this process, too
