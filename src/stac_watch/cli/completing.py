"""What a shell completes of a command line: sources of the configuration, ids and tiles of the ledger. It never fails."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stac_watch.model.errors import StacWatchError

if TYPE_CHECKING:
    from stac_watch.config.model import Config
    from stac_watch.ledger.records import ConversionRow

MOST = 50  # completions: more are no help
LATEST = 2000  # conversions whose tiles are offered
FILE = "stac-watch.yaml"
ENVIRONMENT = "STAC_WATCH_CONFIG"


def sources(context: typer.Context, incomplete: str) -> list[str]:
    """Returns the names of the sources that begin so."""
    with suppress(StacWatchError, OSError):
        return [source.name for source in _settings(context).sources if source.name.startswith(incomplete)]
    return []


def items(context: typer.Context, incomplete: str) -> list[str]:
    """Returns the ids of items, the last changed first, that have this in them; those that begin so alone, where there are any."""
    ids = list(dict.fromkeys(row.item_id for row in _rows(context, incomplete, MOST)))
    return [item for item in ids if item.startswith(incomplete)] or ids


def tiles(context: typer.Context, incomplete: str) -> list[str]:
    """Returns the tiles of the last items that begin so."""
    from stac_watch.model.identity import tile_of

    found = sorted({tile_of(row.item_id) for row in _rows(context, "", LATEST)} - {""})
    asked = incomplete.upper()
    return [tile for tile in found if tile.startswith(asked)] or [tile[1:] for tile in found if tile[1:].startswith(asked)]


def _settings(context: typer.Context) -> Config:
    from stac_watch.cli.terminal import environ_of, loaded

    given = context.params.get("config") or environ_of(context).get(ENVIRONMENT) or FILE
    return loaded(context, Path(str(given)).absolute())


def _rows(context: typer.Context, text: str, limit: int) -> list[ConversionRow]:
    from stac_watch.app import open_ledger
    from stac_watch.ledger.records import Where

    with suppress(StacWatchError, OSError), closing(open_ledger(_settings(context), asks=True)) as ledger:
        return ledger.conversions.find(place=Where(text=text) if text else None, limit=limit)
    return []
