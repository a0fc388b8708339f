"""Whatever an engine loses, doubles or delays, the ledger ends where an undisturbed one ends.

The engine is a value that works on the test's clock: each way in which the real thing (EventSource, bus, Sensor, Workflows) was
seen to fail is a switch.
"""

import random
from datetime import UTC, datetime, timedelta

import pytest

from stac_watch.model.states import FINAL, Fact
from stac_watch.runs.pace import Throttle, TokenBucket

ITEMS = 6
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
FAULTS = (
    "accepted, then dropped", "delivered twice", "delivered late", "delivered, and no answer",
    "delivered, no answer, then refused", "run deleted", "phases out of order",
    "down for an hour", "credentials refused for an hour", "cannot be asked for an hour",
)  # fmt: skip


@pytest.fixture
def play(build):
    """Plays a watcher until everything is final."""

    def _play(fault):
        world = build(fault)
        for number in range(ITEMS):
            world.publish(number)
        world.discover()
        world.run()
        return world

    return _play


def final(world):
    ledger = world.ledger
    rows = sorted((r.item_id, r.state.value) for r in ledger.conversions.find())
    held = {r.item_id for r in ledger.conversions.find() if (made := world.plant.outputs.get(r.output_zarr)) and made.key == r.key}
    return rows, held, dict(ledger.counts.funnel())


@pytest.fixture(scope="module")
def known():
    """What was found out once."""
    return {}


@pytest.fixture
def undisturbed(play, known):
    """How the undisturbed watcher ends."""
    if not known:
        known["end"] = final(calm := play(""))
        check(calm)
    return known["end"]


def check(calm):
    assert [row[1] for row in final(calm)[0]] == ["done"] * ITEMS
    assert (len(calm.plant.posts), calm.problems) == (ITEMS, {})
    for row in calm.ledger.conversions.find():
        assert [h.fact for h in calm.ledger.conversions.history(row.key)] == [
            Fact.ADMITTED,
            Fact.ACCEPTED,
            Fact.RUN_SEEN,
            Fact.SUCCEEDED,
        ]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_loss_ends_where_the_undisturbed_watcher_ends(play, undisturbed, fault):
    world = play(fault)
    assert final(world) == undisturbed
    assert {row.state for row in world.ledger.conversions.find()} <= FINAL
    attempts = {row.attempt for row in world.ledger.conversions.find()}
    assert attempts == ({2} if fault == "run deleted" else {1}), "what was not the run's failure burns no attempt"
    if fault == "down for an hour":  # what does not answer is not posted everything that waits
        assert len(world.plant.posts) < 60
    said = ("delivered, and no answer", "down for an hour", "credentials refused for an hour", "cannot be asked for an hour")
    assert bool(world.problems) == (fault in said)
    if fault == "down for an hour":  # an EventSource that is away while the API server is well: nobody else would say it
        assert "no clear answer to an event" in world.problems["engine"].message
        assert "engine" not in world.ailing, "it works again"


def test_the_breaker_opens_after_three_and_tries_with_one():
    breaker, rng, now = Throttle(TokenBucket(1)).breaker, random.Random(1), START
    for _ in range(2):
        breaker.failed(now, rng=rng)
        assert not breaker.is_open(now)
    breaker.failed(now, rng=rng)
    assert breaker.is_open(now)
    assert not breaker.is_open(now + timedelta(seconds=2))
    breaker.failed(now + timedelta(seconds=2), rng=rng)
    assert breaker.is_open(now + timedelta(seconds=3.9))
    breaker.worked()
    assert not breaker.is_open(now + timedelta(seconds=2))
