"""The same targets with docker and podman, for real: an image is built and pushed to a registry, and docker runs it."""

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import engines
import pytest
from lab import ROOT, Lab, release

pytestmark = pytest.mark.images
TAG = "test-builders"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture(scope="module")
def tools(lab: Lab) -> None:
    lab.install(engines.DEBIAN)


@pytest.fixture(scope="module")
def registry(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engines.registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(params=["docker", "podman"])
def builder(request: pytest.FixtureRequest, tools: None, lab: Lab, tmp_path: Path) -> Iterator[tuple[str, Lab]]:
    """The builder's name, and the lab where it answers and has the base image."""
    base = lab.recipe.base["image"]
    if request.param == "podman":  # shares buildah's store; docker speaks plain HTTP to loopback without being told
        (tmp_path / "registries.conf").write_text('[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n')
        yield "podman", replace(lab, environ={**lab.environ, "CONTAINERS_REGISTRIES_CONF": f"{tmp_path}/registries.conf"})
        return
    with engines.docker(tmp_path) as env:
        docker = replace(lab, environ={**lab.environ, **env})
        docker.call("buildah", "push", "--quiet", base, f"docker-archive:{tmp_path}/base.tar:{base}")
        docker.call("docker", "load", "--input", f"{tmp_path}/base.tar")
        yield "docker", docker


def test_an_image_is_built_pushed_and_runs(builder: tuple[str, Lab], registry: str, tmp_path: Path):
    name, lab = builder
    image = f"{registry}/stac-watch"
    options = (f"BUILDER={name}", f"TAG={TAG}-{name}", f"POLLER_IMAGE={image}")
    lab.make("build-poller", *options)
    bill = json.loads((ROOT / "build" / "images" / f"stac-watch-{TAG}-{name}.cdx.json").read_text())
    assert {"pystac-client", "kubernetes"} <= {entry["name"] for entry in bill["components"]}
    tagged = f"{image}:{TAG}-{name}"

    lab.call(name, "tag", tagged, f"{registry}/geozarr-runner:{TAG}-{name}")  # both are pushed; one is built here
    lab.make("push", *options, f"IMAGE={registry}/geozarr-runner")
    for pushed in ("stac-watch", "geozarr-runner"):
        request = urllib.request.Request(f"http://{registry}/v2/{pushed}/manifests/{TAG}-{name}", headers={"Accept": MANIFEST})
        with urllib.request.urlopen(request, timeout=30) as answer:
            manifest = json.load(answer)
        with urllib.request.urlopen(f"http://{registry}/v2/{pushed}/blobs/{manifest['config']['digest']}", timeout=30) as answer:
            config = json.load(answer)["config"]
        assert config["User"] == "10001:10001"
        assert config["Labels"]["org.opencontainers.image.version"] == release()

    if name == "docker":  # in a container of its own, as the pods' securityContext has it
        said = lab.call("docker", "run", "--rm", "--read-only", "--network=none", "--cap-drop=ALL", "--tmpfs=/tmp",
                        "--security-opt=no-new-privileges", tagged, "--version").stdout  # fmt: skip
        assert said == f"stac-watch {release()}\n"
