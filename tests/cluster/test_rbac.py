"""Accounts and tokens on the real API server: each account can do what it must, and is refused what it must not."""

import json
from pathlib import Path

import pytest
from fakes.installation import files_of, told
from harness.commands import HarnessError
from harness.daemons import wait_until

from stac_watch.cluster.manifests.convert import TOKEN_FOLDER
from stac_watch.cluster.submit import one_run

CONFIG = Path(__file__).parents[2] / "deploy/base/stac-watch.yaml"
NAME = "test-rbac"
ARGO = "argoproj.io"
MUST = {
    "geozarr-sensor": ["get workflows", "create workflows", "patch workflows"],
    "geozarr-run": [
        "create workflowtaskresults", "patch workflowtaskresults", "create persistentvolumeclaims", "get persistentvolumeclaims",
        "delete persistentvolumeclaims",
    ],
    "stac-watch": ["get workflows", "list workflows", "watch workflows", "patch workflows"],
    "stac-watch-audit": ["list workflows", "create workflowtaskresults", "patch workflowtaskresults"],
    "geozarr-events": [],
}  # fmt: skip
MUST_NOT = {
    "geozarr-sensor": ["create pods", "get secrets", "delete workflows", "create workflowtemplates", "patch workflowtemplates"],
    "geozarr-run": ["create pods", "get secrets", "create workflows", "patch workflows", "list persistentvolumeclaims"],
    "stac-watch": [
        "create workflows",
        "delete workflows",
        "update workflows",
        "patch workflowtemplates",
        "get secrets",
        "create pods",
        "get persistentvolumeclaims",
    ],
    "stac-watch-audit": ["create workflows", "patch workflows", "get secrets", "create pods"],
    "geozarr-events": ["get workflows", "get pods", "get secrets", "create workflows", "list configmaps"],
}
NOBODY = [
    "create pods/exec",
    "create serviceaccounts/token",
    "escalate roles",
    "create rolebindings",
    "impersonate serviceaccounts",
]
ARGO_KINDS = ("workflows", "workflowtemplates", "workflowtaskresults")

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def files(tmp_path_factory, release):
    path = tmp_path_factory.mktemp("settings") / "stac-watch.yaml"
    path.write_text(CONFIG.read_text().replace("namespace: geozarr", f"namespace: {NAME}"))
    return files_of(told(path))


@pytest.fixture(scope="module")
def applied(kubectl, files):
    """The namespace of this module, with the accounts and the template as they are rendered for it."""
    kubectl("delete", "namespace", NAME, "--ignore-not-found", "--timeout=120s")
    kubectl.apply(files["namespace.yaml"])
    for name in ("eventsources/rbac", "sensors/rbac", "workflows/rbac", "rbac", "workflows/geozarr-convert"):
        kubectl.apply(files[f"{name}.yaml"])
    yield NAME
    kubectl("delete", "namespace", NAME, "--wait=false")


def may(kubectl, account, what, namespace):
    verb, resource = what.split()
    name = f"{resource}.{ARGO}" if resource in ARGO_KINDS else resource
    who = f"--as=system:serviceaccount:{NAME}:{account}"
    return kubectl.says("auth", "can-i", verb, name, "-n", namespace, who).strip()


@pytest.mark.parametrize("account", MUST)
def test_an_account_can_what_it_must_and_is_refused_the_rest(kubectl, applied, account):
    assert {what: may(kubectl, account, what, applied) for what in MUST[account]} == dict.fromkeys(MUST[account], "yes")
    refused = [*MUST_NOT[account], *NOBODY]
    assert len(MUST_NOT[account]) >= 3
    assert {what: may(kubectl, account, what, applied) for what in refused} == dict.fromkeys(refused, "no")


@pytest.mark.parametrize("account", MUST)
def test_an_account_can_nothing_in_another_namespace(kubectl, applied, account):
    asked = MUST[account] or ["get pods"]
    assert {what: may(kubectl, account, what, "default") for what in asked} == dict.fromkeys(asked, "no")


def test_a_refusal_is_one_and_not_only_an_answer(kubectl, applied):
    """The question above is put to the authorizer; here the request itself is made."""
    who = f"--as=system:serviceaccount:{applied}:geozarr-run"
    with pytest.raises(HarnessError, match="cannot list resource"):
        kubectl("get", "secrets", "-n", applied, who)
    with pytest.raises(HarnessError, match="cannot create resource"):
        kubectl("create", "configmap", "x", "-n", applied, who)


def test_what_reads_strangers_data_holds_no_token_and_argo_still_learns_the_outcome(kubectl, applied):
    workflow = one_run({"stac_url": "file:///etc/passwd", "output_zarr": "/data/x.zarr"}, namespace=applied, name="no-token")
    kubectl("create", "-n", applied, f"--as=system:serviceaccount:{applied}:geozarr-sensor", "-f", "-", stdin=json.dumps(workflow))
    status = ended(kubectl, applied, "no-token")
    nodes = [node for node in status["nodes"].values() if node["type"] == "Pod"]
    assert {node["templateName"] for node in nodes} == {"preflight"}, "nothing is paid for what cannot be converted"
    outcome = json.loads({p["name"]: p.get("value") for p in nodes[0]["outputs"]["parameters"]}["outcome"])
    assert outcome["code"] == 65
    assert "scheme 'file'" in outcome["reason"]
    pods = kubectl.get("pods", "-n", applied, "-l", "workflows.argoproj.io/workflow=no-token")["items"]
    assert pods
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        containers = pod["spec"]["containers"] + pod["spec"]["initContainers"]
        mounted = {c["name"]: {m["mountPath"] for m in c["volumeMounts"]} for c in containers}
        assert TOKEN_FOLDER in mounted["wait"]
        assert TOKEN_FOLDER not in mounted["main"]
        main = next(c for c in containers if c["name"] == "main")
        assert not any("token" in name.lower() for name in (e["name"] for e in main["env"]))


def test_event_source_and_bus_are_given_no_token(kubectl, files, applied):
    """As a dry run of the pods that their controllers make: admission mounts tokens, and the account says not to."""
    container = {
        "name": "main", "image": "stac-watch:x",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}

    def mounts(account):
        spec = {"serviceAccountName": account, "containers": [container], "securityContext": security}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        made = kubectl("create", "--dry-run=server", "-o", "json", "-n", applied, "-f", "-", stdin=json.dumps(pod))
        return json.loads(made)["spec"]["containers"][0].get("volumeMounts", [])

    assert "serviceAccountName: geozarr-events" in files["eventsources/stac.yaml"]
    assert "serviceAccountName: geozarr-events" in files["eventsources/eventbus.yaml"]
    assert mounts("geozarr-events") == []
    assert [m["mountPath"] for m in mounts("stac-watch")] == [TOKEN_FOLDER], "an account that needs it would have it"


def ended(kubectl, namespace, name):
    def status():
        return kubectl.get("workflow", name, "-n", namespace).get("status", {})

    wait_until(lambda: status().get("phase") in {"Succeeded", "Failed", "Error"}, 180, f"{name} did not end")
    return status()
