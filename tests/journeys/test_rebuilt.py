"""A ledger that was lost is made again out of what outputs and Workflows say: no run, and no catalog, is asked for anything."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stac_watch.config.model import Limits, Recipe
from stac_watch.jobs import audit, backfill
from stac_watch.jobs.rebuild import Owners, Remnant, rebuild
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Move
from stac_watch.model.errors import Unavailable
from stac_watch.model.outcome import MARKER, Outcome
from stac_watch.model.states import Fact, State
from stac_watch.runs.markers import find_marker
from stac_watch.runs.shelves import markers, outputs

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
OURS = "ours"


@pytest.fixture
def lost(build, tmp_path):
    """Five items that were converted; their markers are there, the ledger is not."""
    world = build()
    world.folder = tmp_path / "outputs"
    world.recipe = Recipe(output=f"{world.folder}/{{collection}}/{{tile}}/{{item_id}}.zarr")
    world.items = [world.publish(n) for n in range(5)]
    world.discover()
    world.run()
    world.rows = {row.item_id: row for row in world.ledger.conversions.find()}
    for row in world.rows.values():
        mark(world, row)
    world.ledger.close()
    world.path = tmp_path / "new.db"
    world.ledger = Ledger(open_engine(f"sqlite:///{world.path}"))
    world.ledger.prepare()
    world.plant.begun.clear()
    world.plant.posts.clear()
    yield world
    world.ledger.close()


def mark(world, row, output: str = "", **over):
    href = json.loads(world.ledger.conversions.events(row.key)[-1])["data"]["product_href"] if not over else ""
    said = Outcome(
        code=0, reason="done", key=row.key, revision=row.revision, run=row.run, attempt=row.attempt, item_id=row.item_id,
        fence=row.fence, installation=OURS, source=href, output_zarr=row.output_zarr, finished="2026-03-01T12:05:00Z",
    )  # fmt: skip
    path = Path(output or row.output_zarr) / MARKER
    path.parent.mkdir(parents=True)
    path.write_text(replace(said, **over).as_json())


def again(world, *, yes=True, runs=(), **how):
    owners = Owners((world.source,), world.recipe, OURS)
    places = outputs(world.recipe.output)
    return rebuild(world.ledger, owners, places, markers, runs, world.clock, yes=yes, **how)


def test_markers_become_rows_and_nothing_is_converted_again(lost, invariants):
    assert again(lost, yes=False).added == 5
    assert lost.ledger.conversions.find() == [], "to say it writes nothing"
    found = again(lost)
    assert (found.outputs, found.known, found.added, found.left, found.complete) == (5, 0, 5, {}, True)
    invariants(lost.path)
    for row in lost.ledger.conversions.find():
        before = lost.rows[row.item_id]
        same = ("key", "source", "revision", "attempt", "run", "output_zarr", "fence", "state")
        assert {name: getattr(row, name) for name in same} == {name: getattr(before, name) for name in same}
        assert row.outcome.key == row.key
    lost.discover()
    lost.run()
    assert lost.plant.posts == [], "what is done is known as done"
    evidence = audit.Evidence(lost.plant, find_marker, lambda _: True)
    assert audit.audit(lost.intake, evidence, START - timedelta(days=10), lost.clock()).gaps == []
    request = backfill.check_range(backfill.BackfillRequest(START - timedelta(days=10), START), lost.clock())
    plan = backfill.plan(lost.intake, Limits(), request)
    assert (plan.to_do, plan.other_recipe, sum(day.done for day in plan.days)) == (0, 0, 5)


def test_it_goes_on_where_it_was_stopped(lost):
    first = again(lost, batch=2, wait=lambda _: True)
    assert (first.added, first.complete) == (2, False)
    asked = []

    def read(places):
        asked.extend(places)
        return markers(places)

    owners = Owners((lost.source,), lost.recipe, OURS)
    second = rebuild(lost.ledger, owners, outputs(lost.recipe.output), read, (), lost.clock, yes=True, batch=2)
    assert (second.added, second.known, len(asked)) == (3, 2, 3)
    assert again(lost).added == 0


def test_what_is_not_of_this_ledger_is_left_out_and_told(lost, invariants):
    row = lost.rows[lost.items[0]]
    folder = Path(row.output_zarr).parent
    mark(lost, row, f"{folder}/staging.zarr", installation="staging", item_id="staging")
    mark(lost, row, f"{folder}/failed.zarr", code=65, item_id="failed")
    mark(lost, row, f"{folder}/nobody.zarr", item_id="../x")
    (folder / "torn.zarr").mkdir()
    (folder / "torn.zarr" / MARKER).write_text("{")
    (folder / "halfway.zarr").mkdir()
    (folder / ".hidden.zarr").mkdir()
    found = again(lost)
    assert (found.added, found.outputs) == (5, 10)
    assert found.left == {
        "of installation staging": 1, "their markers say that they failed": 1, "they name no item or no key": 1,
    }  # fmt: skip
    invariants(lost.path)


def test_of_several_revisions_the_latest_is_the_item_s(lost, invariants):
    row = lost.rows[lost.items[0]]
    lost.recipe = Recipe(output=f"{lost.folder}/{{key}}.zarr")
    for revision, key, fence in (("old", "a" * 20, "2026-01-01T00:00:00Z"), ("new", "b" * 20, "2026-02-01T00:00:00Z")):
        mark(lost, row, f"{lost.folder}/{key}.zarr", key=key, revision=revision, fence=fence)
    assert again(lost).added == 2
    (current,) = lost.ledger.items.current("demo", [row.item_id]).values()
    assert (current.revision, current.state) == ("new", State.DONE)
    assert {r.state for r in lost.ledger.conversions.find()} == {State.DONE}
    invariants(lost.path)


def test_what_another_recipe_made_is_known_and_a_backfill_says_so(lost, invariants):
    places = lost.recipe.output
    lost.recipe = Recipe(output=places, spatial_chunk=512)
    assert again(lost).added == 5
    request = backfill.check_range(backfill.BackfillRequest(START - timedelta(days=10), START), lost.clock())
    assert backfill.plan(lost.intake, Limits(), request).other_recipe == 5
    invariants(lost.path)


def test_yesterday_s_ledger_learns_what_was_done_since(lost, invariants):
    lost.discover()
    assert State.DONE not in {r.state for r in lost.ledger.conversions.find()}
    assert again(lost).added == 5
    assert {r.state for r in lost.ledger.conversions.find()} == {State.DONE}
    (row,) = lost.ledger.conversions.find(item_id=lost.items[0])
    lost.ledger.conversions.move(row, Move(Fact.REPLAYED, "again", overwrite=True), lost.clock())
    assert again(lost).added == 0, "who asks for it to be made again gets that"
    invariants(lost.path)


def test_workflows_become_rows_and_those_that_run_are_waited_for(lost, invariants):
    done, running = (lost.rows[i] for i in lost.items[:2])
    asked = Outcome(
        key=running.key, revision=running.revision, run=running.run, attempt=1, item_id=running.item_id, fence=running.fence,
        installation=OURS, source="https://x.example/p.zarr", output_zarr="/data/x.zarr",
    )  # fmt: skip
    said = replace(asked, key=done.key, item_id=done.item_id, run=done.run, code=0, output_zarr="/data/y.zarr")
    lost.recipe = Recipe(output="/data/{item_id}.zarr")
    runs = [
        Remnant("/data/y.zarr", said, Fact.SUCCEEDED, "demo", START),
        Remnant("/data/x.zarr", asked, Fact.ACCEPTED, "demo", START),
    ]
    owners = Owners((lost.source,), lost.recipe, OURS)
    assert rebuild(lost.ledger, owners, (), markers, runs, lost.clock, yes=True).added == 2
    states = {row.item_id: row.state for row in lost.ledger.conversions.find()}
    assert states == {done.item_id: State.DONE, running.item_id: State.SUBMITTED}
    assert [row.run for row in lost.ledger.conversions.unfinished()] == [running.run]
    invariants(lost.path)


def test_a_place_that_cannot_be_listed_says_so(tmp_path):
    assert list(outputs(f"{tmp_path}/nowhere/{{item_id}}.zarr")) == []
    with pytest.raises(Unavailable, match="nothing-of-that-kind"):
        list(outputs("nothing-of-that-kind://bucket/{item_id}.zarr"))
