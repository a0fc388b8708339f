"""Installs Argo Events and Argo Workflows from the manifests inside their Go modules, and an S3 server for tests.

Upstream's manifests are unchanged; what differs are kustomize patches, listed in `_patches`, each with its reason. The images have
their official names in containerd, and the namespace for our runs enforces the restricted Pod Security Standard.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from harness import layers
from harness.cluster import fingerprint, kubectl
from harness.commands import HarnessError
from harness.kubectl import Kubectl
from harness.layers import Image
from harness.places import HARNESS, Binaries, Places, Recipe
from harness.progress import Steps

EVENTS, WORKFLOWS, OURS, S3 = "argo-events", "argo", "geozarr", "s3"  #: namespaces
DEPLOYMENTS = {EVENTS: ["controller-manager"], WORKFLOWS: ["workflow-controller", "argo-server"], S3: ["s3"]}
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
    "pod-security.kubernetes.io/warn": "restricted",
}
S3_KEY, S3_SECRET = "stac-watch-test", "only-for-tests"  # of a server that only this cluster's pods reach
UID = "8737"  #: Argo's own user; its manifests say runAsNonRoot, so the images must name one


def install(places: Places, recipe: Recipe, steps: Steps, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Idempotent: images that are there stay, manifests are applied server-side. `meanwhile` runs while the pods start."""
    ask = kubectl(places, recipe)
    binaries = Binaries(places, recipe)
    have = set(layers.names(places))
    for image in images(recipe, binaries):
        if image.name not in have:
            with steps.step(f"image {image.name}"):
                layers.make(places, image)
    if _is_installed(places, recipe, ask):
        steps.say("both Argos and the S3 server are there already")
        meanwhile()
        return
    _apply(places, recipe, steps, ask, binaries)
    meanwhile()
    with steps.step("controllers, argo-server, S3") as detail:
        for namespace, names in DEPLOYMENTS.items():
            ask.roll_out(namespace, *names, log=places.logs / "argo.log", on_line=detail)
    (places.state / "argo.json").write_text(json.dumps({"harness": _fingerprint(recipe)}))


def _apply(places: Places, recipe: Recipe, steps: Steps, ask: Kubectl, binaries: Binaries) -> None:
    with steps.step(f"Argo Events {recipe.version('argo-events')}, Argo Workflows {recipe.version('argo-workflows')}") as detail:
        for name, labels in ((EVENTS, {}), (WORKFLOWS, {}), (OURS, RESTRICTED), (S3, RESTRICTED)):
            ask.namespace(name, labels)
        ask.apply_addon("s3", {"rclone": _rclone(recipe), "s3_key": S3_KEY, "s3_secret": S3_SECRET})
        for component, namespace in (("argo-events", EVENTS), ("argo-workflows", WORKFLOWS)):
            detail(f"apply {component}")
            overlay = _overlay(places, recipe, binaries, component, namespace)
            ask("apply", "--server-side", "--force-conflicts", "-k", overlay)


def _is_installed(places: Places, recipe: Recipe, ask: Kubectl) -> bool:
    """Whether these versions were applied to this cluster by this code, and run: applying takes half a minute."""
    record = places.state / "argo.json"
    if not record.exists() or json.loads(record.read_text()).get("harness") != _fingerprint(recipe):
        return False
    ready = "--for=condition=Available", "--timeout=1s"
    return all(ask.answers("-n", n, "wait", *(f"deploy/{d}" for d in names), *ready) for n, names in DEPLOYMENTS.items())


def _fingerprint(recipe: Recipe) -> str:
    """Changes with the versions, and with what this module and its addons say."""
    said = Path(__file__).read_bytes() + (HARNESS / "addons" / "s3.yaml").read_bytes()
    return f"{fingerprint(recipe)}-{hashlib.sha256(said).hexdigest()[:16]}"


def images(recipe: Recipe, binaries: Binaries) -> list[Image]:
    """What the official manifests name, made from the binaries."""
    events, workflows = recipe.version("argo-events"), recipe.version("argo-workflows")
    busybox = Path("/bin/busybox")
    bus = _event_bus_images(binaries.kept("argo-events", "manifests"), recipe.version("nats"))
    shell = dict.fromkeys(("/bin/busybox", "/bin/sh", "/bin/sleep"), busybox)
    own = [
        Image(f"quay.io/argoproj/argo-events:v{events}", ["/bin/argo-events"], {"/bin/argo-events": binaries("argo-events")}),
        Image(
            f"quay.io/argoproj/workflow-controller:v{workflows}",
            ["workflow-controller"],
            {"/bin/workflow-controller": binaries("workflow-controller")},
            UID,
        ),
        Image(f"quay.io/argoproj/argoexec:v{workflows}", ["argoexec"], {"/bin/argoexec": binaries("argoexec")}),
        Image(f"quay.io/argoproj/argocli:v{workflows}", ["argo"], {"/bin/argo": binaries("argo")}, UID),
        Image(bus["natsImage"], ["/nats-server"], {"/nats-server": binaries("nats-server"), **shell}),
        Image(_rclone(recipe), ["/bin/rclone"], {"/bin/rclone": binaries("rclone")}, folders=("/tmp", "/data")),
    ]
    sidecars = {"metricsExporterImage": "/bin/prometheus-nats-exporter", "configReloaderImage": "/bin/nats-server-config-reloader"}
    return own + [Image(bus[key], [path], {path: binaries("waiter")}) for key, path in sidecars.items()]


def _rclone(recipe: Recipe) -> str:
    return f"stac-watch.test/rclone:{recipe.version('rclone')}"


def _event_bus_images(manifests: Path, nats: str) -> dict[str, str]:
    """The images that the controller's own configuration maps one JetStream version to, under their full names."""
    text = (manifests / "base/controller-manager/controller-config.yaml").read_text()
    config = yaml.safe_load(yaml.safe_load(text)["data"]["controller-config.yaml"])
    for entry in config["eventBus"]["jetstream"]["versions"]:
        if entry["version"] == nats:
            return {key: _full(value) for key, value in entry.items() if key.endswith("Image")}
    raise HarnessError(
        f"Argo Events maps no JetStream version {nats}.", hint="Take one of its versions for [components.nats] in versions.toml."
    )


def _full(image: str) -> str:
    return f"docker.io/{image}" if "/" in image else f"docker.io/library/{image}"


def _overlay(places: Places, recipe: Recipe, binaries: Binaries, component: str, namespace: str) -> Path:
    """A kustomization over the module's cluster-wide installation."""
    overlay = places.state / "overlays" / component
    overlay.mkdir(parents=True, exist_ok=True)
    base = binaries.kept(component, "manifests") / "cluster-install"
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [os.path.relpath(base.resolve(), overlay.resolve())],
        "images": [
            {"name": f"quay.io/argoproj/{i}", "newTag": f"v{recipe.version(component)}"}
            for i in ("argocli", "workflow-controller", "argo-events")
        ],
        "patches": [{"patch": json.dumps(patch)} for patch in _patches(component)],
    }
    (overlay / "kustomization.yaml").write_text(json.dumps(kustomization, indent=1))
    return overlay


def _patches(component: str) -> list[dict[str, Any]]:
    if component == "argo-events":
        # Images are made here, so nothing can be pulled: neither by the controller nor by the pods that it makes.
        container = {
            "name": "controller-manager",
            "imagePullPolicy": "IfNotPresent",
            "env": [{"name": "IMAGE_PULL_POLICY", "value": "IfNotPresent"}],
        }
        pod = {"spec": {"template": {"spec": {"containers": [container]}}}}
        return [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "controller-manager"}, **pod}]
    # Nothing else: ours must be safe under a controller that knows nothing of it, as one shared with others is.
    config = {"executor": "imagePullPolicy: IfNotPresent\n"}
    # By default the controller looks at a Workflow every 10 s: a run of three steps takes 40 s, whatever they do.
    container = {"name": "workflow-controller", "env": [{"name": "DEFAULT_REQUEUE_TIME", "value": "1s"}]}
    pod = {"spec": {"template": {"spec": {"containers": [container]}}}}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "workflow-controller-configmap"}, "data": config},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "workflow-controller"}, **pod},
    ]


def require(ask: Kubectl) -> list[str]:
    """For a cluster that exists: what of Argo is there, as lines; raises HarnessError naming what is missing."""
    if not ask.is_ready():
        raise HarnessError("The cluster that KUBECONFIG names does not answer.", hint="Try: kubectl get --raw /readyz")
    kinds = ("workflows", "workflowtemplates", "eventbus", "eventsources", "sensors")
    missing = [f"{kind}.argoproj.io" for kind in kinds if not ask.answers("get", "crd", f"{kind}.argoproj.io")]
    if missing:
        raise HarnessError(
            f"The cluster lacks {', '.join(missing)}.",
            hint="Install Argo Events and Argo Workflows first (CONTRIBUTING.md).",
        )
    found = []
    for item in ask.get("deployments", "-A")["items"]:
        for container in item["spec"]["template"]["spec"]["containers"]:
            if re.search(r"argoproj/(argo-events|workflow-controller|argocli)", container["image"]):
                ready = item.get("status", {}).get("readyReplicas", 0)
                found.append(f"{item['metadata']['namespace']}/{item['metadata']['name']}  {container['image']}  ready {ready}")
    if not any("argo-events" in line for line in found) or not any("workflow-controller" in line for line in found):
        raise HarnessError("Argo's definitions are there, but a controller is not.", hint="Look at: kubectl get deployments -A")
    return found
