"""Places on the globe, in every spelling that catalogs have for what crosses the antimeridian or holds a pole. Pure.

RFC 7946 wants such a footprint split at 180 degrees, and a bbox with west > east. Real ones also have longitudes beyond 180, rings
that jump from one side to the other, and a bbox around the whole globe. A bbox wider than half of it, and not the whole, is read as
the two sides of the antimeridian; so is an outline with an edge of that length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import copysign, floor, isfinite

from shapely import make_valid, unary_union
from shapely.affinity import translate
from shapely.errors import ShapelyError
from shapely.geometry import LineString, Point, Polygon, box, shape
from shapely.geometry.base import BaseGeometry

from stac_watch.model.item import ItemDocument

GLOBE = box(-180, -90, 180, 90)
FAR = 720  # degrees of longitude that somebody may mean


def footprint(document: ItemDocument, bbox: Sequence[float]) -> BaseGeometry | None:
    """Returns the item's geometry, its bbox where it has none that can be used, or None; within 180 degrees west and east."""
    try:
        parts = [onto_globe(part) for part in _parts(shape(document.get("geometry")))]  # type: ignore[arg-type]  # shapely says
        found = unary_union([part for part in parts if part is not None])
        if not found.is_empty:
            return found
    except (ShapelyError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        pass  # what shapely says of nonsense differs by type
    return area_of(bbox) if bbox else None


def area_of(bbox: Sequence[float]) -> BaseGeometry | None:
    """Returns the area of west, south, east, north in degrees; None where that is none."""
    west, south, east, north = bbox
    if max(abs(west), abs(east)) > FAR:
        return None
    if west > east:  # RFC 7946
        east += 360
    elif 180 < east - west < 360:  # the smallest and the largest longitude of what lies at both sides of the antimeridian
        west, east = east, west + 360
    return onto_globe(box(west, min(south, north), east, max(south, north)))


def _parts(geometry: BaseGeometry) -> Iterator[BaseGeometry]:
    """Yields points, lines and polygons."""
    if hasattr(geometry, "geoms"):
        for part in geometry.geoms:
            yield from _parts(part)
    elif isinstance(geometry, Polygon):
        yield _polygon(geometry)
    else:
        yield LineString(_unrolled(list(geometry.coords))) if isinstance(geometry, LineString) else Point(geometry.coords[0][:2])


def jumps(polygon: Polygon) -> bool:
    """Tells whether an edge of the outline is longer than half the globe."""
    return any(abs(b[0] - a[0]) > 180 for a, b in pairwise(polygon.exterior.coords))


def _polygon(given: Polygon) -> Polygon:
    """Returns a polygon whose outline does not jump over the antimeridian, and that holds the pole that it goes round."""
    if not jumps(given):
        return given
    unrolled = _unrolled(list(given.exterior.coords))
    if abs(unrolled[-1][0] - unrolled[0][0]) > 180:  # once round the globe
        pole = copysign(90, sum(lat for _, lat in unrolled))
        unrolled += [(unrolled[-1][0], pole), (unrolled[0][0], pole)]
    found = Polygon(unrolled)
    return found if found.area > 0 else given  # a band around the globe, written as a rectangle, comes to nothing


def _unrolled(outline: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Returns points of which each goes on from the one before by the shorter way, beyond 180 degrees if need be."""
    points: list[tuple[float, float]] = []
    for lon, lat, *_ in outline:
        before = points[-1][0] if points else lon
        points.append((lon + 360 * round((before - lon) / 360), lat))
    return points


def onto_globe(geometry: BaseGeometry) -> BaseGeometry | None:
    """Returns what of a geometry lies on the globe, whichever turn of it its longitudes are of; None if nothing does."""
    west, _, east, _ = bounds = geometry.bounds
    if not all(isfinite(bound) for bound in bounds) or max(abs(west), abs(east)) > FAR:
        return None
    valid = geometry if geometry.is_valid else make_valid(geometry)
    if not GLOBE.covers(valid):
        turns = range(floor((west + 180) / 360), floor((east + 180) / 360) + 1)
        valid = unary_union([translate(valid, -360 * turn).intersection(GLOBE) for turn in turns])
    return None if valid.is_empty else valid
