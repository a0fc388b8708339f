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
from markupsafe import Markup, escape

from stac_watch.config.model import Source
from stac_watch.ledger.naming import Sort
from stac_watch.model.errors import StacWatchError
from stac_watch.model.states import State
from stac_watch.report.explain import Explanation, registration, tidings
from stac_watch.report.status import published
from stac_watch.report.times import minute, short, span, when
from stac_watch.report.web.attention import Standing, alarm, beginnings, notices
from stac_watch.report.web.map import areas_of, coast, draw
from stac_watch.report.web.overview import Overview
from stac_watch.report.web.query import LANES, PERIODS, View
from stac_watch.report.web.timeline import MARKS, WIDTH, place

REFRESH = 15  # seconds
SORTS = {
    Sort.CHANGED: "last changed",
    Sort.OLDEST: "longest unchanged",
    Sort.WAITING: "longest waiting",
    Sort.ACQUIRED: "acquired",
    Sort.ITEM: "id",
}


@dataclass(frozen=True)
class ItemLinks:
    """Where an item's page leads to besides the catalog."""

    files: tuple[str, ...] = ()  # of the outcome's, those that can be shown from here
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # the others, by where they lie
    run: str | None = None  # the run's page in the Argo UI


@dataclass(frozen=True)
class ItemStory:
    """What an item's page shows: the chains of its conversions, the latest revision first; links by their keys."""

    chains: Sequence[Explanation]
    at: datetime
    links: Mapping[str, ItemLinks]
    cluster: bool  # whether its runs are on a cluster


def render(seen: Overview, standing: Standing, asked: View, sources: Sequence[Source], version: str) -> str:
    """Returns the page."""
    return template("page.html.j2").render(**_shown(seen, standing, asked, sources), version=version, refresh=REFRESH)


def render_live(seen: Overview, standing: Standing, asked: View, sources: Sequence[Source]) -> str:
    """Returns the part of the page that changes."""
    return template("live.html.j2").render(**_shown(seen, standing, asked, sources))


def _shown(seen: Overview, standing: Standing, asked: View, sources: Sequence[Source]) -> dict[str, Any]:
    status = seen.status
    return {
        "root": "", "view": status, "steps": seen.steps, "backfills": seen.backfills, "asked": asked, "everything": View(),
        "health": standing.health, "alarm": alarm(standing, status), "starting": not standing.rounds,
        "notices": notices(standing, status, asked), "beginnings": beginnings(standing, sources, status.at),
        "map": draw(seen.footprints, areas_of(sources, asked.source), asked.tile), "coast": coast(), "states": list(State),
        "periods": PERIODS, "lanes": LANES, "names": seen.names, "marks": MARKS, "scale": WIDTH,
        "listing": seen.listing, "sorts": SORTS,
    }  # fmt: skip


def render_item(item: ItemStory, version: str) -> str:
    """Returns the page of an item."""
    return template("item.html.j2").render(**_told(item), version=version, refresh=REFRESH)


def render_item_live(item: ItemStory) -> str:
    """Returns the part of an item's page that changes."""
    return template("item_live.html.j2").render(**_told(item))


ABSENT = {404: "Not found", 400: "Not understood", 503: "No answer now"}
"""Status of an answer that is an error -> the head of its page."""


def render_absent(code: int, error: StacWatchError, root: str, version: str) -> str:
    """Returns the page of an error; `root` leads to the status page."""
    told = {"title": ABSENT[code], "said": error.message, "hint": error.hint}
    return template("absent.html.j2").render(**told, root=root, version=version)


def _told(item: ItemStory) -> dict[str, Any]:
    return {"root": "../", "chains": item.chains, "at": item.at, "links": item.links, "cluster": item.cluster}


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
        "short": short,
        "ticked": ticked,
        "degrees": degrees,
        "document": document,
        "quoted": quoted,
        "place": place,
        "published": published,
        "registration": registration,
        "tidings": tidings,
    }
    return environment.get_template(name)


def document(value: Mapping[str, Any]) -> str:
    """Returns a JSON document as people read it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def quoted(text: str) -> str:
    """Returns a text as a word of a shell's command; one with apostrophes in double quotes, where those change nothing in it."""
    return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else shlex.quote(text)


def ticked(text: str) -> Markup:
    """Returns a text whose commands, between backticks, are code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one that is not closed is a letter like others
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def degrees(value: int, letters: str) -> str:
    """Returns a meridian or a parallel, `letters` being those of its positive and its negative half."""
    return f"{abs(value)}°{'' if not value else letters[value < 0]}"
