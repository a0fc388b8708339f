"""What is committed, as the API server, Argo's own linters and kustomize take it: every file, every overlay, nothing left out."""

import os
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from harness.places import Binaries

ROOT = Path(__file__).parents[2]
BUILT = {  # what `kubectl apply -k` is given, and the kinds that must be in it
    "eventsources": {"EventBus", "EventSource", "ServiceAccount"},
    "sensors": {"Sensor", "Role", "RoleBinding", "ServiceAccount"},
    "workflows": {"WorkflowTemplate", "Role", "RoleBinding", "ServiceAccount"},
    "deploy/argo": {"ClusterRole", "ClusterRoleBinding", "ConfigMap"},
    "deploy/overlays/k3d": {
        "Namespace",
        "ValidatingAdmissionPolicy",
        "Deployment",
        "PersistentVolumeClaim",
        "NetworkPolicy",
        "CronWorkflow",
        "Sensor",
        "EventBus",
        "ConfigMap",
    },
    "deploy/overlays/production": {"Deployment", "PodDisruptionBudget", "ResourceQuota", "NetworkPolicy", "CronWorkflow", "Sensor"},
}
NOT_APPLIED = {  # the poller's own; to be filled in by a person
    "deploy/base/stac-watch.yaml", "deploy/secrets.example.yaml",
}  # fmt: skip

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def tool(places, recipe):
    """Runs one of the binaries that the harness built, or the one on PATH for a cluster that exists."""

    def run(command, *arguments):
        built = Binaries(places, recipe)(command)
        found = built if built.exists() else shutil.which(command)
        assert found, f"{command} is neither built nor on PATH: make cluster-up"
        return subprocess.run(
            [str(found), *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )

    return run


@pytest.fixture(scope="module")
def dry_run(kubectl):
    """`kubectl apply --dry-run=server`: schemas, admission, quotas; nothing is kept. The namespace of the files must be there."""
    assert kubectl.answers("get", "namespace", "geozarr"), "the committed manifests are for the namespace geozarr: make cluster-up"

    def run(*arguments):
        argv = [str(kubectl.binary), "apply", "--dry-run=server", "--server-side", "--force-conflicts", *map(str, arguments)]
        env = {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig), "NO_PROXY": "*"}
        return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)

    return run


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.mark.parametrize("folder", BUILT)
def test_the_api_server_takes_what_kustomize_builds(kubectl, dry_run, folder):
    """Without a warning: the namespace's Pod Security Standard warns of a Deployment whose pods it would refuse."""
    assert {d["kind"] for d in documents(kubectl("kustomize", ROOT / folder))} >= BUILT[folder]
    done = dry_run("-k", folder)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_no_committed_file_is_left_out(kubectl, dry_run):
    """Each file is taken by the API server by itself, or is what one is rendered from."""
    taken, parts = [], []
    for path in sorted(p for folder in ("eventsources", "sensors", "workflows", "deploy") for p in (ROOT / folder).rglob("*.yaml")):
        name = path.relative_to(ROOT)
        if name.is_relative_to("deploy/chart"):  # templates: test_chart.py renders them
            continue
        content = documents(path.read_text())
        whole = all(isinstance(d, dict) and {"kind", "metadata"} <= d.keys() and "$patch" not in d for d in content)
        if not content or not whole or "monitoring" in path.parts:
            parts.append(str(name))
            continue
        done = dry_run("-f", name)
        assert done.returncode == 0, (name, done.stderr)
        taken.append(str(name))
    assert {"eventsources/stac.yaml", "deploy/overlays/k3d/poller.yaml", "deploy/overlays/production/quota.yaml"} <= set(taken)
    folders = ("deploy/overlays", "deploy/components", "deploy/examples")
    assert [p for p in parts if not p.startswith(folders) and "kustomiz" not in p and p not in NOT_APPLIED] == []


def test_what_the_prometheus_operator_reads_is_built_and_has_its_form(kubectl, dry_run):
    """Its CRDs are not on the test's cluster: the API server takes the rest, and these three are held to the fields of its v1."""
    built = documents(kubectl("kustomize", ROOT / "deploy/components/monitoring"))
    kinds = {d["kind"]: d for d in built}
    assert set(kinds) == {"ConfigMap", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
    if kubectl.answers("get", "crd", "prometheusrules.monitoring.coreos.com"):
        done = dry_run("-k", "deploy/components/monitoring")
        assert done.returncode == 0, done.stderr
    text = {"type": "string", "minLength": 1}
    labels = {"type": "object", "additionalProperties": {"type": "string"}}
    expressions = {
        "type": "array",
        "items": {"type": "object", "required": ["key", "operator"], "properties": {"values": {"type": "array", "items": text}}},
    }
    selector = {
        "type": "object", "minProperties": 1, "additionalProperties": False,
        "properties": {"matchLabels": labels, "matchExpressions": expressions},
    }  # fmt: skip
    endpoint = {
        "type": "object", "additionalProperties": False,
        "properties": {"port": text, "portNumber": {"type": "integer"}, "path": text, "interval": {"pattern": "^[0-9]+s$"}},
    }  # fmt: skip

    def monitor(field):
        properties = {"selector": selector, field: {"type": "array", "minItems": 1, "items": endpoint}}
        return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}

    rule = {
        "type": "object", "required": ["alert", "expr", "labels", "annotations"], "additionalProperties": False,
        "properties": {
            "alert": text, "expr": text, "for": {"pattern": "^[0-9]+[smhd]$"}, "labels": labels, "annotations": labels,
        },
    }  # fmt: skip
    group = {
        "type": "object", "required": ["name", "rules"], "additionalProperties": False,
        "properties": {"name": text, "rules": {"type": "array", "minItems": 1, "items": rule}},
    }  # fmt: skip
    rules = {"type": "object", "additionalProperties": False, "properties": {"groups": {"type": "array", "items": group}}}
    jsonschema.validate(kinds["ServiceMonitor"]["spec"], monitor("endpoints"))
    jsonschema.validate(kinds["PodMonitor"]["spec"], monitor("podMetricsEndpoints"))
    jsonschema.validate(kinds["PrometheusRule"]["spec"], rules)


@pytest.mark.parametrize("folder", ["workflows", "deploy/overlays/k3d", "deploy/overlays/production"])
def test_argo_lint(kubectl, tool, tmp_path, folder):
    kinds = {"WorkflowTemplate", "CronWorkflow"}
    built = [d for d in documents(kubectl("kustomize", ROOT / folder)) if d["kind"] in kinds]
    assert built
    (tmp_path / "built.yaml").write_text(yaml.safe_dump_all(built))
    done = tool("argo", "lint", "--offline", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    next(d for d in built if d["kind"] == "WorkflowTemplate")["spec"]["entrypoint"] = "nowhere"
    (tmp_path / "built.yaml").write_text(yaml.safe_dump_all(built))
    done = tool("argo", "lint", "--offline", tmp_path)
    assert done.returncode != 0, "a lint that takes everything is none"
    assert "nowhere" in done.stdout


@pytest.mark.parametrize(
    ("path", "says", "broken"),
    [
        ("sensors/geozarr.yaml", "Sensor is valid", ("dependencies", [])),
        ("eventsources/stac.yaml", "EventSource is valid", ("webhook", {"items": {"port": "12000"}})),
    ],
)
def test_argo_events_lint(tool, tmp_path, path, says, broken):
    done = tool("argo-events", "lint", "--strict", path)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    document = yaml.safe_load((ROOT / path).read_text())
    document["spec"][broken[0]] = broken[1]
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(document))
    done = tool("argo-events", "lint", "--strict", tmp_path / "broken.yaml")
    assert done.returncode != 0, "a lint that takes everything is none"
