"""What a product is a picture of, and when: item and product have to say the same, and no time is invented. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from geozarr_runner.source.product import Product
from stac_watch.model.errors import InputError, printable
from stac_watch.model.identity import parse_product_id
from stac_watch.model.stamps import parse_stamp, stamp

_FIRST = datetime(2015, 6, 23, tzinfo=UTC)
"""Sentinel-2A was launched then: what is earlier is a zero or a mistake."""
_APART = timedelta(hours=1)
"""Some catalogs give a datatake's begin, some a granule's middle: at most 25 minutes apart. The same tile comes after days."""
_SQUARE = re.compile(r"(?<![0-9A-Za-z])(?:MGRS-)?T?(\d{1,2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?![0-9A-Za-z])")
_TILE_PROPERTIES = ("grid:code", "s2:mgrs_tile", "s2:tile_id", "tileIdentifier")


def require_same(item: Mapping[str, Any], item_id: str, product: Product, where: str) -> None:
    """Compares item and product by id; by tile and time where the item's id is no product's.

    Raises:
        InputError: the product is another one's.
    """
    properties = _properties(item)
    own, given = parse_product_id(product.name), parse_product_id(item_id)
    hint = "the item leads to the wrong product, or the product was exchanged: tell the catalog's operator"
    if own is not None and given is not None:
        differ = [name for name, value in given.items() if own[name] != value]
        if differ:
            told = ", ".join(f"{name} {given[name]} and {own[name]}" for name in differ)
            raise InputError(f"{where} is not the product of item {item_id}, but {printable(product.name, 128)}: {told}", hint=hint)
        return
    tiles = _tile(properties, item_id), _tile(product.properties, product.name)
    if all(tiles) and tiles[0] != tiles[1]:
        raise InputError(f"{where} is not the product of item {item_id}: it shows tile {tiles[1]}, not {tiles[0]}", hint=hint)
    begin, end = _span(properties)
    seen = sensed(product, {})
    if begin is not None and end is not None and seen is not None and not begin - _APART <= seen <= end + _APART:
        raise InputError(
            f"{where} is not the product of item {item_id}: it was sensed at {stamp(seen)}, the item says {stamp(begin)}", hint=hint
        )


def tile_of(product: Product, item: Mapping[str, Any], item_id: str) -> str:
    """Returns the tile that a product shows, `32TQM`, as it says itself, or its item; empty when neither does."""
    return _tile(product.properties, product.name) or _tile(_properties(item), item_id)


def sensed(product: Product, item: Mapping[str, Any]) -> datetime | None:
    """Returns when the scene was sensed, as the product says, or its item, or its id; None when nothing does.

    In L1C products `datetime` is the text `null`.
    """
    parts = parse_product_id(product.name)
    by_id = parse_stamp(parts["sensing"]) if parts is not None else None
    times = [
        _plausible(given.get(key)) for given in (product.properties, _properties(item)) for key in ("datetime", "start_datetime")
    ]
    return next((time for time in (*times, by_id) if time is not None), None)


def _span(properties: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    at = _plausible(properties.get("datetime"))
    return _plausible(properties.get("start_datetime")) or at, _plausible(properties.get("end_datetime")) or at


def _plausible(value: object) -> datetime | None:
    found = parse_stamp(value)
    return found if found is not None and found >= _FIRST else None


def _tile(properties: Mapping[str, Any], name: str) -> str:
    texts = (str(properties[key]) for key in _TILE_PROPERTIES if properties.get(key))
    found = next((match[1] for text in (*texts, name.replace("_", " ")) if (match := _SQUARE.search(text.replace("_", " ")))), "")
    return found.zfill(5) if found else ""


def _properties(item: Mapping[str, Any]) -> Mapping[str, Any]:
    found = item.get("properties")
    return found if isinstance(found, dict) else {}
