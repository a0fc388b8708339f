"""The overlap is read again in turns where it holds much: what is new first, and nothing that comes late is missed."""

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from stac_watch.demo.catalog import Server, Store, create_app
from stac_watch.discover.overlap import LONGEST_ROUND, SHORTEST_HOT, hot_of, next_turn, round_of
from stac_watch.discover.poll import poll
from stac_watch.ledger.records import Findings
from stac_watch.model.errors import CatalogUnavailable

OVERLAP = timedelta(minutes=15)
PUNCTUAL = {0: 9_990, 3: 10}  # how late the items of a catalog were, that are nearly all in time


class Counting(Store):
    """A catalog, and what was searched in it."""

    def __init__(self):
        super().__init__()
        self.searches = self.shown = 0

    def search(self, query):
        found = super().search(query)
        self.searches, self.shown = self.searches + 1, self.shown + len(found.keys)
        return found


@pytest.fixture
def busy(world):
    """A world whose catalog shows more in its overlap than is read with each poll."""
    world.settings["poll"] = {"since": "1d", "interval": "1m", "overlap": "15m", "page": 12, "sweep": "300d"}
    with Counting() as store, Server(create_app(store, now=world.clock)) as server:
        world = replace(world, url=server.url, store=store, faults=server.faults)
        world.fill(1)
        yield world


def published(world, number, *, late=timedelta(0)):
    world.store.put(world.item(number, updated=world.clock() - late))


def watched(world, lateness=PUNCTUAL):
    """An intake, as a watcher keeps it, after its first polls."""
    intake = world.intake()
    poll(intake)
    world.ledger.items.commit("s2", [], [], None, world.clock(), Findings(lateness=lateness))
    return intake


def test_whatever_comes_late_by_less_than_the_overlap_is_found_within_a_round(busy):
    world = busy
    rng, born, found = random.Random(5), {}, {}
    intake, number = watched(world), 1
    for _ in range(30):
        gap = rng.choice([0.2, 1, 1, 1, 1, 1.5, 4])
        world.clock.forward(seconds=60 * gap)
        for late in (*(rng.uniform(0, 25) for _ in range(3)), rng.uniform(0, 899), rng.choice([40, 890, 899])):
            number += 1
            published(world, number, late=timedelta(seconds=late))
            born[world.item(number)["id"]] = world.clock()
        if rng.random() < 0.15:
            intake = world.intake()  # a watcher that was started again
        poll(intake)
        for item_id in world.states().keys() - found.keys():
            found[item_id] = world.clock()
    for _ in range(12):
        world.clock.forward(seconds=60)
        poll(intake)
        for item_id in world.states().keys() - found.keys():
            found[item_id] = world.clock()
    assert not [i for i in born if i not in found]
    longest = max(found[i] - born[i] for i in born)
    assert timedelta(minutes=2) < longest <= LONGEST_ROUND + timedelta(minutes=8)  # it was read in turns; two gaps of four minutes


def test_a_poll_that_finds_nothing_costs_a_tenth_of_reading_the_overlap_whole(busy):
    world = busy
    world.settings["poll"] |= {"interval": "5s"}
    world.store.put_many(world.item(n, updated=world.clock() - timedelta(seconds=4 * n)) for n in range(1, 200))
    intake = world.intake()
    poll(intake)
    costs = []
    for lateness in ({}, PUNCTUAL):  # as long as nobody knows how late it is, all of it is read
        world.ledger.items.commit("s2", [], [], None, world.clock(), Findings(lateness=lateness))
        poll(intake)
        before = world.store.searches, world.store.shown
        for _ in range(8):
            world.clock.forward(seconds=5)
            assert poll(intake).seen == 0
        costs.append((world.store.searches - before[0], world.store.shown - before[1]))
    (requests, items), (requests_in_turns, items_in_turns) = costs
    assert 8 + 2 <= requests_in_turns <= requests / 10  # two turns in eight polls
    assert items_in_turns <= items / 10


def test_after_a_pause_all_of_it_is_read_at_once(busy):
    world = busy
    intake = watched(world)
    for n in range(1, 61):
        published(world, n, late=timedelta(seconds=n))
    world.clock.forward(seconds=60)
    poll(intake)
    published(world, 200, late=timedelta(minutes=14))
    world.clock.forward(minutes=12)
    poll(intake)
    assert len(world.states()) == 61


def test_what_a_request_that_failed_was_to_read_is_read_later(busy):
    world = busy
    intake = watched(world)
    for n in range(1, 61):
        published(world, n, late=timedelta(seconds=5 * n))
    poll(intake)
    published(world, 200, late=timedelta(minutes=13))
    for number in range(300, 304):
        world.clock.forward(seconds=30)
        published(world, number)
        world.faults.set(wire=("500",) * 50 * (number % 2))
        if number % 2:
            with pytest.raises(CatalogUnavailable):
                poll(intake)
        else:
            assert poll(intake).admitted
        world.faults.set(wire=())
    for _ in range(12):
        world.clock.forward(seconds=60)
        poll(intake)
    assert len(world.states()) == 65


def test_a_server_s_clock_that_was_wrong_while_a_round_began_hides_nothing(busy):
    world = busy
    intake = watched(world)
    for n in range(1, 61):
        published(world, n, late=timedelta(seconds=5 * n))
    poll(intake)
    ahead = world.clock() + timedelta(days=30)
    world.ledger.sources.set_positions({"s2:updated:begun": ahead, "s2:updated:again": ahead - timedelta(days=1)}, world.clock())
    published(world, 200, late=timedelta(minutes=14))
    for _ in range(12):
        world.clock.forward(seconds=60)
        poll(intake)
    assert len(world.states()) == 61


@pytest.mark.parametrize(
    ("late", "hot"),
    [
        ({}, OVERLAP), ({0: 99}, OVERLAP), ({0: 100}, SHORTEST_HOT), ({0: 9_000, 9: 80}, SHORTEST_HOT),
        ({0: 9_000, 9: 800}, timedelta(seconds=512)), ({0: 1, 17: 9_000}, OVERLAP),
    ],
)  # fmt: skip
def test_each_poll_reads_where_nearly_all_late_items_are(late, hot):
    assert hot_of(late, OVERLAP) == hot


def test_a_round_ends_in_time_however_far_polls_are_apart(world):
    for interval in ("1s", "5s", "1m", "30m"):
        world.settings["poll"] = {"interval": interval}
        source, start = world.source(), world.clock()
        again, now, end, polls, turns = start, start, start + OVERLAP, 0, set()
        while again < end:
            again = next_turn(again, end, source.poll.interval, start + round_of(source) - now, round_of(source))
            turns.add(again)
            now, polls = now + source.poll.interval, polls + 1
        assert now - start <= max(round_of(source), source.poll.interval)
        assert polls in (1, 10, 60), interval
        assert len(turns - {start}) in (1, 10, 15), interval
