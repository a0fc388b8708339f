"""The values: every key is in an example, documented, in the chart's files, and reaches what it is for."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from fakes.installation import CONFIG, ROOT, files_of, told

from stac_watch.cluster.manifests.facts import completed, settings_of, text_of, values_of
from stac_watch.cluster.manifests.pod_values import ValuesPart
from stac_watch.cluster.manifests.render import parts
from stac_watch.cluster.manifests.values import PARTS, SiteValues
from stac_watch.config.load import load
from stac_watch.model.errors import ConfigError

COMPANY = ROOT / "deploy" / "examples" / "company.values.yaml"
CHART = ROOT / "deploy" / "chart"
PROGRAMS = {"poller", "audit", "report", "backup", "cleanup", "preflight", "convert"}


def keys(part, path=""):
    for name, field in part.model_fields.items():
        own = f"{path}.{field.alias or name}".removeprefix(".")
        inner = isinstance(field.annotation, type) and issubclass(field.annotation, ValuesPart)
        yield from keys(field.annotation, own) if inner else [own]


def at(document, path):
    for key in path.split("."):
        document = document[key]
    return document


@pytest.fixture(scope="module")
def company():
    return yaml.safe_load(COMPANY.read_text())


@pytest.fixture(scope="module")
def installed(company, tmp_path_factory):
    folder = tmp_path_factory.mktemp("company")
    values = values_of(company, COMPANY.read_text(), "company.values.yaml")
    text = text_of(completed(values.config, values))
    area = folder / "aoi.geojson"
    area.write_text(values.config_files["aoi.geojson"])
    (folder / "c.yaml").write_text(text.replace("intersects: aoi.geojson", f"intersects: {area}"))
    return settings_of(load(folder / "c.yaml", {}), text, values)


@pytest.fixture(scope="module")
def objects(installed):
    return [entry for entries in parts(installed).values() for entry in entries]


def containers(node):
    """Every container in a document, those in patches left out."""
    if isinstance(node, dict):
        if "image" in node and "command" in node:
            yield node
        for value in node.values():
            yield from containers(value)
    elif isinstance(node, list):
        for value in node:
            yield from containers(value)


def test_the_companys_example_has_every_key(company):
    missing = []
    for path in keys(SiteValues):
        try:
            at(company, path)
        except KeyError:
            missing.append(path)
    assert missing == []


def test_every_part_is_on_the_page():
    def found(part):
        yield part
        for field in part.model_fields.values():
            if isinstance(field.annotation, type) and issubclass(field.annotation, ValuesPart):
                yield from found(field.annotation)

    assert set(found(SiteValues)) <= {part for _, part in PARTS}


def test_proxy_and_certificates_reach_every_program(objects):
    found = {c.get("name") or c["args"][0]: c for c in containers(objects)}
    assert {c["args"][0] for c in found.values()} >= {"watch", "audit", "report", "cluster", "preflight", "convert"}
    for container in found.values():
        given = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert given["HTTPS_PROXY"] == given["http_proxy"] == "http://proxy.corp.example:3128"
        assert given["NO_PROXY"].startswith("$(KUBERNETES_SERVICE_HOST),localhost,")
        assert given["NO_PROXY"].endswith(",10.0.0.0/8,.corp.example")
        mounted = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "ca-bundle"]
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
            assert [given[name]] == [f"{place}/bundle.crt" for place in mounted]


def test_every_image_is_the_registrys_and_every_pod_has_its_secret(objects):
    images = {c["image"] for c in containers(objects)}
    assert images == {
        "registry.corp.example:5000/eo/stac-watch:0.1.0",
        "registry.corp.example:5000/eo/geozarr-runner@sha256:" + "0123456789abcdef" * 4,
    }
    for kind, where in (
        ("Deployment", "template.spec"),
        ("WorkflowTemplate", ""),
        ("EventBus", "jetstream"),
        ("Sensor", "template"),
    ):
        for document in (d for d in objects if d["kind"] == kind):
            spec = at(document["spec"], where) if where else document["spec"]
            assert spec["imagePullSecrets"] == [{"name": "corp-registry"}], kind
            assert spec.get("priorityClassName", spec.get("podPriorityClassName")) == "eo-batch"


def test_every_object_carries_the_companys_labels_and_annotations(objects):
    for document in objects:
        assert document["metadata"]["labels"]["cost-center"] == "4711", document["kind"]
        assert document["metadata"]["annotations"]["owner"] == "eo-team@corp.example", document["kind"]


def test_runs_are_spread_by_a_patch_because_a_workflow_has_no_such_key(objects):
    [template] = [d for d in objects if d["metadata"]["name"] == "geozarr-convert" and d["kind"] == "WorkflowTemplate"]
    assert yaml.safe_load(template["spec"]["podSpecPatch"])["topologySpreadConstraints"][0]["maxSkew"] == 5


def test_a_figure_of_the_quota_may_be_ones_own(objects):
    [quota] = [d["spec"]["hard"] for d in objects if d["kind"] == "ResourceQuota"]
    assert quota["requests.memory"] == "400Gi"
    assert quota["requests.cpu"] == str(-(-64 * 1600 // 1000) + 2), "60 slots and 4 beside them, 1.5 cores each and Argo's"


def test_identity_instead_of_keys_mounts_nothing():
    texts = "".join(files_of(told(CONFIG, s3={"existingSecret": ""})).values())
    assert "geozarr-s3" not in texts
    assert "AWS_SHARED_CREDENTIALS_FILE" not in texts


def test_users_are_named_but_where_the_cluster_gives_them():
    """OpenShift's SCCs choose them, and refuse pods that name their own."""
    assert "runAsUser" in "".join(files_of(told(CONFIG)).values())
    texts = "".join(files_of(told(CONFIG, fixedUser=False)).values())
    assert "runAsUser" not in texts
    assert "fsGroup" not in texts
    assert "runAsNonRoot: true" in texts


def test_on_ipv6_the_page_listens_there_and_the_variable_is_yaml(tmp_path):
    [deployment] = [d for d in parts(told(CONFIG, ipFamily="ipv6"))["poller.yaml"] if d["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    [host] = [entry for entry in container["env"] if entry["name"] == "STAC_WATCH__WEB__HOST"]
    assert load(CONFIG, {host["name"]: host["value"]}).web.host == "::"


def test_an_existing_bus_is_used_and_none_is_made():
    objects = {
        (d["kind"], d["metadata"]["name"]): d for p in parts(told(CONFIG, eventBus={"existing": "shared"})).values() for d in p
    }
    assert not [name for kind, name in objects if kind in ("EventBus", "PodDisruptionBudget")]
    for kind, name in (("EventSource", "stac"), ("Sensor", "geozarr")):
        assert objects[kind, name]["spec"]["eventBusName"] == "shared"
    [rule] = objects["NetworkPolicy", "sensor"]["spec"]["egress"]
    assert rule["to"][0]["podSelector"]["matchLabels"]["eventbus-name"] == "shared"


def test_a_webhook_that_does_not_suit_the_values_is_refused():
    with pytest.raises(ConfigError, match="would speak TLS"):
        told(CONFIG, webhook={"tlsSecret": "x"})


def test_the_charts_values_are_the_defaults_and_its_schema_takes_what_the_model_takes(company):
    """Without an alias of YAML 1.1 among the keys: `no` would be false."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values_of(defaults, "", "values.yaml") == SiteValues()
    assert set(keys(SiteValues)) == {path for path in keys(SiteValues) if at(defaults, path) is not KeyError}
    check = jsonschema.Draft7Validator(schema)
    check.validate(defaults)
    check.validate(company)
    assert [e.message for e in check.iter_errors({**company, "imagez": {}})]
    assert [e.message for e in check.iter_errors({**company, "images": {"runner": {"repositry": "x"}}})]


def test_the_versions_of_project_chart_and_images_are_one():
    release = told(CONFIG).poller_image.rpartition(":")[2]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert {chart["version"], chart["appVersion"]} == {release}
    assert f'version = "{release}"' in Path(ROOT / "pyproject.toml").read_text()
    assert f'version = "{release}"' in Path(ROOT / "runner" / "pyproject.toml").read_text()
