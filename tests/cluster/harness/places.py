"""Where everything lies, and which versions are asked for.

Plain values, from the environment and versions.toml alone; no file is created.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HARNESS = Path(__file__).resolve().parent
STATE = Path("/var/lib/stac-watch-cluster")  #: data, credentials, logs: everything that one cluster writes
RUN = Path("/run/stac-watch-cluster")  #: sockets, container mounts, network namespaces
KUBECONFIG = STATE / "admin.conf"
NAME = "stac-watch-cluster"  #: of the cgroup, the pod network and the mark that each of our processes carries


@dataclass(frozen=True)
class Places:
    """Folders of one call."""

    root: Path  #: the clone
    cache: Path  #: what was built, shared by all clones of this user
    state: Path = STATE
    run: Path = RUN

    @property
    def logs(self) -> Path:
        """One file per component that runs."""
        return self.state / "logs"

    @property
    def build_logs(self) -> Path:
        """One file per component that was built."""
        return self.cache / "logs"

    @property
    def release(self) -> str:
        """The project's version, which is the tag of its own images."""
        return str(tomllib.loads((self.root / "pyproject.toml").read_text())["project"]["version"])

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Places":
        """`STAC_WATCH_CLUSTER_CACHE`, else XDG_CACHE_HOME, else ~/.cache."""
        home = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        cache = Path(environ.get("STAC_WATCH_CLUSTER_CACHE") or home / "stac-watch" / "cluster")
        return cls(root=HARNESS.parents[2], cache=cache.absolute())


@dataclass(frozen=True)
class Component:
    """One Go module at one version, and what is compiled from it."""

    name: str
    version: str
    commands: Mapping[str, str] = field(default_factory=dict)  #: none = only what is kept of it
    module: str = ""
    staging: str = ""
    stamps: Mapping[str, str] = field(default_factory=dict)
    requires: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Its folder's name in the cache."""
        return f"{self.name}-{self.version}"


@dataclass(frozen=True)
class OwnImage:
    """One of the project's images: a Dockerfile and what goes into it, relative to the clone."""

    dockerfile: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """versions.toml."""

    go: str
    debian: tuple[str, ...]
    base: Mapping[str, Any]
    images: Mapping[str, OwnImage]
    components: Mapping[str, Component]
    judges: Mapping[str, Component]  #: what tests ask about the manifests; no part of the cluster
    gitops: Mapping[str, Component]  #: of Flux and Argo CD, which run beside the cluster

    @classmethod
    def load(cls, path: Path = HARNESS / "versions.toml") -> "Recipe":
        """Reads and checks the file; an unknown key is an error (TypeError naming it)."""
        raw = tomllib.loads(path.read_text())
        components, judges, gitops = (
            {name: Component(name=name, keep=tuple(values.pop("keep", ())), **values) for name, values in raw[part].items()}
            for part in ("components", "judges", "gitops")
        )
        images = {name: OwnImage(inputs=tuple(values.pop("inputs")), **values) for name, values in raw["images"].items()}
        debian = tuple(raw["debian"]["packages"])
        parts = {"components": components, "judges": judges, "gitops": gitops}
        return cls(go=raw["go"], debian=debian, base=raw["base"], images=images, **parts)

    @property
    def everything(self) -> Mapping[str, Component]:
        """All that can be built, by name."""
        return {**self.components, **self.judges, **self.gitops}

    def version(self, component: str) -> str:
        """The version of one component."""
        return self.components[component].version


@dataclass(frozen=True)
class Binaries:
    """Finds what was built."""

    places: Places
    recipe: Recipe

    def __call__(self, command: str) -> Path:
        """The path of one binary; KeyError when no component makes it."""
        for component in self.recipe.everything.values():
            if command in component.commands:
                return self.places.cache / component.folder / command
        raise KeyError(command)

    def kept(self, component: str, folder: str) -> Path:
        """A folder that stayed beside a component's binaries."""
        found = self.recipe.everything[component]
        return self.places.cache / found.folder / folder
