"""What an administrator does once in a while, as docs/deploy.md says it: restore, another controller, volumes that go."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import faults
import pytest
import yaml
from harness.daemons import wait_until
from stack import Stack, outcome, parameters, slowly

pytestmark = pytest.mark.cluster
CONTROLLER = ("configmap", "workflow-controller-configmap")
RESTORE = """
import pathlib, shutil
state, copies = pathlib.Path("/var/lib/stac-watch"), sorted(pathlib.Path("/var/lib/stac-watch-backup").glob("stac-watch-*.db"))
for left in ("stac-watch.db-wal", "stac-watch.db-shm"):
    (state / left).unlink(missing_ok=True)
shutil.copyfile(copies[-1], state / "stac-watch.db")
print(f"restored {copies[-1].name}")
"""


def test_a_ledger_comes_back_from_its_nightly_copy_and_nothing_is_lost_or_doubled(stack):
    before = stack.publish()
    stack.await_done(before)
    stack.do("delete", "job", "backup-now", "--ignore-not-found")
    stack.do("create", "job", "--from=cronjob/stac-watch-backup", "backup-now")
    stack._wait_for(240, "the backup did not end", "wait", "--for=condition=Complete", "job/backup-now", "--timeout=2s")
    after = stack.publish()
    stack.await_done(after)
    stack.do("scale", "deploy/stac-watch", "--replicas=0")
    try:
        wait_until(lambda: not stack.pods("app.kubernetes.io/name=stac-watch"), 120, "the poller's pod is still there")
        assert restored(stack).startswith("restored stac-watch-")
    finally:
        stack.do("scale", "deploy/stac-watch", "--replicas=1")
        stack.await_poller()
    rows = stack.await_done(before, after)  # the second is found again, by the overlap, and is done without being converted again
    assert rows[before]["attempt"] == 1
    stack.check(before, after)


def restored(stack: Stack) -> str:
    """Puts the newest copy where the ledger lies, in a pod that mounts both volumes; returns what it says."""
    job = stack.kubectl.get("cronjob", "stac-watch-backup", "-n", stack.namespace)["spec"]["jobTemplate"]["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "restore"}, "spec": job["spec"]}
    pod["spec"].pop("affinity", None)  # the poller is not there; this cluster has one node
    container = pod["spec"]["containers"][0]
    container |= {"command": ["python3", "-c", RESTORE], "args": []}
    stack.kubectl.apply(json.dumps(pod), "-n", stack.namespace)
    done = ("wait", "pod/restore", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=2s")
    try:
        stack._wait_for(120, "the copy was not put back", *done)
        return stack.logs("restore")
    finally:
        stack.do("delete", "pod", "restore", "--grace-period=0", "--force")


def test_an_output_that_went_with_its_volume_is_expired_named_and_made_again(stack):
    item = oldest_on_a_volume(stack)
    [run] = {w["metadata"]["name"] for w in stack.workflows_of(item)}
    stack.do("delete", "workflow", run)
    stack.do("delete", "pvc", run, "--ignore-not-found")
    wait_until(lambda: run not in stack.do("get", "pvc", "-o", "name"), 180, "the volume is still there")
    faults.kill_poller(stack)  # it looks at volumes when it starts, and every ten minutes
    stack.await_poller()
    stack.await_state("expired", item)
    said = json.loads(stack.poller("explain", item, "--json"))
    assert f"the volume of run {run} is gone" in json.dumps(said)
    stack.poller("replay", item, "--yes")
    row = stack.await_done(item)[item]
    assert row["run"] != run


def oldest_on_a_volume(stack: Stack) -> str:
    """An item whose output lies on its run's volume, done for more than five minutes: younger ones are not looked at yet."""
    if not (found := settled(stack)):
        stack.await_done(stack.publish())
        slowly(lambda: bool(settled(stack)), 420)
        found = settled(stack)
    return found[0]


def settled(stack: Stack) -> list[str]:
    """Items with an output on the volume of the one run that they got, which ended more than five minutes ago."""
    rows = stack.items()
    runs: dict[str, list[dict[str, Any]]] = {}
    for workflow in stack.workflows():
        runs.setdefault(parameters(workflow).get("item_id", ""), []).append(workflow)
    alone = {item: found[0] for item, found in runs.items() if len(found) == 1 and rows.get(item, {}).get("state") == "done"}
    there = {item: workflow for item, workflow in alone.items() if rows[item]["output"].startswith("/data/")}
    before = datetime.now(UTC) - timedelta(minutes=5, seconds=10)
    return [i for i, w in there.items() if datetime.fromisoformat(w["status"].get("finishedAt") or "9999-01-01T00:00:00Z") < before]


def test_runs_are_those_of_the_controller_that_the_configuration_names(stack, own_cluster):
    with controller(stack, "team-a"):
        stack.configure(engine={"instance_id": "team-a"})
        try:
            stack.await_subscribed()
            item = stack.publish()
            stack.await_done(item)
            [workflow] = stack.workflows_of(item)
            assert workflow["metadata"]["labels"]["workflows.argoproj.io/controller-instanceid"] == "team-a"
            assert outcome(workflow)["code"] == 0
        finally:
            stack.configure(engine={"instance_id": ""})
    stack.await_chain()


@contextmanager
def controller(stack: Stack, instance_id: str) -> Iterator[None]:
    """The cluster's Workflow controller, with an `instanceID` for as long as this lasts."""
    kept = stack.kubectl.get(*CONTROLLER, "-n", "argo").get("data", {})
    settings = yaml.safe_load(kept["config"]) if "config" in kept else kept
    whole = yaml.safe_dump({**settings, "instanceID": instance_id})
    _tell(stack, {"config": whole} if "config" in kept else {"instanceID": instance_id})
    try:
        yield
    finally:
        _tell(stack, {"config": kept["config"]} if "config" in kept else {"instanceID": None})


def _tell(stack: Stack, data: dict[str, str | None]) -> None:
    stack.kubectl("-n", "argo", "patch", *CONTROLLER, "--type=merge", "-p", json.dumps({"data": data}))
    stack.kubectl("-n", "argo", "rollout", "restart", "deploy/workflow-controller")
    stack.kubectl("-n", "argo", "rollout", "status", "deploy/workflow-controller", "--timeout=180s")
