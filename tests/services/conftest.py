"""Real services: started once, shared by the tests of a session, each test in a collection or schema of its own."""

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages

import pgstac_servers as servers

from stac_watch.catalog import Catalog
from stac_watch.changes import acquisition
from stac_watch.config import Source
from stac_watch.database import open_engine
from stac_watch.demo.items import make_collection, make_item
from stac_watch.ledger import Ledger
from stac_watch.probe import probe

ASKED = "STAC_WATCH_TEST_SERVICES"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "services: needs real servers; `make test-services` starts them")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.services)
            if "pgstac" in getattr(item, "fixturenames", ()) and os.environ.get(ASKED) != "1":
                item.add_marker(pytest.mark.skip(reason="needs pgstac: `make test-services` runs it"))


@dataclass
class Place:
    """One collection of a real API, as a test uses it."""

    api: servers.Api
    collection: str
    http: requests.Session = field(default_factory=requests.Session)
    sensed: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0) - timedelta(days=2))

    @property
    def url(self) -> str:
        return f"{self.api.url}/collections/{self.collection}"

    def item(self, number: int, updated: datetime | str, *, version: int = 1, sensed: datetime | None = None) -> dict:
        """Item `number`, small: its product, and nothing else."""
        moment = sensed or self.sensed + timedelta(seconds=number)
        item_id = f"S2A_MSIL2A_{moment:%Y%m%dT%H%M%S}_N0511_R122_T32TQM_{self.sensed:%Y%m%d}T{number:06d}"
        assert acquisition(item_id) is not None
        item = make_item(
            item_id, catalog_url=self.api.url, product_href=f"https://data.example/v{version}/{item_id}.zarr", updated=updated,
            datetime=moment, collection=self.collection,
        )  # fmt: skip
        return item | {"assets": {"product": item["assets"]["product"]}, "stac_extensions": []}

    def post(self, item: dict) -> None:
        self._send("POST", f"{self.url}/items", item, (201,))

    def put(self, item: dict) -> None:
        self._send("PUT", f"{self.url}/items/{item['id']}", item, (200,))

    def delete(self, item_id: str) -> None:
        self._send("DELETE", f"{self.url}/items/{item_id}", None, (200, 204))

    def search(self, **body) -> requests.Response:
        return self.http.post(f"{self.api.url}/search", json={"collections": [self.collection], **body}, timeout=30)

    def _send(self, method: str, url: str, body: dict | None, good: tuple[int, ...]) -> None:
        # pgstac 0.10 answers 500 (CheckViolationError) when two transactions widen a partition at once; uvicorn then drops the
        # connection, so that the next request on it is reset: a publisher repeats both
        for last in (False, False, False, False, False, True):
            try:
                answer = self.http.request(method, url, json=body, timeout=30)
            except requests.ConnectionError:
                if last:
                    raise
                continue
            if answer.status_code in (*good, 409):  # 409: the first try of a POST did arrive
                return
            assert answer.status_code >= 500, answer.text
            assert not last, answer.text

    def catalog(self, *, api: str | None = None, probed: bool = True, **over) -> Catalog:
        catalog = Catalog(
            api or self.api.url, self.collection, now=lambda: datetime.now(UTC), sleep=time.sleep, rng=random.Random(1), **over
        )
        if probed:
            probe(catalog, 1000)
        return catalog

    def source(self, *, api: str | None = None, **poll) -> Source:
        return Source(name="s2", api=api or self.api.url, collection=self.collection, allowed_hosts=("data.example",), poll=poll)


@pytest.fixture(scope="session")
def apis(request: pytest.FixtureRequest) -> Iterator[Callable[[str], servers.Api]]:
    """Starts a generation of pgstac when it is first asked for."""
    running: dict[str, servers.Api] = {}
    try:
        servers.require_postgis()
    except servers.MissingServiceError as error:
        _missing(error)
    postgres = request.getfixturevalue("postgres")  # asked for here, so that it ends after what runs on it
    with ExitStack() as stack:

        def start(generation: str) -> servers.Api:
            if generation not in running:
                try:
                    running[generation] = stack.enter_context(servers.stac_api(postgres, generation))
                except servers.MissingServiceError as error:
                    _missing(error)
            return running[generation]

        yield start


def _missing(error: Exception) -> NoReturn:
    """A service that is not here: CI fails, others skip by name."""
    if os.environ.get("CI") == "true":
        pytest.fail(str(error))
    pytest.skip(str(error))


@pytest.fixture(params=list(servers.GENERATIONS))
def pgstac(request: pytest.FixtureRequest, apis: Callable[[str], servers.Api]) -> Iterator[Place]:
    """A fresh collection on each generation of pgstac."""
    api = apis(request.param)
    place = Place(api, f"s2-{random.Random(request.node.nodeid).randrange(10**9)}")
    answer = place.http.post(f"{api.url}/collections", json=make_collection(place.collection), timeout=30)
    assert answer.status_code == 201, answer.text
    with place.http:
        yield place
        place.http.delete(place.url, timeout=60)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(open_engine(f"sqlite:///{tmp_path / 'ledger.db'}"))
    ledger.prepare()
    yield ledger
    ledger.close()
