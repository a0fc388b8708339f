"""Which extension of STAC each field of an item belongs to: only what is declared is validated, and read by clients. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_STAC = "https://stac-extensions.github.io/{}/schema.json"
_PREFIXES = {
    "eo": _STAC.format("eo/v2.0.0"),
    "eopf": "https://cs-si.github.io/eopf-stac-extension/v1.2.0/schema.json",
    "file": _STAC.format("file/v2.1.0"),
    "grid": _STAC.format("grid/v1.1.0"),
    "mgrs": _STAC.format("mgrs/v1.0.0"),
    "processing": _STAC.format("processing/v1.2.0"),
    "product": _STAC.format("product/v0.1.0"),
    "proj": _STAC.format("projection/v2.0.0"),
    "raster": _STAC.format("raster/v2.0.0"),
    "sat": _STAC.format("sat/v1.0.0"),
    "sci": _STAC.format("scientific/v1.0.0"),
    "storage": _STAC.format("storage/v2.0.0"),
    "view": _STAC.format("view/v1.0.0"),
}
_FIELDS = {
    "alternate": _STAC.format("alternate-assets/v1.2.0"),
    **dict.fromkeys(("published", "unpublished", "expires"), _STAC.format("timestamps/v1.1.0")),
    **dict.fromkeys(("version", "deprecated", "experimental"), _STAC.format("version/v1.2.0")),
}
_RELATIONS = {
    **dict.fromkeys(("xyz", "tilejson", "wmts", "wms", "3d-tiles", "pmtiles"), _STAC.format("web-map-links/v1.2.0")),
    "cite-as": _PREFIXES["sci"],
}


def used(item: Mapping[str, Any]) -> list[str]:
    """Returns the schemas of every extension of which an item has a field or a link relation, in order.

    Fields of an extension that is not known here are nobody's: an item of ours has none.
    """
    found = {_FIELDS.get(name) or _PREFIXES.get(name.partition(":")[0] if ":" in name else "") for name in _names(item)}
    found |= {_RELATIONS.get(str(link.get("rel"))) for link in item.get("links", ())}
    return sorted(schema for schema in found if schema is not None)


def _names(item: Mapping[str, Any]) -> Iterator[str]:
    yield from item.get("properties", {})
    for asset in item.get("assets", {}).values():
        yield from asset
        for part in (*asset.get("bands", ()), *asset.get("alternate", {}).values()):
            yield from part
