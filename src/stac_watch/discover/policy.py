"""Whether a changed item is converted, and if not, under which name. Pure.

Nothing is dropped without a reason from a closed list.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cql2 import Expr

from stac_watch.config.globe import area_of, footprint
from stac_watch.config.model import Filter
from stac_watch.model.forms import TAKEN
from stac_watch.model.identity import tile_of
from stac_watch.model.item import Item, ItemDocument, SkipReason


@dataclass(frozen=True)
class Admit:
    """Convert it."""


@dataclass(frozen=True)
class Skip:
    """Do not convert it, for this reason."""

    reason: SkipReason


def judge(item: Item, rules: Filter, now: datetime, document: ItemDocument | None = None) -> Admit | Skip:
    """Returns the verdict; the first rule that says no names the reason.

    Args:
        item: the item as it was read.
        rules: the source's filter.
        now: for its age.
        document: the item as the catalog gave it, where an area or `cql2` need more than the item.
    """
    for reason in _objections(item, rules, now, document or {}):
        return Skip(reason)
    return Admit()


def fields_for(rules: Filter) -> tuple[str, ...]:
    """Returns what of an item document these rules need besides the usual."""
    return ("geometry",) if any(rule is not None for rule in (rules.bbox, rules.intersects, rules.cql2)) else ()


def _objections(item: Item, rules: Filter, now: datetime, document: ItemDocument) -> list[SkipReason]:
    found = []
    if item.deprecated:
        found.append(SkipReason.DEPRECATED)
    if item.form not in TAKEN:
        found.append(SkipReason.FORM)
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


def _outside(item: Item, rules: Filter, document: ItemDocument) -> SkipReason | None:
    areas = [area_of(rules.bbox)] if rules.bbox is not None else []
    areas += [rules.intersects.geometry] if rules.intersects is not None else []
    if not areas:
        return None
    place = footprint(document, item.bbox)
    if place is None:
        return SkipReason.NO_BBOX
    return None if all(area is not None and place.intersects(area) for area in areas) else SkipReason.OUTSIDE_AREA


def _unmet(expression: Expr, document: ItemDocument) -> SkipReason | None:
    try:
        return None if expression.matches(dict(document)) else SkipReason.NO_MATCH
    except Exception:  # noqa: BLE001  # cql2 raises bare Exception where SQL says NULL: a property that the item does not have
        return SkipReason.CANNOT_MATCH
