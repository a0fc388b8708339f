"""JSON that strangers wrote, as far as it can be walked. Pure."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 100  # of lists and objects in each other; what is deeper cannot be walked by recursion


def document(raw: bytes) -> Any:  # noqa: ANN401  # a JSON value
    """Returns the JSON that bytes hold; `NaN` and `Infinity` are taken, as Zarr v2's writers write them.

    Raises:
        ValueError: no JSON, or nested too deep.
    """
    try:
        found = json.loads(raw)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    layer = [found]
    for _ in range(MAX_DEPTH):
        layer = [m for v in layer if isinstance(v, dict | list) for m in (v.values() if isinstance(v, dict) else v)]
        if not layer:
            return found
    raise ValueError("it is nested too deep")
