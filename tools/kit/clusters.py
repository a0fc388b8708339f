"""Brings image archives to a cluster on this machine: k3d, kind, minikube, or the one that `make cluster-up` makes.

Without a word it is the one that kubectl's current context names. It does not guess among several clusters, and touches no remote
one: that takes its images from a registry (`make push`).
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands import Argv, KitError, attempt, need, run

KINDS = ("k3d", "kind", "minikube")
OWN = Path("/var/lib/stac-watch-cluster/admin.conf")  #: KUBECONFIG of the cluster that `make cluster-up` makes
DEFAULT = {"k3d": "stac-watch", "kind": "kind", "minikube": "minikube"}
INSTALL = {
    "k3d": "Install it: https://k3d.io",
    "kind": "Install it: https://kind.sigs.k8s.io",
    "minikube": "Install it: https://minikube.sigs.k8s.io",
}


@dataclass(frozen=True)
class Cluster:
    """One that can take archives."""

    kind: str
    name: str


def find(asked: str, name: str) -> Cluster:
    """The cluster of a kind (`load-k3d`), or the current one (`load`).

    Raises:
        KitError: there is none that takes archives; says what was looked at.
    """
    context = current_context()
    here = _of(context)
    if asked:
        need(asked, INSTALL[asked])
        return Cluster(asked, name or (here.name if here and here.kind == asked else DEFAULT[asked]))
    if here is None:
        looked = f"kubectl's current context is {context}, which is none of these" if context else "kubectl has no current context"
        raise KitError(
            f"No k3d, kind or minikube cluster: {looked}.",
            hint="Make one: make k3d-up. For a remote cluster: make push IMAGE=registry/… POLLER_IMAGE=registry/…",
        )
    if here.kind in INSTALL:
        need(here.kind, INSTALL[here.kind])
    return Cluster(here.kind, name or here.name)


def load(root: Path, cluster: Cluster, archives: Sequence[Path]) -> None:
    """Imports each archive into every node."""
    for archive in archives:
        match cluster.kind:
            case "k3d":
                run(
                    ["k3d", "image", "import", archive, "--cluster", cluster.name],
                    hint=f"Is it up? make k3d-up CLUSTER={cluster.name}",
                )
            case "kind":
                run(["kind", "load", "image-archive", archive, "--name", cluster.name], hint="Is it up? kind get clusters")
            case "minikube":
                run(["minikube", "--profile", cluster.name, "image", "load", archive], hint="Is it up? minikube status")
            case _:
                harness: Argv = [_project_python(root), "-m", "harness", "load", archive]
                run(harness, cwd=root / "tests" / "cluster", hint="Is it up? make cluster-status")


def k3d_up(name: str) -> None:
    """Makes the k3d cluster, or starts the one that is there; its context becomes the current one.

    Raises:
        KitError: k3d or kubectl is missing, or k3d failed.
    """
    k3d = need("k3d", f"{INSTALL['k3d']}. It needs Docker. Without Docker, on Debian: make cluster-up")
    need("kubectl", "Install it: https://kubernetes.io/docs/tasks/tools/")
    name = name or DEFAULT["k3d"]
    listed = attempt([k3d, "cluster", "list", "--output", "json"])
    if listed.returncode:
        raise KitError(f"k3d cannot list its clusters: {listed.stderr.strip()[-500:]}", hint="Is Docker running? docker info")
    if name in {entry["name"] for entry in json.loads(listed.stdout or "[]")}:
        run([k3d, "cluster", "start", name, "--wait"])
        run([k3d, "kubeconfig", "merge", name, "--kubeconfig-merge-default", "--kubeconfig-switch-context"])
    else:
        # Nothing of ours is reached through an ingress, so Traefik would only take memory.
        run([k3d, "cluster", "create", name, "--wait", "--timeout", "300s", "--k3s-arg", "--disable=traefik@server:0"])


def current_context() -> str:
    """What kubectl talks to; "" = nothing."""
    return attempt(["kubectl", "config", "current-context"]).stdout.strip() if _is_there("kubectl") else ""


def _of(context: str) -> Cluster | None:
    for kind in ("k3d", "kind"):
        if context.startswith(f"{kind}-"):
            return Cluster(kind, context.removeprefix(f"{kind}-"))
    if context and os.environ.get("KUBECONFIG") == str(OWN):
        return Cluster("cluster-up", context)
    if context and _is_there("minikube"):  # its contexts are named like its profiles, which may be anything
        listed = attempt(["minikube", "profile", "list", "--output", "json"])
        profiles = json.loads(listed.stdout).get("valid", []) if listed.returncode == 0 else []
        if context in {profile["Name"] for profile in profiles}:
            return Cluster("minikube", context)
    return None


def _is_there(program: str) -> bool:
    try:
        need(program, "")
    except KitError:
        return False
    return True


def _project_python(root: Path) -> Path:
    """The harness needs the project's packages."""
    own = root / ".venv" / "bin" / "python"
    return own if own.exists() else Path(sys.executable)
