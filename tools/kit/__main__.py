"""The command line behind `make build`, `load`, `push`, `k3d-up`, `argo-install`, `template` and `deploy`: `python tools/kit VERB`.

An empty argument is one that was not given, as make passes them. The exit code is 0, or 1 with what failed and the remedy. Only the
standard library is needed, so that images can be built before the project is installed.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import clusters
import images
import install
import release
from builders import Builder
from commands import KitError, need, run
from converter import Wanted

ROOT = Path(__file__).resolve().parents[2]
DATA_MODEL = "https://github.com/EOPF-Explorer/data-model"


def main() -> int:
    """Runs one verb."""
    arguments = _parser().parse_args()
    began = time.monotonic()
    try:
        arguments.call(arguments)
    except KitError as failed:
        print(f"error: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command starts over", file=sys.stderr)
        return 130
    print(f"{arguments.verb}: done in {time.monotonic() - began:.0f} s")
    return 0


def _build(arguments: argparse.Namespace) -> None:
    image = images.RUNNER if arguments.which == "runner" else images.POLLER
    wanted = Wanted(arguments.data_model or DATA_MODEL, arguments.ref, arguments.subdir) if arguments.ref else None
    if arguments.subdir and wanted is None:
        raise KitError("SUBDIR needs REF: without it, the converter comes from our own lock.", hint="REF=<commit or tag> SUBDIR=…/")
    order = images.Order(
        platform=arguments.platform, base_image=arguments.base_image, portable=_switch("PORTABLE", arguments.portable),
        no_binary=arguments.no_binary, wanted=wanted,
    )  # fmt: skip
    name = images.full_name(ROOT, image, arguments.image, arguments.tag)
    tools = images.Tools(ROOT, Path(arguments.uv or "uv"), Path(sys.executable))
    builder = Builder.choose(arguments.builder)
    sbom = images.build(tools, builder, image, name, order)
    print(f"{name}   in {builder.name}'s store\n{sbom.relative_to(ROOT)}   its bill of materials (CycloneDX)")


def _names(arguments: argparse.Namespace) -> list[str]:
    given = {images.RUNNER: arguments.image, images.POLLER: arguments.poller_image}
    return [images.full_name(ROOT, image, given[image], arguments.tag) for image in images.IMAGES]


def _load(arguments: argparse.Namespace) -> None:
    names = _names(arguments)
    cluster = clusters.find(arguments.kind, arguments.cluster)
    builder = Builder.choose(arguments.builder)
    archives = [images.archive(ROOT, builder, name) for name in names]
    clusters.load(ROOT, cluster, archives)
    print("\n".join([f"in {cluster.kind} cluster {cluster.name}:", *(f"  {name}" for name in names)]))


def _push(arguments: argparse.Namespace) -> None:
    names = _names(arguments)
    _require_registry(names)
    builder = Builder.choose(arguments.builder)
    for name in names:
        if not builder.has(name):
            raise KitError(
                f"{builder.name} has no image {name}.", hint="Build it first: make build build-poller (same names and TAG)."
            )
    for name in names:
        builder.push(name)


def _push_index(arguments: argparse.Namespace) -> None:
    """Joins images of single architectures, which are in the registry, under one tag."""
    names = _names(arguments)
    _require_registry(names)
    need("docker", "Only docker (with buildx) joins images.")
    for name in names:
        base = name.rpartition(":")[0]
        run(["docker", "buildx", "imagetools", "create", "--tag", name, *(f"{base}:{tag}" for tag in arguments.parts.split())])


def _check_tag(arguments: argparse.Namespace) -> None:
    release.check(images.release(ROOT), arguments.name)


def _sign(arguments: argparse.Namespace) -> None:
    names = _names(arguments)
    _require_registry(names)
    for name in names:
        release.sign(name, images.beside(ROOT, name, "cdx.json"), os.environ)


def _push_chart(arguments: argparse.Namespace) -> None:
    release.push_chart(ROOT, images.release(ROOT), arguments.charts)


def _require_registry(names: list[str]) -> None:
    for name, image in zip(names, images.IMAGES, strict=True):
        if name.startswith("docker.io/library/"):
            raise KitError(f"{name} names no registry of yours.", hint=f"make push {image.parameter}=ghcr.io/you/{image.name} …")


def _k3d_up(arguments: argparse.Namespace) -> None:
    clusters.k3d_up(arguments.cluster)


def _argo_install(arguments: argparse.Namespace) -> None:
    sources = {"argo-workflows": arguments.argo_workflows, "argo-events": arguments.argo_events}
    install.argo_install(ROOT, sources, install.Target(dry_run=arguments.dry_run))


def _target(arguments: argparse.Namespace) -> install.Target:
    """Other images than the manifests name, where a name or a tag was given."""
    chosen = dict(zip((image.name for image in images.IMAGES), _names(arguments), strict=True))
    given = arguments.tag or arguments.image or arguments.poller_image
    return install.Target(
        namespace=getattr(arguments, "namespace", ""), images=chosen if given else None, dry_run=arguments.dry_run
    )


def _template(arguments: argparse.Namespace) -> None:
    install.template(ROOT, _target(arguments))


def _deploy(arguments: argparse.Namespace) -> None:
    install.deploy(ROOT, arguments.overlay or "k3d", _target(arguments))


def _switch(name: str, value: str) -> bool:
    if value not in {"", "0", "1"}:
        raise KitError(f"{name}={value} is not known.", hint=f"{name}=1, or leave it out.")
    return value == "1"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kit", description="Images and clusters; make's targets call it.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(verb: str, call: object, text: str, *options: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(verb, help=text)
        made.set_defaults(call=call)
        for option in options:
            made.add_argument(f"--{option}", default="")
        return made

    both = ("image", "poller-image", "tag")
    options = ("image", "tag", "builder", "platform", "base-image", "ref", "subdir", "data-model", "portable", "no-binary", "uv")
    build = add("build", _build, "build one image", *options)
    build.add_argument("which", choices=["runner", "poller"])
    load = add("load", _load, "bring both images to a cluster on this machine", *both, "builder", "cluster")
    load.add_argument("kind", nargs="?", default="", choices=["", *clusters.KINDS])
    add("push", _push, "bring both images to their registry", *both, "builder")
    add("push-index", _push_index, "one tag for images of several architectures", *both, "parts")
    add("check-tag", _check_tag, "whether a git tag is the version", "name")
    add("sign", _sign, "sign both images in their registry, attest what is in them", *both)
    add("push-chart", _push_chart, "the Helm chart to an OCI registry", "charts")
    add("k3d-up", _k3d_up, "make or start a k3d cluster", "cluster")
    add("argo-install", _argo_install, "both Argos", "argo-workflows", "argo-events", "dry-run")
    add("template", _template, "the WorkflowTemplate", *both, "namespace", "dry-run")
    add("deploy", _deploy, "everything", *both, "overlay", "dry-run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
