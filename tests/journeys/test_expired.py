"""What lies on a volume is done for as long as that is there; then status and audit say so, and a replay makes it again."""

from dataclasses import replace
from datetime import timedelta

import pytest

from stac_watch.config.model import Recipe
from stac_watch.jobs import audit, backfill, replay
from stac_watch.model.states import State
from stac_watch.report import explain, status
from stac_watch.runs.expiry import SETTLED
from stac_watch.watch.loop import Watcher


@pytest.fixture
def done(build):
    """Two items, each converted onto the volume of its run."""
    world = build()
    world.recipe = Recipe(output="/data/{item_id}.zarr")
    world.items = [world.publish(n, minutes_ago=10) for n in range(2)]
    world.discover()
    world.run()
    world.volumes = {row.run for row in world.ledger.conversions.find(state=State.DONE)}
    world.clock.time += SETTLED
    return world


def watch(world):
    Watcher(replace(world.parts, volumes=lambda: world.volumes)).tick(to_the_end=True)


def look(world):
    evidence = audit.Evidence(world.plant, world.plant.outputs.get, lambda _: False, volumes=lambda: world.volumes)
    return audit.audit(world.intake, evidence, world.clock() - timedelta(days=10), world.clock())


def test_the_watcher_notes_it_and_a_replay_makes_it_again(done, tmp_path, invariants):
    watch(done)
    assert len(done.volumes) == 2
    assert {row.state for row in done.ledger.conversions.find()} == {State.DONE}
    assert look(done).gaps == []
    (lost, kept) = done.ledger.conversions.find()
    done.volumes.remove(lost.run)
    (gap,) = look(done).gaps  # before the watcher looks
    assert (gap.kind, gap.item) == (audit.GapKind.EXPIRED, lost.item_id)
    watch(done)
    states = {row.item_id: row.state for row in done.ledger.conversions.find()}
    assert states == {lost.item_id: State.EXPIRED, kept.item_id: State.DONE}
    found = look(done)
    assert (found.kinds, found.done) == ({"expired": 1}, 1)
    (chain,) = explain.read(done.ledger, lost.item_id, done.parts.limits, done.clock(), lambda _: None)
    assert "replay" in chain.next.what
    audit.write(found, tmp_path / "gaps")
    targets = replay.named(replay.wishes(tmp_path / "gaps"), done.ledger, ["demo"])
    intakes = {"demo": done.intake}
    assert [t.state for t in replay.execute(targets, done.ledger, intakes, done.clock)] == [State.QUEUED]
    done.plant.deleted.add(lost.run)  # its Workflow went with the volume
    done.run()
    again = done.ledger.conversions.get(lost.key)
    assert (again.state, again.attempt) == (State.DONE, 2)
    done.volumes.add(again.run)
    assert look(done).gaps == []
    invariants(tmp_path / "ledger-0.db")


def test_a_backfill_leaves_it_alone_and_counts_it(done):
    done.volumes.clear()
    watch(done)
    request = backfill.check_range(backfill.BackfillRequest(done.clock() - timedelta(days=10), done.clock()), done.clock())
    plan = backfill.plan(done.intake, done.parts.limits, request)
    assert (plan.to_do, sum(day.expired for day in plan.days)) == (0, 2)


def test_status_says_how_long_outputs_last(done):
    def read(lifetime: timedelta | None) -> str:
        view = status.read(done.ledger, [done.source], done.parts.limits, done.clock(), lifetime=lifetime)
        return " ".join(note.plain for note in status._notes(view))

    assert "3 d after it was done" in read(timedelta(days=3))
    assert "volumes" not in read(None)
