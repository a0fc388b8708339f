"""An operator's day on the real cluster: make's targets against a whole installation in a namespace of its own.

A run by hand is submitted, followed, fetched and cleaned; a fetch is interrupted in the middle and goes on; the doctor finds
nothing in an installation that is whole, and what is broken in another.
"""

import hashlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from harness.daemons import wait_until
from stack import Stack, default_config

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
LABELS = {"app.kubernetes.io/name": "geozarr-convert", "app.kubernetes.io/part-of": "stac-watch"}
OTHER = {**LABELS, "app.kubernetes.io/name": "stac-watch"}
SPACE = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
HELPERS = "app.kubernetes.io/name=stac-watch-fetch"
MEGABYTES = 800
MAIN = "import sys; from stac_watch.cli.main import main; sys.exit(main())"


@pytest.fixture(scope="module")
def ours(kubectl, release, port_forward, tmp_path_factory):
    """What runs by hand need, in a namespace that only these tests use: they remove Workflows and volumes."""
    stack = Stack(kubectl, "test-operations", tmp_path_factory.mktemp("manifests"), release, port_forward)
    kubectl("delete", "namespace", stack.namespace, "--ignore-not-found", "--timeout=180s")
    kubectl.namespace(stack.namespace, {"pod-security.kubernetes.io/enforce": "restricted"})
    stack._put_catalog()
    stack.config = default_config(stack.catalog, stack.namespace)
    stack.render()
    stack.apply_runs()
    yield stack
    stack.down()


@pytest.fixture
def environ(kubectl):
    path = f"{Path(kubectl.binary).parent}:{os.environ['PATH']}"
    return {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig), "PATH": path, "NO_PROXY": "*", "no_proxy": "*"}


@pytest.fixture
def make(ours, environ):
    """Runs a target as an operator of this installation types it."""

    def run(*arguments, check=True):
        given = [f"CONFIG={ours.folder}/stac-watch.yaml", f"BIN={Path(sys.executable).parent}", *arguments]
        argv = ["make", "--no-print-directory", "--old-file=install", *given]  # the last CONFIG counts
        done = subprocess.run(
            argv, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=600
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def exists(ours, kind, name):
    return name in {item["metadata"]["name"] for item in ours.kubectl.get(kind, "-n", ours.namespace)["items"]}


def digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_run_by_hand_from_submit_to_clean(ours, make, environ, tmp_path):
    def verb(*arguments):
        argv = [sys.executable, "-c", MAIN, "cluster", *arguments, f"--config={ours.folder}/stac-watch.yaml"]
        return subprocess.run(argv, env=environ, capture_output=True, text=True, check=True, timeout=600).stdout

    item = ours.publish(size=360)
    url = f"{ours.catalog}/collections/sentinel-2-l2a/items/{item}"
    done = make("submit", f"STAC_URL={url}", "OUTPUT_ZARR=/data/by hand.zarr", "DASK_PERF_HTML=/data/dask.html", "WAIT=1",
                "GROUPS=/measurements/reflectance/r60m /quality/mask/r60m")  # fmt: skip
    run = done.stdout.split()[0]
    assert f"/workflows/{ours.namespace}/{run}" in done.stderr

    status = verb("runs", run)
    assert "succeeded" in status
    assert item in status.replace("\n", "").replace(" ", "")
    log = verb("logs", run, "--follow")
    assert re.search(r"^convert +.*check structure: passed", log, re.MULTILINE)
    assert "argo=true" not in log

    make("fetch-tar", f"WF={run}", f"OUT={tmp_path}/runs")
    folder = tmp_path / "runs" / run
    outcome = json.loads((folder / "outcome.json").read_text())
    names = {"by hand.zarr.tar", "by hand.zarr.report.html", "by hand.zarr.report.json", "by hand.zarr.item.json", "dask.html"}
    assert names <= {path.name for path in folder.iterdir()}
    assert digest(folder / "by hand.zarr.tar") == outcome["package"]["sha256"]
    with tarfile.open(folder / "by hand.zarr.tar") as package:
        members = package.getnames()
    assert "by hand.zarr/measurements/reflectance/r60m" in members
    assert not [m for m in members if "/r10m" in m]
    assert "<html" in (folder / "dask.html").read_text().lower()
    assert ours.pods(HELPERS) == []

    other = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "ledger", "labels": OTHER}, "spec": SPACE}
    ours.kubectl.apply(json.dumps(other), "-n", ours.namespace)
    listed = make("clean-pvc").stdout
    assert run in listed
    make("clean", "YES=1")  # ended a moment ago: stays
    assert exists(ours, "workflow", run)
    make("clean", "OLDER_THAN=0s", "YES=1")
    assert not exists(ours, "workflow", run)
    wait_until(lambda: not ours.pods(f"workflows.argoproj.io/workflow={run}"), 120, "the run's pods did not go with it")
    assert exists(ours, "pvc", run)  # and stays, for nobody owns it any more
    make("fetch-tar", f"WF={run}", f"OUT={tmp_path}/again")
    assert digest(tmp_path / "again" / run / "by hand.zarr.tar") == outcome["package"]["sha256"]
    make("clean-pvc", "YES=1")
    wait_until(lambda: not exists(ours, "pvc", run), 60, "the volume is still there")
    assert exists(ours, "pvc", "ledger")  # another's


def test_a_fetch_that_is_interrupted_goes_on_where_it_was(ours, environ, tmp_path, capsys):
    name = "gz-large"
    put_package(ours, name)
    config = f"--config={ours.folder}/stac-watch.yaml"
    argv = [sys.executable, "-c", MAIN, "cluster", "fetch", name, config, f"--out={tmp_path}", "--json"]

    def there():
        return sum(path.stat().st_size for path in tmp_path.glob(f"{name}/.*.part"))

    def arrives(process, start):
        return lambda: there() > start + 20_000_000 or process.poll() is not None

    before = 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: len(ours.pods(HELPERS)) == 1, 60, "there is no helper pod")
            wait_until(arrives(process, before), 180, "nothing arrives")
            process.send_signal(number)  # at once: all of it is here within two seconds
            out, err = process.communicate(timeout=60)
        assert process.returncode == code, out + err
        wait_until(lambda: ours.pods(HELPERS) == [], 60, "the helper pod is still there")
        assert not (tmp_path / name / "large.zarr.tar").exists()
        assert before < there() < MEGABYTES * 1_000_000
        before = there()
    began = time.monotonic()
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    [file] = json.loads(done.stdout)
    assert file["fetched"] == MEGABYTES * 1_000_000 - before
    assert digest(tmp_path / name / "large.zarr.tar") == file["sha256"]
    assert ours.pods(HELPERS) == []
    with capsys.disabled():
        print(f"\nrest of {file['fetched'] / 1e6:.0f} MB in {time.monotonic() - began:.1f} s, with the helper pod's start")


def put_package(ours, name):
    """A volume with a package that takes seconds to fetch, as a run leaves it whose Workflow is gone."""
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "labels": LABELS}, "spec": SPACE}
    program = f"""
import hashlib, json, os
digest, size = hashlib.sha256(), {MEGABYTES * 1_000_000}
with open("/data/large.zarr.tar", "wb") as file:
    for _ in range({MEGABYTES}):
        block = os.urandom(1_000_000)
        digest.update(block)
        file.write(block)
os.mkdir("/data/large.zarr")
package = {{"href": "/data/large.zarr.tar", "bytes": size, "sha256": digest.hexdigest()}}
with open("/data/large.zarr/stac-watch.json", "w") as file:
    json.dump({{"code": 0, "output_zarr": "/data/large.zarr", "package": package}}, file)
"""
    locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "main", "image": f"geozarr-runner:{ours.release}", "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", program], "securityContext": locked, "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }  # fmt: skip
    person = {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": person, "containers": [container],
            "volumes": [volume]}  # fmt: skip
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "writer"}, "spec": spec}
    ours.kubectl.apply("\n---\n".join(map(json.dumps, (claim, pod))), "-n", ours.namespace)
    done = ("-n", ours.namespace, "wait", "pod/writer", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=2s")
    ours.kubectl.wait_for(180, "the package was not written", *done)
    ours.kubectl("-n", ours.namespace, "delete", "pod", "writer")


def test_the_doctor_finds_nothing_in_a_whole_installation(stack, make):
    done = make("doctor", f"CONFIG={stack.folder}/stac-watch.yaml", check=False)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) > 15


def test_the_doctor_names_what_is_broken(ours, make):
    patch = {"spec": {"entrypoint": "other"}}
    ours.do("patch", "workflowtemplate", "geozarr-convert", "--type=merge", "-p", json.dumps(patch))
    try:
        done = make("doctor", check=False)
    finally:
        ours.apply_runs()
    assert done.returncode == 2
    broken = {line.split(":")[0].removeprefix("FAIL  ") for line in done.stdout.splitlines() if line.startswith("FAIL")}
    assert {"template geozarr-convert", "accounts"} <= broken
    assert "differs at entrypoint → `kubectl apply -k workflows`" in done.stdout
    assert "only runs by hand work here" in done.stdout


def test_the_argo_ui_is_forwarded(ours, environ):
    port = free_port()
    argv = ["make", "--no-print-directory", "ui", f"UI_PORT={port}"]
    with subprocess.Popen(
        argv, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout.readline().startswith("kubectl ")
            assert "Forwarding from" in process.stdout.readline()
            unverified = ssl._create_unverified_context()  # argo-server makes its own certificate
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=unverified, timeout=20)
            connection.request("GET", "/api/v1/version")
            answer = connection.getresponse()
            assert answer.status in (200, 401, 403)  # it is argo-server; who has no token is asked for one
            connection.close()
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
