"""docker, podman and buildah, which differ by their names and by a few words.

What is built is decided elsewhere.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from commands import Argv, KitError, attempt, capture, run

BUILDERS = ("docker", "podman", "buildah")
LABELS = {
    "VERSION": "org.opencontainers.image.version", "REVISION": "org.opencontainers.image.revision",
    "SOURCE": "org.opencontainers.image.source", "CONVERTER_SOURCE": "stac-watch.converter.source",
    "CONVERTER_REVISION": "stac-watch.converter.revision",
}  # fmt: skip
"""Argument of the Dockerfiles -> label. Said again on the command line: buildah 1.28 takes a cached layer for the instruction
`LABEL x=${X}` whatever X is, and an image of the same files from another commit would carry the revision of the last one."""


@dataclass(frozen=True)
class Builder:
    """One of `BUILDERS`; its own environment (DOCKER_HOST, BUILDAH_ISOLATION, CONTAINERS_STORAGE_CONF …) is left to it."""

    name: str

    @classmethod
    def choose(cls, asked: str) -> "Builder":
        """The one that is asked for, else the first that answers.

        Raises:
            KitError: there is none.
        """
        if asked:
            if asked not in BUILDERS:
                raise KitError(f"BUILDER={asked} is not known.", hint=f"One of: {', '.join(BUILDERS)}.")
            builder = cls(asked)
            if not builder.answers():
                raise KitError(f"{asked} does not answer: `{asked} info` failed, or is not on PATH.", hint="Start or install it.")
            return builder
        for name in BUILDERS:
            if (builder := cls(name)).answers():
                return builder
        raise KitError(
            f"None of {', '.join(BUILDERS)} answers.", hint="Install one, or start Docker; BUILDER=… names which to take."
        )

    def answers(self) -> bool:
        """Whether it is installed and, for Docker, its daemon runs."""
        with suppress(KitError):
            return attempt([self.name, "info"]).returncode == 0
        return False

    def build(
        self, image: str, dockerfile: Path, context: Path, arguments: Mapping[str, str], *, platform: str = ""
    ) -> None:  # fmt: skip
        """Builds one image; the builder's own progress is shown."""
        run(
            [*self._build(), *(["--platform", platform] if platform else []), "--file", dockerfile, "--tag", image,
             *(f"--build-arg={key}={value}" for key, value in arguments.items() if value),
             *(f"--label={label}={arguments[key]}" for key, label in LABELS.items() if arguments.get(key)), context],
            hint=f"Again without its cache: {self.name} build --no-cache …",
        )  # fmt: skip

    def _build(self) -> Argv:
        if self.name == "docker":
            return ["docker", "build"]
        # Docker's own ways: an image that is here is taken, layers are kept, and its format of images, which every tool reads.
        return [self.name, "build", "--pull=false", "--layers", "--format", "docker"]

    def has(self, image: str) -> bool:
        """Whether the image is in the builder's store."""
        kind = ["--type", "image"]
        return attempt([self.name, "inspect", *kind, image]).returncode == 0

    def save(self, image: str, archive: Path) -> None:
        """Writes a docker-archive, which k3d, kind, minikube and containerd all take."""
        new = archive.with_suffix(".new")
        new.unlink(missing_ok=True)
        if self.name == "buildah":
            run(["buildah", "push", "--quiet", image, f"docker-archive:{new}:{image}"])
        else:
            run([self.name, "save", "--output", new, image])
        new.rename(archive)

    def push(self, image: str) -> None:
        """Sends the image to its registry."""
        run([self.name, "push", image], hint=f"Signed in? {self.name} login {image.partition('/')[0]}")

    def take(self, image: str, path: str, target: Path) -> None:
        """Copies one file out of an image, whatever its architecture."""
        if self.name == "buildah":
            container = capture(["buildah", "from", "--pull-never", image]).strip()
            try:
                target.write_text(capture(["buildah", "run", container, "--", "cat", path]))
            finally:
                attempt(["buildah", "rm", container])
        else:
            container = capture([self.name, "create", image]).strip()
            try:
                capture([self.name, "cp", f"{container}:{path}", target])
            finally:
                attempt([self.name, "rm", container])
