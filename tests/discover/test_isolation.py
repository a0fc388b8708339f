"""One item, whatever it is made of, is unreadable by itself; its neighbours, the source and the watcher are not."""

from dataclasses import dataclass, replace

import pytest
from world import START

from stac_watch.discover.intake import Flooded
from stac_watch.ledger.findings import MORE, MOST_UNREADABLE
from stac_watch.ledger.records import Tally
from stac_watch.model.event import Conversion
from stac_watch.model.item import Unreadable

DEEP: dict = {"type": "Point", "coordinates": [11.0, 44.0]}
for _ in range(2000):
    DEEP = {"type": "GeometryCollection", "geometries": [DEEP]}
NESTED: list = []
for _ in range(5000):
    NESTED = [NESTED]
AREA = {"type": "Polygon", "coordinates": [[[0, 40], [20, 40], [20, 50], [0, 50], [0, 40]]]}
HUGE = int("9" * 400)


def ring(x):
    return {"type": "Polygon", "coordinates": [[[x, 44], [12, 44], [12, 45], [x, 44]]]}


RULES = {
    "newest": {"reprocessing": "newest"},
    "bbox": {"filter": {"bbox": [0, 40, 20, 50]}},
    "intersects": {"filter": {"intersects": AREA}},
    "after": {"filter": {"cql2": "T_AFTER(updated, TIMESTAMP('2020-01-01T00:00:00Z'))"}},
    "none": {},
}
EVIL = {
    "a zero time": {"properties": {"datetime": "0001-01-01T00:00:00Z"}},
    "the calendar's end": {"properties": {"datetime": "9999-12-31T23:59:59.999999Z"}},
    "times at both ends": {"properties": {"updated": "9999-12-31T23:59:59Z", "created": "0001-01-01T00:00:00Z"}},
    "a bbox without measure": {"bbox": [0, 1e308, 1e300, 1e308]},
    "a bbox of numbers without end": {"bbox": [HUGE, 0, HUGE, 1]},
    "a coordinate of 400 digits": {"geometry": ring(HUGE)},
    "collections in collections": {"geometry": DEEP},
    "an interval without times": {"properties": {"updated": {"interval": []}}},
    "an id that is a list": {"id": ["a", ["b"]]},
    "an id that is nested without end": {"id": NESTED},
    "an id with half a character": {"id": "S2A_\ud800"},
    "an id that is a number of 5000 digits": {"id": 10**5000},
    "assets that are a list": {"assets": [1]},
    "properties that are keys of everything": {"properties": {"grid:code": ["x"], "processing:software": {"a": NESTED}}},
}


@dataclass(frozen=True)
class Twin(Conversion):
    """A conversion whose key somebody made to be another's."""

    @property
    def key(self):
        return "c0111de0c0111de0c011"


def spoiled(item: dict, change: dict) -> dict:
    return item | {k: item[k] | v if k == "properties" else v for k, v in change.items()}


@pytest.mark.parametrize("at_once", [True, False])
def test_of_two_items_with_one_key_the_second_is_said_and_is_not_taken_for_the_first(world, at_once):
    """`current()` would answer with the other item: the second was never converted, and nothing said so."""
    intake = world.intake()
    seen = intake.compare([world.item(n) for n in (1, 2, 3)], "live")
    one, two, other = seen.sightings
    one, two = (replace(s, conversion=Twin(**vars(s.conversion))) for s in (one, two))
    parts = [[one, two, other]] if at_once else [[one], [two, other]]
    for sightings in parts:
        intake.commit(replace(seen, sightings=sightings))
    ledger = intake.ledger
    assert ledger.conversions.get(one.conversion.key).item_id == one.item.item_id
    assert ledger.items.current(intake.source.name, [two.item.item_id]) == {}
    assert ledger.conversions.get(other.conversion.key) is not None, "its neighbours are none the worse for it"
    [(_, named, why)] = ledger.absences.unreadable()
    assert named == two.item.item_id
    assert repr(one.item.item_id) in why


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("evil", EVIL)
def test_an_evil_item_takes_no_neighbour_along(world, evil, rule):
    world.settings = RULES[rule]
    good = [world.item(n) for n in (1, 2)]
    documents = [good[0], spoiled(world.item(3), EVIL[evil]), good[1]]
    intake = world.intake()
    seen = intake.compare(documents, "live")
    assert {item["id"] for item in good} <= seen.readable
    tally = intake.commit(seen)
    assert tally.admitted + tally.skipped >= 2
    assert {item["id"] for item in good} <= world.states().keys()
    again = intake.compare(documents, "live")
    # what was let in is known, and the next look lets in no more
    assert not [s for s in again.sightings if s.skip is None]


def test_an_item_that_the_ledger_cannot_take_is_unreadable_and_the_cursor_moves(world):
    """Its event would be larger than an event may be."""
    world.settings = {"allowed_hosts": [f"{'x' * 60}.{n}.example" for n in range(180)] + ["127.0.0.1"]}
    intake = world.intake()
    small, large = world.item(1), world.item(2, product_href=f"{world.url}/products/{'y' * 1900}.zarr")
    seen = intake.compare([small, large], "live")
    tally = intake.commit(seen, cursor=("s2:updated", world.clock()))
    assert (tally.admitted, tally.unreadable) == (1, 1)
    assert world.ledger.sources.position("s2:updated") == world.clock()
    assert large["id"] in str(world.ledger.absences.unreadable())


def test_a_flood_is_let_in_by_the_hour_said_and_nothing_of_it_is_lost(world):
    world.settings = {"poll": {"since": "30d", "most_new": 10, "page": 4}}
    world.fill(30)
    for hour in range(1, 3):
        before = len(world.states())
        with pytest.raises(Flooded, match="10 items are new within an hour") as caught:
            world.poll()
        assert "most_new" in caught.value.hint
        assert caught.value.tally.admitted == len(world.states()) - before
        assert len(world.states()) <= hour * 14  # the limit, and a page
        with pytest.raises(Flooded):
            world.poll()  # within the same hour nothing more
        world.clock.forward(hours=1, seconds=1)
    world.poll()
    assert len(world.states()) == 30
    assert world.poll() == Tally(seen=0)


def test_a_sweep_keeps_to_it_too(world):
    world.fill(3)
    world.poll()
    world.sweep()
    world.settings = {"poll": {"since": "30d", "most_new": 5, "sweep": "1h"}}
    for n in (*range(10, 16), *range(34, 40)):  # of two days, and back-dated: no poll sees them
        world.store.put(world.item(n, updated=START))
    world.clock.forward(hours=7)
    with pytest.raises(Flooded):
        world.sweep()
    assert len(world.states()) == 9
    world.clock.forward(hours=2)
    world.sweep()
    assert len(world.states()) == 15


def test_a_second_that_holds_many_pages_comes_page_by_page(world):
    world.settings = {"poll": {"since": "30d", "page": 5}}
    stamped = world.item(0)["properties"]["datetime"]
    for n in range(23):
        item = world.item(n)
        item["properties"]["updated"] = stamped
        world.store.put(item)
    world.store.put(world.item(40))
    assert world.poll().admitted == 24
    assert len(world.states()) == 24


def test_unreadable_items_without_end_fill_no_disk_and_the_list_says_that_there_are_more(world):
    ledger = world.intake().ledger
    for first in range(0, MOST_UNREADABLE + 3000, 2500):
        bad = [Unreadable(f"evil-{n}", "x" * 4000) for n in range(first, first + 2500)]
        ledger.items.commit("s2", [], bad, None, START)
    listed = {item_id for _, item_id, _ in ledger.absences.unreadable()}
    assert MORE in listed
    assert len(listed) <= MOST_UNREADABLE + 1
    ledger.items.commit("s2", [], [Unreadable("evil-1", "for another reason")], None, START)
    assert ("s2", "evil-1", "for another reason") in ledger.absences.unreadable(), "what is listed is kept up to date"
