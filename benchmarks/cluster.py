"""What an item costs on a real Kubernetes with real Argo, besides its conversion: waiting, submissions, and the poller's own work.

In: how many items, the development cluster (`make cluster-up`). Out: tables; build/bench/cluster*.json. Never: part of the tests.

One after the other: published -> accepted -> Workflow -> its first pod -> done, each from the record that an operator could ask
(the ledger's history, Kubernetes' timestamps, the outcome's seconds).

At once: as many items as are asked for are published while a quota lets no pod start, so that what is measured is the way from the
catalog to the Workflow: discovery, dispatch, EventSource, bus, Sensor. Beside it, what a user would write instead: a loop around
`kubectl create -f`, which knows nothing of doubles or of a lost answer.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import datetime, timedelta
from typing import Any

from installation import installed, poller
from result import Goal, Result

from stac_watch.report.web.timeline import percentile

# isort: split
from stack import Stack, outcome, slowly

STEPS = (
    "published to accepted", "accepted to Workflow, at most", "Workflow to first pod, at most", "first pod to done, at most",
    "of that, in the runner",
)  # fmt: skip
SECOND = timedelta(seconds=1)
COMMAND = "make bench-cluster"
OVERHEAD = "overhead beyond the runner"
CLAIMED = "Three pods a run: preflight, volume, convert."
ALONE = "One pod a run, on its node's disk (`runs.volume: scratch`), output to S3 within the cluster."
NOTE = (
    "The controller looks every second here (CONTRIBUTING.md), every ten in a stock installation. "
    "Kubernetes' and Argo's times are cut to whole seconds: hence `at most`."
)
LIMIT = "A Sensor makes a Workflow with two requests of the five a second that it is allowed: 2.5/s is its limit."


def one_by_one(stack: Stack, items: int, size: int, name: str, note: str, goals: tuple[float, ...] = ()) -> Result:
    """Publishes items one after the other, and says where each one's time went."""
    took: dict[str, list[float]] = {step: [] for step in (*STEPS, "published to done", OVERHEAD)}
    for _ in range(items):
        item = stack.publish(size=size)
        stack.await_done(item)
        [workflow] = stack.workflows_of(item)
        for step, seconds in parts_of(stack, item, workflow).items():
            took[step].append(seconds)
    rows = [[step, len(waits), *(percentile(waits, share) or 0.0 for share in (0.5, 0.95)), max(waits)]
            for step, waits in took.items()]  # fmt: skip
    where = "on claims" if note == CLAIMED else "without a volume"
    return Result(
        name, f"One item at a time on the development cluster, {where}, {size} px products, polled every second", COMMAND,
        ["step", "items", "p50, s", "p95, s", "longest, s"], rows,
        notes=[f"{note} {NOTE}"],
        goals=[Goal(f"{OVERHEAD}, p50, s", percentile(took[OVERHEAD], 0.5) or 0.0, goal) for goal in goals],
    )  # fmt: skip


def without_volumes(stack: Stack) -> None:
    """Lets runs work on their node's disk from now on, and their outputs go to S3."""
    stack.values["runs"] = {"volume": "scratch"}
    stack.configure(recipe={"output": f"s3://{stack.bucket()}/{{collection}}/{{item_id}}.zarr"})


def parts_of(stack: Stack, item: str, workflow: dict[str, Any]) -> dict[str, float]:
    """Returns the seconds of each step of one item's way."""
    [chain] = json.loads(stack.poller("explain", item, "--json"))
    moved = {entry["dst"]: datetime.fromisoformat(entry["at"]) for entry in chain["history"]}
    published = datetime.fromisoformat(chain["events"][0]["time"])
    made = datetime.fromisoformat(workflow["metadata"]["creationTimestamp"])
    pods = [node for node in workflow["status"]["nodes"].values() if node["type"] == "Pod"]
    first = min(datetime.fromisoformat(node["startedAt"]) for node in pods)
    done, runner = moved["done"], sum(outcome(workflow)["seconds"].values())
    spans = (moved["submitted"] - published, made + SECOND - moved["submitted"], first + SECOND - made, done - first)
    whole = (done - published).total_seconds()
    found = dict(zip(STEPS, (*(span.total_seconds() for span in spans), runner), strict=True))
    return {**found, "published to done": whole, OVERHEAD: whole - runner}


def at_once(stack: Stack, items: int) -> tuple[Result, Result]:
    """Publishes many while no pod may start; returns what submissions take, and what the poller took."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-more-pods"},
             "spec": {"hard": {"pods": str(len(stack.kubectl.get("pods", "-n", stack.namespace)["items"]))}}}  # fmt: skip
    stack.do("apply", "-f", "-", stdin=json.dumps(quota))
    before, known = poller(stack), len(stack.workflows())
    began = time.time()
    with stack.door() as ask:
        for _ in range(items):
            ask("publish", {"item_id": stack.item_id(), "product": False})
    published = time.time() - began
    slowly(lambda: len(stack.workflows()) >= known + items, 60 + items * 2)
    made = sorted(born(w) for w in stack.workflows())[-items:]
    time.sleep(5)  # what the poller does when nothing happens belongs to it, too
    after = poller(stack)
    ours = (items - 1) / max(1.0, made[-1] - made[0])
    theirs = by_kubectl(stack, min(items, 40))
    submissions = Result(
        "cluster-submissions", f"{items} items at once: from the catalog to Workflows on the development cluster", COMMAND,
        ["way", "Workflows", "a second"],
        [["stac-watch: EventSource, bus, Sensor", items, ours], ["a loop around `kubectl create`", min(items, 40), theirs]],
        notes=[f"Publishing them took {published:.0f} s. {LIMIT}"],
    )  # fmt: skip
    if before.started != after.started:
        raise SystemExit("the poller was restarted meanwhile: nothing can be said of it")
    cpu = (after.cpu_s - before.cpu_s) / items * 1000
    cost = Result(
        "cluster-poller", "What the poller's process takes", COMMAND,
        ["of", "measured"],
        [["processor, s for 1,000 items, polls and reconciling included", cpu], ["memory before, MB", before.memory_mb],
         [f"memory after {items} items, MB", after.memory_mb], ["open files before", before.handles],
         ["open files after", after.handles], ["ledger, KB an item", (after.ledger_mb - before.ledger_mb) / items * 1000]],
        goals=[Goal("memory after / before", after.memory_mb / before.memory_mb, 1.3)],
    )  # fmt: skip
    return submissions, cost


def born(workflow: dict[str, Any]) -> float:
    """When a Workflow was made."""
    return datetime.fromisoformat(workflow["metadata"]["creationTimestamp"]).timestamp()


def by_kubectl(stack: Stack, number: int) -> float:
    """Workflows a second, one `kubectl create` after the other."""
    document = json.dumps({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "by-hand-"},
        "spec": {
            "workflowTemplateRef": {"name": "geozarr-convert"},
            "arguments": {"parameters": [{"name": "stac_url", "value": f"{stack.catalog}/collections/none/items/none"},
                                         {"name": "output_zarr", "value": "/data/by-hand.zarr"}]},
        },
    })  # fmt: skip
    began = time.monotonic()
    for _ in range(number):
        stack.do("create", "-f", "-", stdin=document)
    return number / (time.monotonic() - began)


def main() -> None:
    """Measures, prints, keeps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=6, help="one after the other")
    parser.add_argument("--at-once", type=int, default=150)
    parser.add_argument("--size", type=int, default=360, help="of the products, pixels of 10 m")
    given = parser.parse_args()
    with installed("stac-watch-bench", limits={"max_in_flight": 1000, "rate": "20/s", "confirm_after": "5m"}) as stack:
        claimed = one_by_one(stack, given.items, given.size, "cluster", CLAIMED)
        without_volumes(stack)
        alone = one_by_one(stack, given.items, given.size, "cluster-scratch", ALONE, (8.0,))
        rest = at_once(stack, given.at_once)
    for result in (claimed, alone, *rest):
        result.keep()


if __name__ == "__main__":
    main()
