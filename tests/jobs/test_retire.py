"""What a rolling archive drops: outputs stay, are marked, or are removed; never half of one, or another's, or most of them."""

from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from archive import OBJECTS, Archive, write_output
from fsspec.implementations.local import LocalFileSystem

from stac_watch.config.model import Limits
from stac_watch.jobs import retire
from stac_watch.jobs.removing import FIRST
from stac_watch.ledger.records import Move
from stac_watch.model.errors import CannotWrite, InputError
from stac_watch.model.item import Retirement
from stac_watch.model.outcome import MARKER, Outcome, Package
from stac_watch.model.publication import PublicationState
from stac_watch.model.states import Fact, State
from stac_watch.report import explain
from stac_watch.runs import retiring


@pytest.fixture
def archive(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the default output is relative
    return Archive(world, tmp_path)


def test_by_default_an_output_stays_and_is_no_gap(archive):
    archive.drop(1)
    assert archive.plan() == []
    assert archive.counts() == {"kept": 1}
    found = archive.audit()
    assert (found.kinds, found.done, found.retired) == ({}, 4, 1)
    (view,) = explain.read(archive.world.ledger, archive.ids[1], Limits(), archive.world.clock(), lambda _: None)
    assert "its output is kept" in view.gone


def test_deprecate_marks_the_item_and_takes_the_mark_away_when_it_returns(archive):
    dropped = archive.world.item(1)
    archive.drop(1)
    assert archive.audit().kinds == {}
    (target,) = archive.plan(on_gone="deprecate")
    assert (target.action, target.item) == ("deprecate", archive.ids[1])
    assert "deprecated" not in archive.item(1), "a plan changes nothing"
    assert archive.audit().kinds == {"gone": 1}
    archive.retire()
    assert archive.item(1)["deprecated"] is True
    assert archive.plan() == []
    assert (archive.counts(), archive.audit().kinds) == ({"deprecated": 1}, {})
    archive.world.store.put(dropped)
    archive.again()
    (target,) = archive.plan()
    assert target.action == "restore"
    archive.retire()
    assert "deprecated" not in archive.item(1)
    assert archive.plan() == []


def test_delete_removes_all_of_it_and_nothing_else_and_it_is_made_again_when_it_returns(archive):
    dropped = archive.world.item(1)
    archive.drop(1)
    before = {p for p in archive.place.parent.rglob("*") if p.is_file() and archive.ids[1] not in str(p)}
    archive.retire(on_gone="delete")
    after = {p for p in archive.place.parent.rglob("*") if p.is_file() and not p.name.startswith("ledger")}
    assert after == {p for p in before if not p.name.startswith("ledger")}
    assert archive.counts() == {"deleted": 1}
    assert archive.world.states()[archive.ids[1]] == "retired"
    assert archive.audit().kinds == {}
    assert archive.plan() == []
    archive.world.store.put(dropped)
    archive.again()
    assert archive.world.states()[archive.ids[1]] == "queued"
    assert archive.counts() == {}


def test_no_output_goes_before_its_item_is_out_of_the_catalog_of_outputs(archive):
    ledger, clock = archive.world.ledger, archive.world.clock
    key = archive.rows[archive.ids[1]].key
    ledger.publications.ask([key], clock(), anew=False)
    archive.drop(1)
    for _ in range(2):
        (refused,) = retire.execute(archive.plan(on_gone="delete"), ledger, clock, registers=True)
        assert refused.refusal == FIRST
        assert Path(archive.output(1)).exists()
    (row,) = ledger.publications.of(archive.ids[1])
    assert row.state is PublicationState.WITHDRAWING
    assert ledger.publications.settle(row, replace(row, state=PublicationState.WITHDRAWN))
    (done,) = retire.execute(archive.plan(), ledger, clock, registers=True)
    assert done.refusal is None
    assert not Path(archive.output(1)).exists()


def test_what_is_deprecated_is_registered_anew_and_what_is_not_registered_stays_so(archive):
    ledger, clock = archive.world.ledger, archive.world.clock
    key = archive.rows[archive.ids[1]].key
    ledger.publications.ask([key], clock(), anew=False)
    (row,) = ledger.publications.of(archive.ids[1])
    assert ledger.publications.settle(row, replace(row, state=PublicationState.REGISTERED))
    archive.drop(1, 2)
    retire.execute(archive.plan(on_gone="deprecate"), ledger, clock, registers=True)
    assert [p.state for p in ledger.publications.of(archive.ids[1])] == [PublicationState.PENDING]
    assert ledger.publications.of(archive.ids[2]) == []


class Killed(BaseException):
    """The process ends here."""


class Brittle(LocalFileSystem):
    """A file system on which a process is killed before a given removal."""

    protocol = "brittle"
    left = 99

    def rm_file(self, path):
        if Brittle.left == 0:
            raise Killed
        Brittle.left -= 1
        super().rm_file(path)

    def rm(self, path, recursive=False, maxdepth=None):
        for name in [path] if isinstance(path, str) else path:
            if recursive and isinstance(path, str):
                super().rm(path, recursive=True)
            else:
                self.rm_file(name)


@pytest.mark.parametrize("removals", range(9))
def test_a_removal_that_is_killed_is_never_taken_for_an_output_and_goes_on(tmp_path, removals):
    fsspec.register_implementation("brittle", Brittle, clobber=True)
    output = f"brittle://{tmp_path}/x.zarr"
    outcome = Outcome(code=0, key="k" * 20, files={"item": f"{output}.item.json"}, package=Package(f"{output}.tar", 1, "0"))
    write_output(f"{tmp_path}/x.zarr", outcome)
    Brittle.left = removals
    try:
        done = retiring.remove(output, "k" * 20, outcome)
    except Killed:
        done = False
    whole = all((tmp_path / "x.zarr" / name).exists() for name in OBJECTS)
    assert whole or not (tmp_path / "x.zarr" / MARKER).exists()
    Brittle.left = 99
    assert done or retiring.remove(output, "k" * 20, outcome)
    assert [p.name for p in tmp_path.rglob("*")] == ["x.zarr.report.html"], "it is not named by the outcome"
    assert retiring.remove(output, "k" * 20, outcome), "once more is nothing"


def test_what_has_another_marker_or_none_is_not_removed(archive):
    archive.drop(1, 2)
    other = Outcome(code=0, key="another", output_zarr=archive.output(1))
    Path(archive.output(1), MARKER).write_text(other.as_json())
    fsspec.filesystem("file").rm_file(f"{archive.output(2)}/{MARKER}")
    refused = archive.retire(on_gone="delete")
    assert ["not this conversion's" in target.refusal for target in refused] == [True, True]
    assert fsspec.filesystem("file").exists(f"{archive.output(1)}/zarr.json")
    assert fsspec.filesystem("file").exists(f"{archive.output(2)}/zarr.json")
    assert archive.counts() == {"kept": 2}


@pytest.mark.parametrize("on_gone", ["delete", "deprecate"])
def test_what_another_installation_has_made_under_the_same_key_and_name_stays_as_it_is(archive, on_gone):
    """Two installations of one recipe give an item one key and one place: what this one knew is gone, and the other's is there."""
    archive.drop(1)
    known = archive.rows[archive.ids[1]]
    write_output(known.output_zarr, replace(known.outcome, installation="the other"))
    (target,) = archive.retire(on_gone=on_gone)
    assert "not this conversion's" in target.refusal
    assert Path(archive.output(1), "zarr.json").exists()
    assert "deprecated" not in archive.item(1)


def test_a_catalog_that_loses_most_of_its_items_removes_nothing(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive = Archive(world, tmp_path, 12)
    archive.drop(*range(11))
    with pytest.raises(InputError, match="11 of the 12 outputs") as told:
        archive.plan(on_gone="delete")
    assert "--at-most 11" in told.value.hint
    assert len(archive.plan(at_most=11)) == 11
    assert len(archive.plan(on_gone="deprecate")) == 11, "what is only marked can be unmarked"


def test_what_lies_on_a_runs_volume_is_said(archive):
    archive.drop(1)
    archive.world.settings["on_gone"] = "delete"
    (target,) = retire.plan(archive.world.ledger, [archive.world.source()], lambda _: False)
    assert "own volume" in target.refusal


def test_an_output_that_is_another_conversions_too_is_left(archive):
    archive.drop(1)
    row = archive.rows[archive.ids[1]]
    assert not archive.world.ledger.retirements.shares_output(row)
    archive.world.store.put(archive.world.item(1, version=2, updated=archive.world.clock()))
    archive.world.poll()
    assert archive.world.ledger.retirements.shares_output(row)


def test_somebody_who_goes_on_writing_is_said(tmp_path):
    class Refilled(Brittle):
        protocol = "refilled"

        def rm(self, path, recursive=False, maxdepth=None):
            pass

    fsspec.register_implementation("refilled", Refilled, clobber=True)
    outcome = Outcome(code=0, key="k")
    write_output(f"{tmp_path}/x.zarr", outcome)
    Brittle.left = 99
    with pytest.raises(CannotWrite, match="still has objects"):
        retiring.remove(f"refilled://{tmp_path}/x.zarr", "k", outcome)


def test_what_retirement_says_is_what_the_ledger_has():
    assert [what.value for what in Retirement] == ["kept", "deprecated", "deleted"]


def test_an_output_that_took_an_earlier_revision_s_place_is_removed_like_any_other(archive):
    world = archive.world
    world.clock.forward(minutes=1)
    world.store.put(world.item(1, version=2, updated=world.clock()))
    world.poll()
    [later] = world.ledger.conversions.find(state=State.QUEUED)
    world.ledger.conversions.move(later, Move(Fact.SUCCEEDED, "x", outcome=archive.outcome(later)), world.clock())
    write_output(later.output_zarr, archive.outcome(later))
    archive.drop(1)
    [target] = archive.retire(on_gone="delete")
    assert (target.refusal, Path(archive.output(1)).exists()) == (None, False)
