"""Whether a changed item is converted, and if not, under which name. Pure.

In: an item and the source's rules. Out: `Admit` or `Skip` with a reason from a closed list.
Never: I/O; drops anything without a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shapely.geometry import Polygon, box

from stac_watch.changes import Item
from stac_watch.config import Filter
from stac_watch.events import tile_of


class SkipReason(StrEnum):
    """Every reason for which an item is not converted; counted and shown by `status` and `explain`."""

    OUTSIDE_AREA = "outside_area"  #: its bbox does not touch the wanted area
    NO_BBOX = "no_bbox"  #: an area is wanted and the item does not say where it lies
    TOO_CLOUDY = "too_cloudy"  #: eo:cloud_cover above the limit
    NO_CLOUD_COVER = "no_cloud_cover"  #: a limit is set and the item does not say (real since CPM 2.6.0)
    TOO_OLD = "too_old"  #: acquired before max_age when first seen
    OTHER_TILE = "other_tile"  #: not one of the wanted tiles
    DEPRECATED = "deprecated"  #: the catalogue says that it should not be used
    WITHDRAWN = "withdrawn"  #: it is gone from the catalogue
    SUPERSEDED = "superseded"  #: a newer revision took its place


@dataclass(frozen=True)
class Admit:
    """Convert it."""


@dataclass(frozen=True)
class Skip:
    """Do not convert it, for this reason."""

    reason: SkipReason


def judge(item: Item, rules: Filter, now: datetime) -> Admit | Skip:
    """Returns the verdict; the first rule that says no names the reason."""
    for reason in _objections(item, rules, now):
        return Skip(reason)
    return Admit()


def _objections(item: Item, rules: Filter, now: datetime) -> list[SkipReason]:
    found = []
    if item.deprecated:
        found.append(SkipReason.DEPRECATED)
    if rules.tiles and (item.tile or tile_of(item.item_id)) not in rules.tiles:
        found.append(SkipReason.OTHER_TILE)
    if rules.bbox is not None:
        if not item.bbox:
            found.append(SkipReason.NO_BBOX)
        elif not _box(item.bbox).intersects(_box(rules.bbox)):
            found.append(SkipReason.OUTSIDE_AREA)
    if rules.max_cloud_cover is not None:
        if item.cloud_cover is None:
            found.append(SkipReason.NO_CLOUD_COVER)
        elif item.cloud_cover > rules.max_cloud_cover:
            found.append(SkipReason.TOO_CLOUDY)
    if rules.max_age is not None and item.datetime < now - rules.max_age:
        found.append(SkipReason.TOO_OLD)
    return found


def _box(bbox: tuple[float, ...]) -> Polygon:
    west, south, east, north = bbox
    return box(west, south, east, north)
