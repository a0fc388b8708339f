"""Two sources over one collection: one item, one conversion, of the first that admitted it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from stac_watch.config.model import Limits, Recipe, Source
from stac_watch.discover.intake import Intake
from stac_watch.discover.poll import poll
from stac_watch.jobs import backfill
from stac_watch.ledger.records import Move
from stac_watch.model.states import Fact, State


class Two:
    """A catalog and two sources over its one collection."""

    def __init__(self, world) -> None:
        self.world = world
        world.fill(6)

    def intake(self, name: str, **settings) -> Intake:
        source = Source.model_validate({**self.world.source().model_dump(), "name": name, **settings})
        return Intake(source, Recipe(), self.world.catalog(), self.world.ledger, self.world.clock)

    def poll(self, name: str, **settings):
        self.world.clock.forward(minutes=1)
        return poll(self.intake(name, **settings))

    def rows(self):
        return {(row.source, row.state.value, row.attempt) for row in self.world.ledger.conversions.find()}

    def move(self, *facts: Fact) -> None:
        for row in self.world.ledger.conversions.find():
            for fact in facts:
                self.world.ledger.conversions.move(self.world.ledger.conversions.get(row.key), Move(fact, "x"), self.world.clock())


@pytest.fixture
def two(world):
    return Two(world)


NOTHING = {"filter": {"tiles": ("T60XXX",)}}


@pytest.mark.parametrize(
    "facts", [(), (Fact.ACCEPTED,), (Fact.ACCEPTED, Fact.RUN_SEEN), (Fact.SUCCEEDED,), (Fact.FAILED_PERMANENT,)]
)
@pytest.mark.parametrize("other", [{}, NOTHING], ids=["admits", "skips"])
def test_another_source_neither_moves_nor_takes_what_one_admitted(two, facts, other):
    assert two.poll("a").admitted == 6
    two.move(*facts)
    before = two.rows()
    for _ in range(2):
        assert two.poll("b", **other).admitted == 0
        assert two.poll("a").admitted == 0
    assert two.rows() == before
    assert len(two.world.ledger.conversions.find()) == 6


def test_what_one_skips_is_of_the_other_that_admits_it_and_stays_so(two, invariants, tmp_path):
    assert two.poll("a", **NOTHING).skipped == 6
    assert two.poll("b").admitted == 6
    assert two.rows() == {("b", "queued", 2)}
    assert two.poll("a", **NOTHING).admitted == two.poll("a").admitted == 0
    assert two.rows() == {("b", "queued", 2)}
    assert {q.event_id for q in two.world.ledger.outbox.due(two.world.clock(), 9)} == {
        f"{row.key}-2" for row in two.world.ledger.conversions.find()
    }
    invariants(tmp_path / "ledger.db")


def test_another_s_skip_of_a_newer_revision_leaves_the_waiting_one_alone(two):
    two.poll("a")
    two.world.store.put(two.world.item(1, version=2, updated=two.world.clock()))
    two.poll("b", **NOTHING)
    assert two.rows() == {("a", "queued", 1), ("b", "skipped", 1)}
    assert two.poll("a").admitted == 1  # its rules say yes, and the older one makes room
    states = {(row.source, row.state.value) for row in two.world.ledger.conversions.find(item_id=two.world.item(1)["id"])}
    assert states == {("a", "skipped"), ("a", "queued")}


def test_an_item_that_returns_to_an_earlier_revision_is_asked_for_once(two):
    two.poll("a")
    two.poll("b")
    item = two.world.item(1)["id"]

    def finish() -> None:
        for row in two.world.ledger.conversions.find(item_id=item, state=State.QUEUED):
            two.world.ledger.conversions.move(row, Move(Fact.SUCCEEDED, "x"), two.world.clock())

    for version in (2, 1):
        finish()
        two.world.store.put(two.world.item(1, version=version, updated=two.world.clock() + timedelta(seconds=30)))
        assert two.poll("a").admitted == 1
        finish()
        assert two.poll("b").admitted == 0
    assert sum(row.attempt for row in two.world.ledger.conversions.find(item_id=item)) == 3


def test_a_plan_and_a_backfill_count_what_another_source_has_done(two):
    two.poll("a")
    two.move(Fact.SUCCEEDED)
    intake = two.intake("b")
    request = backfill.BackfillRequest(two.world.clock() - timedelta(days=9), two.world.clock())
    plan = backfill.plan(intake, Limits(), request)
    assert (plan.to_do, sum(day.done for day in plan.days)) == (0, 6)
    backfill.begin(intake, request)
    assert [n for _, n in backfill.admit(intake, replace(request, max_items=3))][-1] == 0
    assert two.rows() == {("a", "done", 1)}
