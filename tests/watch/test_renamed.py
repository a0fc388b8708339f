"""A source with another name is not new work: what the ledger has of it goes on."""

import random
from datetime import timedelta

import pytest
from fakes.engine import Taker

from stac_watch.config.model import Limits, Recipe, Source
from stac_watch.ledger.records import Move
from stac_watch.model.states import Fact, State
from stac_watch.watch.loop import Parts, Watcher


@pytest.fixture
def turn(world):
    def _turn(*names):
        sources = tuple(Source.model_validate({**world.source().model_dump(), "name": name}) for name in names)
        parts = Parts(
            sources=sources, recipe=Recipe(), limits=Limits(rate="1000/s"), ledger=world.ledger, engine=Taker(),
            catalogs={name: world.catalog() for name in names}, read_marker=lambda _: None, now=world.clock, wait=lambda _: True,
            rng=random.Random(1), holder="this one",
        )  # fmt: skip
        world.clock.forward(minutes=1)
        tick = Watcher(parts).turn(to_the_end=True)
        assert not tick.problems
        return sum(t.admitted for t in tick.tallies.values())

    world.settings["poll"] = {"since": "30d", "sweep_all": "off"}
    return _turn


def test_nothing_of_it_is_converted_again_and_all_of_it_is_shown_under_the_new_name(world, turn, invariants, tmp_path):
    world.fill(8)
    assert turn("old") == 8
    *rows, waiting = world.ledger.conversions.find()
    for row in rows:
        world.ledger.conversions.move(row, Move(Fact.SUCCEEDED, "as a test"), world.clock())
    positions = world.ledger.sources.state("old", ("updated", "origin", "baseline")).positions
    assert turn("new") == 0
    assert {row.source for row in world.ledger.conversions.find()} == {"new"}
    assert {place.source for place, n in world.ledger.counts.funnel().items() if n} == {"new"}
    assert world.ledger.sources.state("new", ("origin",)).positions["origin"] == positions["origin"]
    assert world.ledger.sources.state("old", ("updated", "origin", "baseline")).positions == {}
    invariants(tmp_path / "ledger.db")
    world.clock.forward(minutes=5)
    world.store.put(world.item(3, version=2, updated=world.clock()))
    assert turn("new") == 1
    assert world.ledger.conversions.get(waiting.key).state is not State.DONE


def test_one_that_goes_leaves_what_it_had_to_the_other_that_watches_the_same(world, turn):
    world.fill(4)
    assert turn("one", "two") == 4
    assert turn("two") == 0
    assert {row.source for row in world.ledger.conversions.find()} == {"two"}


def test_what_was_published_in_between_is_found(world, turn):
    """The new name begins where the old one ended, not a day back."""
    world.settings["poll"] = {"since": "1h", "sweep_all": "off"}
    world.fill(2, updated=world.clock())
    assert turn("old") == 2
    world.clock.forward(days=3)
    world.store.put(world.item(50, updated=world.clock() - timedelta(days=2)))
    assert turn("new") == 1


def test_a_source_of_another_collection_takes_nothing(world, turn):
    world.fill(3)
    turn("old")
    world.ledger.renaming.orphans({"https://elsewhere.example/collections/s2": "new"})
    assert world.ledger.renaming.orphans({"https://elsewhere.example/collections/s2": "new"}) == {}
    assert {row.source for row in world.ledger.conversions.find()} == {"old"}
