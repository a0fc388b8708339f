"""Items that were converted, with outputs on this machine, in front of a catalog that may drop some."""

import json
from datetime import timedelta
from pathlib import Path

import fsspec

from stac_watch.config.model import Limits
from stac_watch.discover.sweep import sweep
from stac_watch.jobs import audit, retire
from stac_watch.ledger.records import Move
from stac_watch.model.outcome import MARKER, Outcome, Package
from stac_watch.model.states import Fact
from stac_watch.report import status
from stac_watch.runs.markers import find_marker

OBJECTS = ("zarr.json", "r10m/b02/c/0/0", "r10m/b02/c/0/1", "r10m/zarr.json")


def write_output(output: str, outcome: Outcome) -> None:
    """An output as a run leaves it: objects, marker, and what lies beside it."""
    for name in OBJECTS:
        with fsspec.open(f"{output}/{name}", "wb", auto_mkdir=True) as file:
            file.write(b"x")
    with fsspec.open(f"{output}/{MARKER}", "wb") as file:
        file.write(outcome.as_json().encode())
    for name in (f"{output}.item.json", f"{output}.report.html", f"{output}.tar"):
        with fsspec.open(name, "wb") as file:
            file.write(json.dumps({"properties": {"datetime": None}}).encode())


class Archive:
    """Items that were converted, and some that the catalog dropped since."""

    def __init__(self, world, tmp_path, count: int = 4) -> None:
        self.world, self.place = world, tmp_path / "outputs"
        self.place.mkdir()
        self.ids = world.fill(count)
        world.poll()
        for row in world.ledger.conversions.find():
            world.ledger.conversions.move(row, Move(Fact.SUCCEEDED, "x", outcome=self.outcome(row)), world.clock())
        self.rows = {row.item_id: row for row in world.ledger.conversions.find()}
        for row in self.rows.values():
            write_output(row.output_zarr, row.outcome)

    def outcome(self, row) -> Outcome:
        files = {"item": f"{row.output_zarr}.item.json", "report": f"{row.output_zarr}.report.html"}
        package = Package(f"{row.output_zarr}.tar", 1, "0")
        return Outcome(code=0, key=row.key, output_zarr=row.output_zarr, files=files, package=package)

    def again(self) -> None:
        self.world.clock.forward(hours=7)
        intake = self.world.intake()
        intake.ensure_abilities()
        while sweep(intake) is not None:
            pass

    def drop(self, *numbers: int) -> None:
        for number in numbers:
            self.world.store.delete("sentinel-2-l2a", self.ids[number])
        self.again()
        self.again()

    def plan(self, at_most=None, **settings):
        self.world.settings |= settings
        return retire.plan(self.world.ledger, [self.world.source()], lambda _: True, at_most)

    def retire(self, **settings):
        return retire.execute(self.plan(**settings), self.world.ledger, self.world.clock)

    def output(self, number: int) -> str:
        return self.rows[self.ids[number]].output_zarr

    def item(self, number: int) -> dict:
        return json.loads(Path(f"{self.output(number)}.item.json").read_text())["properties"]

    def counts(self) -> dict[str, int]:
        view = status.read(self.world.ledger, [self.world.source()], Limits(), self.world.clock())
        return {what: n for what, n in view.sources[0].retired.items() if n}

    def audit(self) -> audit.Audit:
        class Nothing:
            def runs(self, keys):
                return []

        evidence = audit.Evidence(Nothing(), find_marker, lambda _: True)
        now = self.world.clock()
        return audit.audit(self.world.intake(), evidence, now - timedelta(days=9), now)
