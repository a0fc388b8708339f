"""The coordinate reference system of a product, from whichever place names it.

EOPF writes it into `other_metadata`, the product's own STAC item, and each array's attributes; which of them are there depends on
the processor's version (CPM 2.5 to 3.0). All that are there have to agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_CODE = re.compile(r"(?:.*[:/])?(\d{4,5})")
"""32632, `32632`, `EPSG:32632`, `urn:ogc:def:crs:EPSG::32632`, `http://www.opengis.net/def/crs/EPSG/0/32632`."""
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
    """Returns a CRS as `EPSG:<number>`; empty when it is none, or one that is not understood."""
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if match := _CODE.fullmatch(text):
        return f"EPSG:{match[1]}"
    if match := next((m for m in _WKT.finditer(text) if m.end() == len(text)), None):
        return f"EPSG:{match[1] or match[2]}"
    return ""


def _of_root(root: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    other, discovery = root.get("other_metadata"), root.get("stac_discovery")
    for name in ("horizontal_CRS_code", "horizontal_crs_code"):
        yield f"other_metadata.{name}", other.get(name) if isinstance(other, Mapping) else None
    properties = discovery.get("properties") if isinstance(discovery, Mapping) else None
    for name in ("proj:code", "proj:epsg"):
        yield f"stac_discovery {name}", properties.get(name) if isinstance(properties, Mapping) else None


def _of_arrays(arrays: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, object]]:
    for path, attributes in arrays.items():
        for name in ("proj:code", "proj:epsg", "proj:wkt2", "crs_wkt"):
            if name in attributes:
                yield f"{path} {name}", attributes[name]
