"""A whole installation on the development cluster, for what is measured there: the cluster tests' own, in a namespace of its own.

In: a name, and what is to be other than usual. Out: a `Stack`. Never: leaves its namespace behind, or touches another.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

CLUSTER_TESTS = Path(__file__).parents[1] / "tests" / "cluster"
sys.path.insert(0, str(CLUSTER_TESTS))  # the harness is a program beside the tests, not an installed package

from harness.kubectl import Kubectl  # noqa: E402
from harness.places import Binaries, Places, Recipe  # noqa: E402
from stack import Stack  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

WEB = "services/stac-watch:web/proxy"


@dataclass(frozen=True)
class Poller:
    """What the poller's process says of itself."""

    started: float  # seconds since 1970: another value is another process
    cpu_s: float
    memory_mb: float
    handles: int
    ledger_mb: float


@contextmanager
def installed(name: str, *, limits: Mapping[str, Any]) -> Iterator[Stack]:
    """Puts stac-watch up and takes it down again.

    Raises:
        SystemExit: the cluster is down.
    """
    places = Places.from_environment(os.environ)
    kubectl = Kubectl(Binaries(places, Recipe.load())("kubectl"), places.state / "admin.conf")
    if not (kubectl.kubeconfig.exists() and kubectl.is_ready()):
        sys.exit("the development cluster is down: make cluster-up")
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(kubectl, name, Path(folder), places.release, kubectl.forward)
        try:
            stack.up()
            stack.configure(engine={"limits": {**stack.config["engine"]["limits"], **limits}})
            yield stack
        finally:
            stack.down()


def poller(stack: Stack) -> Poller:
    """Asks the poller's /metrics, as Prometheus does. Raises HarnessError while it cannot be asked."""
    text = stack.kubectl("get", "--raw", f"/api/v1/namespaces/{stack.namespace}/{WEB}/metrics")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return Poller(
        started=float(values["process_start_time_seconds"]),
        cpu_s=float(values["process_cpu_seconds_total"]),
        memory_mb=float(values["process_resident_memory_bytes"]) / 1e6,
        handles=int(float(values["process_open_fds"])),
        ledger_mb=float(values["stac_watch_ledger_bytes"]) / 1e6,
    )
