"""What a run or a marker says of a conversion, as far as it can be believed to have its form. Pure.

In: text that a process wrote which reads strangers' data. Out: the outcome without what has another type than it must have, so that
nobody after this stage asks again. Never: judges what it says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

type Outcome = dict[str, Any]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18


def _is_whole(value: object) -> bool:
    return _is_number(value) and isinstance(value, int)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_map_of(kind: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(kind(v) for v in value.values())


def _are_checks(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(check, dict) and _is_text(check.get("name")) and _is_text(check.get("verdict")) for check in value
    )


_TEXTS = ("key", "revision", "reason", "hint", "stage", "run", "item_id", "output_zarr", "engine", "finished")
_FORMS: dict[str, Callable[[object], bool]] = {
    "code": _is_whole, "attempt": _is_whole, "done": _is_whole, "total": _is_whole, "checks": _are_checks,
    "counts": _is_map_of(_is_number), "seconds": _is_map_of(_is_number), "files": _is_map_of(_is_text),
    "versions": _is_map_of(_is_text), **dict.fromkeys(_TEXTS, _is_text),
}  # fmt: skip


def read_outcome(text: str | bytes) -> Outcome | None:
    """Returns the outcome that a text holds, without members that have not their form; None when it is no JSON object."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    return {name: value for name, value in document.items() if name not in _FORMS or _FORMS[name](value)}
