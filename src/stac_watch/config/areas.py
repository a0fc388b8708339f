"""The parts of a source's filter that are more than a number: areas of interest and CQL2 expressions.

A path, GeoJSON, CQL2 text or JSON becomes a geometry or an expression that can be used, or a ValueError says what is wrong with it.
Shapely and cql2 are imported by the first of them: most configurations have none, and every verb reads one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


class Area:
    """An area of interest, read from a GeoJSON file or written into the configuration."""

    def __init__(self, name: str, geometry: BaseGeometry) -> None:
        self.name, self.geometry = name, geometry

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Area) and self.geometry.equals(other.geometry)

    def __hash__(self) -> int:
        return hash(self.geometry.wkb)

    def __repr__(self) -> str:
        return f"Area({self.name!r})"


class Expression:
    """A CQL2 expression, in text or JSON."""

    def __init__(self, given: str | dict[str, Any]) -> None:
        from cql2 import Expr

        self.text = given if isinstance(given, str) else json.dumps(given)
        self.expression = Expr(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def parse_area(value: object) -> Area:
    """Returns the area of a GeoJSON file, or of GeoJSON itself."""
    if isinstance(value, Area):
        return value
    if isinstance(value, str):
        try:
            document = json.loads(Path(value).read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"cannot read {value}: {error.strerror}") from None
        except ValueError:
            raise ValueError(f"{value} is not JSON") from None
        return Area(value, _union(document, value))
    return Area("GeoJSON", _union(value, "the given value"))


def _union(document: object, name: str) -> BaseGeometry:
    from shapely import is_valid_reason, unary_union
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    from stac_watch.config.globe import onto_globe

    try:
        if not isinstance(document, dict):
            raise TypeError  # noqa: TRY301  # said below like every other nonsense
        if document.get("type") == "FeatureCollection":
            area = unary_union([shape(feature["geometry"]) for feature in document["features"]])
        else:
            area = shape(document["geometry"] if document.get("type") == "Feature" else document)
    except (ShapelyError, TypeError, ValueError, AttributeError, KeyError, IndexError):
        raise ValueError(f"{name} is not a GeoJSON geometry, Feature or FeatureCollection") from None
    if area.is_empty or not area.is_valid:
        raise ValueError(f"the area of {name} is {'empty' if area.is_empty else is_valid_reason(area)}")
    west, south, east, north = area.bounds
    if west < -360 or east > 360 or south < -90 or north > 90:  # degrees
        raise ValueError(f"the area of {name} is not in degrees (EPSG:4326): its bounds are {area.bounds}")
    if any(180 < length < 360 for length in _edges(area)):
        raise ValueError(
            f"the area of {name} has an edge across more than half the globe: where it crosses the antimeridian, split it at 180"
            " degrees (RFC 7946), or go on counting beyond; where it is that wide, give the edge a point in between"
        )
    return onto_globe(area) or area


def _edges(area: BaseGeometry) -> Iterator[float]:
    """Yields how many degrees of longitude the edges of polygons cover."""
    for part in getattr(area, "geoms", [area]):
        if hasattr(part, "geoms"):
            yield from _edges(part)
        elif part.geom_type == "Polygon":
            yield from (abs(b[0] - a[0]) for a, b in pairwise(part.exterior.coords))


def parse_expression(value: object) -> Expression:
    """Returns a CQL2 expression from its text or JSON."""
    if isinstance(value, Expression):
        return value
    if not isinstance(value, str | dict):
        raise ValueError(f"{value!r} is neither CQL2 text nor CQL2 JSON")  # noqa: TRY004  # pydantic reports ValueError
    try:
        parsed = Expression(value)
        parsed.expression.to_sql()  # checks the number of arguments
    except Exception as error:  # noqa: BLE001  # cql2 raises bare Exception for what it cannot parse
        raise ValueError(f"not CQL2: {' '.join(str(error).split())[:160]}") from None
    return parsed
