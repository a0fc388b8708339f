"""What is committed is what is rendered, and every object is what its API takes."""

import json
import re
import subprocess
import sys

import jsonschema
import pytest
import yaml
from fakes.installation import CONFIG, PRODUCTION, ROOT, files_of, told

from stac_watch.cluster.manifests.facts import settings_of
from stac_watch.cluster.submit import one_run
from stac_watch.config.model import Config
from stac_watch.model.errors import ConfigError

FOLDERS = ("eventsources", "sensors", "workflows", "deploy")
WRITTEN = {"stac-watch.yaml", "secrets.example.yaml", "company.values.yaml"}  # by people
RENDER = "import json, sys; sys.path.insert(0, 'tools'); import manifests; json.dump(manifests.rendered(), sys.stdout)"


def test_what_is_committed_is_what_is_rendered():
    """In another process, whose hash seed differs: an order that comes from a set would show."""
    run = subprocess.run(
        [sys.executable, "-c", RENDER], cwd=ROOT, env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    rendered = json.loads(run.stdout)
    files = {p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.is_file() and p.name not in WRITTEN}
    committed = {str(p.relative_to(ROOT)): p.read_text() for p in files}
    committed = {path: text for path, text in committed.items() if not re.fullmatch("deploy/overlays/[^/]*/values.yaml", path)}
    assert sorted(committed) == sorted(rendered)
    stale = [path for path, text in rendered.items() if committed[path] != text]
    assert not stale, "render them again: make manifests"


def test_a_configuration_for_one_machine_has_no_manifests():
    config = Config.model_validate({"sources": [{"name": "a", "api": "https://a.example", "collection": "c"}]})
    with pytest.raises(ConfigError, match="local") as error:
        settings_of(config, "")
    assert "argo" in error.value.hint


def test_what_a_configuration_says_is_in_the_manifests(tmp_path):
    """Namespace, sources and hosts come from the configuration; nothing of the committed one is left."""
    path = tmp_path / "c.yaml"
    path.write_text("""
sources:
  - {name: one, api: https://a.example, collection: c, allowed_hosts: [z.example, b.example]}
  - {name: two, api: https://d.example, collection: e}
engine: {kind: argo, webhook: http://x/items, namespace: elsewhere}
""")
    images = {"registry": "reg.example:5000/eo", "runner": {"repository": "runner", "tag": "7"}}
    files = files_of(told(path, images=images))
    assert "geozarr\n" not in files["namespace.yaml"]
    template = yaml.safe_load(files["workflows/geozarr-convert.yaml"])
    hosts = {p["name"]: p.get("value") for p in template["spec"]["arguments"]["parameters"]}["allowed_hosts"]
    assert hosts == "b.example,d.example,z.example"
    assert {s["container"]["image"] for s in template["spec"]["templates"] if "container" in s} == {"reg.example:5000/eo/runner:7"}
    audit = next(yaml.safe_load_all(files["audit.yaml"]))
    assert [task["name"] for task in audit["spec"]["templates"][-1]["dag"]["tasks"]] == ["one", "two"]
    assert next(yaml.safe_load_all(files["poller.yaml"]))["data"] == {"stac-watch.yaml": path.read_text()}
    namespaces = {
        d["metadata"]["namespace"] for f in ("sensors/geozarr.yaml", "workflows/rbac.yaml") for d in yaml.safe_load_all(files[f])
    }
    assert namespaces == {"elsewhere"}


def test_storage_classes_are_of_every_volume_or_of_one(tmp_path):
    def classes(**chosen):
        files = files_of(told(CONFIG, storageClasses=chosen, backup={"size": "1Gi"}))
        made = {}
        for name in ("poller.yaml", "jobs.yaml"):
            made |= {
                d["metadata"]["name"]: d["spec"].get("storageClassName")
                for d in yaml.safe_load_all(files[name])
                if d["kind"] == "PersistentVolumeClaim"
            }
        steps = yaml.safe_load(files["workflows/geozarr-convert.yaml"])["spec"]["templates"]
        [claim] = [yaml.safe_load(s["resource"]["manifest"]) for s in steps if s["name"] == "volume"]
        made["runs"] = claim["spec"].get("storageClassName")
        bus = yaml.safe_load(files["eventsources/eventbus.yaml"])["spec"]["jetstream"]["persistence"]
        return {**made, "bus": bus.get("storageClassName")}

    assert set(classes(default="fast").values()) == {"fast"}
    assert classes(default="fast", runs="scratch")["runs"] == "scratch"
    assert set(classes().values()) == {None}, "`standard` is a class that most clouds have not: everything would wait for it"


def test_a_run_and_its_volume_are_kept_as_long_as_the_configuration_says(tmp_path):
    path = tmp_path / "stac-watch.yaml"
    text = PRODUCTION.read_text().replace("kind: argo", "kind: argo\n  keep: 12h", 1)
    path.write_text(text)
    template = yaml.safe_load(files_of(told(path))["workflows/geozarr-convert.yaml"])
    assert template["spec"]["ttlStrategy"]["secondsAfterSuccess"] == 12 * 3600


def test_the_configuration_says_where_outputs_go(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(PRODUCTION.read_text().replace("s3://geozarr/", "s3://corp-prod/tiles/"))
    everything = "".join(files_of(told(path)).values())
    assert "s3://corp-prod/tiles/" in everything
    assert "RECIPE__OUTPUT" not in everything


def test_a_ledger_in_postgresql_and_outputs_that_go_with_their_workflows_are_refused():
    with pytest.raises(ConfigError, match=r"recipe\.output is '/data/") as error:
        told(CONFIG, ledger={"existingSecret": "x"})
    assert "s3://" in error.value.hint


@pytest.mark.parametrize("slots", [1, 20, 200])
def test_quota_and_parallelism_follow_from_how_many_runs_there_may_be(tmp_path, slots):
    """Every run and everything beside them fits into the quota at once, by what their pods ask for."""
    path = tmp_path / "mine.yaml"
    path.write_text(PRODUCTION.read_text().replace("kind: argo", f"kind: argo\n  limits: {{max_in_flight: {slots}}}"))
    files = files_of(told(path, quota={"enabled": True}))
    hard = yaml.safe_load(files["quota.yaml"])["spec"]["hard"]
    template = yaml.safe_load(files["workflows/geozarr-convert.yaml"])["spec"]["templates"]
    [convert] = [t for t in template if t["name"] == "convert"]
    patch = yaml.safe_load(convert["podSpecPatch"])
    asked = [convert["container"]["resources"]["requests"]] + [
        c["resources"]["requests"] for c in patch["containers"] if c["name"] != "main"
    ]
    assert slots * sum(cores(a["cpu"]) for a in asked) < float(hard["requests.cpu"])
    assert slots * sum(gibibytes(a["memory"]) for a in asked) < gibibytes(hard["requests.memory"])
    assert slots * 11 + 30 < gibibytes(hard["requests.storage"])
    assert slots + 3 < int(hard["persistentvolumeclaims"])
    labels = yaml.safe_load(files["namespace.yaml"])["metadata"]["labels"]
    assert slots < int(labels["workflows.argoproj.io/parallelism-limit"])


def cores(text):
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


def gibibytes(text):
    return int(text[:-2]) / {"Gi": 1, "Mi": 1024}[text[-2:]]


def test_monitoring_is_there_only_where_its_operator_is():
    """Without the operator's CRDs `kubectl apply` would refuse the whole installation."""
    assert "monitoring.yaml" not in files_of(told(CONFIG))
    labels = {"release": "kube-prometheus-stack"}
    files = files_of(told(CONFIG, monitoring={"enabled": True, "labels": labels, "runbookUrl": "https://wiki.example/eo"}))
    documents = list(yaml.safe_load_all(files["monitoring.yaml"]))
    assert {d["kind"] for d in documents} == {"ConfigMap", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
    assert all(labels.items() <= d["metadata"]["labels"].items() for d in documents if d["kind"] != "ConfigMap")
    [rules] = [d for d in documents if d["kind"] == "PrometheusRule"]
    assert {r["annotations"]["runbook_url"] for g in rules["spec"]["groups"] for r in g["rules"]} == {"https://wiki.example/eo"}


def test_a_bus_may_be_spread_strictly_and_is_drained_one_at_a_time(objects):
    [bus, budget, *_] = yaml.safe_load_all(files_of(told(CONFIG, eventBus={"spread": "required"}))["events.yaml"])
    [term] = bus["spec"]["jetstream"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert budget["spec"] == {"maxUnavailable": 1, "selector": term["labelSelector"]}
    assert objects["EventBus", "geozarr"]["spec"]["jetstream"]["replicas"] == 3


@pytest.mark.parametrize(
    ("kind", "name", "plural"),
    [
        ("WorkflowTemplate", "geozarr-convert", "workflowtemplates"),
        ("WorkflowTemplate", "stac-watch-audit", "workflowtemplates"),
        ("CronWorkflow", "stac-watch-audit", "cronworkflows"),
    ],
)
def test_argo_workflows_takes_them(objects, crd, kind, name, plural):
    crd(objects[kind, name], plural)


@pytest.mark.parametrize(("kind", "name"), [("EventBus", "geozarr"), ("EventSource", "stac"), ("Sensor", "geozarr")])
def test_argo_events_takes_them(objects, events_crd, kind, name):
    events_crd(objects[kind, name], kind)


def test_the_schemas_are_strict(objects, crd, events_crd):
    """A check that lets typos through is none: the well-known one, `atLeastOnce` a level too deep, must be seen."""
    sensor = json.loads(json.dumps(objects["Sensor", "geozarr"]))
    trigger = sensor["spec"]["triggers"][0]
    trigger["template"]["atLeastOnce"] = trigger.pop("atLeastOnce")
    with pytest.raises(jsonschema.ValidationError, match="atLeastOnce"):
        events_crd(sensor, "Sensor")
    template = json.loads(json.dumps(objects["WorkflowTemplate", "geozarr-convert"]))
    template["spec"]["templates"][0]["container"]["comand"] = ["x"]
    with pytest.raises(jsonschema.ValidationError, match="comand"):
        crd(template, "workflowtemplates")


def test_the_controllers_configmap_and_instance_are_the_installations_own(tmp_path):
    """One from the Helm chart is called otherwise; one with an `instanceID` runs only what carries it."""
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG.read_text().replace("kind: argo", "kind: argo\n  instance_id: team-a"))
    files = files_of(told(path, argo={"controller": "platform/argo-configmap"}))
    config = yaml.safe_load(files["argo/workflow-controller-configmap.yaml"])
    assert (config["metadata"]["namespace"], config["metadata"]["name"]) == ("platform", "argo-configmap")
    assert "system:serviceaccounts:platform" in files["argo/namespaces.yaml"]
    trigger = yaml.safe_load(files["sensors/geozarr.yaml"])["spec"]["triggers"][0]["template"]["k8s"]
    nightly = list(yaml.safe_load_all(files["audit.yaml"]))[1]
    by_hand = one_run({"stac_url": "https://x/y.zarr", "output_zarr": "/data/x"}, namespace="geozarr", instance_id="team-a")
    for made in (trigger["source"]["resource"], nightly, by_hand):
        assert made["metadata"]["labels"]["workflows.argoproj.io/controller-instanceid"] == "team-a"
    with pytest.raises(ConfigError, match=r"argo\.controller"):
        told(path, argo={"controller": "argo-configmap"})


def test_a_report_is_published_each_night_where_a_place_is_named():
    with pytest.raises(ConfigError, match=r"audit\.report"):
        told(PRODUCTION, audit={"report": "/srv/www"})
    given = {"report": "s3://public/freshness"}
    [template, _] = yaml.safe_load_all(
        files_of(told(PRODUCTION, audit=given, ledger={"existingSecret": "stac-watch-ledger"}))["audit.yaml"]
    )
    spec = template["spec"]
    steps = {each["name"]: each["container"] for each in spec["templates"] if "container" in each}
    assert steps["report"]["args"][:3] == ["report", "--days=30", "--out=s3://public/freshness"]
    assert sorted(volume["name"] for volume in spec["volumes"]) == ["config", "s3", "tmp"]
    for step in steps.values():
        assert sorted(mount["name"] for mount in step["volumeMounts"]) == ["config", "s3", "tmp"]
        names = [entry["name"] for entry in step["env"]]
        assert len(names) == len(set(names))
        assert {"STAC_WATCH__LEDGER", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} <= set(names)
    [tasks] = [each["dag"]["tasks"] for each in spec["templates"] if "dag" in each]
    assert [task["template"] for task in tasks].count("report") == 1
