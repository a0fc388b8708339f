"""Where items lie, as what an SVG draws: rectangles in degrees, a frame around them, meridians and parallels.

x is degrees east, y degrees south, stretched for the latitude. Nothing is fetched from elsewhere: the coast (Natural Earth 1:110m,
public domain, simplified to a quarter of a degree) lies with the templates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from stac_watch.ledger.records import Footprint
from stac_watch.model.states import State

MARGIN = 4.0  # degrees around what is shown
NARROWEST = 24.0  # degrees: a single tile still lies in a country that people recognise
STEPS = (1, 2, 5, 10, 20, 30)  # degrees between two meridians
SHAPE = 2.0  # width by height that the picture has at least
LINES = 6  # at about so many lines across


@dataclass(frozen=True)
class Rectangle:
    """The items of one state that lie at one place."""

    x: float
    y: float
    width: float
    height: float
    state: State
    items: list[str]


@dataclass(frozen=True)
class Map:
    """What is drawn, and the frame."""

    west: float
    north: float  # as y: negative in the north
    width: float
    height: float
    stretch: float  # of x, so that a square on the ground is one in the picture
    rectangles: list[Rectangle]
    meridians: list[int]
    parallels: list[int]  # degrees north


def draw(footprints: Sequence[Footprint]) -> Map | None:
    """Returns the map of these items, in their order; None where there is nothing to show."""
    places: dict[tuple[State, float, float, float, float], list[str]] = {}
    for footprint in footprints:
        for box in _boxes(footprint.bbox):
            places.setdefault((footprint.state, *box), []).append(footprint.item_id)
    if not places:
        return None
    rectangles = [Rectangle(w, -n, round(e - w, 2), round(n - s, 2), state, items) for (state, w, s, e, n), items in places.items()]
    west, east = _frame([r.x for r in rectangles], [r.x + r.width for r in rectangles], 180)
    top, bottom = _frame([r.y for r in rectangles], [r.y + r.height for r in rectangles], 90)
    stretch = round(max(0.3, math.cos(math.radians((top + bottom) / 2))), 3)
    west, east = _frame([west + MARGIN], [east - MARGIN], 180, at_least=(bottom - top) * SHAPE / stretch)
    step = next((s for s in STEPS if max(east - west, bottom - top) / s <= LINES), STEPS[-1])
    return Map(
        west=west, north=top, width=east - west, height=bottom - top,
        stretch=stretch,
        rectangles=rectangles,
        meridians=[x for x in range(-180, 181, step) if west < x < east],
        parallels=[-y for y in range(-(90 // step) * step, 91, step) if top < y < bottom],
    )  # fmt: skip


def coast() -> str:
    """Returns the land as an SVG path in degrees east and south."""
    return files("stac_watch.report.web").joinpath("templates", "land.path").read_text(encoding="ascii")


def _boxes(bbox: Sequence[float]) -> Iterator[tuple[float, float, float, float]]:
    """Yields west, south, east, north; two where a box crosses the antimeridian, as RFC 7946 has it; none for what is no box."""
    if len(bbox) not in (4, 6) or not all(math.isfinite(v) for v in bbox):
        return
    half = len(bbox) // 2
    west, south, east, north = (round(v, 2) for v in (bbox[0], bbox[1], bbox[half], bbox[half + 1]))
    if south > north or not (abs(south) <= 90 and abs(north) <= 90 and abs(west) <= 180 and abs(east) <= 180):
        return
    if west <= east:
        yield west, south, east, north
    else:
        yield west, south, 180.0, north
        yield -180.0, south, east, north


def _frame(lows: Sequence[float], highs: Sequence[float], limit: float, at_least: float = NARROWEST) -> tuple[float, float]:
    low, high = min(lows) - MARGIN, max(highs) + MARGIN
    lacking = max(0.0, at_least - (high - low)) / 2
    return round(max(-limit, low - lacking), 2), round(min(limit, high + lacking), 2)
