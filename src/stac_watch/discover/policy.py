"""Whether a changed item is converted, and if not, under which name. Pure.

Nothing is dropped without a reason from a closed list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cql2 import Expr
from shapely.errors import ShapelyError
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from stac_watch.config.model import Filter
from stac_watch.model.identity import tile_of
from stac_watch.model.item import Item, SkipReason


@dataclass(frozen=True)
class Admit:
    """Convert it."""


@dataclass(frozen=True)
class Skip:
    """Do not convert it, for this reason."""

    reason: SkipReason


def judge(item: Item, rules: Filter, now: datetime, document: Mapping[str, object] | None = None) -> Admit | Skip:
    """Returns the verdict; the first rule that says no names the reason.

    Args:
        item: the item as it was read.
        rules: the source's filter.
        now: for its age.
        document: the item as the catalog gave it, where `intersects` or `cql2` need more than the item.
    """
    for reason in _objections(item, rules, now, document or {}):
        return Skip(reason)
    return Admit()


def fields_for(rules: Filter) -> tuple[str, ...]:
    """Returns what of an item document these rules need besides the usual."""
    return ("geometry",) if rules.intersects is not None or rules.cql2 is not None else ()


def _objections(item: Item, rules: Filter, now: datetime, document: Mapping[str, object]) -> list[SkipReason]:
    found = []
    if item.deprecated:
        found.append(SkipReason.DEPRECATED)
    if rules.tiles and (item.tile or tile_of(item.item_id)) not in rules.tiles:
        found.append(SkipReason.OTHER_TILE)
    if (outside := _outside(item, rules, document)) is not None:
        found.append(outside)
    if rules.max_cloud_cover is not None:
        if item.cloud_cover is None:
            found.append(SkipReason.NO_CLOUD_COVER)
        elif item.cloud_cover > rules.max_cloud_cover:
            found.append(SkipReason.TOO_CLOUDY)
    if rules.max_age is not None and item.datetime < now - rules.max_age:
        found.append(SkipReason.TOO_OLD)
    if rules.cql2 is not None and (unmet := _unmet(rules.cql2.expression, document)) is not None:
        found.append(unmet)
    return found


def _outside(item: Item, rules: Filter, document: Mapping[str, object]) -> SkipReason | None:
    if rules.bbox is not None:
        if not item.bbox:
            return SkipReason.NO_BBOX
        if not _box(item.bbox).intersects(_box(rules.bbox)):
            return SkipReason.OUTSIDE_AREA
    if rules.intersects is not None:
        footprint = _footprint(item, document)
        if footprint is None:
            return SkipReason.NO_BBOX
        if not footprint.intersects(rules.intersects.geometry):
            return SkipReason.OUTSIDE_AREA
    return None


def _footprint(item: Item, document: Mapping[str, object]) -> BaseGeometry | None:
    """The item's geometry, or its bbox where it has none that can be used."""
    try:
        geometry = shape(document["geometry"])  # type: ignore[arg-type]  # whatever it is: shapely says
        if not geometry.is_empty and geometry.is_valid:
            return geometry
    except (ShapelyError, TypeError, ValueError, AttributeError, KeyError, IndexError):
        pass  # what shapely says of nonsense differs by type
    return _box(item.bbox) if item.bbox else None


def _unmet(expression: Expr, document: Mapping[str, object]) -> SkipReason | None:
    try:
        return None if expression.matches(dict(document)) else SkipReason.NO_MATCH
    except Exception:  # noqa: BLE001  # cql2 raises bare Exception where SQL says NULL: a property that the item does not have
        return SkipReason.CANNOT_MATCH


def _box(bbox: tuple[float, ...]) -> BaseGeometry:
    """Returns the area of a bbox; one that crosses the antimeridian (west > east, RFC 7946) is two."""
    west, south, east, north = bbox
    return box(west, south, east, north) if west <= east else box(west, south, 180, north).union(box(-180, south, east, north))
