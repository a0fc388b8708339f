"""Outputs whose lifetime is over: counted first, removed on request, and converted again by nobody but a person."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from archive import Archive, write_output
from world import START

from stac_watch.cli.main import main
from stac_watch.discover.poll import poll
from stac_watch.jobs import expire, replay
from stac_watch.jobs.removing import FIRST
from stac_watch.ledger.records import Move
from stac_watch.model.errors import InputError
from stac_watch.model.outcome import MARKER, Counts, Outcome
from stac_watch.model.publication import PublicationState
from stac_watch.model.states import Fact, State


@pytest.fixture
def archive(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the default output is relative
    return Archive(world, tmp_path)


def planned(archive, hours: float = 2.5, **over) -> expire.ExpiryPlan:
    """What was acquired less than so long after the first item is to go."""
    given = {"before": START + timedelta(hours=hours), "since": "acquired", "visible": lambda _: True} | over
    return expire.plan(archive.world.ledger, ["s2"], **given)


def gone(archive, numbers=(0, 1, 2)) -> None:
    """Removes those that are old enough."""
    done = expire.execute(planned(archive), archive.world.ledger, archive.world.clock, registers=False)
    assert [(one.item, one.refusal) for one in done.outputs] == [(archive.ids[n], None) for n in numbers]


def test_what_is_old_enough_is_counted_and_then_removed_for_good(archive):
    plan = planned(archive)
    assert [one.item for one in plan.outputs] == archive.ids[:3], "the oldest first"
    assert (plan.count, plan.bytes, plan.removed) == (3, 3, False)
    assert all(Path(archive.output(n), MARKER).exists() for n in range(4)), "a plan changes nothing"
    gone(archive)
    assert [Path(archive.output(n)).exists() for n in range(4)] == [False, False, False, True]
    assert not list(archive.place.parent.glob(f"**/*{archive.ids[0]}*"))
    assert archive.world.states() == {**dict.fromkeys(archive.ids[:3], "lifetime_over"), archive.ids[3]: "done"}
    assert planned(archive).outputs == []


def test_neither_sweep_nor_audit_nor_poll_nor_another_source_converts_it_again(archive):
    gone(archive)
    for document in [archive.world.item(n) for n in range(3)]:  # stamped anew, and nothing changed
        document["properties"]["updated"] = "2025-11-24T11:00:00Z"
        archive.world.store.put(document)
    archive.world.poll()
    archive.again()
    states = {**dict.fromkeys(archive.ids[:3], "lifetime_over"), archive.ids[3]: "done"}
    assert archive.world.states() == states
    found = archive.audit()
    assert (found.kinds, found.done, found.skipped) == ({}, 1, 3)
    other = archive.world.source().model_copy(update={"name": "other"})
    intake = replace(archive.world.intake(), source=other)
    intake.ensure_abilities()
    poll(intake)
    assert archive.world.ledger.conversions.find(state=State.QUEUED) == []


def test_a_person_or_a_later_revision_brings_it_back(archive):
    gone(archive)
    world = archive.world
    (target,) = replay.named([replay.Wish(archive.ids[0])], world.ledger, ["s2"], replay.AS_THEY_WERE)
    assert target.refusal is None
    world.clock.forward(minutes=1)
    world.store.put(world.item(1, version=2, updated=world.clock()))
    world.poll()
    assert world.states()[archive.ids[1]] == "queued"
    assert world.states()[archive.ids[2]] == "lifetime_over"


def test_its_age_may_be_that_of_the_conversion(archive):
    now = archive.world.clock()
    assert planned(archive, before=now, since="done").count == 0
    assert planned(archive, before=now + timedelta(seconds=1), since="done").count == 4
    with pytest.raises(InputError, match="4 outputs are to be removed, more than 3"):
        planned(archive, before=now + timedelta(seconds=1), since="done", at_most=3)


def test_what_is_registered_goes_after_its_item(archive):
    ledger, clock = archive.world.ledger, archive.world.clock
    ledger.publications.ask([archive.rows[archive.ids[0]].key], clock(), anew=False)
    first = expire.execute(planned(archive), ledger, clock, registers=True)
    assert [one.refusal for one in first.outputs] == [FIRST, None, None]
    assert first.count == 2
    (row,) = ledger.publications.of(archive.ids[0])
    assert row.state is PublicationState.WITHDRAWING
    assert Path(archive.output(0)).exists()
    ledger.publications.settle(row, replace(row, state=PublicationState.WITHDRAWN))
    second = expire.execute(planned(archive), ledger, clock, registers=True)
    assert [(one.item, one.refusal) for one in second.outputs] == [(archive.ids[0], None)]


def test_what_is_not_reached_or_anothers_is_said_and_left(archive):
    Path(archive.output(0), MARKER).write_text(Outcome(code=0, key="another").as_json())
    Path(archive.output(1), MARKER).unlink()
    done = expire.execute(planned(archive), archive.world.ledger, archive.world.clock, registers=False)
    assert ["not this conversion's" in (one.refusal or "") for one in done.outputs] == [True, True, False]
    assert (done.count, archive.world.states()[archive.ids[0]]) == (1, "done")
    assert [one.refusal for one in planned(archive, visible=lambda _: False).outputs] == [
        "it lies on its run's own volume, and goes with it"
    ] * 2


def test_of_an_earlier_revision_whose_output_was_replaced_nothing_is_said(archive):
    world = archive.world
    world.store.put(world.item(0, version=2, updated=world.clock()))
    world.poll()
    [later] = world.ledger.conversions.find(state=State.QUEUED)
    outcome = replace(archive.outcome(later), counts=Counts(bytes_written=5_000_000_000))
    world.ledger.conversions.move(later, Move(Fact.SUCCEEDED, "x", outcome=outcome), world.clock())
    write_output(later.output_zarr, outcome)
    plan = planned(archive)
    assert [one.key for one in plan.outputs if one.item == archive.ids[0]] == [later.key]
    assert plan.bytes == 5_000_000_003


def test_the_verb_prints_a_plan_and_removes_when_told(archive, tmp_path, capsys):
    world = archive.world
    file = tmp_path / "stac-watch.yaml"
    database = world.ledger._session.engine.url.database
    file.write_text(f"ledger: sqlite:///{database}\nsources: [{{name: s2, api: '{world.url}', collection: sentinel-2-l2a}}]\n")
    assert main(["expire", "--older-than", "1d", "-c", str(file), "--json"], {}) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["count"], told["removed"], len(told["outputs"])) == (4, False, 4)
    assert main(["expire", "s2", "--older-than", "36000d", "-c", str(file)], {}) == 0
    assert "0 outputs, 0.0 GB would be removed" in capsys.readouterr().out
    assert main(["expire", "--older-than", "1d", "--at-most", "3", "--yes", "-c", str(file)], {}) == 65
    assert main(["expire", "--older-than", "1d", "--yes", "-c", str(file)], {}) == 0
    assert "4 outputs, 0.0 GB removed" in capsys.readouterr().out
    assert set(world.states().values()) == {"lifetime_over"}
    for wrong in (["expire", "--yes"], ["expire", "--older-than", "long"], ["expire", "nobody", "--older-than", "1d"]):
        assert main([*wrong, "-c", str(file)], {}) not in (0, 1)
