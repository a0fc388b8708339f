"""A clock that is set, as by a host that lost its time: nothing stops for longer than it would without."""

import random
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from stac_watch.config.model import Limits, Recipe
from stac_watch.model.errors import Refused
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import State
from stac_watch.runs.engine import Answer, Phase, Receipt, Run
from stac_watch.watch.loop import Parts, Watcher

SET = [timedelta(days=-1), timedelta(hours=-3), timedelta(days=1)]
ends = pytest.mark.parametrize("by", SET, ids=str)


@dataclass
class Plant:
    """An engine that takes events and says what the test wants of their runs."""

    trouble: Exception | None = None
    found: list[Run] = field(default_factory=list)
    posts: int = 0

    def submit(self, event):
        if self.trouble is not None:
            raise self.trouble
        self.posts += 1
        return Receipt(Answer.ACCEPTED)

    def runs(self, keys):
        return [run for run in self.found if run.key in keys]

    def headroom(self) -> int:
        return 10


@pytest.fixture
def plant():
    return Plant()


@pytest.fixture
def parts(world, plant):
    return Parts(
        sources=(world.source(),), recipe=Recipe(), limits=Limits(rate="1000/s"), ledger=world.ledger, engine=plant,
        catalogs={"s2": world.catalog()}, read_marker=lambda _: None, now=world.clock, wait=lambda _: True, rng=random.Random(1),
    )  # fmt: skip


@pytest.fixture
def watcher(parts):
    return Watcher(parts)


def rounds(world, watcher, span):
    """Lets so much time pass, with a round a minute."""
    for _ in range(int(span / timedelta(minutes=1))):
        world.clock.forward(minutes=1)
        watcher.turn(to_the_end=True)


@ends
def test_what_is_published_is_found_at_the_next_poll(world, watcher, by):
    world.fill(1)
    watcher.turn(to_the_end=True)
    world.clock.time += by
    world.store.put(world.item(90, updated=world.clock() + max(-by, timedelta(0))))  # the catalog's own clock is right
    rounds(world, watcher, timedelta(minutes=3))
    assert len(world.ledger.conversions.find()) == 2


@ends
def test_an_engine_that_refused_is_asked_again(world, watcher, plant, by):
    world.fill(1)
    plant.trouble = Refused("the token is another one")
    assert watcher.turn(to_the_end=True).problems["engine"] is plant.trouble
    plant.trouble = None
    world.clock.time += by
    rounds(world, watcher, timedelta(minutes=3))
    assert plant.posts == 1


@ends
def test_what_waits_for_its_next_attempt_gets_it(world, watcher, plant, by):
    world.fill(1)
    watcher.turn(to_the_end=True)
    (row,) = world.ledger.conversions.find()
    plant.found = [Run(row.run, row.key, 1, Phase.FAILED, outcome=Outcome(code=75, reason="HTTP 503", key=row.key))]
    rounds(world, watcher, timedelta(minutes=1))
    assert world.ledger.conversions.get(row.key).state is State.QUEUED
    plant.found = []
    world.clock.time += by
    rounds(world, watcher, timedelta(minutes=3))
    assert plant.posts == 2


@ends
def test_an_event_whose_run_does_not_come_is_sent_again(world, watcher, plant, by):
    world.fill(1)
    watcher.turn(to_the_end=True)
    world.clock.time += by
    rounds(world, watcher, timedelta(minutes=17))
    assert plant.posts >= 2


def test_waits_that_an_earlier_watcher_wrote_by_a_clock_that_was_further_are_over(world, watcher, parts, plant):
    world.fill(1)
    watcher.turn(to_the_end=True)
    (row,) = world.ledger.conversions.find()
    plant.found = [Run(row.run, row.key, 1, Phase.FAILED, outcome=Outcome(code=66, reason="not there", key=row.key))]
    rounds(world, watcher, timedelta(minutes=1))
    plant.found = []
    world.clock.time -= timedelta(days=30)
    Watcher(parts).turn(to_the_end=True)
    assert plant.posts == 2
