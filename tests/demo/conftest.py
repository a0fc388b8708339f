"""A catalog on loopback per test, with a clock that the test turns, and the structures of real products where they are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from stac_watch.demo.catalog import FaultControl, Server, Store, create_app, make_item

ROOT = Path(__file__).parents[2]
STRUCTURES = ROOT.parent / "shared" / "data" / "eopf" / "structure"
PRODUCT = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
START = datetime(2025, 11, 1, tzinfo=UTC)


@dataclass
class Api:
    """A running catalog as a test uses it."""

    url: str
    store: Store
    faults: FaultControl
    clock: Callable[[], datetime]  # of tests/conftest.py, with `forward`
    http: requests.Session = field(default_factory=requests.Session)

    def item(self, number: int, *, tile: str = "T32TQM", **changes) -> dict:
        """Returns item `number`: sensed on a day of its own, stamped an hour after."""
        sensed = START + timedelta(days=number)
        item_id = f"S2A_MSIL2A_{sensed:%Y%m%dT%H%M%S}_N0511_R122_{tile}_{sensed:%Y%m%dT}235959"
        facts = {
            "catalog_url": self.url,
            "product_href": f"{self.url}/products/{item_id}.zarr",
            "updated": sensed + timedelta(hours=1),
        }
        return make_item(item_id, **(facts | changes))

    def fill(self, count: int, **changes) -> list[str]:
        items = [self.item(number, **changes) for number in range(count)]
        self.store.put_many(items)
        return [item["id"] for item in items]

    def post(self, timeout: float = 5, **body) -> requests.Response:
        return self.http.post(f"{self.url}/search", json=body, timeout=timeout)

    def get(self, path: str, **parameters) -> requests.Response:
        return self.http.get(f"{self.url}{path}", params=parameters, timeout=5)

    def walk(self, **body) -> list[str]:
        """Follows `next` to the end by merging bodies, and returns the ids in the order in which they came."""
        ids: list[str] = []
        while True:
            page = self.post(**body).json()
            ids += [feature["id"] for feature in page["features"]]
            following = [link for link in page["links"] if link["rel"] == "next"]
            if not following:
                return ids
            body |= following[0]["body"]


@pytest.fixture
def api(tmp_path: Path, clock: Callable[[], datetime]) -> Iterator[Api]:
    with Store() as store, Server(create_app(store, products=tmp_path / "products", now=clock)) as server:
        running = Api(server.url, store, server.faults, clock)
        with running.http:
            yield running


def real_structure(name: str) -> dict:
    """Returns the structure of a real product, by the start of its name."""
    found = sorted(STRUCTURES.glob(f"{name}*.json.gz"))
    if not found:
        pytest.skip(f"no dump of a real product {name}… in {STRUCTURES}")
    with gzip.open(found[0]) as file:
        return json.load(file)


def walk_nodes(node: dict, path: str = "") -> Iterator[tuple[str, dict]]:
    yield path, node
    for name, member in node.get("members", {}).items():
        yield from walk_nodes(member, f"{path}/{name}")
