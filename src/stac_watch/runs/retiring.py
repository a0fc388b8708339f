"""Marks an output as not to be used, or removes it, wherever fsspec reaches it.

What is removed is never half an output: a note with its key goes into it first, then its marker goes, then the rest, and the note
last. Whoever finds the note goes on.
"""

from __future__ import annotations

import json
from typing import Any

import fsspec

from stac_watch.model.errors import CannotWrite, Unavailable
from stac_watch.model.outcome import MARKER, Outcome
from stac_watch.runs.markers import find_marker, options_of, words_of

NOTE = "stac-watch.removing.json"
ROUNDS = 5  # an object store may list what was removed, or not list what was written just before


def deprecate(output_zarr: str, key: str, outcome: Outcome | None, *, deprecated: bool) -> bool:
    """Says in the item beside an output that it should not be used, or no longer says so; False where the output is another's.

    Raises:
        Unavailable: the item cannot be read from here.
        CannotWrite: it cannot be written.
    """
    href = outcome.files.get("item") if outcome is not None else None
    if href is None:
        return True
    marker = find_marker(output_zarr)
    if marker is not None and not _is_own(marker, key, outcome):
        return False
    try:
        with fsspec.open(href, "rb", **options_of(href)) as file:
            document: dict[str, Any] = json.loads(file.read())
        properties = document["properties"]
    except Exception as error:  # each backend raises its own
        raise Unavailable(f"cannot read the item {href!r}: {words_of(error)}") from error
    if deprecated:
        properties["deprecated"] = True
    else:
        properties.pop("deprecated", None)
    _write(href, json.dumps(document, indent=1).encode() + b"\n")
    return True


def remove(output_zarr: str, key: str, outcome: Outcome | None) -> bool:
    """Removes an output and what lies beside it; False where what is under its name is not this conversion's.

    Raises:
        Unavailable: it cannot be looked at from here.
        CannotWrite: something of it cannot be removed; the same call goes on.
    """
    fs, path = fsspec.core.url_to_fs(output_zarr.rstrip("/"), **options_of(output_zarr))
    marker, noted = find_marker(output_zarr), _noted(output_zarr)
    if (marker is not None and not _is_own(marker, key, outcome)) or (marker is None and noted not in (key, "")):
        return False
    if marker is None and not noted and _there(fs, path):
        return False  # not an output of ours: it has neither marker nor note
    try:
        if marker is not None:
            _write(f"{output_zarr.rstrip('/')}/{NOTE}", json.dumps({"key": key}).encode())
            fs.rm_file(f"{path}/{MARKER}")
        _empty(fs, path)
        for beside in _companions(path, outcome or marker):
            if fs.exists(beside):
                fs.rm_file(beside)
        if fs.exists(path):  # folders, where there are any, and the note
            fs.rm(path, recursive=True)
    except (CannotWrite, Unavailable):
        raise
    except Exception as error:
        raise CannotWrite(
            f"cannot remove {output_zarr}: {words_of(error)}", hint="run the same command again to continue"
        ) from error
    return True


def _is_own(marker: Outcome, key: str, outcome: Outcome | None) -> bool:
    """Tells whether a marker is of the output that a conversion left: two installations may give an item one key and one place."""
    known = outcome.installation if outcome is not None else marker.installation
    return marker.key == key and marker.installation in ("", known)


def _empty(fs: Any, path: str) -> None:  # noqa: ANN401  # fsspec has no types
    """Removes every object but the note, and lists again until none is there."""
    for _ in range(ROUNDS):
        fs.invalidate_cache()
        left = _there(fs, path)
        if not left:
            return
        fs.rm(left)
    raise CannotWrite(
        f"{path} still has objects after {ROUNDS} rounds: somebody writes there", hint="run the same command again to continue"
    )


def _there(fs: Any, path: str) -> list[str]:  # noqa: ANN401
    try:
        return [name for name in fs.find(path) if not name.endswith(f"/{NOTE}")]
    except FileNotFoundError:
        return []


def _companions(path: str, outcome: Outcome | None) -> list[str]:
    """Returns what lies beside an output: only what has its name in front."""
    named = [*outcome.files.values(), outcome.package.href if outcome.package else ""] if outcome is not None else []
    found = [f"{path}{href.rpartition('/')[2].removeprefix(name)}" for href in named if (name := path.rpartition("/")[2]) and
             href.rpartition("/")[2].startswith(f"{name}.")]  # fmt: skip
    return sorted(set(found))


def _noted(output_zarr: str) -> str:
    """Returns the key of an output that is being removed; empty where none is."""
    url = f"{output_zarr.rstrip('/')}/{NOTE}"
    try:
        with fsspec.open(url, "rb", **options_of(url)) as file:
            return str(json.loads(file.read())["key"])
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except Exception as error:
        raise Unavailable(f"cannot look into {output_zarr!r}: {words_of(error)}") from error


def _write(url: str, content: bytes) -> None:
    try:
        with fsspec.open(url, "wb", **options_of(url)) as file:
            file.write(content)
    except Exception as error:
        raise CannotWrite(f"cannot write {url}: {words_of(error)}") from error
