"""The converter at a ref of its own repository, made ready for the image's build (`make build REF=…`).

The image's build gets the lock's third-party packages with their hashes (locked.txt), what the runner needs beyond them
(added.txt), and the converter's source. No version that the converter's lock names is changed, and nothing of the converter's is
run here: that happens inside the build.
"""

import os
import re
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from commands import Argv, KitError, attempt, capture, run

NAME = "eopf-geozarr"
PYTHON = "3.12"  #: the oldest that we support, which our own lock resolves for as well
EPOCH = 315_532_800  #: 1980, the first year that a wheel can hold
_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?")


@dataclass(frozen=True)
class Wanted:
    """What to fetch."""

    url: str
    ref: str
    subdir: str  #: "" or a relative folder that ends in /


@dataclass(frozen=True)
class Fetched:
    """What was found."""

    source: str  #: the URL without credentials
    revision: str  #: the full commit


def check(wanted: Wanted) -> None:
    """Refuses what is no URL, ref or folder.

    Raises:
        KitError: names the parameter, its value and the remedy.
    """
    if not re.fullmatch(r"(https|ssh|file)://\S+|[\w.-]+@[\w.-]+:\S+|/[^\s]*", wanted.url):
        raise KitError(
            f"DATA_MODEL={wanted.url} is no git URL.", hint="https://…, ssh://…, git@host:path, file:///… or an absolute path."
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+-]*", wanted.ref) or ".." in wanted.ref:
        raise KitError(f"REF={wanted.ref} is neither a commit nor a tag.", hint=f"List the tags: git ls-remote --tags {wanted.url}")
    if wanted.subdir and (not wanted.subdir.endswith("/") or wanted.subdir.startswith("/") or ".." in wanted.subdir.split("/")):
        raise KitError(
            f"SUBDIR={wanted.subdir} must be a folder inside the repository and end in /.",
            hint="For example: SUBDIR=tools/eopf-geozarr/",
        )


def prepare(root: Path, target: Path, wanted: Wanted, uv: Path, python: Path) -> Fetched:
    """Fills `target`, which must not exist.

    Raises:
        KitError: the ref is not there, the layout is another one, or the packages cannot be resolved.
    """
    checkout = target.parent / "checkout"
    revision = _checkout(checkout, wanted)
    project = checkout / wanted.subdir
    _require_layout(project, wanted)
    target.mkdir(parents=True)
    locked = target / "locked.txt"
    capture([uv, "export", "--quiet", "--project", project, "--frozen", "--no-default-groups", "--no-emit-project", "--no-annotate",
             "--no-header", "--output-file", locked])  # fmt: skip
    names = _locked(locked, wanted)
    _add(root, target, names, uv, python)
    shutil.copytree(project, target / "source", symlinks=True, ignore=shutil.ignore_patterns(".git", ".venv"))
    # What has not changed since the last build must not be installed again, and a layer's cache looks at these times.
    for path in (target, *target.rglob("*")):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    shutil.rmtree(checkout)
    return Fetched(source=without_credentials(wanted.url), revision=revision)


def without_credentials(url: str) -> str:
    """The URL as it may be written into a label."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.scheme in {"http", "https"} else url


def _checkout(folder: Path, wanted: Wanted) -> str:
    # History without contents: any commit, tag or abbreviation is found, and little is transferred.
    clone: Argv = ["git", "clone", "--quiet", "--no-checkout", "--filter=blob:none", "--", wanted.url, folder]
    capture(clone, hint="DATA_MODEL=… names another repository.")
    git: Argv = ["git", "-C", folder, "-c", "advice.detachedHead=false"]
    for candidate in (wanted.ref, f"origin/{wanted.ref}"):
        found = attempt([*git, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{candidate}^{{commit}}"])
        if found.returncode == 0:
            break
    else:  # a commit of no branch: a pull request's
        if attempt([*git, "fetch", "--quiet", "--depth=1", "origin", wanted.ref]).returncode:
            hint = f"List what there is: git ls-remote {without_credentials(wanted.url)}"
            raise KitError(f"REF={wanted.ref} is not in {without_credentials(wanted.url)}.", hint=hint)
        found = attempt([*git, "rev-parse", "FETCH_HEAD"])
    revision = found.stdout.strip()
    run([*git, "checkout", "--quiet", "--detach", revision])
    return revision


def _require_layout(project: Path, wanted: Wanted) -> None:
    missing = [name for name in ("pyproject.toml", "uv.lock") if not (project / name).is_file()]
    if missing:
        where = f"{wanted.subdir or 'the root'} at {wanted.ref}"
        raise KitError(f"{where} has no {' and no '.join(missing)}.", hint="SUBDIR=…/ names the folder that the converter is in.")
    name = tomllib.loads((project / "pyproject.toml").read_text()).get("project", {}).get("name", "")
    if _canonical(name) != NAME:
        raise KitError(f"{wanted.subdir or 'The root'} at {wanted.ref} holds {name or 'no project'}, not {NAME}.", hint="SUBDIR=…/")


def _locked(path: Path, wanted: Wanted) -> set[str]:
    """The names in an export; every entry must have hashes."""
    entries = path.read_text().replace("\\\n", " ").splitlines()
    unchecked = [entry for entry in entries if entry.strip() and "--hash=" not in entry]
    if unchecked:
        raise KitError(
            f"The lock at {wanted.ref} has packages that no hash checks: {'; '.join(e.strip() for e in unchecked)[:300]}.",
            hint="Take a ref whose dependencies all come from a package index.",
        )
    return {_canonical(_name(entry)) for entry in entries if entry.strip()}


def _add(root: Path, target: Path, names: set[str], uv: Path, python: Path) -> None:
    """Resolves what the runner needs beyond the converter's lock: our locked versions where they fit, which most do."""
    inputs, added = target / "added.in", target / "added.txt"
    inputs.write_text("".join(f"{line}\n" for line in _runner_needs(root, names)))
    # uv takes the versions of an output that is there already, where they still fit
    capture([uv, "export", "--quiet", "--project", root, "--frozen", "--no-dev", "--package", "geozarr-runner",
             "--no-emit-workspace", "--no-hashes", "--no-annotate", "--no-header", "--output-file", added])  # fmt: skip
    skip = [option for name in sorted(names | {NAME}) for option in ("--no-emit-package", name)]
    capture(
        [uv, "pip", "compile", "--quiet", "--no-config", "--universal", "--python-version", PYTHON, "--python", python,
         "--generate-hashes", "--no-annotate", "--no-header", "--constraint", target / "locked.txt", *skip, "--output-file", added,
         inputs],
        hint="The runner and the converter's lock ask for versions that exclude each other.",
    )  # fmt: skip


def _runner_needs(root: Path, names: set[str]) -> list[str]:
    """Our direct dependencies; for a package that the converter locks, its version alone decides."""
    unused = (root / "runner" / "image" / "poller-only.txt").read_text().split()
    needs = []
    for manifest in ("runner/pyproject.toml", "pyproject.toml"):
        for entry in tomllib.loads((root / manifest).read_text())["project"]["dependencies"]:
            name = _canonical(_name(entry))
            if name in names:
                found = _REQUIREMENT.match(entry)
                needs.append(found[0] if found else entry)
            elif name not in {NAME, "stac-watch", *unused}:
                needs.append(entry)
    return sorted(set(needs))


def _name(entry: str) -> str:
    found = _REQUIREMENT.match(entry.strip())
    return found[1] if found else entry


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
