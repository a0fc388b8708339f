"""The collection that items are registered in: made where there is none, its extent and summaries widened as items come.

What others wrote into it stays: only what an item lies outside of is changed, and a file of ours where it says something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stac_watch.model.errors import ConfigError

type CollectionJson = dict[str, Any]

SUMMARIES = (
    "platform", "constellation", "instruments", "gsd", "proj:code", "processing:level", "processing:version", "product:type",
    "sat:orbit_state",
)  # fmt: skip
"""Properties of which a collection lists every value."""
MOST = 200  # values of one of them; there are 120 UTM zones
_SERVERS = ("self", "root", "parent", "items", "child", "data")
_OWN_LINKS = frozenset({*_SERVERS, "http://www.opengis.net/def/rel/ogc/1.0/queryables"})


def read(path: Path, name: str) -> CollectionJson:
    """Returns the collection that a file holds.

    Raises:
        ConfigError: it cannot be read, or is another one.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "is no JSON"
        raise ConfigError(f"register.collection_file: cannot read {path}: {why}", hint="it is a STAC collection as JSON") from None
    if not isinstance(found, dict) or found.get("type") != "Collection" or found.get("id") != name:
        said = f"register.collection_file: {path} is not the collection {name!r}"
        raise ConfigError(said, hint=f'it needs "type": "Collection" and "id": "{name}", as `register.collection` has it')
    return found


def default(name: str) -> CollectionJson:
    """Returns a collection of our own."""
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "id": name,
        "title": f"Sentinel-2 GeoZarr ({name})",
        "description": "Sentinel-2 products as GeoZarr: reflectance with its overviews in one group, ready for maps and arrays.",
        "keywords": ["Sentinel-2", "GeoZarr", "Zarr"],
        "license": "other",
        "providers": [
            {"name": "ESA", "roles": ["producer", "licensor"], "url": "https://sentinels.copernicus.eu/"},
        ],
        "links": [
            {
                "rel": "license",
                "href": "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice",
                "title": "Legal notice on the use of Copernicus Sentinel Data and Service Information",
            }
        ],
        "item_assets": {
            "product": {"type": "application/vnd.zarr; version=3", "title": "GeoZarr", "roles": ["data"]},
            "reflectance": {
                "type": "application/vnd.zarr; version=3; profile=multiscales",
                "title": "Reflectance",
                "roles": ["data", "reflectance"],
            },
            "thumbnail": {"type": "image/webp", "title": "Thumbnail", "roles": ["thumbnail"]},
            "overview": {"type": "image/png", "title": "Quicklook", "roles": ["overview"]},
        },
    }  # fmt: skip


def widened(collection: Mapping[str, Any], items: Iterable[Mapping[str, Any]]) -> CollectionJson:
    """Returns the collection with an extent and summaries that hold these items, too; its end in time stays open."""
    extent, summaries = collection.get("extent"), collection.get("summaries")
    known: CollectionJson = dict(extent) if isinstance(extent, Mapping) else {}
    box = _first(known, "spatial", "bbox")
    start = (_first(known, "temporal", "interval") or [None, None])[0]
    end = (_first(known, "temporal", "interval") or [None, None])[1]
    found: CollectionJson = dict(summaries) if isinstance(summaries, Mapping) else {}
    for item in items:
        box = _union(box, item["bbox"]) if isinstance(item.get("bbox"), list) else box
        moment = item["properties"].get("datetime") or item["properties"].get("start_datetime")
        start = min(start, moment) if start and moment else start or moment
        end = max(end, moment) if end and moment else end
        for name in SUMMARIES:
            found = _listed(found, name, item["properties"].get(name))
    changed = {
        "spatial": {**known.get("spatial", {}), "bbox": [box or [-180.0, -90.0, 180.0, 90.0], *_rest(known, "spatial", "bbox")]}
    }
    changed["temporal"] = {**known.get("temporal", {}), "interval": [[start, end], *_rest(known, "temporal", "interval")]}
    return {**collection, "extent": {**known, **changed}, **({"summaries": found} if found else {})}


def merged(there: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> CollectionJson:
    """Returns what the collection should be: what the file (or the default) says, within what is there."""
    if there is None:
        return dict(wanted)
    kept = [link for link in there.get("links", ()) if isinstance(link, dict) and link.get("rel") not in _OWN_LINKS]
    given = [link for link in wanted.get("links", ()) if link not in kept]
    whole = {**there, **{name: value for name, value in wanted.items() if name not in ("extent", "summaries", "links")}}
    for name in ("extent", "summaries"):
        if name not in there and name in wanted:
            whole[name] = wanted[name]
    return {**whole, "links": [*kept, *given]}


def without_servers_links(collection: Mapping[str, Any]) -> CollectionJson:
    """Returns a collection as it is sent: a server writes the links of its own by itself."""
    links = [link for link in collection.get("links", ()) if isinstance(link, dict) and link.get("rel") not in _OWN_LINKS]
    return {**collection, "links": links}


def _first(extent: Mapping[str, Any], part: str, name: str) -> Any:  # noqa: ANN401  # JSON
    try:
        found = extent[part][name][0]
    except (KeyError, IndexError, TypeError):
        return None
    return found if isinstance(found, list) and len(found) >= 2 else None


def _rest(extent: Mapping[str, Any], part: str, name: str) -> list[Any]:
    try:
        return list(extent[part][name][1:])
    except (KeyError, TypeError):
        return []


def _union(one: list[float] | None, other: list[float]) -> list[float]:
    """Returns the box around two; one that crosses 180 degrees makes it as wide as the world."""
    if one is None:
        return list(other)
    middle, top = len(one) // 2, len(other) // 2
    a, b = (one[0], one[1], one[middle], one[middle + 1]), (other[0], other[1], other[top], other[top + 1])
    if a == b:
        return list(one)
    wide = a[0] > a[2] or b[0] > b[2]
    return [
        -180.0 if wide else min(a[0], b[0]), min(a[1], b[1]), 180.0 if wide else max(a[2], b[2]), max(a[3], b[3]),
    ]  # fmt: skip


def _listed(summaries: CollectionJson, name: str, value: Any) -> CollectionJson:  # noqa: ANN401  # JSON
    known = summaries.get(name, [])
    values = value if isinstance(value, list) else [] if value is None else [value]
    new = [one for one in values if isinstance(known, list) and one not in known]
    if not new or len(known) + len(new) > MOST:
        return summaries
    return {**summaries, name: sorted([*known, *new], key=str)}
