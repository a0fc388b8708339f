"""What a look at a full cluster asks of the Kubernetes API: counted, not timed (`make bench-reconcile` times it)."""

from datetime import UTC, datetime, timedelta

import pytest
from fakes.kubernetes import Api, client, serving
from fakes.workflows import ended, status, step

from stac_watch.runs.argo import FULL_FOR, ArgoEngine
from stac_watch.runs.engine import Phase
from stac_watch.runs.kubernetes_api import Cluster

FINISHED, UNFINISHED = 3_000, 500
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def full():
    """A cluster with many finished and 500 unfinished runs, an engine, and a clock in a list."""
    api, clock = Api(), [START]
    for number in range(FINISHED):
        key = f"{number:012x}"
        api.put(f"gz-old-{key[2:]}-1", key=key, status=ended(0, key))
    keys = [f"{number:012x}" for number in range(FINISHED, FINISHED + UNFINISHED)]
    for key in keys:
        api.put(f"gz-new-{key[2:]}-1", key=key, status=status("Running", step("convert", "Running")))
    with serving(api):
        engine = ArgoEngine(
            "http://127.0.0.1:9/items", [], cluster=Cluster(client(api.url), "geozarr"), max_in_flight=UNFINISHED,
            confirm_after=timedelta(minutes=15), now=lambda: clock[0],
        )  # fmt: skip
        yield api, engine, keys, clock
        engine.close(stop_runs=False)


def test_an_object_is_fetched_once_for_each_version_and_finished_runs_cost_nothing(full):
    api, engine, keys, _ = full
    assert len(engine.runs(keys)) == UNFINISHED
    first = api.count()
    assert (first["list"], first["get"]) == (3, UNFINISHED)  # 200 keys a list
    engine.runs(keys)
    idle = api.count()
    assert (idle["list"], idle["get"]) == (3, 0)
    assert idle["bytes"] < UNFINISHED * 4_000, "metadata only"
    for key in keys[:20]:
        api.put(f"gz-new-{key[2:]}-1", status=ended(0, key))
    runs = engine.runs(keys)
    assert sum(run.phase is Phase.SUCCEEDED for run in runs) == 20
    assert api.count()["get"] == 20


def test_the_live_table_does_not_make_the_watcher_fetch_everything_again(full):
    api, engine, keys, _ = full
    engine.runs(keys)
    api.count()
    for _ in range(3):
        engine.runs(keys[:15])
        engine.runs(keys)
    assert api.count()["get"] == 0


def test_a_full_cluster_is_not_asked_for_room_every_second(full):
    api, engine, _, clock = full
    assert [engine.headroom() for _ in range(5)] == [0] * 5
    assert api.count()["list"] == 1
    api.put(next(name for name in api.workflows if name.startswith("gz-new")), status=ended(0))
    clock[0] += FULL_FOR
    assert engine.headroom() == 1
    assert engine.headroom() == 1
    assert api.count()["list"] == 2
