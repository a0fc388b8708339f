"""`stac-watch cluster manifests`, as it is typed."""

import sqlite3
import tomllib
from contextlib import closing
from importlib.metadata import version

import pytest
import yaml
from fakes.workflows import ROOT

from stac_watch.cluster.installed import CONFIGURATION, differing

PRODUCTION = ROOT / "deploy" / "overlays" / "production"
CONFIG = ROOT / "deploy" / "base" / "stac-watch.yaml"


@pytest.fixture
def manifests(stac_watch, tmp_path):
    def run(*options, code=0):
        said = stac_watch("cluster", "manifests", f"--out={tmp_path / 'out'}", *options)
        assert said.code == code, said.said
        return said

    return run


@pytest.fixture
def values(tmp_path):
    def write(**given):
        path = tmp_path / "values.yaml"
        path.write_text(yaml.safe_dump(given))
        return f"--values={path}"

    return write


def documents(folder):
    texts = [p.read_text() for p in sorted(folder.glob("*.yaml")) if not p.name.startswith("kustomiz")]
    return {(d["kind"], d["metadata"]["name"]): d for text in texts for d in yaml.safe_load_all(text) if d}


def test_an_example_is_what_is_committed_and_the_check_says_what_is_not(manifests, tmp_path):
    given = (f"--config={PRODUCTION / 'stac-watch.yaml'}", f"--values={PRODUCTION / 'values.yaml'}")
    said = manifests(*given)
    out = tmp_path / "out"
    there = {p.name: p.read_text() for p in PRODUCTION.iterdir() if p.name not in ("stac-watch.yaml", "values.yaml")}
    assert {p.name: p.read_text() for p in out.glob("*.yaml")} == there
    assert "kubectl apply" in said.out
    assert "is what would be rendered" in manifests(*given, "--check").out
    (out / "quota.yaml").write_text(there["quota.yaml"].replace('"51"', '"99"') + "# mine\n")
    (out / "older.yaml").write_text(there["quota.yaml"])
    (out / "mine.yaml").write_text("kind: ConfigMap\n")
    told = manifests(*given, "--check", code=1).out
    assert "-# mine" in told
    assert "older.yaml: rendered no more" in told
    assert "mine.yaml" not in told
    manifests(*given)
    assert not (out / "older.yaml").exists(), "of an earlier release"
    assert (out / "mine.yaml").exists(), "whoever wrote it keeps it"


def test_one_file_may_hold_everything(manifests, values, tmp_path):
    source = {"name": "a", "api": "https://a.example", "collection": "c", "filter": {"intersects": "aoi.geojson"}}
    area = '{"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}'
    config = {"sources": [source], "recipe": {"output": "s3://b/{item_id}.zarr"}, "engine": {"namespace": "mine"}}
    manifests(values(config=config, configFiles={"aoi.geojson": area}))
    found = documents(tmp_path / "out")
    data = found["ConfigMap", "stac-watch"]["data"]
    assert data["aoi.geojson"] == area
    written = yaml.safe_load(data["stac-watch.yaml"])
    assert written["engine"] == {"kind": "argo", "namespace": "mine", "webhook": "http://stac-eventsource-svc:12000/items"}
    assert {d["metadata"].get("namespace", "mine") for d in found.values()} == {"mine"}
    config["recipe"]["chunk"] = 7
    assert "'recipe.chunk'" in manifests(values(config=config, configFiles={"aoi.geojson": area}), code=78).said


def test_an_area_beside_the_configuration_goes_with_it(manifests, tmp_path):
    """Only its name in the ConfigMap, and the pod would end with 78."""
    area = '{"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}'
    (tmp_path / "aoi.geojson").write_text(area)
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG.read_text().replace("{max_age: 30d}", "{intersects: aoi.geojson}"))
    manifests(f"--config={path}")
    assert documents(tmp_path / "out")["ConfigMap", "stac-watch"]["data"]["aoi.geojson"] == area


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"imagez": {}}, "did you mean 'images'"),
        ({"images": {"runner": {"repositry": "x"}}}, "did you mean 'repository'"),
        ({"runs": {"nodeSelectr": {}}}, "did you mean 'nodeSelector'"),
        ({"eventBus": {"size": "much"}}, "is no size"),
        ({"networkPolicy": {"networks": ["10.0.0.1/8"]}}, "not a network"),
        ({"images": {"runner": {"repository": "x", "digest": "abc"}}}, "images.runner.digest"),
        ({"backup": {"keep": 0}}, "must be at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_sentence(manifests, values, tmp_path, given, says):
    assert says in manifests(f"--config={CONFIG}", values(**given), code=78).said.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_what_a_shared_cluster_needs_is_a_value(manifests, values, tmp_path):
    config = tmp_path / "mine.yaml"
    text = (PRODUCTION / "stac-watch.yaml").read_text().replace("webhook: http://", "webhook: https://")
    config.write_text(text.replace("kind: argo", "kind: argo\n  instance_id: team-a"))
    given = values(
        argo={"controller": "platform/argo-configmap"}, webhook={"tlsSecret": "stac-watch-tls"},
        networkPolicy={"apiServers": ["10.43.0.1/32"]},
    )  # fmt: skip
    said = manifests(f"--config={config}", given)
    out = tmp_path / "out"
    assert yaml.safe_load((out / "argo/workflow-controller-configmap.yaml").read_text())["metadata"]["namespace"] == "platform"
    found = documents(out)
    assert "serverCertSecret" in found["EventSource", "stac"]["spec"]["webhook"]["items"]
    assert "controller-instanceid" in str(found["Sensor", "geozarr"])
    assert "10.43.0.1/32" in str(found["NetworkPolicy", "api-server"])
    assert "cluster api-server" not in said.said
    said = manifests(f"--config={config}", values(webhook={"tlsSecret": "stac-watch-tls"}))
    assert "cluster api-server" in said.said, "who has not said where the API is, is told how"


def test_backups_have_a_volume_of_their_own_and_are_for_sqlite(manifests, values, tmp_path):
    manifests(f"--config={PRODUCTION / 'stac-watch.yaml'}", values(backup={"size": "15Gi"}))
    found = documents(tmp_path / "out")
    claim, schedule = (found[kind, "stac-watch-backup"] for kind in ("PersistentVolumeClaim", "CronJob"))
    assert claim["spec"]["resources"]["requests"]["storage"] == "15Gi"
    pod = schedule["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    where = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert claims == {"state": "stac-watch", "backup": claim["metadata"]["name"]}
    assert container["args"][:3] == ["ledger", "backup", where["backup"]]
    assert where["backup"] != where["state"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["runAsNonRoot"] is True
    given = values(backup={"size": "15Gi"}, ledger={"existingSecret": "stac-watch-ledger"})
    manifests(f"--config={PRODUCTION / 'stac-watch.yaml'}", given)
    assert ("CronJob", "stac-watch-backup") not in documents(tmp_path / "out"), "PostgreSQL has the backups of its server"


def test_every_image_is_listed_for_a_mirror(stac_watch, values):
    said = stac_watch("cluster", "images", f"--config={CONFIG}", values(images={"registry": "mirror.example"}))
    assert said.code == 0, said.said
    assert said.out.split()[:2] == [f"mirror.example/{name}:{version('stac-watch')}" for name in ("geozarr-runner", "stac-watch")]
    tested = tomllib.loads((ROOT / "tests/cluster/harness/versions.toml").read_text())["components"]
    for component, name in (("argo-workflows", "argoexec:v"), ("argo-events", "argo-events:v"), ("nats", "nats:")):
        assert f"{name}{tested[component]['version']}" in said.out


def test_a_ledger_is_backed_up_by_the_verb(stac_watch, tmp_path):
    config = tmp_path / "mine.yaml"
    source = "{name: a, api: 'https://a.example', collection: c}"
    config.write_text(f"ledger: sqlite:///{tmp_path / 'ledger.db'}\nsources: [{source}]\n")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("CREATE TABLE x (n INTEGER)")
        connection.commit()
    said = stac_watch("ledger", "backup", tmp_path / "copies", f"--config={config}")
    assert said.code == 0, said.said
    assert "checked; 1 kept" in said.out.replace("\n", " ")
    config.write_text(f"ledger: postgresql+psycopg://localhost/x\nsources: [{source}]\n")
    assert "pg_dump" in stac_watch("ledger", "backup", tmp_path / "copies", f"--config={config}").said


def test_what_helm_wrote_in_another_form_is_no_difference():
    """Texts that are YAML are compared by what they say; the digest of one of them is none of itself."""
    ours = {"data": {"c.yaml": "a: 1\nb: [x]\n"}, "annotations": {CONFIGURATION: "1"}, "note": "two\nlines\n"}
    helm = {"data": {"c.yaml": '"a": 1\n"b":\n  - "x"\n'}, "annotations": {CONFIGURATION: "2"}, "note": "two\nlines\n"}
    assert list(differing(ours, helm)) == []
    assert list(differing(ours, {**helm, "data": {"c.yaml": "a: 2\nb: [x]\n"}})) == ["data.c.yaml"]
    assert list(differing(ours, {**helm, "note": "two\nother lines\n"})) == ["note"]
