"""What a round of the loop costs the ledger: each transaction that writes is a flush of its disk."""

import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.engine import Taker
from sqlalchemy import event as sa_event

from stac_watch.config.model import Limits, Recipe
from stac_watch.model.states import State
from stac_watch.watch.loop import Parts, Watcher

READS, WRITES = 11, 4
"""Of a round that polls one page with one new item, looks at the runs and sends its event. What each is for:

reads: the source's state, the known items, what another source has of the new ones, what was there before, how many are new within
the hour, others of the same acquisition, whether a sweep is due, what is unfinished, what has failed, what is due and how much room
it has, the events of one queue. Writes: the lease, the window, the post, the answer.
"""


@pytest.fixture
def watcher(world):
    parts = Parts(
        sources=(world.source(),), recipe=Recipe(), limits=Limits(rate="1000/s"), ledger=world.ledger, engine=Taker(),
        catalogs={"s2": world.catalog()}, read_marker=lambda _: None, now=world.clock, wait=lambda _: True, rng=random.Random(1),
        holder="this one",
    )  # fmt: skip
    return Watcher(parts)


def count(ledger) -> Counter:
    counted = Counter()

    def begun(connection) -> None:
        counted["reads" if connection.get_execution_options().get("reads") else "writes"] += 1

    sa_event.listen(ledger._engine, "begin", begun)
    return counted


def test_a_round_with_one_new_item_is_a_dozen_transactions(world, watcher):
    world.fill(1)
    assert watcher.turn(to_the_end=True).sent.accepted == 1
    world.store.put(world.item(90, updated=world.clock() + timedelta(minutes=1)))
    world.clock.forward(minutes=2)
    counted = count(world.ledger)
    tick = watcher.turn(to_the_end=True)
    assert (tick.tallies["s2"].admitted, tick.sent.accepted) == (1, 1)
    assert counted["reads"] <= READS, f"{counted}: ask for what belongs together in one read of the ledger"
    assert counted["writes"] <= WRITES, f"{counted}: write what follows from one thing in one transaction"
    assert [row.state for row in world.ledger.conversions.find()] == [State.SUBMITTED] * 2


def test_a_round_in_which_nothing_happens_writes_nothing(world, watcher):
    world.fill(1)
    watcher.turn(to_the_end=True)
    world.clock.forward(seconds=2)
    counted = count(world.ledger)
    assert watcher.turn(to_the_end=True).idle
    assert (counted["writes"], counted["reads"]) <= (0, 3)


def test_after_each_look_at_the_runs_people_are_told_what_failed(world, watcher):
    told = []
    Watcher(replace(watcher._p, describe=lambda: told.append(world.clock()))).turn(to_the_end=True)
    assert told == [world.clock()]
