"""Whether a catalog gives back what was sent. Pure.

Servers add links and extensions of their own, drop what is null, order and spell anew: what was said must be there, more may be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stac_watch.model.errors import printable
from stac_watch.model.stamps import parse_stamp

CLOSE = 1e-6  # degrees or metres; a database keeps coordinates in its own form
_SERVERS = frozenset({"self", "root", "parent", "collection", "items", "license"})  # relations that a server writes by itself


def difference(sent: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Returns the first place where something else was given back, in one line; empty when all of it is there."""
    for name in ("id", "collection", "geometry", "properties", "assets", "stac_extensions"):
        if said := unlike(sent.get(name), found.get(name), name):
            return said
    there = {(link.get("rel"), link.get("href")) for link in found.get("links", ()) if isinstance(link, Mapping)}
    for link in sent.get("links", ()):
        if link["rel"] not in _SERVERS and (link["rel"], link["href"]) not in there:
            return f"links: {link['rel']} {link['href']} is not there"
    return ""


def unlike(sent: Any, found: Any, place: str) -> str:  # noqa: ANN401  # JSON values
    """Returns where one value says something that the other does not say; empty when it says nothing else."""
    if isinstance(sent, Mapping):
        if not isinstance(found, Mapping):
            return f"{place} is not there" if found is None else f"{place} is {_shown(found)}"
        return next((said for key, one in sent.items() if (said := unlike(one, found.get(key), f"{place}.{key}"))), "")
    if place == "stac_extensions":
        missing = [url for url in sent if url not in (found or ())]
        return f"{place}: {missing[0]} is not there" if missing else ""
    if isinstance(sent, Sequence) and not isinstance(sent, str):
        if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != len(sent):
            return f"{place} is {_shown(found)}"
        pairs = enumerate(zip(sent, found, strict=True))
        return next((said for n, (one, other) in pairs if (said := unlike(one, other, f"{place}.{n}"))), "")
    return "" if _same(sent, found) else f"{place} is {_shown(found)}, {_shown(sent)} was sent"


def _same(sent: object, found: object) -> bool:
    if sent == found:
        return True
    if isinstance(sent, int | float) and isinstance(found, int | float) and not isinstance(sent, bool):
        return math.isclose(sent, found, rel_tol=1e-9, abs_tol=CLOSE)
    moment = parse_stamp(sent)
    return moment is not None and moment == parse_stamp(found)


def _shown(value: object) -> str:
    return printable(repr(value), 80)
