"""Puts the files of a report where people read them: a folder, or a place in an object store that serves files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import fsspec

from stac_watch.model.errors import CannotWrite, write_failure
from stac_watch.model.files import replace_file
from stac_watch.runs.markers import options_of, words_of


def publish(place: str, files: Mapping[str, str], content: Mapping[str, str]) -> None:
    """Writes files by their names, each at once, in their order; `content` says what type each is.

    Raises:
        CannotWrite: the folder, a file of it, or the store does not take them.
    """
    if "://" in place:
        _upload(place.rstrip("/"), files, content)
        return
    folder = Path(place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            replace_file(folder / name, text)
    except OSError as error:
        raise write_failure(error, folder) from error


def _upload(place: str, files: Mapping[str, str], content: Mapping[str, str]) -> None:
    try:
        fs, path = fsspec.core.url_to_fs(place, **options_of(place))
        for name, text in files.items():
            kind = {"ContentType": content[name]} if place.startswith("s3://") else {}
            fs.pipe_file(f"{path}/{name}", text.encode(), **kind)
    except Exception as error:  # each backend raises its own: botocore's are no OSErrors, a missing one is an ImportError
        hint = "for s3:// it takes stac-watch[s3], AWS_*, and permission to write there"
        raise CannotWrite(f"cannot write {place}: {words_of(error)}", hint=hint) from error
