"""The chart under Flux and Argo CD.

That an apply by the server's rules changes nothing (test_company) does not show that they agree: each compares by rules of its own.
Flux's helm-controller runs here beside the cluster; of Argo CD the engine that says what is OutOfSync. Both are compiled from
the Go proxy by `make test-gitops`.
"""

import json

import pytest
import yaml
from gitops import RELEASE, ByArgo, ByFlux, packaged, running, served
from harness.build import is_built
from harness.places import Binaries

pytestmark = [pytest.mark.cluster, pytest.mark.cluster_gitops]
KEPT = {("PersistentVolumeClaim", "stac-watch"), ("Secret", "stac-watch-webhook"), ("Secret", "geozarr-s3")}
BROUGHT = {"Deployment", "Sensor", "EventSource", "EventBus", "CronWorkflow", "WorkflowTemplate"}


@pytest.fixture(scope="module")
def part(places, recipe):
    """Skips the test unless a part of Flux or Argo CD is built; the value finds its files."""

    def found(name):
        if not is_built(places, recipe.gitops[name]):
            pytest.skip(f"{name} is not built: (cd tests/cluster && python -m harness gitops)")
        return Binaries(places, recipe)

    return found


@pytest.fixture(scope="module")
def repository(helm, tmp_path_factory):
    """The packaged chart, and the URL of the folder that it lies in."""
    folder = tmp_path_factory.mktemp("charts")
    package = packaged(helm, folder)
    with served(folder) as url:
        yield package, url


@pytest.fixture(scope="module")
def crds(kubectl, part):
    """The kinds of Flux; those that were there before stay."""
    parts = [part(name).kept(name, "config/crd/bases") for name in ("helm-controller", "source-controller")]
    paths = [path for part in parts for path in sorted(part.glob("*.yaml"))]
    names = {path: yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["metadata"]["name"] for path in paths}
    paths = [path for path in paths if not kubectl.answers("get", "crd", names[path])]
    for path in paths:
        kubectl("apply", "--server-side", "-f", path)
    for path in paths:
        kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", path)
    yield
    for path in paths:
        kubectl("delete", "-f", path, "--ignore-not-found", "--timeout=60s")


@pytest.fixture
def flux(kubectl, release, port_forward, tmp_path, helm, part, repository, crds):
    """An installation that helm-controller is to keep."""
    package, url = repository
    stack = ByFlux(kubectl, "test-flux", tmp_path / "manifests", release, port_forward)
    stack.helm, stack.package, stack.url, stack.log = helm, package, url, tmp_path / "helm-controller.log"
    environ = {"KUBECONFIG": str(kubectl.kubeconfig), "RUNTIME_NAMESPACE": stack.namespace}
    options = [
        "--watch-all-namespaces=false",
        "--feature-gates=ExternalArtifact=true",
        "--metrics-addr=0",
        "--health-addr=127.0.0.1:0",
    ]
    with running([part("helm-controller")("helm-controller"), *options], stack.log, environ):
        yield stack
        kubectl.says("-n", stack.namespace, "delete", "helmrelease", RELEASE, "--ignore-not-found", "--timeout=120s")
    stack.down()


@pytest.fixture
def argo(kubectl, release, port_forward, tmp_path, helm, part):
    """An installation as an Application makes it."""
    stack = ByArgo(kubectl, "test-argo-app", tmp_path / "manifests", release, port_forward)
    stack.helm, stack.engine = helm, part("argodiff")("argodiff")
    yield stack
    stack.down()


def more_slots(stack):
    """Other values, as a commit to the installation's repository would bring."""
    stack.configure(engine={"limits": {**stack.config["engine"]["limits"], "max_in_flight": 3}})


def events(stack, reason):
    """What the controller said of the HelmRelease."""
    found = json.loads(stack.do("get", "events", "-o", "json"))["items"]
    return [e["message"] for e in found if e["reason"] == reason and e["involvedObject"]["kind"] == "HelmRelease"]


def test_flux_installs_finds_no_drift_mends_what_another_changed_upgrades_and_uninstalls(flux):
    flux.up()
    item = flux.publish()
    flux.await_done(item)
    before = flux.objects()
    for _ in range(2):
        seen = flux.reconcile()["status"]
        assert {c["type"]: c["reason"] for c in seen["conditions"]}["Drifted"] == "NoDriftDetected"
        assert [entry["version"] for entry in seen["history"]] == [1]
        assert seen["history"][0]["testHooks"], "helm test = check"
        assert flux.objects() == before
    assert events(flux, "DriftDetected") == []

    flux.do("scale", "deploy/stac-watch", "--replicas=0")  # one who finds everything well finds nothing
    flux.reconcile()
    assert "stac-watch" in "".join(events(flux, "DriftCorrected"))
    flux.await_ready()

    more_slots(flux)
    assert flux.reconcile()["status"]["history"][0]["version"] == 2
    flux.check(item)
    flux.uninstall()
    assert flux.left() >= KEPT
    assert not {kind for kind, _ in flux.left()} & BROUGHT


def test_argo_cds_engine_finds_what_it_applied_as_it_wants_it_and_names_what_another_changed(argo):
    argo.up()
    assert argo.out_of_sync() == []
    before = argo.objects()
    argo.apply()
    assert argo.objects() == before, "a second sync writes"
    assert argo.out_of_sync() == []
    argo.do("scale", "deploy/stac-watch", "--replicas=0")  # an engine that finds everything well finds nothing
    assert [found["object"] for found in argo.out_of_sync()] == ["Deployment/stac-watch"]
