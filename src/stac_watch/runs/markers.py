"""Reads the marker of an output, wherever fsspec can look.

A place where it cannot look (a run's own PVC, a bucket without credentials) is not one where the output is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fsspec

from stac_watch.model.errors import Unavailable
from stac_watch.model.outcome import MARKER, Outcome, parse_outcome, read_document

OPTIONS: dict[str, dict[str, Any]] = {
    # botocore's own patience is minutes for each output, and the watcher waits
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 15, "retries": {"max_attempts": 1}}, "use_listings_cache": False}
}

MOST = 4 << 20  # bytes of a marker, or an item, that are read: one has some kilobytes
ITEM = ".item.json"
"""What the name of the STAC item beside an output ends with, after the output's own."""

_OURS = (f"/{MARKER}", "/stac-watch.uploading.json")
"""Objects inside an output that its marker does not count."""


def options_of(url: str) -> dict[str, Any]:
    """Returns how fsspec opens an address."""
    return OPTIONS.get(url.partition("://")[0], {})


def words_of(error: BaseException) -> str:
    """Returns what a backend's error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def find_marker(output_zarr: str) -> Outcome | None:
    """Returns what the marker inside the output says, None when there is none, or nothing that is one.

    Raises:
        Unavailable: it cannot be looked at from here; whether there is one nobody knows.
    """
    content = _content(output_zarr, f"{output_zarr.rstrip('/')}/{MARKER}")
    return parse_outcome(content) if content is not None else None


def find_item(output_zarr: str) -> dict[str, Any] | None:
    """Returns the STAC item beside an output, None when there is none, or nothing that is one.

    Raises:
        Unavailable: it cannot be looked at from here.
    """
    content = _content(output_zarr, f"{output_zarr.rstrip('/')}{ITEM}")
    return read_document(content) if content is not None else None


def _content(output_zarr: str, url: str) -> bytes | None:
    try:
        with fsspec.open(url, "rb", **options_of(url)) as file:
            content: bytes = file.read(MOST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # each backend raises its own: botocore's are no OSErrors, a missing one is an ImportError
        hint = "for s3:// it takes stac-watch[s3], AWS_*, and permission to list: without it S3 says 403 and not 404"
        raise Unavailable(f"cannot look into {output_zarr!r}: {words_of(error)}", hint=hint) from error
    return content


@dataclass(frozen=True)
class Damage:
    """What of an output is not there, or not what was written; nothing where `why` is empty."""

    why: str = ""  # in one line
    objects: tuple[str, ...] = ()  # each of them, and what is wrong with it
    compared: bool = False  # every byte was read


@dataclass(frozen=True)
class OutputPlace:
    """Where an output lies."""

    fs: Any  # of fsspec, which has no types
    path: str

    def objects(self) -> dict[str, int]:
        """Returns the sizes of what its marker counts."""
        found = self.fs.find(self.path, detail=True).items()
        return {name.removeprefix(f"{self.path}/"): int(f["size"]) for name, f in found if not name.endswith(_OURS)}

    def package(self, marker: Outcome) -> str:
        """Returns where its package lies; empty where it has none."""
        package = marker.package
        return f"{self.path.rpartition('/')[0]}/{package.href.rpartition('/')[2]}" if package is not None else ""


def place_of(output_zarr: str) -> OutputPlace:
    """Returns where an output lies; nothing is asked yet.

    Raises:
        Unavailable: it cannot be looked at from here.
    """
    try:
        return OutputPlace(*fsspec.core.url_to_fs(output_zarr.rstrip("/"), **options_of(output_zarr)))
    except Exception as error:  # see above
        raise Unavailable(f"cannot look into {output_zarr!r}: {words_of(error)}") from error


def missing(output_zarr: str, marker: Outcome) -> Damage:
    """Returns what is not there of what the marker of an output counts.

    Raises:
        Unavailable: it cannot be looked at from here.
    """
    place = place_of(output_zarr)
    try:
        there, package = place.objects(), place.package(marker)
        packed = place.fs.info(package)["size"] if package and place.fs.exists(package) else None
    except Exception as error:  # see above
        raise Unavailable(f"cannot look into {output_zarr!r}: {words_of(error)}") from error
    objects, size, counts = len(there), sum(there.values()), marker.counts
    wrong = ["no zarr.json"] if counts.files and "zarr.json" not in there else []
    if counts.files and objects != counts.files:
        wrong.append(f"{objects} objects of {counts.files}")
    elif counts.files and size != counts.bytes_written:
        wrong.append(f"{size} bytes of {counts.bytes_written}")
    if marker.package is not None and packed != marker.package.bytes:
        known = f"a package of {packed} bytes, not {marker.package.bytes}"
        wrong.append(f"no package {marker.package.href}" if packed is None else known)
    return Damage(", ".join(wrong))
