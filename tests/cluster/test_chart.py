"""The chart: the same objects as the manifests, and installed, upgraded, rolled back and removed by Helm with runs in flight."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CHART, MINIMAL, SOURCE, examples
from harness.commands import capture
from harness.kubectl import Kubectl
from harness.node import socket
from releases import Release
from stack import running

from stac_watch.cluster.diagnosis import differences

pytestmark = pytest.mark.cluster
TEXTS = ("podSpecPatch", "manifest", "stac-watch.yaml")  # that are YAML


def normal(node: Any) -> Any:
    """A document without what is empty, and with the YAML that is in texts."""
    if isinstance(node, dict):
        known = {k: v for k, v in node.items() if v not in (None, {}, []) and k != "stac-watch/configuration"}
        return {k: normal(yaml.safe_load(v) if k in TEXTS else v) for k, v in known.items()}
    return [normal(entry) for entry in node] if isinstance(node, list) else node


def by_name(text: str) -> dict[tuple[str, str], Any]:
    return {(d["kind"], d["metadata"]["name"]): normal(d) for d in yaml.safe_load_all(text) if d}


@pytest.mark.parametrize("name", ["minimal", "odd", "company", "k3d", "production"])
def test_chart_and_manifests_are_the_same_objects(helm, tmp_path, name):
    values = {**examples()[name], "namespace": {"create": False}}  # Helm does not make the namespace that it installs into
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    command = Path(sys.executable).parent / "stac-watch"
    subprocess.run(
        [command, "cluster", "manifests", f"--values={path}", f"--out={tmp_path / 'out'}"], check=True, capture_output=True
    )
    files = [p for p in (tmp_path / "out").glob("*.yaml") if not p.name.startswith("kustomiz")]
    rendered = by_name("\n---\n".join(p.read_text() for p in files))
    charted = by_name(helm("template", "x", CHART, "-n", "geozarr", "-f", path, "--skip-tests"))
    assert set(charted) == set(rendered)
    assert {key: found for key in rendered if (found := list(differences(rendered[key], charted[key])))} == {}
    assert "0 chart(s) failed" in helm("lint", CHART, "-f", path, "--strict")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"imagez": {}}, "imagez"),
        ({"config": {}}, "config.sources is missing"),
        ({"config": {**MINIMAL["config"], "engine": {"namespace": "other"}}}, "the release goes to geozarr"),
        (
            {"webhook": {"tlsSecret": "x"}, "config": {**MINIMAL["config"], "engine": {"webhook": "http://x/items"}}},
            "must be https",
        ),
        ({"ledger": {"existingSecret": "x"}, "config": {"sources": [SOURCE]}}, "must be s3"),
        ({"runs": {"volume": "scratch"}, "config": {"sources": [SOURCE]}}, "must be s3"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_installed(helm, tmp_path, wrong, says):
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **wrong}))
    assert says in helm("template", "x", CHART, "-n", "geozarr", "-f", path, code=1)


@pytest.fixture(scope="module")
def release_of(kubectl: Kubectl, release, port_forward, tmp_path_factory, helm, is_own_cluster, places):
    if not is_own_cluster:
        pytest.skip("the images get another tag on the node")
    for name in ("stac-watch", "geozarr-runner"):
        argv = ["ctr", "--address", socket(places), "--namespace", "k8s.io", "images", "tag", "--force"]
        capture([*argv, f"docker.io/library/{name}:{release}", f"docker.io/library/{name}:next"])
    stack = Release(kubectl, "test-chart", tmp_path_factory.mktemp("chart"), release, port_forward)
    stack.helm = helm
    stack.up()
    yield stack
    stack.down()


@pytest.mark.cluster_long
def test_helm_installs_upgrades_with_runs_in_flight_rolls_back_and_leaves_what_it_says(release_of, release):
    stack = release_of
    stack.config["engine"]["limits"]["max_in_flight"] = 2
    stack.configure()
    first = stack.publish()
    stack.await_done(first)
    assert "Phase:          Succeeded" in stack.call("test", "gz", "--logs", "--timeout", "3m")

    items = [stack.publish() for _ in range(3)]
    stack.await_workflow(items[0], lambda w: any(map(running, ("preflight", "volume", "convert"))) and w.get("status"))
    stack.images = "next"
    stack.configure(engine={"limits": {**stack.config["engine"]["limits"], "max_in_flight": 4}})
    assert stack.image() == "stac-watch:next"
    items.append(stack.publish())
    stack.await_done(*items)
    stack.check(first, *items)
    assert stack.workflows_of(items[-1])[0]["status"]["storedTemplates"]
    stack.call("rollback", "gz", "2", "--wait", "--timeout", "3m")
    assert stack.image() == f"stac-watch:{release}"
    last = stack.publish()
    stack.await_done(last)
    stack.check(last)

    stack.call("uninstall", "gz", "--wait", "--timeout", "3m")
    kept = json.loads(stack.do("get", "persistentvolumeclaims,secrets,workflows,deployments,sensors,cronworkflows", "-o", "json"))
    names = {(found["kind"], found["metadata"]["name"]) for found in kept["items"]}
    assert {("PersistentVolumeClaim", "stac-watch"), ("Secret", "stac-watch-webhook")} <= names
    assert {w["metadata"]["name"] for w in stack.workflows()} <= {name for kind, name in names if kind == "Workflow"}
    assert not {name for kind, name in names if kind in ("Deployment", "Sensor", "CronWorkflow") and name != "catalog"}
