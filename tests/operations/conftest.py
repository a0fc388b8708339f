"""What the tests of the operator's verbs share: the server that answers like Kubernetes, and the command line beside it."""

import os

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
def cluster_verb(stac_watch, environ):
    """Calls `stac-watch cluster VERB` as who has the kubeconfig of this server."""

    def run(*arguments, code=0):
        said = stac_watch("cluster", *arguments, f"--config={ROOT}/deploy/base/stac-watch.yaml", **environ)
        assert said.code == code, said.said
        return said

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
