"""Reads the marker of an output, wherever fsspec can look.

A place where it cannot look (a run's own PVC, a bucket without credentials) is not one where the output is missing.
"""

from __future__ import annotations

from typing import Any

import fsspec

from stac_watch.model.errors import Unavailable
from stac_watch.model.outcome import MARKER, Outcome, parse_outcome

_OPTIONS: dict[str, dict[str, Any]] = {
    # botocore's own patience is minutes for each output, and the watcher waits
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 15, "retries": {"max_attempts": 1}}, "use_listings_cache": False}
}


def find_marker(output_zarr: str) -> Outcome | None:
    """Returns what the marker inside the output says, None when there is none, or nothing that is one.

    Raises:
        Unavailable: it cannot be looked at from here; whether there is one nobody knows.
    """
    url = f"{output_zarr.rstrip('/')}/{MARKER}"
    try:
        with fsspec.open(url, "rb", **_OPTIONS.get(url.partition("://")[0], {})) as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # each backend raises its own: botocore's are no OSErrors, a missing one is an ImportError
        said = " ".join(str(error).split()) or type(error).__name__
        hint = "for s3:// it takes stac-watch[s3], AWS_*, and permission to list: without it S3 says 403 and not 404"
        raise Unavailable(f"cannot look into {output_zarr!r}: {said}", hint=hint) from error
    return parse_outcome(content)
