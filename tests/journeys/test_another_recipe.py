"""Another recipe is another conversion: what is done stays done until a person asks, and then it is made as it would be today."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stac_watch.config.model import Limits, Recipe
from stac_watch.discover.recipes import asked_by
from stac_watch.jobs import audit, backfill, replay
from stac_watch.jobs.replay import Wish
from stac_watch.ledger.records import Move
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import Fact, State

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMITS = Limits(rate="1000/s", max_in_flight=4)
RANGE = backfill.BackfillRequest(START - timedelta(days=10), START)
SOME = {
    "groups": "measurements", "output": "/elsewhere/{item_id}.zarr", "spatial_chunk": 512, "sharding": True, "native": "convert",
    "package": "none", "encoding": "decoded",
}  # fmt: skip


@pytest.fixture
def done(build):
    """Three items, converted with the first recipe."""
    world = build()
    world.items = [world.publish(n, minutes_ago=60 * 24 * 2) for n in range(3)]
    carry_out(world)
    world.run()
    assert states(world) == {State.DONE: 3}
    return world


def carry_out(world):
    request = backfill.check_range(RANGE, world.clock())
    backfill.begin(world.intake, request)
    return [admitted for _, admitted in backfill.admit(world.intake, request)][-1]


def plan(world):
    return backfill.plan(world.intake, LIMITS, backfill.check_range(RANGE, world.clock()))


def states(world):
    return Counter(row.state for row in current(world).values())


def current(world):
    return world.ledger.items.current(world.source.name, world.items)


def asked(world, row):
    return json.loads(world.ledger.conversions.events(row.key)[-1])["data"]


def intakes(world):
    return {world.source.name: world.intake}


def test_everything_that_the_recipe_says_is_in_the_key_and_is_told(done):
    assert SOME.keys() == Recipe.model_fields.keys(), "a new part of the recipe belongs into the key, the event and this test"
    before = {row.key for row in current(done).values()}
    for name, value in SOME.items():
        done.recipe = Recipe(**{"output": "/outputs/{item_id}.zarr", name: value})
        (target, *_) = replay.named([Wish(done.items[0])], done.ledger, ["demo"], intakes(done))
        assert name in target.action
        assert "current recipe" in target.action
        assert plan(done).other_recipe == 3
    assert {row.key for row in current(done).values()} == before, "to say it does nothing"


def test_a_changed_recipe_converts_nothing_by_itself_and_a_backfill_all(done, invariants, tmp_path):
    done.recipe = Recipe(output="/outputs/{item_id}.zarr", spatial_chunk=512)
    done.discover()
    assert states(done) == {State.DONE: 3}
    found = plan(done)
    assert (found.to_do, found.other_recipe, sum(d.done for d in found.days)) == (3, 3, 0)
    first = current(done)
    assert carry_out(done) == 3
    done.run()
    assert states(done) == {State.DONE: 3}
    for item, row in current(done).items():
        data = asked(done, row)
        assert (data["options"]["spatial_chunk"], data["lane"], data["reason"]) == ("512", "backfill", "backfill")
        assert row.key != first[item].key
        assert row.fence > first[item].fence, "the earlier output must not stand in its way, nor a late run of it win"
        assert done.plant.outputs[row.output_zarr].key == row.key
        assert done.ledger.conversions.get(first[item].key).state is State.DONE
    assert (plan(done).to_do, done.audit().gaps) == (0, [])
    assert carry_out(done) == 0
    invariants(tmp_path / "ledger-0.db")


def test_back_to_the_first_recipe_is_asked_for_again_and_ends_with_its_output(done, invariants, tmp_path):
    first = {item: row.key for item, row in current(done).items()}
    for chunk in (512, 1024):
        done.recipe = Recipe(output="/outputs/{item_id}.zarr", spatial_chunk=chunk)
        assert carry_out(done) == 3
        done.run()
    assert {item: row.key for item, row in current(done).items()} == first
    for row in current(done).values():
        assert (row.state, row.attempt, row.lane) == (State.DONE, 2, "backfill")
        assert done.plant.outputs[row.output_zarr].key == row.key
    invariants(tmp_path / "ledger-0.db")


def test_what_waits_goes_to_the_place_of_now_and_what_runs_ends_first(build):
    world = build()
    world.items = [world.publish(0, minutes_ago=60 * 24 * 2)]
    carry_out(world)
    world.recipe = Recipe(output="/elsewhere/{item_id}.zarr")
    assert carry_out(world) == 1
    world.run()
    assert [row.output_zarr for row in current(world).values()] == [f"/elsewhere/{world.items[0]}.zarr"]
    assert set(world.plant.outputs) == {f"/elsewhere/{world.items[0]}.zarr"}
    (old,) = world.ledger.conversions.find(state=State.SKIPPED)
    assert "another recipe took its place" in world.ledger.conversions.history(old.key)[-1].why


def test_rules_that_came_later_leave_alone_what_is_done(done):
    done.recipe = Recipe(output="/outputs/{item_id}.zarr", spatial_chunk=512)
    done.source = done.source.model_copy(update={"filter": done.source.filter.model_copy(update={"max_cloud_cover": 0.0})})
    assert plan(done).to_do == 0
    assert carry_out(done) == 0
    assert states(done) == {State.DONE: 3}


def test_an_audit_names_what_has_drifted_and_a_replay_of_its_file_closes_it(done, tmp_path):
    done.recipe = Recipe(output="/elsewhere/{item_id}.zarr", spatial_chunk=512)
    found = done.audit()
    assert found.kinds == {"drifted": 3}
    assert found.done == 0
    assert all("spatial_chunk 1024, now 512" in gap.why and "/elsewhere" in gap.why for gap in found.gaps)
    audit.write(found, tmp_path / "gaps")
    targets = replay.named(replay.wishes(tmp_path / "gaps"), done.ledger, ["demo"], intakes(done))
    results = replay.execute(targets, done.ledger, intakes(done), done.clock)
    assert [(t.state, t.refusal) for t in results] == [(State.QUEUED, None)] * 3
    done.run()
    assert states(done) == {State.DONE: 3}
    assert done.audit().gaps == []
    assert {asked(done, row)["reason"] for row in current(done).values()} == {"replay"}


def test_a_replay_as_it_was_keeps_the_recipe_and_its_key(done):
    item = done.items[0]
    before = current(done)[item]
    done.recipe = Recipe(output="/outputs/{item_id}.zarr", package="none")
    targets = replay.named([Wish(item)], done.ledger, ["demo"])
    assert [t.action for t in targets] == ["attempt 2, converts again"]
    replay.execute(targets, done.ledger, intakes(done), done.clock, as_was=True)
    done.run()
    after = current(done)[item]
    assert (after.key, after.attempt, asked(done, after)["options"]["package"]) == (before.key, 2, "auto")


def test_what_failed_is_tried_again_with_the_recipe_of_now(done):
    item = done.items[0]
    row = current(done)[item]
    done.ledger.conversions.move(row, Move(Fact.REPLAYED, "again", lane="replay"), done.clock())
    done.ledger.conversions.move(
        done.ledger.conversions.get(row.key), Move(Fact.FAILED_PERMANENT, "no group", reason="no group"), done.clock()
    )
    done.recipe = Recipe(output="/outputs/{item_id}.zarr", groups="measurements")
    failed = done.ledger.conversions.find(state=State.FAILED)
    results = replay.execute(replay.chosen(failed, done.ledger, intakes(done)), done.ledger, intakes(done), done.clock)
    assert [t.refusal for t in results] == [None]
    done.run()
    assert asked(done, current(done)[item])["groups"] == "measurements"
    assert states(done) == {State.DONE: 3}


def test_a_key_of_an_earlier_form_is_no_other_recipe(done):
    """A ledger of before keys became longer: its conversions asked for the same, and have other keys."""
    elsewhere = {"api": done.source.api.replace("127.0.0.1", "localhost"), "allowed_hosts": ("127.0.0.1",)}
    done.source = done.source.model_copy(update=elsewhere)
    assert plan(done).other_recipe == 0
    assert done.audit().gaps == []


def test_what_one_release_of_the_runner_made_can_be_chosen_and_audited(done):
    keys = sorted(row.key for row in current(done).values())
    for number, key in enumerate(keys):
        row = done.ledger.conversions.get(key)
        again = Move(Fact.REPLAYED, "again", lane="replay")
        done.ledger.conversions.move(row, again, done.clock())
        made = Outcome(code=0, key=key, attempt=2, versions={"geozarr-runner": f"0.{number}.0"})
        done.plant.outputs[row.output_zarr] = made
        done.ledger.conversions.move(done.ledger.conversions.get(key), Move(Fact.SUCCEEDED, "done", outcome=made), done.clock())
    assert [row.key for row in done.ledger.conversions.find(runner="0.1.0")] == [keys[1]]
    assert done.ledger.conversions.find(runner="0.1") == []
    found = audit.audit(done.intake, done.evidence, RANGE.start, RANGE.end, runner="0.1.0")
    assert found.kinds == {"drifted": 2}
    assert {gap.key for gap in found.gaps} == {keys[0], keys[2]}
    assert "0.0.0, not 0.1.0" in " ".join(gap.why for gap in found.gaps)


def test_an_event_of_before_an_option_existed_asked_for_its_default(make):
    body = json.dumps({"data": {"key": "k", "output_zarr": "/o/k.zarr", "groups": "b  a", "options": {"package": "tar"}}}).encode()
    older = {"native": "mirror", "sharding": "false", "encoding": "stock"}
    assert asked_by(body) == {"groups": "a b", **older, "package": "tar", "output": "/o/{key}.zarr"}


def test_another_conversion_s_output_of_this_revision_is_told_as_that(done):
    row = current(done)[done.items[0]]
    done.plant.outputs[row.output_zarr] = Outcome(key="0" * 20, revision=row.revision, installation="staging", code=0)
    (gap,) = done.audit().gaps
    assert gap.kind is audit.GapKind.STALE
    assert f"not {row.revision}" not in gap.why
    assert "staging" in gap.why
    assert replace(gap, why="").state is State.DONE
