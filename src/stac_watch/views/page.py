"""The status page and an item's page: HTML documents without scripts, CSS and map inside. Pure.

In: a status, a health, footprints; an item's chains. Out: HTML. Never: a request to anywhere (its policy forbids it), a value that
is not escaped: ids and errors come from other people's catalogues; or anything that `status --json` and `explain --json` do not
say, besides the map.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from stac_watch.events import stamp
from stac_watch.records import Footprint
from stac_watch.states import State
from stac_watch.views.explain import Explanation
from stac_watch.views.health import Health
from stac_watch.views.map import coast, draw
from stac_watch.views.status import Status

REFRESH = 15  # seconds
SHOWN = 5  # items named where several lie at one place


def render(view: Status, health: Health, footprints: Sequence[Footprint], version: str) -> str:
    """Returns the page."""
    return _template("page.html.j2").render(
        root="",
        view=view,
        health=health,
        map=draw(footprints),
        coast=coast(),
        states=list(State),
        version=version,
        refresh=REFRESH,
        shown=SHOWN,
    )


def render_item(chains: Sequence[Explanation], at: datetime, version: str) -> str:
    """Returns the page of an item: the chains of its conversions, the latest revision first."""
    return _template("item.html.j2").render(root="../", chains=chains, at=at, version=version)


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("stac_watch.views", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"when": when, "span": span, "degrees": degrees, "document": document}
    return environment.get_template(name)


def document(value: Mapping[str, Any]) -> str:
    """Returns a JSON document as people read it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def when(moment: datetime | None) -> str:
    """Returns a time in whole seconds."""
    return stamp(moment.replace(microsecond=0)) if moment is not None else "-"


def span(seconds: float | None) -> str:
    """Returns a duration in the unit that people would use."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def degrees(value: int, letters: str) -> str:
    """Returns a meridian or a parallel, `letters` being those of its positive and its negative half."""
    return f"{abs(value)}°{'' if not value else letters[value < 0]}"
