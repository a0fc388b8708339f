"""A small world for journeys: a catalog on loopback, a clock that the test turns, an engine that fails as it is told to."""

import json
import random
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event as sa_event

from stac_watch.catalog.client import Catalog
from stac_watch.catalog.http import CatalogHttp
from stac_watch.config.model import Limits, Recipe, Source
from stac_watch.demo.catalog import Server, Store, create_app, make_item
from stac_watch.discover.intake import Intake
from stac_watch.jobs import audit
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.model.errors import Refused, Temporary
from stac_watch.model.outcome import Outcome
from stac_watch.runs.engine import Answer, Phase, Receipt, Run
from stac_watch.watch.loop import Parts, Watcher

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages

TAKES = timedelta(minutes=5)
LIMITS = Limits(rate="1000/s", max_in_flight=4, attempts=3, confirm_after="15m", retry_after="1m")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLLECTION = "sentinel-2-l2a"


@dataclass
class Clock:
    time: datetime = START

    def __call__(self):
        return self.time


@dataclass
class Plant:
    """An engine that converts in five minutes of the test's clock; `fault` is what it does wrong."""

    clock: Clock
    fault: str = ""
    begun: dict[str, datetime] = field(default_factory=dict)  # run -> since when it runs
    events: dict[str, dict] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    published: set[str] = field(default_factory=set)
    posts: list[str] = field(default_factory=list)
    outputs: dict[str, Outcome] = field(default_factory=dict)
    looks: int = 0
    progress: tuple[int, int] | None = None  # of every run, as it says

    def submit(self, event):
        data = json.loads(event)["data"]
        run, first = data["run"], data["run"] not in self.posts
        age = self.clock() - START
        self.posts.append(run)
        if self.fault == "down for an hour" and age < timedelta(hours=1):
            return Receipt(Answer.UNKNOWN, "HTTP 503")
        if self.fault == "credentials refused for an hour" and age < timedelta(hours=1):
            raise Refused("the EventSource refuses the token: HTTP 401", hint="set the token")
        if self.fault == "delivered, no answer, then refused" and not first:
            return Receipt(Answer.REFUSED, "HTTP 413")
        if self.fault == "accepted, then dropped" and first:
            return Receipt(Answer.ACCEPTED)
        self.events.setdefault(run, data)
        if self.fault == "delivered late" and first:
            self.begun[run] = self.clock() + timedelta(minutes=20)
        elif self.fault == "delivered, no answer, then refused":
            self.begun[run] = self.clock() + timedelta(minutes=10)
        elif self.fault == "delivered twice":
            self.begun[run] = self.clock()  # whatever ran under that name begins anew
        else:
            self.begun.setdefault(run, self.clock())
        if self.fault in ("delivered, and no answer", "delivered, no answer, then refused") and first:
            return Receipt(Answer.UNKNOWN, "reset by peer")
        return Receipt(Answer.ACCEPTED)

    def runs(self, keys):
        self.looks += 1
        if self.fault == "cannot be asked for an hour" and self.clock() - START < timedelta(hours=1):
            raise Temporary("the Kubernetes API does not answer", hint="it is asked again")
        found = []
        for run, begun in self.begun.items():
            data = self.events[run]
            if data["key"] not in keys or begun > self.clock() or run in self.deleted:
                continue
            age = self.clock() - begun
            if self.fault == "run deleted" and data["attempt"] == 1 and age >= TAKES / 2:
                self.deleted.add(run)
                continue
            found.append(self.look(run, data, age))
        return found

    def look(self, run, data, age):
        phase = Phase.RUNNING
        if self.fault == "phases out of order" and age < TAKES:
            phase = (Phase.RUNNING, Phase.PENDING)[self.looks % 2]
        outcome = None
        if age >= TAKES:
            phase, outcome = Phase.SUCCEEDED, Outcome(code=0, key=data["key"], attempt=data["attempt"])
            if run not in self.published:
                self.published.add(run)
                self.outputs[data["output_zarr"]] = outcome
        stage = "converting" if self.progress else ""
        return Run(run, data["key"], data["attempt"], phase, stage, self.progress, outcome=outcome, started=self.begun[run])

    def headroom(self):
        if self.fault == "full":
            return 0
        active = [r for r, begun in self.begun.items() if begun <= self.clock() < begun + TAKES and r not in self.deleted]
        return LIMITS.max_in_flight - len(active)

    def close(self, *, stop_runs):
        pass


@dataclass
class World:
    """A catalog with items, a ledger, an engine, a clock."""

    url: str
    store: Store
    clock: Clock
    plant: Plant
    ledger: Ledger
    source: Source
    catalog: Catalog
    recipe: Recipe
    problems: dict = field(default_factory=dict)
    ailing: dict = field(default_factory=dict)  # in the last round

    def publish(self, number: int, *, version: int = 1, days: int = 2, minutes_ago: int = 30) -> str:
        """Publishes item `number`, acquired so many days ago; a new version has another product."""
        sensed = START - timedelta(days=days, minutes=number)
        item_id = f"S2A_MSIL2A_{sensed:%Y%m%dT%H%M%S}_N0511_R122_T32TQM_{sensed:%Y%m%dT}235959"
        href = f"{self.url}/products/v{version}/{item_id}.zarr"
        updated = self.clock() - timedelta(minutes=minutes_ago)
        self.store.put(make_item(item_id, catalog_url=self.url, product_href=href, updated=updated, datetime=sensed))
        return item_id

    @property
    def parts(self) -> Parts:
        return Parts(
            sources=(self.source,), recipe=self.recipe, limits=LIMITS, ledger=self.ledger, engine=self.plant,
            catalogs={self.source.name: self.catalog}, read_marker=self.plant.outputs.get, now=self.clock, wait=lambda _: False,
            rng=random.Random(1), holder="test",
        )  # fmt: skip

    def configure(self, folder: Path) -> Path:
        """Writes the configuration with which the command looks at this world; outputs and runs lie in the folder."""
        document = {
            "ledger": self.ledger._engine.url.render_as_string(hide_password=False),
            "sources": [{"name": self.source.name, "api": self.url, "collection": COLLECTION}],
            "recipe": {"output": f"{folder}/outputs/{{item_id}}.zarr"}, "engine": {"kind": "local", "folder": f"{folder}/runs"},
        }  # fmt: skip
        path = folder / "stac-watch.yaml"
        path.write_text(json.dumps(document))
        return path

    def discover(self) -> None:
        Watcher(self.parts).tick(to_the_end=True)

    def run(self, hours: float = 6, step: int = 30) -> None:
        """Lets the watcher work without discovery until nothing moves any more."""
        watcher, until = Watcher(replace(self.parts), observing=False), self.clock() + timedelta(hours=hours)
        while self.clock() < until:
            tick = watcher.turn()
            self.problems, self.ailing = self.problems | tick.problems, tick.ailing
            self.clock.time += timedelta(seconds=step)
            if not self.ledger.conversions.unfinished() and self.ledger.outbox.next_due() is None:
                break

    @property
    def intake(self) -> Intake:
        return self.parts.intake(self.source)

    @property
    def evidence(self) -> audit.Evidence:
        return audit.Evidence(self.plant, self.plant.outputs.get, lambda _: True)

    def audit(self, days: int = 10) -> audit.Audit:
        return audit.audit(self.intake, self.evidence, START - timedelta(days=days), self.clock())


@pytest.fixture
def build(tmp_path: Path):
    """Builds worlds; each with a catalog and a ledger of its own."""
    opened = []

    def _build(fault: str = "", **source) -> World:
        number = len(opened)
        clock = Clock()
        store = Store()
        server = Server(create_app(store, products=tmp_path, now=clock))
        server.__enter__()
        engine = open_engine(f"sqlite:///{tmp_path / f'ledger-{number}.db'}")
        # what is on trial is what a transaction holds, not whether the disk keeps it
        sa_event.listen(engine, "connect", lambda connection, _record: connection.execute("PRAGMA synchronous=OFF"))
        ledger = Ledger(engine)
        ledger.prepare()
        opened.append((server, store, ledger))
        asked = Source(name="demo", api=server.url, collection=COLLECTION, **source)
        http = CatalogHttp(asked.api, now=clock, sleep=lambda _: None, rng=random.Random(1))
        catalog = Catalog(http, asked.collection)
        return World(
            server.url, store, clock, Plant(clock, fault), ledger, asked, catalog, Recipe(output="/outputs/{item_id}.zarr")
        )

    yield _build
    for server, store, ledger in opened:
        ledger.close()
        server.__exit__(None, None, None)
        store.__exit__(None, None, None)
