"""Writes docs/configuration.md from the configuration's models, so that the two cannot differ.

In: `stac_watch.config`. Out: the page on stdout, or with `--write` in place. Never: adds anything that the models do not say.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from stac_watch import config

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = """# Configuration

One YAML file; every scalar can be overridden by an environment variable, `STAC_WATCH__` and the key's path joined by `__`:
`STAC_WATCH__ENGINE__LIMITS__RATE=1/s`, `STAC_WATCH__SOURCES__S2_L2A__API=…` (a source by its name or number).
An unknown key is an error. Durations are a number and `s`, `m`, `h` or `d`; rates are `2/s`, `90/m`, `1000/h`.

<!-- written by tools/reference.py: `make docs` -->
"""
SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("(top)", config.Config),
    ("sources[]", config.Source),
    ("sources[].filter", config.Filter),
    ("sources[].poll", config.Poll),
    ("recipe", config.Recipe),
    ("engine (kind: local)", config.LocalEngine),
    ("engine (kind: argo)", config.ArgoEngine),
    ("engine.limits", config.Limits),
    ("web", config.Web),
)


def page() -> str:
    """Returns the page."""
    return HEAD + "".join(_section(name, model) for name, model in SECTIONS)


def _section(name: str, model: type[BaseModel]) -> str:
    rows = [f"\n## {name}\n\n{model.__doc__}\n\n| key | default | meaning |\n| --- | --- | --- |\n"]
    for key, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split())
        rows.append(f"| `{key}` | {_default(field.default)} | {meaning} |\n")
    return "".join(rows)


def _default(value: Any) -> str:  # noqa: ANN401  # whatever a model has
    if value is PydanticUndefined:
        return "(required)"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple) and value and isinstance(value[0], timedelta):
        return "`" + ", ".join(_span(v) for v in value) + "`"
    if isinstance(value, timedelta):
        return f"`{_span(value)}`"
    if value in (None, "", ()):
        return "(empty)"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _span(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    return next(
        f"{seconds // size}{unit}" for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)) if seconds % size == 0
    )


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
