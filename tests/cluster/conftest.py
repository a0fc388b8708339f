"""What the tests on the real cluster share. They run when asked for (`make test-cluster`), else they are skipped."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the harness is a program beside the tests, not an installed package

from charts import Helm  # noqa: E402
from harness.build import is_built  # noqa: E402
from harness.kubectl import Kubectl  # noqa: E402
from harness.places import Binaries, Places, Recipe  # noqa: E402
from stack import Stack  # noqa: E402

REPORT = pytest.StashKey[pytest.TestReport]()
SWITCH = "STAC_WATCH_TEST_CLUSTER"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cluster: needs the real Kubernetes with both Argos (make test-cluster)")
    config.addinivalue_line("markers", "cluster_long: a minute or more each (left out by make test-cluster BRIEF=1)")
    config.addinivalue_line("markers", "cluster_gitops: needs parts of Flux and Argo CD, too (make test-gitops)")
    config.addinivalue_line("markers", "cluster_rebuild: kills the cluster and brings it up again (make test-cluster-rebuild)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    asked = os.environ.get(SWITCH, "")
    for item in items:
        if item.get_closest_marker("cluster_rebuild") and asked != "rebuild":
            item.add_marker(pytest.mark.skip(reason="kills the cluster; run `make test-cluster-rebuild`"))
        elif item.get_closest_marker("cluster_gitops") and asked != "gitops":
            item.add_marker(pytest.mark.skip(reason="needs parts of Flux and Argo CD; run `make test-gitops`"))
        elif item.get_closest_marker("cluster_long") and asked == "brief":
            item.add_marker(pytest.mark.skip(reason="takes a minute or more; run `make test-cluster`"))
        elif item.get_closest_marker("cluster") and not asked:
            item.add_marker(pytest.mark.skip(reason="needs the real cluster; run `make test-cluster`"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Lets fixtures know how the test went."""
    report = yield
    if report.when == "call":
        item.stash[REPORT] = report
    return report


@pytest.fixture(scope="session")
def places() -> Places:
    return Places.from_environment(os.environ)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe.load()


@pytest.fixture(scope="session")
def release(places: Places) -> str:
    """The tag of our own images."""
    return places.release


@pytest.fixture(scope="session")
def kubectl(places: Places, recipe: Recipe) -> Kubectl:
    """Tells and asks the cluster: the one that KUBECONFIG names, else the one that is made here."""
    named = os.environ.get("KUBECONFIG")
    own = Kubectl(Binaries(places, recipe)("kubectl"), places.state / "admin.conf")
    found = shutil.which("kubectl")
    ask = Kubectl(Path(found), Path(named)) if named and found and Path(named) != own.kubeconfig else own
    assert ask.kubeconfig.exists(), "the cluster is down: make cluster-up"
    assert ask.is_ready(), f"the API server of {ask.kubeconfig} does not answer: make cluster-up"
    return ask


@pytest.fixture(scope="session")
def helm(places: Places, recipe: Recipe) -> Helm:
    """Runs Helm: `helm("template", …)` -> what it said."""
    return Helm(Binaries(places, recipe)("helm"))


@pytest.fixture(scope="session")
def judges(places: Places, recipe: Recipe) -> Binaries:
    """What judges manifests: programs, schemas and CRDs of others."""
    if not all(is_built(places, judge) for judge in recipe.judges.values()):
        assert os.environ.get("CI") != "true", "make test-cluster builds them"
        pytest.skip("not built: (cd tests/cluster && python -m harness judges)")
    return Binaries(places, recipe)


@pytest.fixture(scope="session")
def is_own_cluster(places: Places) -> bool:
    """Whether it is the cluster that is made here."""
    named = os.environ.get("KUBECONFIG")
    return not named or Path(named) == places.state / "admin.conf"


@pytest.fixture
def own_cluster(is_own_cluster: bool) -> None:
    """For what only holds for the cluster that is made here."""
    if not is_own_cluster:
        pytest.skip(f"KUBECONFIG names another cluster: {os.environ['KUBECONFIG']}")


@pytest.fixture(scope="session")
def harness() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs the harness's command line; its output is in the assertion when it fails."""
    without_proxy = {k: v for k, v in os.environ.items() if k.lower() not in {"http_proxy", "https_proxy", "kubeconfig"}}

    def run(*arguments: str, check: bool = True, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, "-m", "harness", *arguments]
        done = subprocess.run(argv, cwd=HERE, env={**without_proxy, **(env or {})}, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def namespace(kubectl: Kubectl, places: Places, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace with the restricted Pod Security Standard enforced, removed afterwards."""
    name = "test-" + request.node.name.replace("_", "-")[5:45].strip("-")
    kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=120s")
    kubectl.namespace(name, {"pod-security.kubernetes.io/enforce": "restricted"})
    kubectl.wait_for(30, f"no service account in {name}", "-n", name, "get", "serviceaccount", "default")
    yield name
    report = request.node.stash.get(REPORT, None)
    if report is not None and report.failed:
        _keep_evidence(kubectl, name, places.root / "var" / "cluster-evidence" / request.node.name)
    kubectl("delete", "namespace", name, "--wait=false")


def _keep_evidence(kubectl: Kubectl, namespace: str, folder: Path) -> None:
    """Objects, events and logs of a namespace, for whoever looks why a test failed."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = "pods,pvc,workflows,eventbus,eventsources,sensors"
    (folder / "objects.yaml").write_text(kubectl("-n", namespace, "get", kinds, "-o", "yaml"))
    (folder / "events.txt").write_text(kubectl("-n", namespace, "get", "events", "--sort-by=.lastTimestamp"))
    for pod in kubectl.get("pods", "-n", namespace)["items"]:
        name = pod["metadata"]["name"]
        argv = [kubectl.binary, "-n", namespace, "logs", name, "--all-containers", "--prefix"]
        log = subprocess.run(
            argv, env={**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)}, capture_output=True, text=True, check=False
        )
        (folder / f"{name}.log").write_text(log.stdout + log.stderr)


@pytest.fixture(scope="session")
def port_forward(kubectl: Kubectl) -> Callable[..., Any]:
    """Forwards a free loopback port to a service; the value is the port."""
    return kubectl.forward


@pytest.fixture(scope="session")
def installed(
    kubectl: Kubectl, release: str, port_forward: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """stac-watch as an installation has it, put up once and shared: each test has items of its own."""
    values = {"backup": {"size": "1Gi"}}
    stack = Stack(kubectl, "stac-watch-tests", tmp_path_factory.mktemp("manifests"), release, port_forward, values=values)
    stack.up()
    yield stack
    stack.down()


@pytest.fixture
def stack(installed: Stack, places: Places, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The installation; what it looked like is kept when the test fails."""
    yield installed
    report = request.node.stash.get(REPORT, None)
    if report is not None and report.failed:
        installed.keep_evidence(places.root / "var" / "cluster-evidence" / request.node.name)
