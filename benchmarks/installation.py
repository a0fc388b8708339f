"""A whole installation on the development cluster, for what is measured there: the cluster tests' own, in its own namespace.

From rendered manifests, or by the chart.

In: a name, and what is to be other than usual. Out: a `Stack`. Never: leaves its namespace behind, or touches another.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS / "cluster"), str(TESTS / "services")]  # programs beside the tests, not installed packages

from charts import Helm  # noqa: E402
from harness.kubectl import Kubectl  # noqa: E402
from harness.places import Binaries, Places, Recipe  # noqa: E402
from postgres import Postgres  # noqa: E402
from releases import PODS, Release, lead_to_the_database  # noqa: E402
from stack import S3_PORT, Stack  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

OUTPUTS = "sentinel-2-geozarr"  #: the collection that outputs are registered in
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
    places, kubectl = _cluster()
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(kubectl, name, Path(folder), places.release, kubectl.forward)
        try:
            stack.up()
            stack.configure(engine={"limits": {**stack.config["engine"]["limits"], **limits}})
            yield stack
        finally:
            stack.down()


@contextmanager
def charted(name: str, *, limits: Mapping[str, Any]) -> Iterator[tuple[Release, Postgres]]:
    """Installs the chart as a team has it: ledger in PostgreSQL, outputs in S3 and registered, a quota; removes it again.

    Raises:
        SystemExit: the cluster is down.
    """
    places, kubectl = _cluster()
    values = {
        "ledger": {"existingSecret": "stac-watch-ledger"}, "s3": {"optional": False}, "quota": {"enabled": True},
        "eventBus": {"replicas": 1, "size": "1Gi"},  # the cluster has one node
    }  # fmt: skip
    database = Postgres(clients=[PODS])
    with closing(database), tempfile.TemporaryDirectory() as folder:
        stack = Release(kubectl, name, Path(folder), places.release, kubectl.forward, values=values)
        stack.helm = Helm(Binaries(places, Recipe.load())("helm"))

        def prepare() -> None:
            lead_to_the_database(stack, database.port)
            bucket = stack.bucket()
            stack.config["recipe"] = {"output": f"s3://{bucket}/{{collection}}/{{item_id}}.zarr"}
            stack.config["register"] = {
                "api": stack.catalog, "collection": OUTPUTS, "href_base": f"http://s3.s3.svc:{S3_PORT}/{bucket}",
            }  # fmt: skip
            stack.config["engine"]["limits"].update(limits)

        try:
            stack.up(prepare)
            yield stack, database
        finally:
            stack.down()


def _cluster() -> tuple[Places, Kubectl]:
    places = Places.from_environment(os.environ)
    kubectl = Kubectl(Binaries(places, Recipe.load())("kubectl"), places.state / "admin.conf")
    if not (kubectl.kubeconfig.exists() and kubectl.is_ready()):
        sys.exit("the development cluster is down: make cluster-up")
    return places, kubectl


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
