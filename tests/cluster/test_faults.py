"""Faults of a real installation, one after the other; each ends with nothing lost, nothing doubled, and the ledger true.

Every test publishes items, breaks something while they are under way, puts it right, and asks three questions (`Stack.check`):
is every item done, was each converted exactly once, does the ledger name the run that did it.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import faults
import pytest
from stack import running, slowly

pytestmark = pytest.mark.cluster


def test_the_eventsource_pod_is_killed(stack):
    before = stack.publish()
    faults.kill_eventsource(stack)
    after = stack.publish()
    stack.await_done(before, after)
    stack.check(before, after)


@pytest.mark.cluster_long
def test_the_sensor_is_killed_while_it_drains(stack):
    items = [stack.publish() for _ in range(3)]
    stack.await_workflow(items[0])
    faults.kill_sensor(stack)
    stack.await_done(*items)
    stack.check(*items)


def test_the_bus_is_killed(stack):
    before = stack.publish()
    faults.kill_bus(stack)
    after = stack.publish()
    stack.await_done(before, after, seconds=300)
    stack.check(before, after)


@pytest.mark.cluster_long
def test_the_sensor_is_deployed_again_with_a_changed_template(stack):
    items = [stack.publish(), stack.publish()]
    stack.await_workflow(items[0])
    label = {"spec": {"template": {"metadata": {"labels": {"redeployed": str(int(time.time()))}}}}}
    retry = [{"op": "replace", "path": "/spec/triggers/0/retryStrategy/steps", "value": 61}]
    stack.do("patch", "sensor", "geozarr", "--type=merge", "-p", json.dumps(label))
    stack.do("patch", "sensor", "geozarr", "--type=json", "-p", json.dumps(retry))
    items.append(stack.publish())
    stack.await_done(*items)
    stack.check(*items)


def test_the_controller_is_killed_in_the_middle_of_a_run(stack, own_cluster):
    item = stack.publish()
    stack.await_workflow(item, running("convert"))
    faults.kill_controller(stack)
    stack.await_done(item, seconds=300)
    stack.check(item)


def test_a_pod_of_the_run_is_killed_in_each_step(stack):
    items = {step: stack.publish() for step in ("preflight", "volume", "convert")}
    killed = []

    def kill(step):
        workflow = stack.await_workflow(items[step], running(step), seconds=150)
        faults.kill_pod(stack, faults.working_pod(workflow, step))
        killed.append(step)

    with ThreadPoolExecutor(3) as together:
        list(together.map(kill, items))
    assert sorted(killed) == ["convert", "preflight", "volume"]
    stack.await_done(*items.values(), seconds=300)
    stack.check(*items.values())


def test_the_nodes_kubelet_is_restarted(stack, harness, own_cluster):
    item = stack.publish()
    stack.await_workflow(item, running("convert"))
    faults.restart_kubelet(stack, daemon(harness))
    stack.await_done(item, seconds=300)
    stack.check(item)


@pytest.mark.cluster_long
def test_the_poller_is_killed_again_and_again(stack):
    items = []
    for _ in range(3):
        items.append(stack.publish())
        faults.kill_poller(stack)
    stack.await_poller()
    stack.await_done(*items, seconds=300)
    stack.check(*items)


@pytest.mark.cluster_long
def test_the_api_server_is_down_for_a_minute(stack, harness, own_cluster):
    """One run is under way, one event is on its way, and one item appears in the dark."""
    dark = stack.publish(visible_in=45)
    items = [stack.publish(), dark]
    stack.await_workflow(items[0], running("convert"))
    faults.api_server_down(stack, daemon(harness), None, seconds=60)
    stack.await_done(*items, seconds=400)
    stack.check(*items)
    # Argo 4.0.5 may read an ended watch of a ConfigMap for ever now: 60,000 lines of log a second, which take a core
    faults.kill_controller(stack)


@pytest.mark.cluster_long
def test_an_exhausted_quota_of_volumes_is_waited_for_and_named(stack):
    used = len(stack.kubectl.get("pvc", "-n", stack.namespace)["items"])
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "volumes"},
        "spec": {"hard": {"persistentvolumeclaims": str(used)}},
    }
    stack.do("apply", "-f", "-", stdin=json.dumps(quota))
    slowly(lambda: "hard" in stack.kubectl.get("resourcequota", "volumes", "-n", stack.namespace).get("status", {}), 30)
    try:
        item = stack.publish()
        workflow = stack.await_workflow(item, lambda w: "exceeded quota" in json.dumps(w.get("status", {})), seconds=120)
        assert workflow["status"]["phase"] == "Running"
    finally:
        stack.do("delete", "resourcequota", "volumes")
    stack.await_done(item, seconds=300)
    stack.check(item)


@pytest.mark.cluster_long
def test_a_source_that_answers_503_and_then_is_healthy(stack):
    before = stack.ask_catalog("faults", {})["delivered"]
    faults.source_answers_503(stack)
    item = stack.publish()
    stack.await_done(item, seconds=300)
    stack.check(item)
    assert stack.ask_catalog("faults", {"wire": [], "wire_paths": ["/search"]})["delivered"] - before == 14


def test_a_wrong_token_stops_sending_and_burns_no_attempt(stack):
    wrong = {"name": "STAC_WATCH__ENGINE__TOKEN", "value": "wrong", "valueFrom": None}
    container = {"name": "poller", "env": [wrong]}
    stack.do("patch", "deploy", "stac-watch", "-p", json.dumps({"spec": {"template": {"spec": {"containers": [container]}}}}))
    stack.await_poller()
    item = stack.publish()

    def said():
        pods = stack.pods("app.kubernetes.io/name=stac-watch")
        return any("refuses the token" in stack.logs(p["metadata"]["name"]) for p in pods)

    slowly(said, 90)
    row = stack.await_row(item, bool)
    assert (row["state"], row["attempt"]) == ("queued", 1)
    right = {"name": "STAC_WATCH__ENGINE__TOKEN", "value": None}
    right |= {"valueFrom": {"secretKeyRef": {"name": "stac-watch-webhook", "key": "token"}}}
    container = {"name": "poller", "env": [right]}
    stack.do("patch", "deploy", "stac-watch", "-p", json.dumps({"spec": {"template": {"spec": {"containers": [container]}}}}))
    stack.await_poller()
    assert stack.await_done(item)[item]["attempt"] == 1
    stack.check(item)


def daemon(harness):
    """Kills and starts processes of the node by the harness's command line."""
    return lambda verb, name: harness("daemon", verb, name)
