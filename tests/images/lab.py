"""Where images are really built and run on this machine: buildah with chroot isolation, on the base that the harness makes.

Images lie in the harness's own store, and programs run inside them as a container would run them: without a container runtime, a
registry, or the machine's own store.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ITEM = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
sys.path.insert(0, str(ROOT / "tests" / "cluster"))  # the harness is a program beside the tests, not an installed package

from harness import images, machine  # noqa: E402
from harness.build import exclusively  # noqa: E402
from harness.places import Places, Recipe  # noqa: E402
from harness.progress import Steps  # noqa: E402
from rich.console import Console  # noqa: E402

DEBIAN = ("buildah", "debootstrap", "ca-certificates", "util-linux", "iproute2")
# The root file system read-only, /tmp in memory, one folder that may be written, no network but loopback, the image's user: what
# the pods' securityContext says, with the kernel alone.
CONTAINER = """
set -e
root=$1 folder=$2 inside=$3 user=$4; shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$folder" "$root$inside"
ip link set lo up
exec chroot --userspec="$user" --groups= "$root" "$@"
"""


def missing() -> str:
    """Why images cannot be built here; "" = they can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"images are built and run on Linux on x86-64; this is {platform.system()} on {platform.machine()}"
    if os.geteuid() != 0:
        return "chroot isolation needs root: sudo -E make test-images"
    if shutil.which("apt-get") is None and not all(shutil.which(program) for program in ("buildah", "debootstrap")):
        return "no apt-get to install buildah and debootstrap with"
    return ""


@dataclass(frozen=True)
class Lab:
    """Builds by `make`, as people do, and runs what was built."""

    places: Places
    recipe: Recipe
    environ: Mapping[str, str]

    def call(self, *argv: str | Path, cwd: Path = ROOT, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Runs a program with this lab's store; what it said is in the error."""
        done = subprocess.run([*map(str, argv)], cwd=cwd, env=self.environ, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{argv[0]} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done

    def make(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """`make` on the base that was made here."""
        return self.call("make", "BUILDER=buildah", f"BASE_IMAGE={self.recipe.base['image']}", *arguments, check=check)

    def install(self, packages: Sequence[str]) -> None:
        """Installs the Debian packages that are missing."""
        with _environ(self.environ):
            machine.install_packages(self.places, replace(self.recipe, debian=tuple(packages)), Steps(Console(stderr=True)))

    @contextmanager
    def opened(self, image: str) -> Iterator["Opened"]:
        """The image's root file system, mounted."""
        container = self.call("buildah", "from", "--pull-never", image).stdout.strip()
        try:
            root = Path(self.call("buildah", "mount", container).stdout.strip())
            config = json.loads(self.call("buildah", "inspect", "--type", "image", image).stdout)["Docker"]["config"]
            yield Opened(self, root, config)
        finally:
            self.call("buildah", "rm", container)


@dataclass(frozen=True)
class Opened:
    """An image that can be looked into and run."""

    lab: Lab
    root: Path
    config: Mapping[str, Any]

    def argv(self, *argv: str, folder: Path, entrypoint: Sequence[str] | None = None) -> list[str]:
        """The command line that runs a program inside, with `folder` as the working directory."""
        start = self.config["Entrypoint"] if entrypoint is None else entrypoint
        inside = self.config["WorkingDir"]
        env = ["/usr/bin/env", "--ignore-environment", f"--chdir={inside}", *self.config["Env"]]
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "sh", "-c", CONTAINER, "container",
                str(self.root), str(folder), inside, self.config["User"], *env, *start, *argv]  # fmt: skip

    def run(self, *argv: str, folder: Path, entrypoint: Sequence[str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Runs a program inside and waits for it."""
        return self.lab.call(*self.argv(*argv, folder=folder, entrypoint=entrypoint), check=False)


@dataclass(frozen=True)
class Repository:
    """The converter's, with its layout at the root (tag v0.12.1) and, one commit later, in a folder."""

    folder: Path
    subdir: str
    later: str  #: the full name of the second commit


@contextmanager
def open_lab(environ: Mapping[str, str]) -> Iterator[Lab]:
    """Makes the base where it is missing, and keeps other builds in the same store waiting meanwhile."""
    places, recipe = Places.from_environment(environ), replace(Recipe.load(), debian=DEBIAN)
    clean = {key: value for key, value in environ.items() if key.lower() not in {"http_proxy", "https_proxy", "no_proxy"}}
    steps = Steps(Console(stderr=True))
    with ExitStack() as stack:
        with _environ(clean):
            machine.install_packages(places, recipe, steps)
            (places.cache / "images").mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusively(places.cache / "images" / ".lock", steps))
            images.base(places, recipe, steps)
            store = images.store_environment(places)
        yield Lab(places, recipe, clean | store)


def release() -> str:
    """The project's version, which is the tag when none is given."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


@contextmanager
def _environ(wanted: Mapping[str, str]) -> Iterator[None]:
    """The harness's programs take this process's environment; the tests' own closes the network to them."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
