"""What people call a conversion: its item's id, its key or its run's name, whole or in part, or the tile that it lies on."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select

from stac_watch.ledger import schema as t
from stac_watch.ledger.moves import conversion_of
from stac_watch.ledger.records import ConversionRow, Where
from stac_watch.model.errors import InputError
from stac_watch.model.identity import tile_name

SHORTEST = 4  # letters of a part: fewer are in everything
SHOWN = 3  # items that are named where several have a part
MOST = 1000  # conversions that are looked at
_c, _i = t.conversion.c, t.item.c


class Sort(StrEnum):
    """In which order conversions are listed."""

    CHANGED = "changed"  # the last changed first
    OLDEST = "oldest"  # the last changed last
    WAITING = "waiting"  # the first admitted, or replayed, first
    ACQUIRED = "acquired"  # the last acquired first
    ITEM = "item"  # by the item's id


def called(tx: Connection, name: str) -> list[ConversionRow]:
    """Returns the conversions of the one item that a name means, the last changed first; empty where the ledger has none.

    What it is wholly goes before what it is a part of.

    Raises:
        InputError: several items have it.
    """
    for meaning in _meanings(name.strip()):
        query = select(t.conversion).where(meaning).order_by(_c.changed_at.desc(), _c.key).limit(MOST)
        rows = [conversion_of(r) for r in tx.execute(query)]
        items = list(dict.fromkeys(row.item_id for row in rows))
        if len(items) > 1:
            shown = ", ".join(items[:SHOWN]) + (" …" if len(items) > SHOWN else "")
            many = f"{len(items)} items" if len(rows) < MOST else f"more than {len(items)} items"
            raise InputError(f"{name!r} may be {many}: {shown}", hint=f"`stac-watch items --text {name}` lists them; name one")
        if rows:
            return rows
    return []


def _meanings(name: str) -> Iterator[ColumnElement[bool]]:
    lower = name.lower()
    yield or_(_c.key == lower, _c.item_id == name)
    yield _c.run == lower
    tile = _tile(name)
    if tile is not None:
        yield on_tile(tile)
    for suffix in (".safe", ".zarr", ".zip"):  # as archives and stores are called
        lower = lower.removesuffix(suffix)
    if len(lower) >= SHORTEST:
        yield part_of(lower)


def lying(place: Where) -> Iterator[ColumnElement[bool]]:
    """Conversions of items on a tile, acquired in a range, or with a text in a name."""
    if place.tile is not None:
        yield on_tile(place.tile)
    if place.sensed is not None:
        first, last = place.sensed
        mine = and_(_i.source == _c.source, _i.item_id == _c.item_id)
        yield exists().where(and_(mine, _i.sensing >= first, _i.sensing < last))
    if place.text is not None:
        yield part_of(place.text)


def order(sort: Sort) -> tuple[ColumnElement[Any], ...]:
    """By what conversions are sorted; each order is a whole one, so that no page of a list repeats what another has."""
    if sort is Sort.OLDEST:
        return _c.changed_at, _c.key
    if sort is Sort.WAITING:
        return _c.queued_at, _c.key
    if sort is Sort.ITEM:
        return _c.item_id, _c.changed_at.desc(), _c.key
    if sort is Sort.ACQUIRED:
        mine = and_(_i.source == _c.source, _i.item_id == _c.item_id)
        return select(_i.sensing).where(mine).scalar_subquery().desc(), _c.item_id, _c.key
    return _c.changed_at.desc(), _c.key


def _tile(name: str) -> str | None:
    try:
        return tile_name(name)
    except ValueError:
        return None


def on_tile(tile: str) -> ColumnElement[bool]:
    """Conversions of items on a tile, `T32TQM`."""
    return exists().where(and_(_i.source == _c.source, _i.item_id == _c.item_id, _i.tile == tile))


def part_of(text: str) -> ColumnElement[bool]:
    """Conversions with a text in the item's id or the run's name, or at the start of the key; in any case of letters."""
    key = _c.key.startswith(text.lower(), autoescape=True)
    inside = (column.contains(text.lower(), autoescape=True) for column in (func.lower(_c.item_id), func.lower(_c.run)))
    return or_(key, *inside)
