"""The coordinate reference system of a product, from whichever place names it.

EOPF writes it into `other_metadata`, the product's own STAC item, and each array's attributes; which of them are there depends on
the processor's version (CPM 2.5 to 3.0). All that are there have to agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_CODE = re.compile(r"(?:.*[:/])?(\d{4,5})")
"""32632, `32632`, `EPSG:32632`, `urn:ogc:def:crs:EPSG::32632`, `http://www.opengis.net/def/crs/EPSG/0/32632`."""
_NAMES = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")  # STAC extension projection
_CERTAIN = 90  #: per cent of PROJ's confidence from which two CRS are one
_WKT = re.compile(r'(?:AUTHORITY\["EPSG",\s*"(\d+)"\]|ID\["EPSG",\s*(\d+)\])\s*\]\s*')
"""The authority of a whole WKT, which ends it; those inside are of its parts."""


def named(root: Mapping[str, Any], arrays: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Returns the codes that a product names, e.g. `EPSG:32632`, each with the first place that does.

    Args:
        root: the product's attributes.
        arrays: path -> attributes.
    """
    found: dict[str, str] = {}
    for place, value in (*_of_root(root), *_of_arrays(arrays)):
        if code := code_of(value):
            found.setdefault(code, place)
    return found


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
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if match := _CODE.fullmatch(text):
        return f"EPSG:{match[1]}"
    if match := next((m for m in _WKT.finditer(text) if m.end() == len(text)), None):
        return f"EPSG:{match[1] or match[2]}"
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
    properties = discovery.get("properties") if isinstance(discovery, Mapping) else None
    for name in _NAMES:
        yield f"stac_discovery {name}", properties.get(name) if isinstance(properties, Mapping) else None


def _of_arrays(arrays: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, object]]:
    for path, attributes in arrays.items():
        for name in (*_NAMES, "crs_wkt"):
            if name in attributes:
                yield f"{path} {name}", attributes[name]
