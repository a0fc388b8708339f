"""Real services: started once, shared by the tests of a session, each test in a collection or schema of its own."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages

import pgstac_servers as servers
from place import Place

from stac_watch.demo.items import make_collection
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger

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
