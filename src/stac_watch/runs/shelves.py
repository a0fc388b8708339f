"""Where outputs are: every place of a template that has one, found by listing folders, and the markers there, many at once.

No object of an output is listed: a bucket of 500,000 outputs has hundreds of millions of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import Formatter
from typing import Any

import fsspec

from stac_watch.model.errors import Unavailable
from stac_watch.model.outcome import MARKER, Outcome, parse_outcome
from stac_watch.runs.markers import options_of, words_of

PAGE = 1000  # names in one answer of S3


def outputs(template: str, page: int = PAGE) -> Iterator[str]:
    """Yields the address of each folder that a template of outputs may have made, folder by folder; `page` names at once.

    Raises:
        Unavailable: the place cannot be listed.
    """
    scheme, sep, _ = template.partition("://")
    fs, root = _opened(template)
    segments = root.split("/")
    fixed = next(i for i, segment in enumerate(segments) if "{" in segment)
    try:
        for path in _walk(fs, "/".join(segments[:fixed]), segments[fixed:], page):
            yield f"{scheme}://{path}" if sep else path
    except Exception as error:  # each backend raises its own; see `markers`
        raise Unavailable(f"cannot list {template!r}: {words_of(error)}", hint="credentials, and the permission to list") from error


def markers(places: Sequence[str]) -> dict[str, Outcome | None]:
    """Returns what the markers of outputs say, None where there is none that can be read as one.

    Raises:
        Unavailable: the place does not answer.
    """
    if not places:
        return {}
    fs, _ = _opened(places[0])
    paths = {f"{_opened(place)[1]}/{MARKER}": place for place in places}
    found = fs.cat(list(paths), on_error="return")
    if isinstance(found, bytes):  # of one path
        found = {next(iter(paths)): found}
    said: dict[str, Outcome | None] = dict.fromkeys(places)
    for path, content in found.items():
        if isinstance(content, FileNotFoundError | NotADirectoryError):
            continue
        if isinstance(content, Exception):
            raise Unavailable(
                f"cannot read {path}: {words_of(content)}", hint="run the same command again to continue"
            ) from content
        said[paths[path]] = parse_outcome(content)
    return said


def _opened(address: str) -> tuple[Any, str]:
    try:
        fs, path = fsspec.core.url_to_fs(address, **options_of(address))
    except (ImportError, ValueError) as error:
        raise Unavailable(f"cannot look into {address!r}: {words_of(error)}", hint="s3:// takes stac-watch[s3]") from error
    return fs, str(path).rstrip("/")


def _walk(fs: Any, base: str, segments: Sequence[str], page: int) -> Iterator[str]:  # noqa: ANN401  # a file system of fsspec
    if not segments:
        yield base
        return
    first, *rest = segments
    if "{" not in first:
        yield from _walk(fs, f"{base}/{first}", rest, page)
        return
    parts = Formatter().parse(first)
    pattern = re.compile("".join(re.escape(text) + ("" if name is None else "[^/.][^/]*") for text, name, _, _ in parts))
    for name in _folders(fs, base, page):
        if pattern.fullmatch(name):
            yield from _walk(fs, f"{base}/{name}", rest, page)


def _folders(fs: Any, path: str, page: int) -> Iterator[str]:  # noqa: ANN401  # idem
    """Yields the names of the folders in one, of a bucket page by page."""
    if not hasattr(fs, "call_s3"):
        found = fs.ls(path, detail=True) if fs.isdir(path) else []
        yield from sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == "directory")
        return
    bucket, _, prefix = path.partition("/")
    tokens = set[str]()
    asked = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else "", "Delimiter": "/", "MaxKeys": page}
    while True:
        answer = fs.call_s3("list_objects_v2", **asked)
        for entry in answer.get("CommonPrefixes") or ():
            yield entry["Prefix"].rstrip("/").rpartition("/")[2]
        if not answer.get("IsTruncated"):
            return
        token = answer["NextContinuationToken"]
        if token in tokens:  # seen with `rclone serve s3`, and more names than a page has
            raise OSError(f"the server lists {path} in circles: it does not keep the order of names between two pages")
        tokens.add(token)
        asked["ContinuationToken"] = token
