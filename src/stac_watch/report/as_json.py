"""What people are shown: rows of the ledger as dataclasses, and those as tables or JSON. Pure.

In: rows and times. Out: dataclasses with `as_json`, and rich renderables. Never: asks the ledger or prints.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from stac_watch.model.stamps import stamp


def as_json(value: Any) -> str:  # noqa: ANN401  # any dataclass of this package, or a list of them
    """Returns indented JSON with RFC 3339 times; a documented contract (docs/reference/json.md)."""

    def default(entry: Any) -> Any:  # noqa: ANN401
        return stamp(entry) if isinstance(entry, datetime) else str(entry)

    plain = [asdict(v) for v in value] if isinstance(value, list) else asdict(value)
    return json.dumps(plain, indent=2, default=default)
