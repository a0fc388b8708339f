"""Builds the project's images with `tools/kit` and buildah on a base made here, and hands them to the cluster.

What was built lies in <cache>/images/NAME.tar (docker-archive) with the digest of what went into it. Nothing is built twice from
the same inputs, or pulled from an image registry.

The base stands in for python:3.13-slim under its name: the same Debian release with Debian's CPython. It also holds this
machine's CA certificates, because package registries may be reached through a proxy with a CA of its own; they are in the
base only, so that the Dockerfiles are those that anybody else builds.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import layers
from harness.build import exclusively
from harness.commands import NICE, HarnessError, attempt, capture, stream
from harness.places import OwnImage, Places, Recipe
from harness.progress import Detail, Steps

MOST_LAYERS = 120
KIT = {"stac-watch": "poller", "geozarr-runner": "runner"}  #: what `tools/kit build` calls our images
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def load(places: Places, recipe: Recipe, steps: Steps, names: list[str]) -> None:
    """Builds what changed since it was built last, and imports what the cluster does not have."""
    record = places.state / "images.json"
    loaded = json.loads(record.read_text()) if record.exists() else {}
    have = set(layers.names(places))
    for name in names:
        archive, digest = build(places, recipe, steps, name)
        if loaded.get(name) != digest or full_name(places, name) not in have:
            with steps.step(f"load {full_name(places, name)}"):
                layers.load(places, archive)
            loaded[name] = digest
            record.write_text(json.dumps(loaded))


def build(places: Places, recipe: Recipe, steps: Steps, name: str) -> tuple[Path, str]:
    """Returns the image's archive and the digest of its inputs."""
    if name not in recipe.images:
        raise HarnessError(f"No image is called {name}.", hint=f"There are: {', '.join(recipe.images)}.")
    image = recipe.images[name]
    folder = places.cache / "images"
    archive, note = folder / f"{name}.tar", folder / f"{name}.json"

    def is_built(digest: str) -> bool:
        return archive.exists() and note.exists() and json.loads(note.read_text())["digest"] == digest

    digest = inputs_digest(places, recipe, image)
    if is_built(digest):
        return archive, digest
    folder.mkdir(parents=True, exist_ok=True)
    with exclusively(folder / ".lock", steps):
        digest = inputs_digest(places, recipe, image)  # whoever held the lock may have built it, and files may have changed
        if is_built(digest):
            return archive, digest
        base(places, recipe, steps)
        with steps.step(f"build image {name}") as detail:
            note.unlink(missing_ok=True)
            _prune(places)
            _build(places, recipe, name, archive, detail)
            note.write_text(json.dumps({"digest": digest}))
    return archive, digest


def full_name(places: Places, name: str) -> str:
    """The name that the manifests' short name stands for."""
    return f"docker.io/library/{name}:{places.release}"


def inputs_digest(places: Places, recipe: Recipe, image: OwnImage) -> str:
    """Changes when a file or the base changes."""
    sha = hashlib.sha256(f"{_base_digest(recipe)}".encode())
    for name in (image.dockerfile, ".dockerignore", *image.inputs):
        for path in _files(places.root / name):
            sha.update(f"{path.relative_to(places.root)}\0".encode())
            sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def _build(places: Places, recipe: Recipe, name: str, archive: Path, detail: Detail) -> None:
    """What `make build` does, in a store of its own, and the archive."""
    log = _log(places, name)
    whole = full_name(places, name)
    repository, _, tag = whole.rpartition(":")
    order = [f"--image={repository}", f"--tag={tag}", "--builder=buildah", f"--base-image={recipe.base['image']}"]
    stream(
        [*NICE, sys.executable, places.root / "tools" / "kit", "build", KIT[name], *order],
        log=log, on_line=detail, env=store_environment(places), hint=f"The whole log is {log}.",
    )  # fmt: skip
    new = archive.with_suffix(".new")
    new.unlink(missing_ok=True)
    detail("write the archive")
    stream([*_buildah(places), "push", whole, f"docker-archive:{new}:{whole}"], log=log)
    new.rename(archive)


def base(places: Places, recipe: Recipe, steps: Steps) -> None:
    """Makes the base image unless it is there; to be called by whoever holds <cache>/images/.lock."""
    digest, name = _base_digest(recipe), recipe.base["image"]
    note = places.cache / "images" / "base.json"
    buildah = _buildah(places)
    attempt([*buildah, "rm", "--all"])  # containers of a killed build
    if (
        note.exists()
        and json.loads(note.read_text())["digest"] == digest
        and attempt([*buildah, "inspect", "--type", "image", name]).returncode == 0
    ):
        return
    log = _log(places, "base")
    with steps.step(f"base image {name} from Debian {recipe.base['suite']}") as detail, _root_folder(places) as root:
        packages = ",".join(recipe.base["packages"])
        options = ["--variant=minbase", f"--include={packages}", recipe.base["suite"], root, recipe.base["mirror"]]
        stream([*NICE, "debootstrap", *options], log=log, on_line=detail, hint=f"The whole log is {log}.")
        _dress(root, recipe.base["python"])
        tar = root.with_suffix(".tar")
        stream(["tar", "-C", root, "-cf", tar, "."], log=log)
        _commit(buildah, tar, name, log)
        tar.unlink()
    note.write_text(json.dumps({"digest": digest}))


def _prune(places: Places) -> None:
    """Forgets what no name leads to any more, before it fills the disk: a day of changes makes 10 GB of layers."""
    buildah = _buildah(places)
    if len(capture([*buildah, "images", "--all", "--quiet"]).split()) > MOST_LAYERS:
        attempt([*buildah, "rmi", "--prune", "--force"])


def _dress(root: Path, python: str) -> None:
    """What tells the official image from Debian's: python in /usr/local/bin; and the certificates of this machine."""
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{python}")
    shutil.copyfile(_certificates(), root / CERTIFICATES.lstrip("/"))
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / folder)
        (root / folder).mkdir()


def _commit(buildah: list[str], tar: Path, name: str, log: Path) -> None:
    container = "stac-watch-base"
    stream([*buildah, "from", "--name", container, "scratch"], log=log)
    stream([*buildah, "add", "--quiet", container, tar, "/"], log=log)
    environment = {
        "PATH": layers.PATH.removeprefix("PATH="),
        "SSL_CERT_FILE": CERTIFICATES,
        "PIP_CERT": CERTIFICATES,
        "LANG": "C.UTF-8",
    }
    settings = [f"--env={key}={value}" for key, value in environment.items()]
    stream([*buildah, "config", *settings, "--cmd", "python3", container], log=log)
    stream([*buildah, "commit", "--quiet", "--rm", "--format", "docker", container, name], log=log)


def _certificates() -> Path:
    return Path(os.environ.get("SSL_CERT_FILE") or CERTIFICATES)


def _base_digest(recipe: Recipe) -> str:
    return hashlib.sha256(json.dumps(dict(recipe.base), sort_keys=True).encode() + _certificates().read_bytes()).hexdigest()[:16]


def store_environment(places: Places) -> dict[str, str]:
    """Tells buildah, and whoever calls it, of a store of its own, so that nothing of the machine's other containers is touched.

    Chroot isolation needs no container runtime, which may not work inside the container that this machine is.
    """
    folder = places.cache / "images"
    config = folder / "storage.conf"
    config.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder / "store"}"\nrunroot = "{folder / "run"}"\n')
    return {"CONTAINERS_STORAGE_CONF": str(config), "BUILDAH_ISOLATION": "chroot"}


def _buildah(places: Places) -> list[str]:
    settings = store_environment(places)
    return [*NICE, "env", *(f"{key}={value}" for key, value in settings.items()), "buildah"]


def _log(places: Places, name: str) -> Path:
    log = places.build_logs / f"image-{name}.log"
    log.unlink(missing_ok=True)
    return log


@contextmanager
def _root_folder(places: Places) -> Iterator[Path]:
    """A folder for debootstrap; a killed run may have left mounts in it, which must go before it is removed."""
    root = places.cache / ".work" / "base"
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(f"{root}/")), reverse=True):
        attempt(["umount", "--lazy", point])
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    try:
        yield root
    finally:
        for point in ("proc", "sys"):
            attempt(["umount", "--lazy", str(root / point)])
        shutil.rmtree(root)
