"""What `clean` removes on one machine, and above all what it does not: a real ledger, real folders, a lock that is held."""

import fcntl
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command import Result, call

from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Move, Sighting
from stac_watch.model.event import Conversion, parse_event
from stac_watch.model.item import Item
from stac_watch.model.states import Fact
from stac_watch.runs.local import EVENT, LOCK, OUTCOME, WORK, LocalEngine

NOW = datetime.now(UTC).replace(microsecond=0)
OLD = (NOW - timedelta(days=40)).timestamp()


class Place:
    """A ledger, and what the local engine's runs left under `runs`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs, self.ledger = folder, folder / "runs", Ledger(open_engine(f"sqlite:///{folder}/ledger.db"))
        self.ledger.prepare()
        self.output = folder / "outputs" / "x.zarr" / "zarr.json"
        self.output.parent.mkdir(parents=True)
        self.output.write_text("{}")
        document = {
            "ledger": f"sqlite:///{folder}/ledger.db", "recipe": {"output": f"{folder}/outputs/{{item_id}}.zarr"},
            "sources": [{"name": "s2", "api": "https://stac.example", "collection": "c"}],
            "engine": {"kind": "local", "folder": str(self.runs)},
        }  # fmt: skip
        (folder / "stac-watch.yaml").write_text(json.dumps(document))

    def conversion(self, item_id: str, *facts: Fact) -> bytes:
        """Admits an item, moves it, and returns its last event."""
        href = f"https://stac.example/{item_id}"
        conversion = Conversion(
            catalog="https://stac.example", collection="c", item_id=item_id, revision="r", recipe="groups=", kind="create",
            reason="new", lane="live", time=NOW, datetime=NOW, item_href=href, product_href=href, bbox=(0, 0, 1, 1),
            output_zarr=str(self.folder / "outputs" / f"{item_id}.zarr"),
        )  # fmt: skip
        item = Item("c", item_id, "r", NOW, NOW, href, href, (0, 0, 1, 1), None, "T32TQM", deprecated=False)
        self.ledger.items.commit("s2", [Sighting(item, conversion, None)], [], None, NOW)
        for fact in facts:
            self.ledger.conversions.move(self.ledger.conversions.get(conversion.key), Move(fact, "x", reason="x"), NOW)
        return self.ledger.conversions.events(conversion.key)[-1]

    def run(self, event: bytes, *, old: bool = True, staged: bool = False) -> Path:
        """What a run leaves that ended long ago, or just now."""
        data = parse_event(event)["data"]
        left = [self.runs / data["run"]] + ([self.runs / WORK / "stage" / data["key"]] if staged else [])
        for folder in left:
            folder.mkdir(parents=True)
            (folder / (EVENT if folder == left[0] else "chunk")).write_bytes(event)
        (left[0] / LOCK).touch()
        (left[0] / OUTCOME).write_text('{"code": 0}')
        for folder in left if old else []:
            os.utime(folder, (OLD, OLD))
        return left[0]

    def clean(self, *options: str) -> Result:
        return call("cluster", "clean", "--older-than=30d", "-c", self.folder / "stac-watch.yaml", *options)


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.ledger.close()


def test_what_is_over_for_long_goes_and_what_somebody_needs_stays(place):
    sent = (Fact.ACCEPTED, Fact.RUN_SEEN)
    done, failed = place.conversion("done", *sent, Fact.SUCCEEDED), place.conversion("failed", *sent, Fact.FAILED_PERMANENT)
    first = place.conversion("twice")
    moved = place.ledger.conversions.get(parse_event(first)["data"]["key"])
    for fact in (*sent, Fact.FAILED_TEMPORARY, *sent):
        place.ledger.conversions.move(place.ledger.conversions.get(moved.key), Move(fact, "x", reason="x"), NOW)
    second = place.ledger.conversions.events(moved.key)[-1]
    young, living = place.conversion("young", *sent, Fact.SUCCEEDED), place.conversion("living", *sent, Fact.WITHDRAWN)
    goes = {place.run(done), place.run(failed, staged=True), place.run(first, staged=True)}
    stays = {place.run(second), place.run(young, old=False), place.run(living, staged=True)}
    with (next(run for run in stays if "living" in (run / EVENT).read_text()) / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        listed = place.clean("--json")
        assert (listed.code, listed.err) == (0, "")
        plan = json.loads(listed.out)
        key = {
            name: parse_event(event)["data"]["key"] for name, event in (("failed", failed), ("twice", first), ("living", living))
        }
        assert {entry["name"] for entry in plan["remove"]} == {run.name for run in goes} | {key["failed"]}
        assert {entry["name"] for entry in plan["keep"]} == {run.name for run in stays} | {key["twice"], key["living"]}
        assert all(run.exists() for run in goes), "nothing goes unasked"
        assert "say --yes" in place.clean().out
        done = place.clean("--yes")
        assert (done.code, done.out.count("removed ")) == (0, 4), done.err
    assert set(place.runs.glob("gz-*")) == stays
    assert {path.name for path in (place.runs / WORK / "stage").iterdir()} == {key["twice"], key["living"]}
    assert place.output.exists()


def test_a_replay_between_the_list_and_the_removal_keeps_what_was_staged(place):
    from stac_watch.runs import folders

    event = place.conversion("failed", Fact.ACCEPTED, Fact.RUN_SEEN, Fact.FAILED_PERMANENT)
    place.run(event, staged=True)
    plan = folders.plan(place.runs, place.ledger.conversions.get, NOW, timedelta(days=30))
    key = parse_event(event)["data"]["key"]
    place.ledger.conversions.move(place.ledger.conversions.get(key), Move(Fact.REPLAYED, "asked for", lane="replay"), NOW)
    assert {item.name: gone for item, gone in folders.carry_out(place.runs, place.ledger.conversions.get, plan)}[key] is False
    assert (place.runs / WORK / "stage" / key).exists()


def test_what_the_ledger_does_not_know_and_what_is_no_run_stays(place):
    place.conversion("known")
    stranger = Place(place.folder / "other")
    run = place.run(stranger.conversion("stranger"))
    stranger.ledger.close()
    (place.runs / "notes").mkdir()
    assert place.clean("--yes").code == 0
    assert run.exists()
    assert (place.runs / "notes").exists()
    assert LocalEngine(place.runs, command=[], max_in_flight=2, environ={}).headroom() == 2


def test_volumes_are_a_cluster_s(place):
    refused = place.clean("--volumes", "--yes")
    assert (refused.code, "for a cluster" in refused.err) == (78, True)
