"""Any answer of this package as JSON, with RFC 3339 times."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from stac_watch.model.outcome import Outcome
from stac_watch.model.stamps import stamp


def as_json(value: Any) -> str:  # noqa: ANN401  # any dataclass of this package, or a list of them
    """Returns indented JSON with RFC 3339 times; a documented contract (docs/reference/json.md)."""

    def default(entry: Any) -> Any:  # noqa: ANN401
        return stamp(entry) if isinstance(entry, datetime) else str(entry)

    return json.dumps(_plain(value), indent=2, default=default)


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Outcome):
        return value.document()
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
