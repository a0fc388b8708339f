"""What may become a Workflow here, asked of a real API server by dry run; and forged events, posted past every check of ours.

tests/manifests/test_guard.py holds the Sensor's filter against what is sent.
"""

import copy
import json
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from fakes.installation import files_of, told
from harness.commands import HarnessError
from harness.daemons import wait_until

from stac_watch.cluster.submit import one_run
from stac_watch.model.event import Conversion, build_event

CONFIG = Path(__file__).parents[2] / "deploy/base/stac-watch.yaml"
NAME, INSTANCE = "test-guard", "ours"
SENSOR, POLLER = (f"--as=system:serviceaccount:{NAME}:{account}" for account in ("geozarr-sensor", "stac-watch"))
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp("settings") / "stac-watch.yaml"
    path.write_text(CONFIG.read_text().replace("namespace: geozarr", f"namespace: {NAME}\n  instance_id: {INSTANCE}"))
    return files_of(told(path))


@pytest.fixture(scope="module")
def guarded(kubectl, files):
    """A namespace with accounts, template and policy. No controller has our instance id: what is made stays as it is."""
    kubectl("delete", "namespace", NAME, "--ignore-not-found", "--timeout=120s")
    for name in ("namespace", "admission", "sensors/rbac", "workflows/rbac", "rbac", "workflows/geozarr-convert"):
        kubectl.apply(files[f"{name}.yaml"])
    bare = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "x"}, "spec": {"entrypoint": "x"}}
    wait_until(lambda: tried(kubectl, bare) != "", 30, "the policy does not hold")  # the API server reads it after a moment
    yield NAME
    kubectl("delete", "namespace", NAME, "--wait=false")
    kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", f"stac-watch-{NAME}")


def tried(kubectl, workflow, *who):
    """What a dry run says of a Workflow; empty: it is taken."""
    try:
        kubectl("create", "--dry-run=server", "-n", NAME, *who, "-f", "-", stdin=json.dumps(workflow))
    except HarnessError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def made(files):
    """The Workflow that the Sensor makes of a real event."""
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    item = "S2A_MSIL2A_20250831T103701_N0511_R008_T32TQM_20250831T140000"
    conversion = Conversion(
        catalog="https://stac.example", collection="c", item_id=item, revision="r", recipe="r", kind="create", reason="new",
        lane="live", time=moment, datetime=moment, item_href="https://stac.example/i", product_href="https://objects.eodc.eu/x.zarr",
        output_zarr="s3://bucket/x.zarr", source_name="s2-l2a", options={"package": "none"},
    )  # fmt: skip
    data = json.loads(build_event(conversion, 1))["data"]
    k8s = yaml.safe_load(files["sensors/geozarr.yaml"])["spec"]["triggers"][0]["template"]["k8s"]
    workflow = copy.deepcopy(k8s["source"]["resource"])
    for parameter in k8s["parameters"]:
        value = data
        for part in parameter["src"]["dataKey"].removeprefix("body.data.").split("."):
            value = value.get(part, parameter["src"].get("value")) if isinstance(value, dict) else value
        *parents, last = parameter["dest"].split(".")
        target = workflow
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        target[last] = value if parameter["src"].get("useRawData") else str(value)
    return workflow


def changed(workflow, change):
    other = copy.deepcopy(workflow)
    change(other)
    return other


def argument(workflow, name, value):
    next(p for p in workflow["spec"]["arguments"]["parameters"] if p["name"] == name)["value"] = value


def test_runs_by_events_by_hand_and_at_night_are_taken(kubectl, guarded, files, made):
    assert made["metadata"]["labels"]["workflows.argoproj.io/controller-instanceid"] == INSTANCE
    assert tried(kubectl, made, SENSOR) == ""
    by_hand = one_run({"stac_url": "https://objects.eodc.eu/x.zarr", "output_zarr": "/data/x.zarr"}, namespace=NAME)
    assert tried(kubectl, by_hand) == ""
    nightly = next(d for d in yaml.safe_load_all(files["audit.yaml"]) if d["kind"] == "CronWorkflow")
    by_night = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "audit-1"},
        "spec": nightly["spec"]["workflowSpec"],
    }  # fmt: skip
    assert tried(kubectl, by_night, "--as=system:serviceaccount:argo:argo") == ""


CONTAINER = {"name": "main", "container": {"image": "stac-watch:x", "command": ["stac-watch"]}}
OWN = {  # nobody may
    "a spec of its own": lambda w: w.update(spec={"entrypoint": "main", "templates": [CONTAINER]}),
    "templates beside the reference": lambda w: w["spec"].update(templates=[CONTAINER]),
    "another account": lambda w: w["spec"].update(serviceAccountName="stac-watch"),
    "a pod patch": lambda w: w["spec"].update(podSpecPatch='{"hostNetwork": true}'),
    "a volume": lambda w: w["spec"].update(volumes=[{"name": "x", "secret": {"secretName": "geozarr-s3"}}]),
    "a security context": lambda w: w["spec"].update(securityContext={"runAsUser": 0}),
    "the node's network": lambda w: w["spec"].update(hostNetwork=True),
}
FORGED = {  # the Sensor may not
    "another template": lambda w: w["spec"].update(workflowTemplateRef={"name": "stac-watch-audit"}),
    "a cluster's template": lambda w: w["spec"]["workflowTemplateRef"].update(clusterScope=True),
    "another entrypoint": lambda w: w["spec"].update(entrypoint="release"),
    "a name of nothing": lambda w: w["metadata"].update(name="prod"),
    "a name of another key": lambda w: w["metadata"].update(name="gz-t32tqm-20260301t000000-0000000000000000-1"),
    "a name of another attempt": lambda w: w["metadata"]["labels"].update({"stac-watch/attempt": "2"}),
    "a key that is none": lambda w: w["metadata"]["labels"].update({"stac-watch/key": "x"}),
    "arguments of another key": lambda w: argument(w, "key", "0" * 20),
    "an argument without end": lambda w: argument(w, "groups", "x" * 5000),
    "the deployment's own argument": lambda w: w["spec"]["arguments"]["parameters"].append({"name": "allowed_hosts", "value": ""}),
    "a label of others": lambda w: w["metadata"]["labels"].update({"workflows.argoproj.io/completed": "true"}),
    "an annotation": lambda w: w["metadata"].update(annotations={"x": "y"}),
    "a finalizer": lambda w: w["metadata"].update(finalizers=["x.example/y"]),
    "first in every queue": lambda w: w["spec"].update(priority=1_000_000),
    "a status": lambda w: w.update(status={"phase": "Succeeded"}),
}


def test_nobody_chooses_image_account_or_volume(kubectl, guarded, made):
    """Whatever the controller's own restrictions are: it is shared, and its configuration is not ours."""
    for how, change in OWN.items():
        for who in ((), (SENSOR,)):
            assert "workflowTemplateRef" in tried(kubectl, changed(made, change), *who), how


def test_the_sensor_makes_runs_of_ours_and_nothing_else(kubectl, guarded, made):
    for how, change in FORGED.items():
        said = tried(kubectl, changed(made, change), SENSOR)
        assert "ValidatingAdmissionPolicy 'stac-watch-test-guard'" in said, (how, said)


def test_the_sensor_changes_no_run_and_may_say_the_same_twice(kubectl, guarded, made):
    name = made["metadata"]["name"]
    kubectl("create", "-n", NAME, SENSOR, "-f", "-", stdin=json.dumps(made))

    def patch(body, *who):
        kubectl("patch", "workflow", name, "-n", NAME, *who, "--type=merge", "-p", json.dumps(body))

    patch(made, SENSOR)
    # the controller and people change what they always change, and the same event is no change then either
    patch({"metadata": {"labels": {"workflows.argoproj.io/phase": "Running"}}, "status": {"phase": "Running"}})
    patch({"spec": {"suspend": True}})
    patch(made, SENSOR)
    before = kubectl.get("workflow", name, "-n", NAME)
    for change in (
        lambda w: argument(w, "stac_url", "https://objects.eodc.eu/other.zarr"),
        lambda w: argument(w, "output_zarr", "s3://bucket/other.zarr"),
        lambda w: w["metadata"]["labels"].update({"stac-watch/lane": "backfill"}),
        lambda w: w["spec"].update(shutdown="Terminate"),
        lambda w: w.update(status={"phase": "Succeeded"}),
        lambda w: w["metadata"].update(annotations={"x": "y"}),
    ):
        with pytest.raises(HarnessError, match="an event changes no run that is there"):
            patch(changed(made, change), SENSOR)
    assert kubectl.get("workflow", name, "-n", NAME) == before
    with pytest.raises(HarnessError, match="workflowTemplateRef"):
        patch({"spec": {"serviceAccountName": "stac-watch"}})


def test_the_poller_changes_a_run_s_description_and_nothing_else(kubectl, guarded, made):
    run = changed(made, lambda w: w["metadata"].update(name="gz-of-the-poller", annotations={"stac-watch/item": "https://i"}))
    kubectl("create", "-n", NAME, "-f", "-", stdin=json.dumps(run))
    description = "workflows.argoproj.io/description"

    def patch(body):
        kubectl("patch", "workflow", "gz-of-the-poller", "-n", NAME, POLLER, "--type=merge", "-p", json.dumps(body))

    patch({"metadata": {"annotations": {description: "failed: preflight: not there"}}})
    patch({"metadata": {"annotations": {description: "as before"}}})
    before = kubectl.get("workflow", "gz-of-the-poller", "-n", NAME)
    assert before["metadata"]["annotations"] == {"stac-watch/item": "https://i", description: "as before"}
    for change in (
        {"metadata": {"annotations": {description: "x", "stac-watch/item": "https://j"}}},
        {"metadata": {"annotations": {"stac-watch/item": None}}},
        {"metadata": {"annotations": {"x": "y"}}},
        {"metadata": {"labels": {"stac-watch/lane": "backfill"}}},
        {"metadata": {"finalizers": ["x.example/y"]}},
        {"spec": {"shutdown": "Terminate"}},
        {"spec": {"templates": [CONTAINER]}},
        {"status": {"phase": "Succeeded"}},
        {"status": {"storedWorkflowTemplateSpec": {"templates": [CONTAINER]}}},
    ):
        with pytest.raises(HarnessError, match=r"nothing of a run but its description|workflowTemplateRef"):
            patch(change)
    assert kubectl.get("workflow", "gz-of-the-poller", "-n", NAME) == before


def test_other_namespaces_are_left_alone(kubectl, guarded, namespace, made):
    own = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "theirs"},
        "spec": {"entrypoint": "main", "templates": [CONTAINER]},
    }  # fmt: skip
    kubectl("create", "--dry-run=server", "-n", namespace, "-f", "-", stdin=json.dumps(own))


def test_forged_events_become_nothing_and_hold_up_nobody(stack):
    """With the token, past `stac-watch`: what the filter drops needs no attempt, so the item behind it is converted at once."""
    item = stack.publish()
    stack.await_done(item)
    event = json.loads(stack.poller("event", item))
    [workflow] = stack.workflows_of(item)

    def forged(**data):
        return json.dumps({**event, "data": {**event["data"], **data}}).encode()

    run = event["data"]["run"]
    bodies = [
        forged(run="prod-database"),
        forged(run=run[:-1] + "7"),
        forged(attempt=7),
        forged(key="0" * 20),
        forged(priority=10**6),
        forged(groups="x" * 6000),
        json.dumps({**event, "id": "x"}).encode(),
        json.dumps(event).replace(f'"run": "{run}"', f'"run": "prod-database", "run": "{run}"').encode(),
        b'{"data": {"run": "gz-x"}}',
        b"[]",
    ]
    headers = {"Content-Type": "application/cloudevents+json", "Authorization": f"Bearer {stack.token}"}
    with stack.forward(stack.namespace, "svc/stac-eventsource-svc", 12000) as port:
        for body in bodies:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/items", body, headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.status == 200
    good = stack.publish()
    stack.await_done(good)
    stack.check(item, good)
    [after] = stack.workflows_of(item)
    assert after["spec"] == workflow["spec"]
    names = {w["metadata"]["name"] for w in stack.workflows()}
    assert names >= {run}
    assert not names & {"prod-database", run[:-1] + "7", "gz-x"}
