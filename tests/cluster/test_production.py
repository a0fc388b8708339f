"""The overlay `production`, as rendered from a configuration, with a fault of each part: PostgreSQL, S3, quota, policies, audit.
Events go over TLS.

Nothing of it is patched for the test: what differs from a cluster of several nodes is said by options (one server of the bus).
"""

import http.client
import json
import os
import secrets
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.commands import HarnessError
from harness.daemons import wait_until
from outputs import check_on_s3
from releases import PODS, lead_to_the_database
from stack import Stack, nodes, outcome, slowly

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "services"))
from postgres import Postgres, programs

pytestmark = pytest.mark.cluster
CERTIFICATE, EVENT_SOURCE = "stac-eventsource-tls", "stac-eventsource-svc"


@pytest.fixture(scope="module")
def database(is_own_cluster):
    """A PostgreSQL on this machine that pods reach."""
    if not is_own_cluster:
        pytest.skip("pods of another cluster do not reach a database on this machine")
    if programs() is None:
        assert os.environ.get("CI") != "true", "PostgreSQL 15 is not installed: apt-get install postgresql-15"
        pytest.skip("PostgreSQL 15 is not installed: apt-get install postgresql-15")
    server = Postgres(clients=[PODS])
    yield server
    server.close()


@pytest.fixture(scope="module")
def production(kubectl, release, port_forward, database, tmp_path_factory, places, request):
    stack = Stack(
        kubectl, "test-production", tmp_path_factory.mktemp("production"), release, port_forward, overlay="production",
        values={
            "eventBus": {"replicas": 1, "size": "1Gi"}, "webhook": {"tlsSecret": CERTIFICATE},
            "cleanup": {"schedule": "0 0 1 1 *", "olderThan": "1s"}, "caBundle": {"configMap": "kube-root-ca.crt", "key": "ca.crt"},
        },
    )  # fmt: skip

    def prepare():
        """The bucket, and what leads to the database: a Service as a company's DNS has one."""
        lead_to_the_database(stack, database.port)
        stack.put_secret(CERTIFICATE, certificate(tmp_path_factory.mktemp("certificate"), EVENT_SOURCE))
        stack.config["engine"]["webhook"] = f"https://{EVENT_SOURCE}:12000/items"
        bucket = stack.bucket()
        stack.config["recipe"] = {"output": f"s3://{bucket}/{{collection}}/{{item_id}}.zarr"}
        stack.values["audit"] = {"report": f"s3://{bucket}/freshness"}

    stack.up(prepare)
    yield stack
    if request.session.testsfailed:
        stack.keep_evidence(places.root / "var" / "cluster-evidence" / "production")
    stack.down()


def certificate(folder, name):
    """What cert-manager would write: a certificate for a Service's name, its key, and the authority that signed it."""
    ask = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    authority = ("-x509", "-subj", "/CN=tests", *usage, "-keyout", "ca.key", "-out", "ca.crt")
    leaf = ("-x509", "-CA", "ca.crt", "-CAkey", "ca.key", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}")
    plain = ("-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "tls.key", "-out", "tls.crt")
    for rest in (authority, (*leaf, *plain)):
        subprocess.run([*ask, *rest], cwd=folder, check=True, capture_output=True)
    return {file: (folder / file).read_text() for file in ("tls.crt", "tls.key", "ca.crt")}


def claims(stack):
    return {claim["metadata"]["name"] for claim in stack.kubectl.get("pvc", "-n", stack.namespace)["items"]}


def test_items_become_outputs_where_the_configuration_says_and_volumes_are_given_back(production):
    items = [production.publish(), production.publish()]
    rows = production.await_done(*items)
    production.check(*items)
    for item in items:
        assert rows[item]["output"].startswith(production.config["recipe"]["output"].partition("{")[0])
        assert check_on_s3(production, item, rows[item]["output"]) == "equal to its source"
        [workflow] = production.workflows_of(item)
        assert nodes(workflow)["release"]["phase"] == "Succeeded"
        assert outcome(workflow)["code"] == 0
    runs = {w["metadata"]["name"] for item in items for w in production.workflows_of(item)}
    wait_until(lambda: not runs & claims(production), 240, "volumes of runs with their output in S3 are still there")
    quota = production.kubectl.get("resourcequota", "geozarr", "-n", production.namespace)["status"]
    assert quota["hard"]["persistentvolumeclaims"] == "17"  # twice 4 + 4 runs, and the bus


def test_a_run_that_failed_keeps_its_volume_to_be_looked_at(production):
    item = production.publish(broken=True)
    row = production.await_row(item, lambda row: row["state"] in ("failed", "done"))
    assert row["state"] == "failed", row
    [workflow] = production.workflows_of(item)
    assert workflow["metadata"]["name"] in claims(production)
    assert nodes(workflow)["release"]["phase"] in ("Skipped", "Omitted")


def operator(stack, verb, *arguments):
    """A verb of `cluster`, as who has the kubeconfig and the installation's two files."""
    path = f"{Path(stack.kubectl.binary).parent}:{os.environ['PATH']}"
    environ = {**os.environ, "KUBECONFIG": str(stack.kubectl.kubeconfig), "PATH": path, "NO_PROXY": "*", "no_proxy": "*"}
    files = (f"--config={stack.folder / 'stac-watch.yaml'}", f"--values={stack.folder / 'values.yaml'}")
    argv = [str(Path(sys.executable).parent / "stac-watch"), "cluster", verb, *arguments, *files]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=120)


def test_the_doctor_finds_nothing_and_has_tried_the_pods_and_the_way_of_an_event(production):
    done = operator(production, "doctor", "--send-test")
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = [line for line in done.stdout.splitlines() if "admission" in line]
    assert "preflight, volume, convert, release" in line
    [line] = [line for line in done.stdout.splitlines() if "test event" in line]
    assert "became Workflow gz-doctor-" in line
    assert not [w for w in production.workflows() if w["metadata"]["name"].startswith("gz-doctor-")]
    assert "doctor" not in production.items(), "no item of ours"


def test_every_container_trusts_the_companys_authority(production):
    """The cluster's own stands for it: its API is the one server with a certificate that everybody reaches."""
    ask = """
import urllib.request
from stac_watch.runs.kubernetes_api import trusting
print(urllib.request.urlopen("https://kubernetes.default.svc/version", context=trusting(None), timeout=20).status)
"""
    inside = ("exec", "deploy/stac-watch", "-c", "poller", "--", "env")
    assert production.do(*inside, "python3", "-c", ask).strip() == "200"
    with pytest.raises(HarnessError, match="CERTIFICATE_VERIFY_FAILED"):
        production.do(*inside, "-u", "SSL_CERT_FILE", "python3", "-c", ask)


def test_what_somebody_changed_in_the_cluster_is_named_until_it_is_applied_again(production):
    def check():
        done = operator(production, "manifests", "--check", "--applied")
        return done.returncode, done.stdout.splitlines(), done.stderr

    assert check() == (0, [f"namespace {production.namespace} has what would be rendered"], "")
    production.do("patch", "resourcequota", "geozarr", "--type=merge", "-p", '{"spec": {"hard": {"requests.cpu": "99"}}}')
    production.do("delete", "networkpolicy", "eventbus")
    code, lines, _ = check()
    assert (code, sorted(lines)) == (1, ["NetworkPolicy eventbus: is not there",
                                         "ResourceQuota geozarr: differs at spec.hard.requests.cpu"])  # fmt: skip
    production.kubectl("apply", "--server-side", "--force-conflicts", "-k", production.rendered)
    assert check()[0] == 0
    assert production.kubectl("diff", "--server-side", "--force-conflicts", "-k", production.rendered) == ""


def test_the_token_is_changed_in_two_steps_and_no_attempt_is_used_up(production):
    old, new = production.token, secrets.token_urlsafe(24)
    production.put_secret("stac-watch-webhook", {"token": old, "next": new})
    production.do("rollout", "restart", "deploy/stac-watch")
    production.await_poller()
    items = [production.publish()]
    production.put_secret("stac-watch-webhook", {"token": new, "next": new})
    items.append(production.publish())  # whichever of the two the EventSource wants now
    production.await_workflow(items[1])
    wait_until(lambda: refuses(production, old), 180, "the old token is still taken")
    production.token = new
    production.do("patch", "secret", "stac-watch-webhook", "--type=json", "-p", '[{"op": "remove", "path": "/data/next"}]')
    production.do("rollout", "restart", "deploy/stac-watch")
    production.await_poller()
    items.append(production.publish())
    rows = production.await_done(*items)
    assert {rows[item]["attempt"] for item in items} == {1}
    production.check(*items)


def refuses(stack, token):
    """Whether the EventSource refuses a token: asked by TLS, with an event that is none."""
    context = ssl._create_unverified_context()  # the name is the Service's, and this is a forwarded port
    with stack.forward(stack.namespace, f"svc/{EVENT_SOURCE}", 12000) as port:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
        connection.request("POST", "/items", body="{}", headers={"Authorization": f"Bearer {token}"})
        status = connection.getresponse().status
        connection.close()
    return status in (400, 401, 403)


def test_each_part_fails_once_and_nothing_is_lost_or_doubled(production, database):
    items = [production.publish() for _ in range(3)]
    production.await_workflow(items[0])
    production.kill("app.kubernetes.io/name=stac-watch")
    production.kill("sensor-name=geozarr")
    items.append(production.publish())
    production.kill("eventsource-name=stac")
    production.kill("eventbus-name=geozarr")
    database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'postgres'")
    production.await_ready()
    with object_store_away(production, 20):
        items.append(production.publish())
    production.await_done(*items, seconds=600)
    production.check(*items)
    production.audit()


@contextmanager
def object_store_away(stack, seconds):
    """Nobody answers where the object store was, for at least so long."""
    began = time.monotonic()
    leads = ("-n", "s3", "patch", "service", "s3", "--type=merge", "-p")
    stack.kubectl(*leads, '{"spec": {"selector": {"app": "nobody"}}}')
    try:
        yield
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))  # the fault's length
    finally:
        stack.kubectl(*leads, '{"spec": {"selector": {"app": "s3"}}}')


def test_the_nightly_audit_runs_on_any_node_and_finds_no_gap(production):
    run = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "audit-now"},
        "spec": {"workflowTemplateRef": {"name": "stac-watch-audit"}},
    }  # fmt: skip
    production.do("apply", "-f", "-", stdin=json.dumps(run))

    def phase():
        return production.kubectl.get("workflow", "audit-now", "-n", production.namespace).get("status", {}).get("phase", "")

    slowly(lambda: phase() in ("Succeeded", "Failed", "Error"), 180)
    assert phase() == "Succeeded"
    report = nodes(production.kubectl.get("workflow", "audit-now", "-n", production.namespace))["freshness-report"]
    assert report["phase"] == "Succeeded"
    read = "import fsspec, sys; print(fsspec.open(sys.argv[1]).open().read().decode())"
    place = f"{production.values['audit']['report']}/freshness.json"
    told = json.loads(production.do("exec", "deploy/stac-watch", "-c", "poller", "--", "python3", "-c", read, place))
    assert told["sources"], told


def test_the_cleanup_takes_workflows_that_are_over_and_nothing_is_lost(production):
    done = [item for item, row in production.items().items() if row["state"] == "done"]
    assert done
    production.do("create", "job", "--from=cronjob/stac-watch-cleanup", "cleanup-now")
    production._wait_for(120, "the cleanup did not end", "wait", "--for=condition=Complete", "job/cleanup-now", "--timeout=2s")
    assert not [w for item in done for w in production.workflows_of(item)]
    assert {production.items()[item]["state"] for item in done} == {"done"}
    production.audit()
