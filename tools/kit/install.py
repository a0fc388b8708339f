"""Puts both Argos, the WorkflowTemplate and the deploy kit into the cluster that kubectl talks to.

It says what is still missing, with the command that makes it. Upstream's manifests are unchanged, and no Secret or kubeconfig is
made.
"""

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import KitError, attempt, capture, need, run

KUBECTL = "Install it: https://kubernetes.io/docs/tasks/tools/"
APPLY = ("kubectl", "apply", "--server-side")
OURS = (*APPLY, "--force-conflicts")  #: for objects that nobody else can own
VERSIONS = Path("tests/cluster/harness/versions.toml")  #: nowhere else is a version of Argo written down


@dataclass(frozen=True)
class Argo:
    """One of the two Argos."""

    component: str  #: its name in versions.toml
    namespace: str
    url: str  #: of the official manifest, with {version}
    images: tuple[str, ...]
    deployments: tuple[str, ...]


ARGOS = (
    Argo(
        "argo-workflows", "argo", "https://github.com/argoproj/argo-workflows/releases/download/v{version}/install.yaml",
        ("quay.io/argoproj/workflow-controller", "quay.io/argoproj/argocli"), ("workflow-controller", "argo-server"),
    ),
    Argo(
        "argo-events", "argo-events", "https://raw.githubusercontent.com/argoproj/argo-events/v{version}/manifests/install.yaml",
        ("quay.io/argoproj/argo-events",), ("controller-manager",),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """Where to, and how; "" = as the manifests say."""

    namespace: str = ""
    images: Mapping[str, str] | None = None  #: short name in the manifests -> whole reference
    dry_run: str = ""  #: "server" or "client": changes nothing


def argo_install(root: Path, sources: Mapping[str, str], target: Target) -> None:
    """Applies both official manifests, and what the Argo UI shows of ours (deploy/argo); an Argo that is there is not changed.

    `sources` maps a component to a file, a URL or a kustomize folder that replaces the official address, for clusters and machines
    that cannot reach GitHub.

    Raises:
        KitError: kubectl, the cluster or a source is missing; another Argo is there; a controller did not come up.
    """
    _require_cluster()
    versions = tomllib.loads((root / VERSIONS).read_text())["components"]
    for argo in ARGOS:
        _require_none_but(argo, str(versions[argo.component]["version"]))
    for argo in ARGOS:
        version = str(versions[argo.component]["version"])
        source = sources.get(argo.component) or argo.url.format(version=version)
        print(f"{argo.component} {version} from {source}", flush=True)
        _namespace(argo.namespace, target)
        folder = Path(source)
        if folder.is_dir():
            tags = [{"name": image, "newTag": f"v{version}"} for image in argo.images]
            with _kustomization({"namespace": argo.namespace, "images": tags}, folder) as made:
                _apply(["-k", made], target)
        else:
            hint = f"{argo.component.upper().replace('-', '_')}_MANIFEST=FILE, URL or folder takes it from elsewhere."
            _apply(["--namespace", argo.namespace, "-f", source], target, hint=hint)
    hint = "Others own these settings: put columns and links into their file (docs/deploy.md), nothing else depends on them."
    run([*APPLY, *_dry(target), "-k", root / "deploy" / "argo"], hint=hint)
    if not target.dry_run:
        for argo in ARGOS:
            for name in argo.deployments:
                run(["kubectl", "--namespace", argo.namespace, "rollout", "status", f"deployment/{name}", "--timeout=300s"],
                    hint=f"kubectl --namespace {argo.namespace} get events --sort-by=.lastTimestamp")  # fmt: skip


def template(root: Path, target: Target) -> None:
    """Applies the WorkflowTemplate alone.

    Raises:
        KitError: kubectl, the cluster, the namespace or Argo Workflows is missing.
    """
    _require_cluster()
    _require_kinds("workflowtemplates")
    with _overlay(root, root / "workflows", target) as folder:
        namespaces = {entry["metadata"].get("namespace", "default") for entry in _objects(folder)}
        for name in sorted(namespaces):
            if attempt(["kubectl", "get", "namespace", name]).returncode:
                hint = f"make deploy makes it, and all else; or: kubectl create namespace {name}"
                raise KitError(f"The cluster has no namespace {name}.", hint=hint)
        _apply(["-k", folder], target)


def deploy(root: Path, overlay: str, target: Target) -> None:
    """Applies an overlay, and says which Secrets it still waits for.

    Raises:
        KitError: the overlay is not there; kubectl, the cluster or an Argo is missing.
    """
    overlays = root / "deploy" / "overlays"
    there = sorted(path.name for path in overlays.iterdir() if (path / "kustomization.yaml").exists())
    if overlay not in there:
        raise KitError(f"There is no overlay {overlay}.", hint=f"OVERLAY= one of: {', '.join(there)}.")
    _require_cluster()
    _require_kinds("workflowtemplates", "eventbus", "eventsources", "sensors")
    with _overlay(root, overlays / overlay, target) as folder:
        objects = _objects(folder)
        _apply(["-k", folder], target)
    _let_reach_the_api(root, objects, target)
    missing = list(_missing_secrets(objects))
    for line in missing:
        print(line)
    if missing:
        print("The pods that need them wait until they are there.")
    elif not target.dry_run:
        print("Look: kubectl get pods --all-namespaces -l app.kubernetes.io/part-of=stac-watch")


def _let_reach_the_api(root: Path, objects: Sequence[Mapping[str, Any]], target: Target) -> None:
    """Applies the policy that names the API's addresses in this cluster, where the overlay denies all and has none."""
    policies = {(o["metadata"]["name"], o["metadata"].get("namespace", "default")) for o in objects if o["kind"] == "NetworkPolicy"}
    for namespace in sorted(space for name, space in policies if name == "default-deny" and ("api-server", space) not in policies):
        program = root / ".venv" / "bin" / "stac-watch"
        verb = [program, "cluster", "api-server", f"--namespace={namespace}", f"--config={root / 'deploy/base/stac-watch.yaml'}"]
        if not program.exists():
            print(
                "then: stac-watch cluster api-server | kubectl apply -f -   # pods reach the Kubernetes API with it (make install)"
            )
            return
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(capture(verb, hint="make doctor"))
            file.flush()
            _apply(["-f", file.name], target)


def _require_cluster() -> None:
    need("kubectl", KUBECTL)
    asked = attempt(["kubectl", "get", "--raw", "/readyz", "--request-timeout=10s"])
    if asked.returncode:
        context = attempt(["kubectl", "config", "current-context"]).stdout.strip() or "none"
        raise KitError(
            f"No cluster answers (context: {context}): {asked.stderr.strip()[-300:]}",
            hint="Make one: make k3d-up, or, on Debian without Docker: make cluster-up. Or choose: kubectl config use-context …",
        )


def _require_kinds(*names: str) -> None:
    missing = [name for name in names if attempt(["kubectl", "get", "crd", f"{name}.argoproj.io"]).returncode]
    if missing:
        raise KitError(f"The cluster does not know {', '.join(missing)}.", hint="Install both Argos first: make argo-install")


def _require_none_but(argo: Argo, version: str) -> None:
    """Refuses where the component runs already in another version or elsewhere: others may depend on it."""
    text = attempt(["kubectl", "get", "deployments", "--all-namespaces", "--output", "json"]).stdout
    for deployment in (json.loads(text) if text.strip().startswith("{") else {}).get("items", []):
        namespace = deployment["metadata"]["namespace"]
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            name, _, tag = container["image"].rpartition(":")
            serves = {"eventsource-service", "sensor-service"} & {*container.get("args", [])}  # made by it, of the same image
            known = name.endswith(argo.images[0].rpartition("/")[2]) and not serves
            if known and (namespace, tag) != (argo.namespace, f"v{version}"):
                raise KitError(
                    f"{argo.component} is there already: {container['image']} in namespace {namespace}.",
                    hint="Use it as it is (make deploy, make doctor), or change it with what installed it.",
                )


def _namespace(name: str, target: Target) -> None:
    if attempt(["kubectl", "get", "namespace", name]).returncode:
        run(["kubectl", "create", "namespace", name, *_dry(target)])


def _apply(what: Sequence[str | Path], target: Target, hint: str = "") -> None:
    run([*OURS, *_dry(target), *what], hint=hint)


def _dry(target: Target) -> list[str]:
    if target.dry_run not in {"", "server"}:
        raise KitError(f"DRY_RUN={target.dry_run} is not known.", hint="DRY_RUN=server asks the cluster and changes nothing.")
    return ["--dry-run=server"] if target.dry_run else []


@contextmanager
def _overlay(root: Path, base: Path, target: Target) -> Iterator[Path]:
    """The folder itself, or one over it with another namespace or other images."""
    extra: dict[str, Any] = {"configurations": ["kustomizeconfig.yaml"]}
    if target.namespace:
        extra["namespace"] = target.namespace
    if target.images:
        split = {short: whole.rpartition(":") for short, whole in target.images.items()}
        extra["images"] = [{"name": short, "newName": name, "newTag": tag} for short, (name, _, tag) in split.items()]
    if not (target.namespace or target.images):
        yield base
        return
    with _kustomization(extra, base) as folder:
        # tells kustomize where a WorkflowTemplate names its images
        config = root / "deploy" / "overlays" / "k3d" / "kustomizeconfig.yaml"
        (folder / config.name).write_text(config.read_text())
        yield folder


@contextmanager
def _kustomization(extra: Mapping[str, Any], base: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="stac-watch-") as made:
        folder = Path(made).resolve()
        content = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **extra,
            "resources": [os.path.relpath(base.resolve(), folder)],
        }  # fmt: skip
        (folder / "kustomization.yaml").write_text(json.dumps(content, indent=1))
        yield folder


def _objects(folder: Path) -> list[dict[str, Any]]:
    """What a kustomization renders."""
    text = capture(["kubectl", "create", "--dry-run=client", "--output", "json", "-k", folder])
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    while text := text.lstrip():  # one document after the other
        document, end = decoder.raw_decode(text)
        found += document["items"] if document["kind"] == "List" else [document]
        text = text[end:]
    return found


def _missing_secrets(objects: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each Secret that is referred to, is not optional and not there."""
    wanted: dict[tuple[str, str], set[str]] = {}
    for entry in objects:
        namespace = entry["metadata"].get("namespace", "default")
        for name, key in _secrets(entry):
            wanted.setdefault((namespace, name), set()).add(key)
    for (namespace, name), keys in sorted(wanted.items()):
        if attempt(["kubectl", "--namespace", namespace, "get", "secret", name]).returncode:
            options = " ".join(f"--from-file={key}=FILE" for key in sorted(keys) if key) or "--from-file=FILE"
            yield f"missing: kubectl --namespace {namespace} create secret generic {name} {options}"


def _secrets(node: object) -> Iterator[tuple[str, str]]:
    """(Secret, key) of every reference below a node; the forms that pods and Argo Events have."""
    if isinstance(node, Mapping):
        for kind, value in node.items():
            if isinstance(value, Mapping) and not value.get("optional"):
                if re.fullmatch(r"secretKeyRef|\w+Secret", kind) and "name" in value:
                    yield str(value["name"]), str(value.get("key", ""))
                elif kind == "secret" and "secretName" in value:
                    yield str(value["secretName"]), ""
            yield from _secrets(value)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for value in node:
            yield from _secrets(value)
