"""Compiles what the cluster is made of, once per version and machine.

Modules come from the Go module proxy, checked by the Go checksum database. What is built lies in <cache>/<component>-<version>/
with the folders to keep and built.json, put there by one rename when complete; nothing is built twice, or written into the clone.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from harness.commands import NICE, HarnessError, attempt, capture, stream
from harness.places import HARNESS, Component, Places, Recipe
from harness.progress import Detail, Steps

# Compiling is what a first time waits for. Debug information, which `-s -w` drops anyway, is not made. Inlining stays:
# without it an API server is compiled in two thirds of the time, and every test of the cluster waits for a slower one.
QUICK = "all=-dwarf=false"


def build(places: Places, recipe: Recipe, steps: Steps) -> float:
    """Builds every missing component; returns the seconds that it took. One build at a time per cache, others wait."""
    return _missing(places, recipe, steps, recipe.components)


def build_judges(places: Places, recipe: Recipe, steps: Steps) -> float:
    """Builds the judges that are missing, as `build` does components."""
    return _missing(places, recipe, steps, recipe.judges)


def build_gitops(places: Places, recipe: Recipe, steps: Steps) -> float:
    """Builds what is missing of Flux and Argo CD, as `build` does components."""
    return _missing(places, recipe, steps, recipe.gitops)


def _missing(places: Places, recipe: Recipe, steps: Steps, wanted: Mapping[str, Component]) -> float:
    began = time.monotonic()
    missing = [c for c in wanted.values() if not is_built(places, c)]
    if not missing:
        return 0.0
    require_go(recipe.go)
    places.cache.mkdir(parents=True, exist_ok=True)
    with exclusively(places.cache / ".lock", steps):
        for component in missing:
            if not is_built(places, component):
                with steps.step(f"build {component.name} {component.version}") as detail:
                    _build(places, component, detail)
    return time.monotonic() - began


def is_built(places: Places, component: Component) -> bool:
    """Whether the cache holds this component, compiled from exactly this recipe."""
    try:
        record = json.loads((places.cache / component.folder / "built.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    return bool(record.get("digest") == digest(component))


def digest(component: Component) -> str:
    """Changes when anything changes that goes into a component's binaries."""
    sha = hashlib.sha256(json.dumps(asdict(component), sort_keys=True).encode())
    for package in sorted(p for p in component.commands.values() if p.startswith("./")):
        for file in sorted((HARNESS / "go" / package).glob("*.go")):
            sha.update(file.read_bytes())
    return sha.hexdigest()[:16]


def go_mod(component: Component, staging: Mapping[str, str], replace: Mapping[str, str], go: str = "1.26") -> str:
    """The go.mod of the throw-away module in which a component is compiled."""
    requires = {**component.requires, **({component.module: component.version} if component.module else {})}
    lines = ["module build", "", f"go {go}", ""]
    lines += [f"require {module} v{version}" for module, version in requires.items()]
    lines += [f"replace {module} => {module} v{version}" for module, version in staging.items()]
    lines += [f"replace {module} => {path}" for module, path in replace.items()]
    return "\n".join(lines) + "\n"


def _build(places: Places, component: Component, detail: Detail) -> None:
    began = time.monotonic()
    log = places.build_logs / f"{component.folder}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    work = places.cache / ".work" / component.folder  # what a killed build left there is of no use
    shutil.rmtree(work, ignore_errors=True)
    out = work / "out"
    out.mkdir(parents=True)
    replace, staging, source = {}, {}, None
    if component.module:
        source = _download(component, work, log)
        if component.staging:
            staging = dict.fromkeys(_staged(source / "go.mod"), component.staging)
        if component.links or component.files:
            source = _patched(component, source, work / "patched")
            replace = {component.module: "./patched"}
    (work / "go.mod").write_text(go_mod(component, staging, replace))
    for package in component.commands.values():
        if package.startswith("./"):
            shutil.copytree(HARNESS / "go" / package, work / package)
    if component.commands:
        _compile(component, work, out, log, detail)
    for folder in component.keep:
        if source:
            shutil.copytree(source / folder, out / folder)
            _make_writable(out / folder)
    record = {
        "digest": digest(component),
        "seconds": round(time.monotonic() - began, 1),
        "go": capture(["go", "env", "GOVERSION"]).strip(),
    }
    (out / "built.json").write_text(json.dumps(record) + "\n")
    final = places.cache / component.folder
    shutil.rmtree(final, ignore_errors=True)
    out.rename(final)
    _make_writable(work)
    shutil.rmtree(work)


def _compile(component: Component, work: Path, out: Path, log: Path, detail: Detail) -> None:
    """Compiles a component's commands into `out`, in the module that `work` is."""
    compiled = 0

    def on_line(line: str) -> None:
        nonlocal compiled
        compiled += not line.startswith("go: ")
        detail(line if line.startswith("go: ") else f"{compiled} packages compiled, {line}")

    flags = "-s -w " + " ".join(f"-X {name}={value}" for name, value in component.stamps.items())
    options = ["-v", "-mod=mod", "-trimpath", "-gcflags", QUICK, "-ldflags", flags, "-o", _target(component, out)]
    argv = [*NICE, "go", "build", *options]
    stream([*argv, *component.commands.values()], log=log, on_line=on_line, env={"CGO_ENABLED": "0"}, cwd=work, hint=_hint(log))


def _target(component: Component, out: Path) -> str:
    """Where `go build` writes: one command under its name; several, which one call compiles in step, under their folders' names."""
    if len(component.commands) == 1:
        return str(out / next(iter(component.commands)))
    astray = [name for name, package in component.commands.items() if Path(package).name != name]
    if astray:
        raise HarnessError(f"{component.name}: {astray} must be called like their packages", hint="Rename them in versions.toml.")
    return f"{out}/"


def _download(component: Component, work: Path, log: Path) -> Path:
    """The module's folder in Go's own cache."""
    (work / "go.mod").write_text("module build\n")
    argv = ["go", "mod", "download", "-json", f"{component.module}@v{component.version}"]
    with log.open("a") as file:
        file.write("$ " + " ".join(argv) + "\n")
    done = attempt(argv, env={"GOFLAGS": "-mod=mod"})
    answer = json.loads(done.stdout or "{}")
    if done.returncode or "Dir" not in answer:
        raise HarnessError(
            f"{component.module} v{component.version} cannot be fetched: {answer.get('Error') or done.stderr.strip()}",
            hint=_hint(log),
        )
    return Path(answer["Dir"])


def _staged(path: Path) -> list[str]:
    """Modules that live inside the repository and are required as v0.0.0: they are published under versions of their own."""
    return re.findall(r"^\s*(k8s\.io/\S+) v0\.0\.0$", path.read_text(), re.MULTILINE)


def _patched(component: Component, source: Path, copy: Path) -> Path:
    shutil.copytree(source, copy)
    _make_writable(copy)
    for name, target in component.links.items():
        (copy / name).symlink_to(target)
    for name, text in component.files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text)
    return copy


def _make_writable(folder: Path) -> None:
    """Go's module cache is read-only, and so are copies of it."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200)


def require_go(oldest: str) -> None:
    """Raises HarnessError unless a Go that is new enough is there."""
    hint = f"Install Go >= {oldest} (https://go.dev/dl/) and put it on PATH; it is needed once, to build."
    if shutil.which("go") is None:
        raise HarnessError("go is not installed.", hint=hint)
    found = capture(["go", "env", "GOVERSION"], env={"GOTOOLCHAIN": os.environ.get("GOTOOLCHAIN", "auto")}).strip()
    numbers = tuple(int(n) for n in re.findall(r"\d+", found)[:2])
    if numbers < tuple(int(n) for n in oldest.split(".")):
        raise HarnessError(f"{found} is too old.", hint=hint)


def _hint(log: Path) -> str:
    return f"The whole log is {log}. What is built stays; the same command goes on from there."


@contextmanager
def exclusively(path: Path, steps: Steps) -> Iterator[None]:
    """One caller at a time on this machine; the others wait. The lock ends with its process, however that ends."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            steps.say(f"another build holds {path}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
