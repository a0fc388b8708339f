"""Writes container images of one layer from files of this machine, and hands image archives to containerd.

Nothing is pulled.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from harness.commands import capture
from harness.node import socket
from harness.places import Places

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """An image to make: absolute path inside -> file of this machine."""

    name: str
    entrypoint: Sequence[str]
    files: Mapping[str, Path]
    user: str = ""
    folders: Sequence[str] = field(default=("/tmp",))  # a folder inside the image


def load(places: Places, archive: Path) -> str:
    """Imports an archive; returns what containerd says it holds."""
    return capture(["ctr", "--address", socket(places), "--namespace", "k8s.io", "images", "import", archive])


def names(places: Places) -> list[str]:
    """The images that the kubelet can start."""
    listed = capture(["ctr", "--address", socket(places), "--namespace", "k8s.io", "images", "ls", "-q"]).split()
    return sorted(name for name in listed if not name.startswith(("sha256:", "import-")))


def make(places: Places, image: Image) -> None:
    """Makes the image and imports it."""
    archive = places.run / "image.tar"
    try:
        with archive.open("wb") as file:
            write(image, file)
        load(places, archive)
    finally:
        archive.unlink(missing_ok=True)


def write(image: Image, file: BinaryIO) -> None:
    """Writes the docker-archive; the same files give the same bytes."""
    layer = _layer(image)
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "config": {"User": image.user, "Entrypoint": list(image.entrypoint), "Env": [PATH]},
    }
    content = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(content).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [image.name], "Layers": [f"{digest}.tar"]}]
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in ((config_name, content), (f"{digest}.tar", layer), ("manifest.json", json.dumps(manifest).encode())):
            tar.addfile(_entry(name, len(data)), io.BytesIO(data))


def _layer(image: Image) -> bytes:
    buffer = io.BytesIO()
    parents = {str(p) for name in image.files for p in PurePosixPath(name).parents} | {*image.folders} - {"/"}
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in sorted(parents - {"/"}):
            entry = _entry(folder, 0)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder in image.folders else 0o755
            tar.addfile(entry)
        for name, path in image.files.items():
            with path.open("rb") as content:
                tar.addfile(_entry(name, path.stat().st_size), content)
    return buffer.getvalue()


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.size, entry.mode = size, 0o755
    return entry
