"""A ledger with outputs that are done, and a catalog on loopback that takes their items."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stac_watch.catalog.writing import TargetCollection, WritingHttp
from stac_watch.config.register import Register
from stac_watch.demo.catalog import FaultControl, Server, Store, create_app
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Move
from stac_watch.model.errors import CatalogUnavailable, Temporary
from stac_watch.model.outcome import Outcome
from stac_watch.model.publication import Publication
from stac_watch.model.stamps import stamp
from stac_watch.model.states import Fact
from stac_watch.register.item import outputs_of
from stac_watch.register.registrar import Made, Registrar, Round

COLLECTION = "s2-geozarr"
BASE = "https://data.example/geozarr"


def described(item_id: str, finished: str, **properties: Any) -> dict[str, Any]:
    """What a run writes beside an output."""
    ring = [[11.4, 42.4], [12.7, 42.4], [12.7, 41.4], [11.4, 41.4], [11.4, 42.4]]
    said = {
        "datetime": "2025-10-08T10:00:41Z", "created": finished, "updated": finished, "processing:datetime": finished, "gsd": 10,
        "processing:software": {"geozarr-runner": "0.1.0"}, "proj:code": "EPSG:32632", "eo:cloud_cover": 12.5,
        "proj:bbox": [699960.0, 4590240.0, 809760.0, 4700040.0],
    }  # fmt: skip
    name = f"{item_id}.zarr"
    zarr = "application/vnd.zarr; version=3"
    band = {"name": "b02", "gsd": 10, "eo:common_name": "blue", "eo:center_wavelength": 0.4927, "eo:full_width_half_max": 0.065}
    reflectance = {
        "href": f"./{name}/measurements/reflectance", "type": f"{zarr}; profile=multiscales", "roles": ["data", "reflectance"],
        "proj:shape": [10980, 10980], "proj:transform": [10.0, 0.0, 699960.0, 0.0, -10.0, 4700040.0], "bands": [band],
    }  # fmt: skip
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": item_id, "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [11.4, 41.4, 12.7, 42.4], "properties": said | properties,
        "links": [{"rel": "via", "href": f"https://objects.example/{name}", "type": "application/vnd.zarr"}],
        "assets": {
            "product": {"href": f"./{name}", "type": zarr, "roles": ["data"]},
            "reflectance": reflectance,
            "thumbnail": {"href": f"./{name}.quicklook.png", "type": "image/png", "roles": ["thumbnail"], "file:size": 10},
        },
    }  # fmt: skip


@dataclass
class Shop:
    """What is done, and where it is registered."""

    ledger: Ledger
    make: Any
    clock: Any
    url: str
    store: Store
    faults: FaultControl
    items: dict[str, dict[str, Any]] = field(default_factory=dict)  # beside outputs
    markers: dict[str, Outcome] = field(default_factory=dict)
    sources: dict[str, dict[str, Any] | Exception] = field(default_factory=dict)  # items of the source, by id
    settings: dict[str, Any] = field(default_factory=dict)

    def finish(self, number: int = 0, revision: str = "rev-a", **properties: Any) -> str:
        """Converts revision of item `number`; returns its id."""
        item_id = self.make.item_id[:-3] + f"{number:03}"
        output = f"s3://bucket/scenes/{item_id}.zarr"
        seen = self.make.sighting(item_id=item_id, revision=revision, output_zarr=output, time=self.clock())
        self.ledger.items.commit("s2", [seen], [], None, self.clock())
        key = seen.conversion.key
        self.clock.forward(seconds=1)
        finished = stamp(self.clock())
        self.items[output] = described(item_id, finished, **properties)
        self.markers[output] = Outcome(code=0, key=key, item_id=item_id, finished=finished)
        row = self.ledger.conversions.get(key)
        self.ledger.conversions.move(row, Move(Fact.SUCCEEDED, "done", outcome=self.markers[output]), self.clock())
        return item_id

    def register(self, **over: Any) -> Register:
        given = {"api": self.url, "collection": COLLECTION, "href_base": BASE} | self.settings | over
        return Register.model_validate(given)

    def registrar(self, target: TargetCollection | None = None, **over: Any) -> Registrar:
        settings = self.register(**over)
        made = Made(self.markers.get, self.items.get, self._source)
        outputs = outputs_of("s3://bucket/scenes/{item_id}.zarr", settings.href_base)
        return Registrar(self.ledger, target or self.target(), settings, outputs, made, self.clock, random.Random(1))

    def target(self, **over: Any) -> TargetCollection:
        http = WritingHttp(self.url, now=self.clock, sleep=lambda _: None, rng=random.Random(1), timeout=(2, 5), **over)
        return TargetCollection(http, COLLECTION)

    def publication(self, item_id: str) -> Publication:
        [row] = self.ledger.publications.of(item_id)
        return row

    def there(self, item_id: str) -> dict[str, Any] | None:
        return self.store.get(COLLECTION, item_id)

    def on(self, registrar: Registrar, rounds: int = 50) -> Round:
        """Lets time pass, and rounds with it, until nothing is due within two hours."""
        total = Round()
        for _ in range(rounds):
            did = Round()
            if registrar.is_due():
                with contextlib.suppress(Temporary):
                    did = registrar.round()
                sums = (total.registered + did.registered, total.failed + did.failed, total.later + did.later)
                total = Round(*sums)
            self.clock.forward(minutes=5)
        return total

    def _source(self, _source: str, item_id: str) -> dict[str, Any] | None:
        found = self.sources.get(item_id)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def shop(tmp_path: Path, make: Any, clock: Any, open_ledger: Callable[[Path], Ledger]) -> Iterator[Shop]:
    clock.time = make.now
    ledger = open_ledger(tmp_path / "ledger.db")
    ledger.publications.enrol_done()
    with Store() as store, Server(create_app(store, now=clock)) as server:
        made = Shop(ledger, make, clock, server.url, store, server.faults)
        yield made
        made.ledger.close()


AWAY = CatalogUnavailable("the catalog is away")
