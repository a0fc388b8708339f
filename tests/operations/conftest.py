"""What the tests of the operator's verbs share: the server that answers like Kubernetes, and the command line beside it."""

import os
import subprocess
import sys

import pytest
from fakes.kubernetes import NAMESPACE, Api, client, serving, write_kubeconfig
from fakes.workflows import ROOT

from stac_watch.cluster.fetch import Watching
from stac_watch.runs.kubernetes_api import Cluster


@pytest.fixture
def api(tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    return Api(volume=volume)


@pytest.fixture
def server(api):
    with serving(api) as url:
        yield url


@pytest.fixture
def cluster(server):
    cluster = Cluster(client(server), NAMESPACE)
    yield cluster
    cluster.close()


@pytest.fixture
def environ(server, tmp_path):
    """What a person's shell has: a kubeconfig that names the server."""
    return {**os.environ, "KUBECONFIG": str(write_kubeconfig(tmp_path / "kubeconfig", server))}


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
