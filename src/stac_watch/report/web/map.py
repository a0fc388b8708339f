"""Where items lie, as what an SVG draws: a rectangle for each tile, the areas of interest, a frame, meridians and parallels.

x is degrees east, y degrees south, stretched for the latitude. Nothing is fetched from elsewhere: the coast (Natural Earth 1:110m,
public domain, simplified to a quarter of a degree) lies with the templates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from stac_watch.ledger.records import Footprint
from stac_watch.model.states import State

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from stac_watch.config.model import Source

MARGIN = 0.15  # of what is shown, around it
NARROWEST = 12.0  # degrees: a single tile still lies in a country that people recognise
STEPS = (1, 2, 5, 10, 20, 30)  # degrees between two meridians
SHAPE = 2.0  # width by height that the picture has at least
LINES = 6  # at about so many lines across
WORST = (State.FAILED, State.RUNNING, State.SUBMITTED, State.QUEUED, State.DONE, State.EXPIRED, State.SKIPPED)
"""A tile has the colour of the first of these that one of its items is in."""


@dataclass(frozen=True)
class Rectangle:
    """The items of one tile, or of one place where they name none."""

    x: float
    y: float
    width: float
    height: float
    tile: str
    items: list[str]
    counts: dict[State, int]

    @property
    def state(self) -> State:
        """What it is coloured as."""
        return next(state for state in WORST if state in self.counts)


@dataclass(frozen=True)
class Map:
    """What is drawn, and the frame."""

    west: float
    north: float  # as y: negative in the north
    width: float
    height: float
    stretch: float  # of x, so that a square on the ground is one in the picture
    rectangles: list[Rectangle]
    areas: list[str]  # of interest, as paths
    meridians: list[int]
    parallels: list[int]  # degrees north


def draw(footprints: Sequence[Footprint], areas: Sequence[str] = (), tile: str | None = None) -> Map | None:
    """Returns the map of these items, around one tile or all that was not skipped; None where there is nothing to show."""
    rectangles = _rectangles(footprints)
    if not rectangles:
        return None
    framed = [r for r in rectangles if tile is not None and r.tile == tile]
    framed = framed or [r for r in rectangles if r.state is not State.SKIPPED] or rectangles
    west, east = _frame([r.x for r in framed], [r.x + r.width for r in framed], 180)
    top, bottom = _frame([r.y for r in framed], [r.y + r.height for r in framed], 90)
    stretch = round(max(0.3, math.cos(math.radians((top + bottom) / 2))), 3)
    west, east = _widened(west, east, 180, (bottom - top) * SHAPE / stretch)
    step = next((s for s in STEPS if max(east - west, bottom - top) / s <= LINES), STEPS[-1])
    return Map(
        west=west, north=top, width=round(east - west, 2), height=round(bottom - top, 2),
        stretch=stretch,
        rectangles=rectangles,
        areas=list(areas),
        meridians=[x for x in range(-180, 181, step) if west < x < east],
        parallels=[-y for y in range(-(90 // step) * step, 91, step) if top < y < bottom],
    )  # fmt: skip


def coast() -> str:
    """Returns the land as an SVG path in degrees east and south."""
    return files("stac_watch.report.web").joinpath("templates", "land.path").read_text(encoding="ascii")


def areas_of(sources: Sequence[Source], name: str | None = None) -> list[str]:
    """Returns what sources, or the one of a name, look at as SVG paths in degrees east and south."""
    paths = []
    for source in sources:
        if name in (None, source.name):
            if source.filter.bbox is not None:
                paths += [f"M{w} {-n}H{e}V{-s}H{w}Z" for w, s, e, n in _boxes(source.filter.bbox)]
            if source.filter.intersects is not None:
                paths.append("".join(_outline(source.filter.intersects.geometry)))
    return [path for path in paths if path]


def _outline(geometry: BaseGeometry) -> Iterator[str]:
    for part in getattr(geometry, "geoms", [geometry]):
        if hasattr(part, "geoms"):
            yield from _outline(part)
        elif part.geom_type == "Polygon":
            yield "M" + " ".join(f"{x:.2f} {-y:.2f}" for x, y, *_ in part.simplify(0.02).exterior.coords[:-1]) + "Z"


def _rectangles(footprints: Sequence[Footprint]) -> list[Rectangle]:
    """One for each tile, as large as its items together; those without a tile lie where their box is."""
    boxes: dict[tuple[str, ...], tuple[float, float, float, float]] = {}
    items: dict[tuple[str, ...], dict[str, State]] = {}
    tiles: dict[tuple[str, ...], str] = {}
    for footprint in footprints:
        parts = list(_boxes(footprint.bbox))
        for number, (w, s, e, n) in enumerate(parts):
            key: tuple[str, ...] = (footprint.tile, str(number)) if footprint.tile else (str(w), str(s), str(e), str(n))
            a, b, c, d = boxes.get(key, (w, s, e, n))
            boxes[key] = (min(a, w), min(b, s), max(c, e), max(d, n))
            items.setdefault(key, {})[footprint.item_id] = footprint.state
            tiles[key] = footprint.tile
    found = []
    for key, (w, s, e, n) in boxes.items():
        states = items[key]
        counts = Counter(states.values())
        last = [item for state in WORST for item, of in states.items() if of is state]
        found.append(
            Rectangle(w, -n, round(e - w, 2), round(n - s, 2), tiles[key], last, {x: counts[x] for x in WORST if x in counts})
        )
    return sorted(found, key=lambda r: -WORST.index(r.state))  # the worst is drawn last, on top of its neighbours


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


def _frame(lows: Sequence[float], highs: Sequence[float], limit: float) -> tuple[float, float]:
    low, high = min(lows), max(highs)
    margin = max(1.0, MARGIN * (high - low))
    return _widened(max(-limit, low - margin), min(limit, high + margin), limit, NARROWEST)


def _widened(low: float, high: float, limit: float, at_least: float) -> tuple[float, float]:
    lacking = max(0.0, at_least - (high - low)) / 2
    return round(max(-limit, low - lacking), 2), round(min(limit, high + lacking), 2)
