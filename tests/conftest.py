"""What all tests share: nothing leaves the machine, not even from processes that a test starts; services, where they are."""

import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages: what stands beside them is for all

from signals import let_children_hear_ctrl_c  # it stands there

pytest_plugins = ("values", "world", "command")  # valid values and a ledger; a catalog with discovery in front; the command line


def pytest_configure(config: pytest.Config) -> None:
    """Sends every other process's HTTP to a closed port; in this process pytest-socket refuses non-loopback connections."""
    let_children_hear_ctrl_c()
    gc.disable()  # what is imported and collected stays: to look for garbage in it takes as long as a third of it
    # an example that takes 200 ms on a machine with other work is no fault of the code
    settings.register_profile("any-machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any-machine")
    os.environ |= {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost,::1"}
    os.environ |= {name.lower(): os.environ[name] for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")}


def pytest_xdist_auto_num_workers() -> int:
    """Half as many processes again as there are cores: a third of their time is waiting, for other processes and for pauses."""
    return len(os.sched_getaffinity(0)) * 3 // 2


def pytest_collection_finish() -> None:
    """From here on garbage is looked for, rarely, and never in what the collection brought."""
    gc.freeze()
    gc.set_threshold(50_000)
    gc.enable()


@dataclass
class Clock:
    """A clock that only the test turns."""

    time: datetime = datetime(2025, 11, 24, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def forward(self, **by: float) -> None:
        self.time += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def service(name: str) -> ModuleType:
    """Loads a harness of tests/services: test folders are no packages."""
    path = Path(__file__).with_name("services") / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"services_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def postgres() -> Iterator[object]:
    """A PostgreSQL 15 server for this session; where it is not installed CI fails, and others skip."""
    harness = service("postgres")
    if harness.programs() is None:
        sentence = "PostgreSQL 15 is not installed: apt-get install postgresql-15"
        assert os.environ.get("CI") != "true", sentence
        pytest.skip(sentence)
    server = harness.Postgres()
    yield server
    server.close()
