"""The outcome of a run, and the marker that makes an output whole: the same JSON, code 0 in the marker.

In: what a run found out. Out: `stac-watch.json` inside the output (written last), and the file that `--outcome` names (written
always). Never: decides whether a run went well, or leaves a half-written file under a final name.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from stac_watch.model.errors import CannotWrite, cannot_write

NAME = "stac-watch.json"
_PACKAGES = ("geozarr-runner", "eopf-geozarr", "xarray", "zarr", "dask", "numcodecs")


@dataclass(frozen=True)
class Check:
    """One question that was asked of the output, and the answer."""

    name: str
    verdict: str  # passed | failed | skipped
    detail: str = ""


@dataclass(frozen=True)
class Package:
    """The archive beside an output."""

    href: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Counts:
    """Sizes of what was read and written; `files` and `bytes_written` are the output's, the marker not counted."""

    arrays: int = 0
    chunks: int = 0
    files: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended. A public contract: fields may be added, readers ignore what they do not know."""

    code: int
    reason: str  # "done", "already done", or one line of what went wrong
    hint: str
    stage: str  # the stage in which the run ended
    key: str
    revision: str
    run: str
    attempt: int
    item_id: str
    source: str
    output_zarr: str
    package: Package | None
    versions: dict[str, str]
    seconds: dict[str, float]
    counts: Counts
    checks: tuple[Check, ...] = ()
    groups: tuple[str, ...] = ()
    engine: str = ""  # fast, or stock and why
    files: dict[str, str] = field(default_factory=dict)  # what lies beside: report, report_json, quicklook, item
    finished: str = ""  # RFC 3339

    def as_json(self) -> str:
        """Returns the JSON document, one key order for all."""
        return json.dumps(asdict(self), indent=2) + "\n"


def parse(text: str) -> Outcome | None:
    """Returns the outcome a document holds, or None when it is not one of ours."""
    try:
        document = json.loads(text)
        known = {name: document[name] for name in Outcome.__dataclass_fields__ if name in document}
        package = known.get("package")
        return Outcome(
            **{
                **known,
                "package": Package(**package) if package else None,
                "counts": Counts(**known["counts"]),
                "checks": tuple(Check(**check) for check in known.get("checks", ())),
                "groups": tuple(known.get("groups", ())),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def read(folder: Path) -> Outcome | None:
    """Returns the marker inside an output, or None when there is none that can be read."""
    try:
        return parse((folder / NAME).read_text())
    except OSError:
        return None


def write_atomically(path: Path, text: str) -> None:
    """Replaces `path` by `text`: a reader sees the old file or the new one, also after a crash.

    Raises:
        CannotWrite: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # on a read-only file system removing fails like writing
            temporary.unlink(missing_ok=True)
        raise write_failure(error, path) from error


def versions() -> dict[str, str]:
    """Returns what did the work: our own version, the converter's, and those that decide what it writes."""
    found = {"python": python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a source tree without installed metadata
            found[name] = "unknown"
    return found


def write_failure(error: OSError, path: object) -> CannotWrite:
    """Returns the error to raise for whatever the operating system says while `path`, which is ours to write, is written."""
    known = cannot_write(error, path)
    return known or CannotWrite(f"cannot write {path}: {error.strerror or error}", hint="check the path, or choose another")
