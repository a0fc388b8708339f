"""make's targets on the real cluster: what they apply is what the API server takes, in the versions that run."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from harness import layers
from harness.commands import attempt, capture
from harness.images import store_environment
from harness.kubectl import Kubectl
from harness.node import socket
from harness.places import Binaries, Places, Recipe

pytestmark = pytest.mark.cluster


def make(kubectl: Kubectl, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    env = {
        **os.environ,
        **more,
        "KUBECONFIG": str(kubectl.kubeconfig),
        "PATH": f"{Path(kubectl.binary).parent}:{os.environ['PATH']}",
    }
    root = Path(__file__).parents[2]
    return subprocess.run(["make", *arguments], cwd=root, env=env, capture_output=True, text=True, check=False, timeout=300)


def test_argo_install_from_the_modules_manifests(kubectl: Kubectl, places: Places, recipe: Recipe, own_cluster: None):
    kept = Binaries(places, recipe).kept
    workflows = kept("argo-workflows", "manifests") / "cluster-install"
    events = kept("argo-events", "manifests") / "install.yaml"
    said = make(kubectl, "argo-install", "DRY_RUN=server", f"ARGO_WORKFLOWS_MANIFEST={workflows}", f"ARGO_EVENTS_MANIFEST={events}")
    assert said.returncode == 0, said.stderr
    for name in (
        "deployment.apps/workflow-controller",
        "deployment.apps/controller-manager",
        "configmap/workflow-controller-configmap",
    ):
        assert f"{name} serverside-applied (server dry run)" in said.stdout


def test_template_in_another_namespace_with_another_image(kubectl: Kubectl, namespace: str):
    said = make(kubectl, "template", f"NAMESPACE={namespace}", "IMAGE=ghcr.io/you/geozarr-runner", "TAG=abc")
    assert said.returncode == 0, said.stderr
    template = json.loads(kubectl("-n", namespace, "get", "workflowtemplate", "geozarr-convert", "-o", "json"))
    images = {step["container"]["image"] for step in template["spec"]["templates"] if "container" in step}
    assert images == {"ghcr.io/you/geozarr-runner:abc"}


@pytest.mark.parametrize("overlay", ["k3d", "production"])
def test_deploy_is_taken_whole(kubectl: Kubectl, overlay: str):
    said = make(kubectl, "deploy", f"OVERLAY={overlay}", "DRY_RUN=server", "TAG=abc")
    assert said.returncode == 0, said.stderr
    for name in ("deployment.apps/stac-watch", "sensor.argoproj.io/geozarr", "workflowtemplate.argoproj.io/geozarr-convert"):
        assert f"{name} serverside-applied (server dry run)" in said.stdout


@pytest.mark.cluster_long
def test_load_brings_both_images_to_the_cluster(kubectl: Kubectl, places: Places, release: str, own_cluster: None):
    """From the store that `make build` builds into, under another tag, so that nothing but this can have brought them."""
    store, names = store_environment(places), ("stac-watch", "geozarr-runner")
    for name in names:  # the archive stays when the store is gone or was built into since
        capture(["buildah", "pull", "--quiet", f"docker-archive:{places.cache / 'images' / name}.tar"], env=store)
        capture(["buildah", "tag", f"docker.io/library/{name}:{release}", f"docker.io/library/{name}:test-load"], env=store)
    try:
        said = make(kubectl, "load", "BUILDER=buildah", "TAG=test-load", **store)
        assert said.returncode == 0, said.stderr
        assert {f"docker.io/library/{name}:test-load" for name in names} <= set(layers.names(places))
    finally:
        for name in names:
            attempt(["buildah", "rmi", f"docker.io/library/{name}:test-load"], env=store)
            argv = ["ctr", "--address", socket(places), "--namespace", "k8s.io", "images", "rm"]
            attempt([*argv, f"docker.io/library/{name}:test-load"])
