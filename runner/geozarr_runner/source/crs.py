"""The coordinate reference system of a product, from whichever place names it.

EOPF writes it into `other_metadata`, the product's own STAC item, and each array's attributes; which of them are there depends on
the processor's version (CPM 2.5 to 3.0). Others write it on a group, or into a variable that describes the grid (CF 1.11, 5.6).
All that are there have to agree, and with the tile: the grid of an MGRS tile is that of its UTM zone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

_CODE = re.compile(
    r"(?:EPSG:{1,2}\s*(?:[\d.]+:)?|urn:(?:x-)?ogc:def:crs:EPSG:[\d.]*:|https?://www\.opengis\.net/def/crs/EPSG/[\d.]+/)?(\d{4,5})"
    r"(?:\.0)?",
    re.IGNORECASE,
)
"""32632, `32632`, `EPSG:32632`, `urn:ogc:def:crs:EPSG::32632`, `http://www.opengis.net/def/crs/EPSG/0/32632`. Other authorities
have numbers, too: ESRI:102100 is not EPSG:102100."""
_NOWHERE: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
_NAMES = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")  # STAC extension projection
WKT_NAMES = ("crs_wkt", "spatial_ref")  # CF 1.11, 5.6.1; GDAL's
_CERTAIN = 90  #: per cent of PROJ's confidence from which two CRS are one
_LONGEST = 20_000  #: characters of a WKT; real ones have 1,000
_WKT = re.compile(r'(?:AUTHORITY\["EPSG",\s*"(\d+)"\]|ID\["EPSG",\s*(\d+)\])\s*\]\s*')
"""The authority of a whole WKT as most end with it; those inside are of its parts. PROJ reads the others, and takes longer."""
_BEGINS_WKT = re.compile(r"\s*[A-Za-z_]{6,20}\s*[\[(]")


def named(
    root: Mapping[str, Any], arrays: Mapping[str, Mapping[str, Any]], places: Mapping[str, Mapping[str, Any]] = _NOWHERE
) -> dict[str, str]:
    """Returns the codes that a product names, e.g. `EPSG:32632`, each with the first place that does.

    Args:
        root: the product's attributes.
        arrays: path -> attributes.
        places: idem, of groups and of variables that describe a grid.
    """
    found: dict[str, str] = {}
    for place, value in (*_of_root(root), *_of_nodes(arrays), *_of_nodes(places)):
        if code := code_of(value):
            found.setdefault(code, place)
    return found


def of_tile(tile: str) -> str:
    """Returns the code of the UTM zone that an MGRS tile's grid is in, of `32TQM` that of 32 N; bands from N lie in the north."""
    return f"EPSG:{326 if tile[2] >= 'N' else 327}{tile[:2]}"


def code_of(value: object) -> str:
    """Returns a CRS as `EPSG:<number>`; empty when it is none, or one that is not understood.

    Args:
        value: a code, a WKT, or PROJJSON as an object or as text.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ""
    if isinstance(value, Mapping):
        return _of_projjson(value)
    text = str(value).strip(" \"'\t\n") if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
    if match := _CODE.fullmatch(text):
        return f"EPSG:{match[1]}"
    if match := next((m for m in _WKT.finditer(text) if m.end() == len(text)), None):
        return f"EPSG:{match[1] or match[2]}"
    return _by_proj(text) if len(text) <= _LONGEST and _BEGINS_WKT.match(text) else ""


@lru_cache(64)
def _by_proj(wkt: str) -> str:
    """Returns the code of a WKT in another spelling: with a remark or a URI after its id, or with no id at all."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return _of_projjson(CRS.from_wkt(wkt).to_json_dict())
    except (CRSError, ValueError, RecursionError):
        return ""


def _of_projjson(value: Mapping[str, Any]) -> str:
    """Returns the code that PROJJSON gives; where it gives none (its `id` is optional), that of the one CRS which is the same."""
    given = [value.get("id"), *(ids if isinstance(ids := value.get("ids"), list) else ())]
    for one in given:
        if isinstance(one, Mapping) and one.get("authority") == "EPSG" and (code := code_of(f"EPSG:{one.get('code')}")):
            return code
    if any(isinstance(one, Mapping) for one in given):
        return ""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        number = CRS.from_json_dict(dict(value)).to_epsg(min_confidence=_CERTAIN)
    except (CRSError, TypeError, ValueError, RecursionError):
        return ""
    return f"EPSG:{number}" if number else ""


def _of_root(root: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    other, discovery = root.get("other_metadata"), root.get("stac_discovery")
    for name in ("horizontal_CRS_code", "horizontal_crs_code"):
        yield f"other_metadata.{name}", other.get(name) if isinstance(other, Mapping) else None
    for name in (*_NAMES, *WKT_NAMES):
        yield f"the root's {name}", root.get(name)
    properties = discovery.get("properties") if isinstance(discovery, Mapping) else None
    for name in _NAMES:
        yield f"stac_discovery {name}", properties.get(name) if isinstance(properties, Mapping) else None


def _of_nodes(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, object]]:
    for path, attributes in nodes.items():
        for name in (*_NAMES, *WKT_NAMES):
            if name in attributes:
                yield f"{path} {name}", attributes[name]
