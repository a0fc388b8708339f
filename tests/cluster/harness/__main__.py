"""The command line: `python -m harness VERB`, called by `make cluster-up`, `cluster-down` and `cluster-status`.

Progress goes to standard error; the exit code is 0, or 1 with what failed and the end of its log. A cluster that KUBECONFIG names
is not touched, except to load images with the command that STAC_WATCH_IMAGE_LOAD gives.
"""

import argparse
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console

from harness import argo, cluster, daemons, images, layers, status
from harness.build import build_gitops, build_judges
from harness.commands import HarnessError, stream
from harness.kubectl import Kubectl
from harness.places import Places, Recipe
from harness.progress import Steps

IMAGE_LOAD = "STAC_WATCH_IMAGE_LOAD"


def main() -> int:
    """Runs one verb."""
    arguments = _parser().parse_args()
    places = Places.from_environment(os.environ)
    steps = Steps(Console(stderr=True))
    began = time.monotonic()
    try:
        foreign = _foreign(places)
        if foreign:
            _with_existing(arguments, places, steps, foreign)
        else:
            _with_own(arguments, places, steps)
    except HarnessError as failed:
        steps.say(f"\n{failed}")
        return 1
    except KeyboardInterrupt:
        steps.say("interrupted; the same command starts over cleanly")
        return 130
    steps.say(f"{arguments.verb}: done in {time.monotonic() - began:.1f} s")
    return 0


def _with_own(arguments: argparse.Namespace, places: Places, steps: Steps) -> None:
    recipe = Recipe.load()
    match arguments.verb:
        case "build" | "judges" | "gitops":
            _build(places, recipe, steps, arguments.verb)
        case "up":
            cluster.up(places, recipe, steps)
            if not arguments.bare:
                argo.install(places, recipe, steps, meanwhile=lambda: images.load(places, recipe, steps, list(recipe.images)))
            steps.say(f"export KUBECONFIG={places.state / 'admin.conf'}")
        case "argo":
            argo.install(places, recipe, steps)
        case "images":
            images.load(places, recipe, steps, arguments.names or list(recipe.images))
        case "load":
            steps.say(layers.load(places, arguments.archive).strip())
        case "daemon":
            daemons.act(places, arguments.action, arguments.name)
        case "status":
            status.show(places, recipe, steps.console)
        case "down":
            cluster.down(places, steps)


def _build(places: Places, recipe: Recipe, steps: Steps, verb: str) -> None:
    """All that takes long the first time: of the cluster, or of what `verb` names beside it."""
    if verb == "gitops":
        build_gitops(places, recipe, steps)
        return
    build_judges(places, recipe, steps)
    if verb == "judges":
        return
    cluster.prepare(places, recipe, steps)
    for name in recipe.images:
        images.build(places, recipe, steps, name)


def _with_existing(arguments: argparse.Namespace, places: Places, steps: Steps, kubeconfig: Path) -> None:
    binary = shutil.which("kubectl")
    if binary is None:
        raise HarnessError(
            "KUBECONFIG names a cluster, and kubectl is not on PATH.",
            hint="Install kubectl, or unset KUBECONFIG to build a cluster here.",
        )
    match arguments.verb:
        case "up" | "argo" | "status":
            steps.say(f"using the cluster of KUBECONFIG={kubeconfig}; nothing is built, nothing in it is changed")
            for line in argo.require(Kubectl(Path(binary), kubeconfig)):
                steps.say(f"  {line}")
        case "judges" | "gitops":
            steps.say(f"{arguments.verb}: nothing is built for a cluster that is there; what needs it is skipped")
        case "load":
            _load_existing(arguments.archive, places)
        case "images":
            recipe = Recipe.load()
            for name in arguments.names or list(recipe.images):
                _load_existing(images.build(places, recipe, steps, name)[0], places)
        case verb:
            hint = f"Unset KUBECONFIG to work with the cluster that is made here ({places.state / 'admin.conf'})."
            raise HarnessError(f"`{verb}` is for the cluster that is made here; KUBECONFIG names another: {kubeconfig}.", hint=hint)


def _load_existing(archive: Path, places: Places) -> None:
    command = shlex.split(os.environ.get(IMAGE_LOAD, ""))
    if not command:
        raise HarnessError(
            f"How images get into that cluster is not known; the archive is {archive}.",
            hint=f'For example: {IMAGE_LOAD}="k3d image import"',
        )
    stream([*command, archive], log=places.build_logs / "image-load.log")


def _foreign(places: Places) -> Path | None:
    """The kubeconfig of a cluster that is not ours, when the environment names one."""
    named = os.environ.get("KUBECONFIG", "")
    if not named or Path(named).absolute() == places.state / "admin.conf":
        return None
    return Path(named)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="harness", description="A real Kubernetes with both Argos on this machine.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("build", help="compile and install what is missing, and build our images")
    up = verbs.add_parser("up", help="bring up the cluster, both Argos, S3 and our images")
    up.add_argument("--bare", action="store_true", help="Kubernetes only")
    verbs.add_parser("judges", help="compile and fetch what judges the manifests: kubeconform, kube-score, schemas, CRDs")
    verbs.add_parser("gitops", help="compile what installs the chart as GitOps does: Flux's helm-controller, Argo CD's comparison")
    verbs.add_parser("argo", help="install both Argos and the S3 server")
    own = verbs.add_parser("images", help="build our images when their inputs changed, and load them")
    own.add_argument("names", nargs="*", metavar="NAME")
    load = verbs.add_parser("load", help="load a docker-archive or OCI archive")
    load.add_argument("archive", type=Path, metavar="TAR")
    daemon = verbs.add_parser("daemon", help="stop, kill or start one process of the cluster, for fault tests")
    daemon.add_argument("action", choices=["stop", "kill", "start"])
    daemon.add_argument("name")
    verbs.add_parser("status", help="what runs")
    verbs.add_parser("down", help="remove the cluster; what was built stays")
    return parser


if __name__ == "__main__":
    sys.exit(main())
