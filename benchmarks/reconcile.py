"""What a look at the cluster costs when it is full: 10,000 finished and 500 unfinished runs.

In: nothing. Out: a table of requests, megabytes and seconds for the first look, one at which nothing changed, one at which twenty
runs did, and one after the live table was drawn. Never: a scan of the API server's own: the stand-in indexes labels (a real one
answers metadata lists from its watch cache).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ledger import sightings

from stac_watch.config.model import Limits
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow, Move
from stac_watch.model.states import Fact
from stac_watch.runs.argo import ArgoEngine
from stac_watch.runs.kubernetes_api import Cluster
from stac_watch.runs.reconcile import reconcile

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the fakes stand beside the tests, and are not installed
from fakes.kubernetes import Api, client, serving
from fakes.workflows import ended, status, step

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FINISHED, UNFINISHED = 10_000, 500


def fill(cluster: Api, ledger: Ledger) -> list[ConversionRow]:
    """Puts the runs into cluster and ledger; returns the unfinished conversions."""
    for number in range(FINISHED):
        key = f"{number:012x}"
        cluster.put(f"gz-old-{key[2:]}-1", key=key, status=ended(0, key))
    new = sightings(UNFINISHED)
    ledger.items.commit("s2", new, [], None, NOW)
    for sighting in new:
        row = ledger.conversions.get(sighting.conversion.key)
        if row is None or row.run is None:
            raise AssertionError(sighting)
        ledger.conversions.move(row, Move(Fact.ACCEPTED, "accepted"), NOW)
        running = status("Running", step("convert", "Running", progress="12/640"))
        cluster.put(row.run, key=row.key, status=running)
    return ledger.conversions.unfinished()


def main() -> None:
    """Measures and prints."""
    cluster = Api()
    with tempfile.TemporaryDirectory() as folder, serving(cluster):
        ledger = Ledger(open_engine(f"sqlite:///{folder}/ledger.db"))
        ledger.prepare()
        rows = fill(cluster, ledger)
        engine = ArgoEngine(
            "http://127.0.0.1:9/items", None, cluster=Cluster(client(cluster.url), "geozarr"), max_in_flight=500,
            confirm_after=timedelta(minutes=15), now=lambda: NOW,
        )  # fmt: skip

        def look() -> None:
            reconcile(ledger, engine, Limits(), lambda _: None, lambda: NOW)
            engine.headroom()

        def show(name: str, what: Callable[[], None]) -> None:
            cluster.count()
            began = time.perf_counter()
            what()
            seconds, n = time.perf_counter() - began, cluster.count()
            print(f"{name:42} {n['list']:5} lists {n['get']:5} objects {n['bytes'] / 1e6:8.2f} MB {seconds:8.3f} s")

        show("first look, 500 runs seen", look)
        show("nothing changed", look)
        for row in rows[:20]:
            cluster.put(str(row.run), key=row.key, status=ended(0, row.key))
        show("20 of them ended", look)
        engine.runs([row.key for row in rows[20:35]])
        show("after the live table asked for 15", look)
        engine.close(stop_runs=False)
        ledger.close()


if __name__ == "__main__":
    main()
