"""`stac-watch cluster manifests`, as it is typed."""

import sqlite3
from contextlib import closing

import pytest
import yaml
from fakes.workflows import ROOT

PRODUCTION = ROOT / "deploy" / "overlays" / "production"


@pytest.fixture
def manifests(stac_watch, tmp_path):
    def run(config, *options, code=0):
        said = stac_watch("cluster", "manifests", f"--config={config}", f"--out={tmp_path / 'out'}", *options)
        assert said.code == code, said.said
        return said

    return run


def written(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_one_overlay_alone_is_what_is_committed(manifests, tmp_path):
    said = manifests(PRODUCTION / "stac-watch.yaml", "--overlay=production")
    assert written(tmp_path / "out" / "deploy" / "overlays" / "production") == written(PRODUCTION)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"deploy"}, "and nothing else"
    assert "kubectl apply -k" in said.out


def test_another_overlay_and_outputs_that_go_with_their_runs_are_refused_with_a_sentence(manifests, tmp_path):
    assert "cannot be rendered alone" in manifests(PRODUCTION / "stac-watch.yaml", "--overlay=k3d", code=65).said
    refused = manifests(ROOT / "deploy" / "base" / "stac-watch.yaml", "--overlay=production", code=78)
    assert "outputs on the volumes of runs go with their Workflows" in refused.said
    assert not (tmp_path / "out").exists()


def test_what_a_shared_cluster_needs_is_an_option(manifests, tmp_path):
    config = tmp_path / "mine.yaml"
    text = (PRODUCTION / "stac-watch.yaml").read_text().replace("webhook: http://", "webhook: https://")
    config.write_text(text.replace("kind: argo", "kind: argo\n  instance_id: team-a"))
    options = ("--controller=platform/argo-configmap", "--webhook-tls=stac-watch-tls", "--api-server=10.43.0.1/32")
    said = manifests(config, *options)
    out = tmp_path / "out"
    controller = yaml.safe_load((out / "deploy/argo/workflow-controller-configmap.yaml").read_text())
    assert controller["metadata"]["namespace"] == "platform"
    assert "serverCertSecret" in (out / "eventsources/stac.yaml").read_text()
    assert "controller-instanceid: team-a" in (out / "sensors/geozarr.yaml").read_text()
    assert "10.43.0.1/32" in (out / "deploy/base/network.yaml").read_text()
    assert "cluster api-server" not in said.said
    assert "cluster api-server" in manifests(config).said, "who has not said where the API is, is told how"


def test_backups_are_an_option_and_have_a_volume_of_their_own(manifests, tmp_path):
    """Production's ledger is in PostgreSQL: there they are taken out again."""
    manifests(PRODUCTION / "stac-watch.yaml", "--backup=15Gi")
    base = tmp_path / "out" / "deploy" / "base"
    claim, schedule = yaml.safe_load_all((base / "backup.yaml").read_text())
    assert "backup.yaml" in yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]
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
    overlay = yaml.safe_load((tmp_path / "out/deploy/overlays/production/kustomization.yaml").read_text())
    gone = [yaml.safe_load(each["patch"]) for each in overlay["patches"] if "patch" in each]
    assert {(g["kind"], g["$patch"]) for g in gone} == {("CronJob", "delete"), ("PersistentVolumeClaim", "delete")}
    manifests(PRODUCTION / "stac-watch.yaml", "--backup=much", code=78)


def test_a_ledger_is_backed_up_by_the_verb(stac_watch, tmp_path):
    config = tmp_path / "mine.yaml"
    source = "{name: a, api: 'https://a.example', collection: c}"
    config.write_text(f"ledger: sqlite:///{tmp_path / 'ledger.db'}\nsources: [{source}]\n")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("CREATE TABLE x (n INTEGER)")
        connection.commit()
    said = stac_watch("ledger", "backup", tmp_path / "copies", f"--config={config}")
    assert said.code == 0, said.said
    assert "whole; 1 kept" in said.out.replace("\n", " ")
    config.write_text(f"ledger: postgresql+psycopg://localhost/x\nsources: [{source}]\n")
    assert "pg_dump" in stac_watch("ledger", "backup", tmp_path / "copies", f"--config={config}").said
