"""The cluster that the other tests stand on: what it is made of, that the chain runs on it, that nothing breaks the next start."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from harness import daemons, leftovers
from harness.build import digest, go_mod
from harness.commands import HarnessError
from harness.layers import Image, write

HERE = Path(__file__).resolve().parent


def test_every_version_is_in_one_file_and_changes_the_build(recipe):
    kubernetes = recipe.components["kubernetes"]
    assert "require k8s.io/kubernetes v1.35.4\nreplace k8s.io/api => k8s.io/api v0.35.4\n" in go_mod(
        kubernetes, {"k8s.io/api": kubernetes.staging}, {}
    )
    assert len({digest(component) for component in recipe.components.values()}) == len(recipe.components)


def test_an_image_made_from_the_same_files_has_the_same_bytes_and_loads_as_a_docker_archive(tmp_path):
    (tmp_path / "program").write_bytes(b"\x7fELF")
    image = Image("stac-watch.test/one:1", ["/bin/program"], {"/bin/program": tmp_path / "program"}, "8737")
    first, second = io.BytesIO(), io.BytesIO()
    write(image, first)
    write(image, second)
    assert first.getvalue() == second.getvalue()
    with tarfile.open(fileobj=io.BytesIO(first.getvalue())) as archive:
        [manifest] = json.load(archive.extractfile("manifest.json"))
        config = json.load(archive.extractfile(manifest["Config"]))
        with tarfile.open(fileobj=archive.extractfile(manifest["Layers"][0])) as layer:
            assert {e.name: e.mode for e in layer} == {"bin": 0o755, "tmp": 0o1777, "bin/program": 0o755}
    assert manifest["RepoTags"] == ["stac-watch.test/one:1"]
    assert config["config"]["User"] == "8737"


def test_a_failure_shows_the_end_of_the_right_log(tmp_path):
    log = tmp_path / "etcd.log"
    log.write_text("".join(f"line {n}\n" for n in range(100)) + "panic: disk full\n")
    said = str(HarnessError("etcd is not ready", log=log, hint="Try: make cluster-down"))
    assert said.startswith("etcd is not ready\n")
    assert said.endswith("\nTry: make cluster-down")
    assert "panic: disk full" in said
    assert "line 50" not in said


def test_it_says_where_it_cannot_run():
    """Without root, whoever runs the test: the effective user is changed before the machine is looked at."""
    code = (
        "import os, harness.machine as m, harness.places as p\nr = p.Recipe.load()\nos.geteuid() or os.seteuid(65534)\nm.require(r)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs root" in done.stderr
    assert "sudo" in done.stderr
    assert "KUBECONFIG" in done.stderr


def test_a_cluster_that_exists_is_only_looked_at(harness, tmp_path):
    (tmp_path / "other.conf").write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "users": []})
    )
    refused = harness("down", check=False, env={"KUBECONFIG": str(tmp_path / "other.conf")})
    assert refused.returncode == 1
    assert "is for the cluster that is made here" in refused.stderr or "kubectl is not on PATH" in refused.stderr


@pytest.mark.cluster
def test_it_is_the_kubernetes_that_was_asked_for_and_volumes_have_a_default_class(kubectl, recipe, own_cluster):
    assert json.loads(kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"] == f"v{recipe.version('kubernetes')}"
    default = "storageclass.kubernetes.io/is-default-class"
    classes = [c["metadata"] for c in kubectl.get("storageclasses")["items"]]
    assert [c["name"] for c in classes if c.get("annotations", {}).get(default) == "true"] == ["standard"]


@pytest.mark.cluster
def test_an_event_posted_twice_becomes_one_workflow_that_writes_its_own_volume(kubectl, namespace, port_forward, release):
    kubectl.apply((HERE / "smoke.yaml").read_text().replace("${release}", release), "-n", namespace)
    ready = ("-n", namespace, "wait", "--for=condition=Ready", "pod", "--timeout=2s", "-l", "eventsource-name=smoke")
    kubectl.wait_for(90, "the EventSource is not ready", *ready)

    # A Sensor's pod is ready earlier; what is posted until its consumer exists is accepted with 200, and the bus drops it.
    def subscribed():
        return "started subscribing" in kubectl.says("-n", namespace, "logs", "-l", "sensor-name=smoke", "--tail=50")

    daemons.wait_until(subscribed, 90, "the Sensor did not subscribe")
    text = "scene'; $(id)"  # a shell would make something else of it
    event = json.dumps({"run": "smoke-1", "text": text}).encode()
    with port_forward(namespace, "svc/smoke-eventsource-svc", 12000) as port:
        for _ in range(2):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/items", event, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.status == 200
    done = ("-n", namespace, "wait", "workflow/smoke-1", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=2s")
    kubectl.wait_for(120, "the workflow did not succeed", *done)
    [workflow] = kubectl.get("workflows", "-n", namespace)["items"]
    [write_node] = [n for n in workflow["status"]["nodes"].values() if n["displayName"] == "write"]
    assert write_node["outputs"]["parameters"][0]["value"] == text
    [claim] = kubectl.get("pvc", "-n", namespace, "-l", "!app.kubernetes.io/managed-by", "--field-selector=metadata.name=smoke-1")[
        "items"
    ]
    assert claim["status"]["phase"] == "Bound"
    assert claim["metadata"]["ownerReferences"][0]["uid"] == workflow["metadata"]["uid"]
    logs = kubectl("-n", namespace, "logs", "-l", "workflows.argoproj.io/workflow=smoke-1", "-c", "main", "--tail=5")
    assert text in logs


@pytest.mark.cluster
def test_a_pod_that_may_become_root_is_refused(kubectl, namespace):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    with pytest.raises(HarnessError, match="violates PodSecurity"):
        kubectl.apply(json.dumps(pod), "-n", namespace)


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("image", "argv", "says"),
    [
        ("stac-watch", ["stac-watch", "--help"], "watch"),
        ("geozarr-runner", ["geozarr-runner", "--help"], "preflight"),
        ("geozarr-runner", ["python", "-c", "import eopf_geozarr, os; print('uid', os.getuid())"], "uid 10001"),
    ],
    ids=["poller", "runner", "converter"],
)
def test_our_images_run_as_nobody_on_a_read_only_file_system(kubectl, namespace, image, argv, says, release):
    assert says in run_pod(kubectl, namespace, f"{image}:{release}", argv)


@pytest.mark.cluster
def test_s3_keeps_what_a_pod_puts_there(kubectl, namespace, release, own_cluster):
    code = """
import s3fs, uuid
fs = s3fs.S3FileSystem(key="stac-watch-test", secret="only-for-tests", client_kwargs={"endpoint_url": "http://s3.s3.svc:9000"})
bucket = "test-" + uuid.uuid4().hex[:8]
fs.mkdir(bucket)
fs.pipe(f"{bucket}/a/b.bin", b"x" * 12_000_000)   # more than one part
fs.invalidate_cache()
print("bytes", len(fs.cat(f"{bucket}/a/b.bin")), fs.ls(f"{bucket}/a"))
fs.rm(bucket, recursive=True)
"""
    assert "bytes 12000000" in run_pod(kubectl, namespace, f"geozarr-runner:{release}", ["python", "-c", code])


@pytest.mark.cluster
def test_processes_can_be_stopped_and_started_again_by_fault_tests(kubectl, harness, places, own_cluster):
    for name, back in (
        ("kubelet", lambda: kubectl.answers("get", "--raw", "/api/v1/nodes/node0/proxy/healthz")),
        ("kube-apiserver", kubectl.is_ready),
    ):
        harness("daemon", "kill", name)
        assert not daemons.is_running(places, name)
        harness("daemon", "start", name)
        daemons.wait_until(back, 60, f"{name} did not come back", log=places.logs / f"{name}.log")
    assert "There are: containerd, etcd" in harness("daemon", "stop", "nothing", check=False).stderr


@pytest.mark.cluster
def test_up_on_a_cluster_that_is_up_changes_nothing(harness, places, own_cluster):
    before = {name: (places.state / "daemons" / f"{name}.json").read_text() for name in daemons.names(places)}
    began = time.monotonic()
    assert "is up already" in harness("up", "--bare").stderr
    assert time.monotonic() - began < 20
    assert before == {name: (places.state / "daemons" / f"{name}.json").read_text() for name in daemons.names(places)}


@pytest.mark.cluster_rebuild
def test_after_everything_was_killed_down_leaves_nothing_and_up_makes_a_new_cluster(harness, places, own_cluster):
    for pid in list(daemons.ours()):
        os.kill(pid, signal.SIGKILL)
    assert leftovers.mounts(places), "a killed cluster leaves mounts; without any this test would show nothing"
    harness("up", "--bare")
    harness("status")
    harness("down")
    assert not leftovers.present(places)
    assert leftovers.mounts(places) == []
    assert list(daemons.ours()) == []
    assert b"swc0" not in subprocess.run(["ip", "-br", "link"], capture_output=True, check=True).stdout
    assert b"kube-proxy" not in subprocess.run(["nft", "list", "tables"], capture_output=True, check=True).stdout
    assert "KUBE-" not in subprocess.run(["iptables-save"], capture_output=True, check=True, text=True).stdout
    assert not list(Path("/sys/fs/cgroup").glob("*/stac-watch-cluster")) + list(Path("/sys/fs/cgroup").glob("stac-watch-cluster"))
    harness("up")


def run_pod(kubectl, namespace, image, argv):
    """Runs a pod to its end under the restricted standard, as the image's own user, and returns its log."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": argv,
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    kubectl.apply(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}), "-n", namespace)

    def ended():
        return kubectl.get("pod", "one", "-n", namespace)["status"]["phase"] in {"Succeeded", "Failed"}

    daemons.wait_until(ended, 90, f"{argv[0]} did not end")
    log = kubectl("-n", namespace, "logs", "one")
    assert kubectl.get("pod", "one", "-n", namespace)["status"]["phase"] == "Succeeded", log
    return log
