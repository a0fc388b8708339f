"""The two images: their names, what goes into a build, and what is written beside it.

A bill of materials is written beside each: build/images/<name>-<tag>.cdx.json. The builders' command lines are builders.py's, and
only the build itself fetches anything.
"""

import re
import shutil
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import converter
from builders import Builder
from commands import KitError, attempt

CONTEXT = ("pyproject.toml", "uv.lock", "README.md", "LICENSE", ".dockerignore", "src", "runner")
_NAME = re.compile(r"([a-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PLATFORM = re.compile(r"linux/(amd64|arm64)")


@dataclass(frozen=True)
class Image:
    """One of ours."""

    parameter: str  #: the make variable that names it
    name: str
    dockerfile: str
    sbom: str  #: inside the image


RUNNER = Image("IMAGE", "geozarr-runner", "runner/Dockerfile", "/opt/geozarr/sbom.cdx.json")
POLLER = Image("POLLER_IMAGE", "stac-watch", "Dockerfile", "/opt/stac-watch/sbom.cdx.json")
IMAGES = (RUNNER, POLLER)


@dataclass(frozen=True)
class Order:
    """What `make build` was asked for; "" = not said."""

    platform: str = ""
    base_image: str = ""
    portable: bool = False
    no_binary: str = ""
    wanted: converter.Wanted | None = None  #: the converter at a ref; None = the version in our own lock


@dataclass(frozen=True)
class Tools:
    """What the machine has."""

    root: Path  #: the clone
    uv: Path
    python: Path


def full_name(root: Path, image: Image, name: str, tag: str) -> str:
    """The image's whole reference; a short name stands for Docker Hub's, as it does in Kubernetes.

    Raises:
        KitError: name or tag is none.
    """
    name = name or image.name
    if not _NAME.fullmatch(name):
        raise KitError(
            f"{image.parameter}={name} is no image's name.", hint=f"For example: {image.parameter}=ghcr.io/you/{image.name}"
        )
    tag = tag or release(root)
    if not _TAG.fullmatch(tag):
        raise KitError(f"TAG={tag} is no tag.", hint="Letters, digits, `_`, `.` and `-`, at most 128; for example: TAG=dev")
    first, slash, _ = name.partition("/")
    registry = slash and ("." in first or ":" in first or first == "localhost")
    return f"{name if registry else f'docker.io/{name}' if slash else f'docker.io/library/{name}'}:{tag}"


def release(root: Path) -> str:
    """The project's version: the tag that the manifests in deploy/ name."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def build(tools: Tools, builder: Builder, image: Image, name: str, order: Order) -> Path:
    """Builds one image and returns its bill of materials.

    Raises:
        KitError: a parameter is wrong, or the build failed.
    """
    _check(order)
    out = output_folder(tools.root)
    arguments = {
        "VERSION": release(tools.root), "REVISION": _revision(tools.root), "SOURCE": _source(tools.root),
        "BASE_IMAGE": order.base_image, "PORTABLE": "1" if order.portable else "", "NO_BINARY": order.no_binary,
    }  # fmt: skip
    if order.wanted is None:
        builder.build(name, tools.root / image.dockerfile, tools.root, arguments, platform=order.platform)
    else:
        with tempfile.TemporaryDirectory(prefix="context-", dir=out) as folder:
            context = Path(folder) / "context"
            _copy(tools.root, context)
            target = context / "runner" / "image" / "converter"
            fetched = converter.prepare(tools.root, target, order.wanted, tools.uv, tools.python)
            arguments |= {"CONVERTER_SOURCE": fetched.source, "CONVERTER_REVISION": fetched.revision}
            builder.build(name, context / image.dockerfile, context, arguments, platform=order.platform)
    sbom = beside(tools.root, name, "cdx.json")
    builder.take(name, image.sbom, sbom)
    return sbom


def archive(root: Path, builder: Builder, name: str) -> Path:
    """Writes an image's docker-archive and returns it.

    Raises:
        KitError: the builder does not have the image.
    """
    if not builder.has(name):
        raise KitError(f"{builder.name} has no image {name}.", hint="Build it first: make build build-poller (with the same TAG).")
    path = beside(root, name, "tar")
    builder.save(name, path)
    return path


def output_folder(root: Path) -> Path:
    """Where archives and bills of materials go."""
    folder = root / "build" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def beside(root: Path, name: str, suffix: str) -> Path:
    """A file named like an image, e.g. build/images/geozarr-runner-dev.cdx.json."""
    return output_folder(root) / f"{name.rpartition('/')[2].replace(':', '-')}.{suffix}"


def _check(order: Order) -> None:
    if order.platform and not _PLATFORM.fullmatch(order.platform):
        raise KitError(
            f"PLATFORM={order.platform} is not built.", hint="linux/amd64 or linux/arm64, one at a time; push-index joins them."
        )
    if order.base_image and not re.fullmatch(r"[a-z0-9][\w.:/@-]*", order.base_image):
        raise KitError(
            f"BASE_IMAGE={order.base_image} is no image.", hint="For example: BASE_IMAGE=docker.io/library/python:3.13-slim"
        )
    if order.no_binary and not order.portable:
        raise KitError("NO_BINARY needs PORTABLE=1: the image has no compiler without it.", hint="PORTABLE=1 NO_BINARY=…")
    if not re.fullmatch(r"[A-Za-z0-9._ -]*", order.no_binary):
        raise KitError(f"NO_BINARY={order.no_binary} are no packages.", hint='For example: NO_BINARY="rasterio pyproj"')
    if order.wanted is not None:
        converter.check(order.wanted)


def _copy(root: Path, context: Path) -> None:
    """What .dockerignore lets through: a builder takes one folder, and the converter must not be written into the clone."""
    context.mkdir()
    for entry in CONTEXT:
        path = root / entry
        if path.is_dir():
            shutil.copytree(path, context / entry, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(path, context / entry)


def _revision(root: Path) -> str:
    """The commit, with -dirty where files differ from it."""
    git: Sequence[str | Path] = ("git", "-C", root)
    head = attempt([*git, "rev-parse", "HEAD"])
    if head.returncode:
        return "unknown"
    changed = attempt([*git, "status", "--porcelain", "--", *CONTEXT, "Dockerfile"]).stdout.strip()
    return head.stdout.strip() + ("-dirty" if changed else "")


def _source(root: Path) -> str:
    """The repository's public address, as OCI's `source` wants it; a path of this machine is none."""
    url = attempt(["git", "-C", root, "remote", "get-url", "origin"]).stdout.strip()
    if found := re.fullmatch(r"(?:ssh://)?git@([\w.-]+)[:/](.+?)(?:\.git)?", url):
        return f"https://{found[1]}/{found[2]}"
    return converter.without_credentials(url).removesuffix(".git") if url.startswith("https://") else "unknown"
