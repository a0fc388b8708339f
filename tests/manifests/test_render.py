"""What is committed is what is rendered, and every object is what its API takes."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from stac_watch.cluster.manifests.poller import production_environment
from stac_watch.cluster.manifests.render import render, render_production
from stac_watch.cluster.manifests.settings import settings_of
from stac_watch.cluster.submit import one_run
from stac_watch.config.load import load
from stac_watch.config.model import Config
from stac_watch.model.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deploy" / "base" / "stac-watch.yaml"
PRODUCTION = ROOT / "deploy" / "overlays" / "production" / "stac-watch.yaml"
FOLDERS = ("eventsources", "sensors", "workflows", "deploy/argo", "deploy/base", "deploy/components", "deploy/overlays")


def test_what_is_committed_is_what_is_rendered(rendered):
    committed = {str(p.relative_to(ROOT)): p.read_text() for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.is_file()}
    assert sorted(committed) == sorted(rendered)
    stale = [path for path, text in rendered.items() if committed[path] != text]
    assert not stale, "render them again: make manifests"


def test_another_process_renders_the_same_bytes(rendered):
    """Hash seeds differ between processes: an order that comes from a set would show."""
    code = """
import json, sys
from pathlib import Path
from stac_watch.cluster.submit import one_run
from stac_watch.config.load import load
from stac_watch.cluster.manifests.render import render, render_production
from stac_watch.cluster.manifests.settings import settings_of
path = Path("deploy/base/stac-watch.yaml")
json.dump(render(settings_of(load(path, {}), path.read_text())), sys.stdout)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": "7"}, capture_output=True, check=True)
    assert json.loads(run.stdout).items() <= rendered.items()


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
    files = render(settings_of(load(path, {}), path.read_text(), runner_image="reg.example:5000/runner:7", poller_image="p:8"))
    assert "geozarr\n" not in files["deploy/base/namespace.yaml"]
    template = yaml.safe_load(files["workflows/geozarr-convert.yaml"])
    hosts = {p["name"]: p.get("value") for p in template["spec"]["arguments"]["parameters"]}["allowed_hosts"]
    assert hosts == "b.example,d.example,z.example"
    audit = next(yaml.safe_load_all(files["deploy/base/audit.yaml"]))
    assert [task["name"] for task in audit["spec"]["templates"][-1]["dag"]["tasks"]] == ["one", "two"]
    assert files["deploy/base/stac-watch.yaml"] == path.read_text()
    namespaces = {
        d["metadata"]["namespace"] for f in ("sensors/geozarr.yaml", "workflows/rbac.yaml") for d in yaml.safe_load_all(files[f])
    }
    assert namespaces == {"elsewhere"}
    images = yaml.safe_load(files["deploy/overlays/k3d/kustomization.yaml"])["images"]
    assert {"name": "reg.example:5000/runner", "newName": "reg.example:5000/runner", "newTag": "7"} in images


def test_a_storage_class_is_that_of_every_volume(tmp_path):
    files = render(settings_of(load(PRODUCTION, {}), PRODUCTION.read_text(), storage_class="fast"))
    claims = [d for d in yaml.safe_load_all(files["deploy/base/poller.yaml"]) if d["kind"] == "PersistentVolumeClaim"]
    steps = yaml.safe_load(files["workflows/geozarr-convert.yaml"])["spec"]["templates"]
    claims += [yaml.safe_load(s["resource"]["manifest"]) for s in steps if s["name"] == "volume"]
    assert [c["spec"]["storageClassName"] for c in claims] == ["fast"] * 2
    assert yaml.safe_load(files["eventsources/eventbus.yaml"])["spec"]["jetstream"]["persistence"]["storageClassName"] == "fast"


def test_a_run_and_its_volume_are_kept_as_long_as_the_configuration_says(tmp_path):
    path = tmp_path / "stac-watch.yaml"
    text = PRODUCTION.read_text().replace("kind: argo", "kind: argo\n  keep: 12h", 1)
    path.write_text(text)
    settings = settings_of(load(path, {}), text)
    template = yaml.safe_load(render(settings)["workflows/geozarr-convert.yaml"])
    assert template["spec"]["ttlStrategy"]["secondsAfterSuccess"] == 12 * 3600


def test_no_class_is_named_where_none_was_asked_for(rendered):
    """`standard` is a class that most clouds have not: everything would wait for it."""
    assert "storageClassName" not in "".join(rendered.values())


def test_the_two_examples_differ_in_nothing_but_their_configuration(rendered, production):
    """What the overlay `production` stands on is rendered from the other example."""
    other = render(production)
    assert {path for path in rendered if other[path] != rendered[path]} == {"deploy/base/stac-watch.yaml"}


def test_the_configuration_says_where_production_writes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(PRODUCTION.read_text().replace("s3://geozarr/", "s3://corp-prod/tiles/"))
    files = render(settings_of(load(path, {}), path.read_text()))
    assert files["deploy/overlays/production/stac-watch.yaml"] == path.read_text()
    assert "RECIPE__OUTPUT" not in "".join(files.values())
    generated = yaml.safe_load(files["deploy/overlays/production/kustomization.yaml"])["configMapGenerator"]
    assert generated == [{"name": "stac-watch", "files": ["stac-watch.yaml"], "behavior": "replace"}]


def test_production_is_refused_where_outputs_go_with_their_workflows(settings):
    assert not [path for path in render(settings) if path.startswith("deploy/overlays/production")]
    with pytest.raises(ConfigError, match=r"recipe\.output is '/data/") as error:
        render_production(settings)
    assert "s3://" in error.value.hint


@pytest.mark.parametrize("slots", [1, 20, 200])
def test_quota_and_parallelism_follow_from_how_many_runs_there_may_be(tmp_path, slots):
    """Every run and everything beside them fits into the quota at once, by what their pods ask for."""
    path = tmp_path / "mine.yaml"
    path.write_text(PRODUCTION.read_text().replace("kind: argo", f"kind: argo\n  limits: {{max_in_flight: {slots}}}"))
    files = render(settings_of(load(path, {}), path.read_text()))
    hard = yaml.safe_load(files["deploy/overlays/production/quota.yaml"])["spec"]["hard"]
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
    labels = yaml.safe_load(files["deploy/base/namespace.yaml"])["metadata"]["labels"]
    assert slots < int(labels["workflows.argoproj.io/parallelism-limit"])


def cores(text):
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


def gibibytes(text):
    return int(text[:-2]) / {"Gi": 1, "Mi": 1024}[text[-2:]]


def test_monitoring_is_in_the_overlays_only_where_its_operator_is(rendered):
    """Without the operator's CRDs `kubectl apply` would refuse the whole overlay."""
    watched = render(settings_of(load(PRODUCTION, {}), PRODUCTION.read_text(), prometheus="observability"))
    for path in ("deploy/overlays/k3d/kustomization.yaml", "deploy/overlays/production/kustomization.yaml"):
        assert "components" not in yaml.safe_load(rendered[path])
        assert yaml.safe_load(watched[path])["components"] == ["../../components/monitoring"]


def test_productions_bus_survives_the_loss_of_a_node(rendered, objects):
    """Three replicas, no two on one node, and drains take one at a time."""
    jetstream = yaml.safe_load(rendered["deploy/overlays/production/eventbus.yaml"])["spec"]["jetstream"]
    [term] = jetstream["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    budget = objects["PodDisruptionBudget", "eventbus"]["spec"]
    assert budget["selector"] == term["labelSelector"]
    assert budget["maxUnavailable"] == 1
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


def test_the_base_configuration_is_one(rendered, tmp_path):
    path = tmp_path / "stac-watch.yaml"
    path.write_text(rendered["deploy/overlays/production/stac-watch.yaml"])
    config = load(path, {})
    assert config.engine.webhook == "http://stac-eventsource-svc:12000/items"
    given = {entry["name"]: entry.get("value", "postgresql+psycopg://db/ledger") for entry in production_environment()}
    production = load(path, {name: value for name, value in given.items() if name.startswith("STAC_WATCH__")})
    assert production.ledger.startswith("postgresql")
    assert production.recipe.output.startswith("s3://")


def test_patches_point_at_what_they_mean(rendered):
    """JSON patches go by index; each must still point at the entry that it was written for."""
    base = {
        "convert": yaml.safe_load(rendered["workflows/geozarr-convert.yaml"]),
        "audit": next(yaml.safe_load_all(rendered["deploy/base/audit.yaml"])),
    }

    def at(document, pointer):
        for part in pointer.strip("/").split("/"):
            document = document[int(part)] if isinstance(document, list) else document[part]
        return document

    for path, text in rendered.items():
        name = Path(path).stem
        if "overlays" not in path or name not in base:
            continue
        for operation in yaml.safe_load(text):
            pointed = at(base[name], operation["path"].removesuffix("/-"))
            if operation["op"] == "add":
                assert isinstance(pointed, list)
            elif operation["op"] == "replace":
                assert type(pointed) is type(operation["value"])
                assert pointed != operation["value"]
            else:
                assert pointed.get("name") == "state" or "podAffinity" in pointed


def test_the_controllers_configmap_and_instance_are_the_installations_own(tmp_path):
    """One from the Helm chart is called otherwise; one with an `instanceID` runs only what carries it."""
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG.read_text().replace("kind: argo", "kind: argo\n  instance_id: team-a"))
    settings = settings_of(load(path, {}), path.read_text(), controller="platform/argo-configmap")
    files = render(settings)
    config = yaml.safe_load(files["deploy/argo/workflow-controller-configmap.yaml"])
    assert (config["metadata"]["namespace"], config["metadata"]["name"]) == ("platform", "argo-configmap")
    assert "system:serviceaccounts:platform" in files["deploy/argo/namespaces.yaml"]
    trigger = yaml.safe_load(files["sensors/geozarr.yaml"])["spec"]["triggers"][0]["template"]["k8s"]
    nightly = list(yaml.safe_load_all(files["deploy/base/audit.yaml"]))[1]
    by_hand = one_run({"stac_url": "https://x/y.zarr", "output_zarr": "/data/x"}, namespace="geozarr", instance_id="team-a")
    for made in (trigger["source"]["resource"], nightly, by_hand):
        assert made["metadata"]["labels"]["workflows.argoproj.io/controller-instanceid"] == "team-a"
    with pytest.raises(ConfigError, match="is no ConfigMap"):
        settings_of(load(path, {}), path.read_text(), controller="argo-configmap")


def test_a_report_is_published_each_night_where_a_place_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(PRODUCTION.read_text())
    config = load(path, {})
    with pytest.raises(ConfigError, match="object store"):
        settings_of(config, path.read_text(), report="/srv/www")
    files = render(settings_of(config, path.read_text(), report="s3://public/freshness/"))
    template = next(yaml.safe_load_all(files["deploy/base/audit.yaml"]))
    for operation in yaml.safe_load(files["deploy/overlays/production/audit.yaml"]):
        *way, last = operation["path"].strip("/").split("/")
        place = template
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if operation["op"] == "remove":
            del place[int(last) if isinstance(place, list) else last]
        else:
            place.append(operation["value"])
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
