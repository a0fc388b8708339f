"""What an item's event asks for, and whether a conversion was asked for as it would be today: recipe and place. Pure.

Keys alone do not say the latter: what has a key of an earlier form keeps it, and a catalog may be reached at another address.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stac_watch.config.model import Recipe, Source
from stac_watch.config.places import NO_TILE
from stac_watch.config.sharing import catalog_name
from stac_watch.ledger.records import ConversionRow, ItemRow, Known, Sighting
from stac_watch.model.event import OLDER_OPTIONS, Conversion, Lane
from stac_watch.model.forms import Form
from stac_watch.model.identity import conversion_key, folder_name, tile_of
from stac_watch.model.item import Item

_NO_SHAPE = frozenset({"overwrite", "dask_perf_html"})
"""Options that change nothing of an output."""
type Shape = dict[str, str]


def conversion(item: Item, source: Source, recipe: Recipe, lane: Lane, *, replaced: bool) -> Conversion:
    """Returns what an item's event asks for."""
    key = conversion_key(source.api, item.collection, item.item_id, item.revision, recipe.digest_fields())
    output = recipe.output.format(
        catalog=catalog_name(source.api),
        collection=folder_name(item.collection),
        item_id=item.item_id,
        tile=item.tile or tile_of(item.item_id) or NO_TILE,
        key=key,
    )
    reason = "backfill" if lane == "backfill" else "updated" if replaced else "new"
    return Conversion(
        catalog=source.api, collection=item.collection, item_id=item.item_id, revision=item.revision,
        recipe=recipe.digest_fields(), kind="replace" if replaced else "create", reason=reason, lane=lane,
        time=item.updated or item.datetime, datetime=item.datetime, item_href=item.item_href, product_href=item.product_href,
        output_zarr=output, groups=recipe.groups, bbox=item.bbox, source_name=source.name,
        allowed_hosts=",".join(source.hosts()), form=str(item.form),
        options={
            "spatial_chunk": str(recipe.spatial_chunk), "sharding": str(recipe.sharded).lower(), "encoding": str(recipe.encoding),
            "package": recipe.package,
            "native": str(recipe.native),
            "overwrite": "false", "dask_perf_html": "",
        },
    )  # fmt: skip


def is_as_of_now(row: ConversionRow, source: Source, recipe: Recipe) -> bool:
    """Tells whether a conversion has the key that it would have today: then nothing else need be compared."""
    return row.key == conversion_key(source.api, source.collection, row.item_id, row.revision, recipe.digest_fields())


def asked_by(body: bytes) -> Shape:
    """Returns what an event asks of the converter, and where the output goes, its own key spelled `{key}`."""
    data = json.loads(body)["data"]
    return _asked(data.get("options", {}), str(data.get("groups", "")), str(data["output_zarr"]), str(data["key"]))


def asked_now(c: Conversion) -> Shape:
    """Returns the same of what would be asked for."""
    return _asked(c.options, c.groups, c.output_zarr, c.key)


def _asked(options: Mapping[str, str], groups: str, output: str, key: str) -> Shape:
    found = {**OLDER_OPTIONS, **{name: str(value) for name, value in options.items() if name not in _NO_SHAPE}}
    return {"groups": " ".join(sorted(groups.split())), **found, "output": output.replace(key, "{key}")}


def differences(before: Shape, now: Shape) -> list[str]:
    """Returns what differs, each in words; nothing where both ask for the same."""
    return [f"{n} {before.get(n, 'not known') or 'empty'}, now {now[n] or 'empty'}" for n in now if before.get(n) != now[n]]


def as_of_now(row: ConversionRow, item: ItemRow, known: Known | None, body: bytes, source: Source, recipe: Recipe) -> Sighting:
    """Returns what would be asked for today of an item as the ledger knows it, for the lane `replay`; its fence is left open."""
    data: dict[str, Any] = json.loads(body)["data"]
    seen = Item(
        collection=str(data["collection"]), item_id=row.item_id, revision=row.revision, updated=item.updated, datetime=item.sensing,
        product_href=str(data["product_href"]), item_href=str(data["item_href"]), bbox=tuple(item.bbox),
        cloud_cover=item.cloud_cover, tile=item.tile, deprecated=False, form=_form(data),
        trace=(known.trace if known is not None else None) or "",
    )  # fmt: skip
    asked = conversion(seen, source, recipe, "replay", replaced=True)
    return Sighting(seen, replace(asked, reason="replay", fence=row.fence), None)


def _form(data: Mapping[str, Any]) -> Form:
    form = str(data.get("form", ""))
    return Form(form) if form in set(Form) else Form.EOPF_V2
