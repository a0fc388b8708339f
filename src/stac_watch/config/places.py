"""Where outputs may go: no item leads a template out of its folder, to a root, or to another's files. Pure."""

from __future__ import annotations

import re
from string import Formatter

OUTPUT_FIELDS = frozenset({"catalog", "collection", "item_id", "tile", "key"})
NO_TILE = "no-tile"
"""What stands for the tile of an item that has none, so that no part of a path is ever empty."""
_BESIDE = (
    ".tar", ".tar.gz", ".report.html", ".report.json", ".quicklook.png", ".thumbnail.webp", ".item.json", ".sha256", ".dask.html",
    ".lock", ".partial", ".upload",
)  # fmt: skip
"""What the names of files that lie beside an output end with."""
_FIXED = ("key", "tile")
"""Fields whose values have one form, none of which ends like a file beside an output."""


def output_template(value: str) -> str:
    """Returns a template that is good for every value that an item may have.

    Raises:
        ValueError: it is not, and why.
    """
    parts = _parts(value)
    fields = {name for _, name in parts if name is not None}
    if unknown := fields - OUTPUT_FIELDS:
        raise ValueError(f"unknown field {{{min(unknown)}}}; known are {', '.join(sorted(OUTPUT_FIELDS))}")
    if not fields & {"item_id", "key"}:
        raise ValueError("without {item_id} or {key} all outputs would have one name")
    scheme, sep, rest = value.partition("://")
    path = rest if sep else value
    segments = path.rstrip("/").split("/")
    if sep and ("{" in scheme or "{" in segments[0] or not segments[0] or len(segments) < 2):
        raise ValueError(f"{value!r} names no bucket: write s3://BUCKET/…, and the bucket in full")
    if not sep and (path.startswith("{tile}") or re.fullmatch(r"/+[^/]*", path)):
        hint = f"begin with a folder, e.g. outputs/{path.lstrip('/')}"
        raise ValueError(f"{value!r} writes to a root, or begins with what an item may lack; {hint}")
    if any(not segment for segment in segments[1:]):
        raise ValueError(f"{value!r} has an empty folder name")
    first = next(i for i, segment in enumerate(segments) if "{" in segment)
    if any(segment in (".", "..") for segment in segments[0 if sep else first :]) or any(".." in text for text, name in parts[1:]):
        raise ValueError(f"{value!r} leads out of its folder: no '.' or '..' behind a field")
    _check_name(value, segments[-1])
    return value


def _parts(value: str) -> list[tuple[str, str | None]]:
    try:
        parts = list(Formatter().parse(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is not a template: {error}") from None
    if "{{" in value or "}}" in value or any(spec or how for _, _, spec, how in parts):
        raise ValueError(f"{value!r} may have fields like {{item_id}} only: what shortens or quotes them makes two items one")
    return [(text, name) for text, name, _, _ in parts]


def _check_name(value: str, name: str) -> None:
    """Refuses a name that another item could give to a file beside this one's output: `{item_id}`, and an item `X.tar`."""
    *_, last = _parts(name)
    tail = last[0] if last[1] is None else ""
    if not tail and last[1] in _FIXED:
        return
    if "{" in name and (met := next((end for end in _BESIDE if (tail + end).endswith(tail)), None)):
        raise ValueError(f"{value!r} may meet another item's files (…{tail}{met}): let it end with .zarr")
