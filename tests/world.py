"""A catalog on loopback that does what real ones do, a clock that the test turns, and discovery in front of it."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stac_watch.catalog.abilities import restore
from stac_watch.catalog.client import Catalog
from stac_watch.catalog.http import CatalogHttp
from stac_watch.config.model import Recipe, Source
from stac_watch.demo.catalog import COLLECTION, FaultControl, Server, Store, create_app, make_item
from stac_watch.discover.intake import Intake, add
from stac_watch.discover.poll import poll
from stac_watch.discover.sweep import sweep
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.naming import Sort
from stac_watch.ledger.records import Tally

START = datetime(2025, 11, 20, tzinfo=UTC)


@dataclass
class World:
    """The catalog, and a watcher's discovery of it."""

    url: str
    store: Store
    faults: FaultControl
    clock: Callable[[], datetime]  # of tests/conftest.py, with `forward`
    ledger: Ledger
    slept: list[float] = field(default_factory=list)
    settings: dict = field(default_factory=dict)

    def catalog(self, **over) -> Catalog:
        timeout = over.pop("timeout", (2, 5))
        http = CatalogHttp(self.url, now=self.clock, sleep=self.slept.append, rng=random.Random(1), timeout=timeout)
        return Catalog(http, COLLECTION, **over)

    def item(self, number: int, *, version: int = 1, **changes) -> dict:
        """Item `number`, sensed an hour after the one before and published another hour later."""
        sensed = START + timedelta(hours=number)
        item_id = changes.pop("item_id", f"S2A_MSIL2A_{sensed:%Y%m%dT%H%M%S}_N0511_R122_T32TQM_{sensed:%Y%m%d}T235959")
        facts = {
            "catalog_url": self.url, "product_href": f"{self.url}/products/v{version}/{item_id}.zarr",
            "updated": sensed + timedelta(hours=1), "datetime": sensed,
        }  # fmt: skip
        return make_item(item_id, **(facts | changes))

    def fill(self, count: int, **changes) -> list[str]:
        items = [self.item(n, **changes) for n in range(count)]
        self.store.put_many(items)
        return [item["id"] for item in items]

    def source(self) -> Source:
        given = {"poll": {"since": "30d"}} | self.settings
        return Source.model_validate({"name": "s2", "api": self.url, "collection": COLLECTION, **given})

    def intake(self, catalog: Catalog | None = None) -> Intake:
        return Intake(self.source(), Recipe(), catalog or self.catalog(), self.ledger, self.clock)

    def poll(self, **over) -> Tally:
        return poll(self.intake(self.catalog(**over)))

    def sweep(self) -> Tally:
        """Sweeps until nothing is due."""
        intake = self.intake()
        kept = self.ledger.sources.state("s2", ()).abilities
        assert kept is not None, "poll first"
        intake.catalog.abilities = restore(kept[0])
        total = Tally()
        for _ in range(200):
            found = sweep(intake)
            if found is None:
                return total
            total = add(total, found)
        raise AssertionError("the sweep does not end")

    def states(self) -> dict[str, str]:
        """Every conversion: its item, and its state or skip reason."""
        rows = self.ledger.conversions.find(limit=10_000, sort=Sort.OLDEST)
        return {row.item_id: row.reason or row.state.value for row in rows}

    def hrefs(self) -> list[str]:
        return [
            json.loads(body)["data"]["product_href"]
            for row in self.ledger.conversions.find()
            for body in self.ledger.conversions.events(row.key)
        ]


@pytest.fixture
def world(tmp_path: Path, clock: Callable[[], datetime], open_ledger: Callable[[Path], Ledger]) -> Iterator[World]:
    ledger = open_ledger(tmp_path / "ledger.db")
    with Store() as store, Server(create_app(store, now=clock)) as server:
        yield World(server.url, store, server.faults, clock, ledger)
    ledger.close()
