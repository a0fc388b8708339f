"""The values file that uses every key, on a cluster that has what such a company has: it installs whole, and GitOps finds peace.

Its registry, its database and its proxy are nowhere, so no pod of ours gets an image. The CRDs are the real ones of Cilium, the
Gateway API and the Prometheus operator; nobody acts on their objects here.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import schemas
import yaml
from charts import CHART, COMPANY

pytestmark = pytest.mark.cluster
NAMESPACE, RELEASE = "test-company", "co"
SECRETS = {
    "corp-registry": {".dockerconfigjson": '{"auths": {}}'},
    "geozarr-s3": {"config": "", "credentials": ""},
    "stac-watch-db-app": {"uri": "postgresql://nowhere.corp.example/x"},
    "stac-watch-db-ca": {"ca.crt": ""},
    "stac-watch-tls": {"ca.crt": "", "tls.crt": "", "tls.key": ""},
    "stac-watch-webhook": {"token": "x"},
}


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """The committed file, for a namespace of the tests."""
    told = yaml.safe_load(COMPANY.read_text())
    engine = told["config"]["engine"]
    engine |= {"namespace": NAMESPACE, "webhook": engine["webhook"].replace(".geozarr.", f".{NAMESPACE}.")}
    path = tmp_path_factory.mktemp("company") / "values.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


@pytest.fixture(scope="module")
def cluster(kubectl, judges):
    """Kinds, classes and Secrets of the company; what was there before stays."""
    paths = [path for path in schemas.crds(judges, "cilium", "gateway-api", "prometheus-operator") if not there(kubectl, path)]
    for path in paths:
        kubectl("apply", "--server-side", "-f", path)
    for path in paths:
        kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", path)
    kubectl.apply(yaml.safe_dump_all(classes(kubectl)))
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    kubectl.namespace(NAMESPACE, {"pod-security.kubernetes.io/enforce": "restricted"})
    secrets = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": content}
        | ({"type": "kubernetes.io/dockerconfigjson"} if name == "corp-registry" else {})
        for name, content in SECRETS.items()
    ]
    bundle = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp-ca"}, "data": {"ca-bundle.crt": ""}}
    kubectl.apply(yaml.safe_dump_all([*secrets, bundle]), "-n", NAMESPACE)
    yield kubectl
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", f"stac-watch-{NAMESPACE}", "--ignore-not-found")
    kubectl("delete", "-f", "-", "--ignore-not-found", stdin=yaml.safe_dump_all(classes(kubectl)))
    for path in paths:
        kubectl("delete", "-f", path, "--ignore-not-found")


def there(kubectl, path):
    return kubectl.answers("get", "crd", yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["metadata"]["name"])


def classes(kubectl):
    """The priority class and the storage classes that the file names, the latter like the cluster's own."""
    known = kubectl.get("storageclasses")["items"][0]
    yield {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "eo-batch"}, "value": 10}
    for name in ("corp-ssd", "corp-scratch", "corp-archive"):
        binding = {key: known[key] for key in ("provisioner", "volumeBindingMode")}
        yield {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, **binding}


def stac_watch(kubectl, *arguments):
    argv = [str(Path(sys.executable).parent / "stac-watch"), "cluster", *map(str, arguments)]
    environ = {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig), "NO_PROXY": "*", "no_proxy": "*"}
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=120)


def changes(kubectl, *options):
    """What an apply would change; a policy's empty list is no change, though the server counts it as a generation."""
    said = kubectl.says("diff", *map(str, options)).splitlines()
    lines = [line for line in said if line.startswith(("+", "-")) and not line.startswith(("+++", "---"))]
    return [line for line in lines if line[1:].split(":")[0].strip() != "generation"]


def test_it_installs_whole_and_a_second_apply_changes_nothing(cluster, helm, values, tmp_path):
    def release(*arguments):
        return helm(*arguments, "-n", NAMESPACE, KUBECONFIG=str(cluster.kubeconfig))

    release("install", RELEASE, CHART, "-f", values)
    applied = stac_watch(cluster, "manifests", f"--values={values}", "--check", "--applied")
    assert applied.stdout == f"namespace {NAMESPACE} has what would be rendered\n", applied.stderr

    # what Argo CD and Flux ask before they apply: would the server have anything otherwise than it is?
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(release("template", RELEASE, CHART, "-f", values, "--skip-tests"))
    options = ("--server-side", "--force-conflicts", "--field-manager=gitops", "-n", NAMESPACE, "-f", rendered)
    assert changes(cluster, *options) == [], "and it would be applied again for ever"
    cluster("apply", *options)
    assert changes(cluster, *options) == []
