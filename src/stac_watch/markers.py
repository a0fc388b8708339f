"""Reads the marker of an output, wherever fsspec can look.

In: an output's path or URL. Out: the marker's content, or None where there is none or where we cannot look (a run's own PVC).
Never: writes; takes an unreadable marker for a missing output.
"""

from __future__ import annotations

import json
from typing import Any

import fsspec

MARKER = "stac-watch.json"


def read_marker(output_zarr: str) -> dict[str, Any] | None:
    """Returns what `stac-watch.json` inside the output says."""
    try:
        with fsspec.open(f"{output_zarr.rstrip('/')}/{MARKER}", "rb") as file:
            document = json.load(file)
    except (OSError, ValueError, ImportError):
        return None
    return document if isinstance(document, dict) else None
