"""The status page and an item's page: HTML documents, CSS and pictures inside; one script keeps the status page true.

They load nothing from elsewhere (their policy forbids it), and every value is escaped: ids and errors come from other people's
catalogs. Besides map and timeline they say nothing that no verb says.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from stac_watch.model.states import State
from stac_watch.report.explain import Explanation, registration
from stac_watch.report.health import Health
from stac_watch.report.status import published
from stac_watch.report.times import minute, span, when
from stac_watch.report.web.map import coast, draw
from stac_watch.report.web.overview import Overview
from stac_watch.report.web.query import LANES, PERIODS, View
from stac_watch.report.web.timeline import MARKS, WIDTH, place

REFRESH = 15  # seconds
SHOWN = 5  # items named where several lie at one place


@dataclass(frozen=True)
class ItemLinks:
    """Where an item's page leads to besides the catalog."""

    files: tuple[str, ...] = ()  # of the outcome's, those that can be shown from here
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # the others, by where they lie
    run: str | None = None  # the run's page in the Argo UI


def render(seen: Overview, health: Health, asked: View, version: str) -> str:
    """Returns the page."""
    return template("page.html.j2").render(**_shown(seen, health, asked), version=version, refresh=REFRESH)


def render_live(seen: Overview, health: Health, asked: View) -> str:
    """Returns the part of the page that changes."""
    return template("live.html.j2").render(**_shown(seen, health, asked))


def _shown(seen: Overview, health: Health, asked: View) -> dict[str, Any]:
    return {
        "root": "", "view": seen.status, "steps": seen.steps, "backfills": seen.backfills, "health": health, "asked": asked,
        "map": draw(seen.footprints), "coast": coast(), "states": list(State), "periods": PERIODS, "lanes": LANES,
        "names": seen.names, "marks": MARKS,
        "scale": WIDTH, "shown": SHOWN,
    }  # fmt: skip


def render_item(chains: Sequence[Explanation], at: datetime, version: str, links: Mapping[str, ItemLinks]) -> str:
    """Returns the page of an item: the chains of its conversions, the latest revision first; links by their keys."""
    return template("item.html.j2").render(root="../", chains=chains, at=at, version=version, links=links)


@cache
def beside(name: str) -> str:
    """Returns a file that the pages refer to: `live.js`, `icon.svg`."""
    return files("stac_watch.report.web").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def template(name: str) -> Template:
    """Returns a template: what it is given is escaped, and nothing may be missing."""
    environment = Environment(
        loader=PackageLoader("stac_watch.report.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "when": when,
        "minute": minute,
        "span": span,
        "degrees": degrees,
        "document": document,
        "quoted": shlex.quote,
        "place": place,
        "published": published,
        "registration": registration,
    }
    return environment.get_template(name)


def document(value: Mapping[str, Any]) -> str:
    """Returns a JSON document as people read it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def degrees(value: int, letters: str) -> str:
    """Returns a meridian or a parallel, `letters` being those of its positive and its negative half."""
    return f"{abs(value)}°{'' if not value else letters[value < 0]}"
