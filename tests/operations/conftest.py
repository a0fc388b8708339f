"""What the tests of the operator's verbs share: the server that answers like Kubernetes, and the command line beside it."""

import os
import subprocess
import sys
from pathlib import Path

import kubernetes
import loopback
import pytest
import yaml

from stac_watch.cluster.fetch import Watching
from stac_watch.runs.kubernetes_api import Cluster

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the server is a program beside the tests, not an installed package

from fake_kubernetes import NAMESPACE, ROOT, Api, Handler


@pytest.fixture
def api(tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    return Api(volume=volume)


@pytest.fixture
def server(api):
    with loopback.serving(type("Bound", (Handler,), {"api": api})) as url:
        yield url


@pytest.fixture
def cluster(server):
    client = kubernetes.client.ApiClient(kubernetes.client.Configuration(host=server))
    client.configuration.retries = False
    cluster = Cluster(client, NAMESPACE)
    yield cluster
    cluster.close()


@pytest.fixture
def environ(server, tmp_path):
    """What a person's shell has: a kubeconfig that names the server."""
    kubeconfig = tmp_path / "kubeconfig"
    entry = {"name": "fake"}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "fake",
                "clusters": [{**entry, "cluster": {"server": server}}],
                "users": [{**entry, "user": {"token": "t"}}],
                "contexts": [{**entry, "context": {"cluster": "fake", "user": "fake"}}],
            }
        )
    )  # fmt: skip
    return {**os.environ, "KUBECONFIG": str(kubeconfig)}


@pytest.fixture
def stac_watch(environ):
    """Runs the command line as a person does."""

    def run(*arguments, check=True, text=""):
        argv = [
            sys.executable,
            "-c",
            "import sys; from stac_watch.cli.main import main; sys.exit(main())",
            *arguments,
            f"--config={ROOT}/deploy/base/stac-watch.yaml",
        ]
        done = subprocess.run(argv, env=environ, input=text, capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


class Told:
    """What a fetch tells whoever waits."""

    def __init__(self):
        self.begun, self.bytes, self.pauses = [], 0, 0

    def begin(self, name, size):
        self.begun.append((name, size))

    def advance(self, count):
        self.bytes += count

    def wait(self, _seconds):
        self.pauses += 1
        return False

    @property
    def watching(self):
        return Watching(self.begin, self.advance, self.wait)


@pytest.fixture
def told():
    return Told()
