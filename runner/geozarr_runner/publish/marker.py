"""The marker inside an output, and the file that `--outcome` names: read, and written so that both can be believed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING

from stac_watch.model.errors import write_failure
from stac_watch.model.files import replace_file
from stac_watch.model.outcome import MARKER, Outcome, outcome_of, read_document

if TYPE_CHECKING:
    from geozarr_runner.publish.objects import ObjectStore

_PACKAGES = ("geozarr-runner", "eopf-geozarr", "xarray", "zarr", "dask", "numcodecs")


def parse(text: str | bytes) -> Outcome | None:
    """Returns the outcome that a marker holds, or None when it is none of ours.

    Stricter than the poller's reading: a whole output is told by what its marker counts, so nothing in it may be left out.
    """
    document = read_document(text)
    found = outcome_of(document)
    if found is None or found.document() != document or found.code is None or not found.counts.files:
        return None
    return found


def read(folder: Path) -> Outcome | None:
    """Returns the marker inside an output, or None when there is none that can be read."""
    try:
        return parse((folder / MARKER).read_bytes())
    except OSError:
        return None


def at(store: ObjectStore) -> Outcome | None:
    """Returns the marker of an output in an object store, or None when there is none that can be read.

    Raises:
        Exception: whatever the client raises.
    """
    try:
        return parse(store.fs.cat_file(store.at(MARKER)))
    except FileNotFoundError:
        return None


def write(path: Path, text: str) -> None:
    """Writes a file from which a reader concludes something: it is there as a whole, also after a crash of the machine.

    Raises:
        CannotWrite: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text, sync=True)
    except OSError as error:
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
