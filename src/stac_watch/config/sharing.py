"""What several sources must agree on, so that no output is of two of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stac_watch.model.identity import folder_name

if TYPE_CHECKING:
    from stac_watch.config.model import Source

APART = "var/outputs/{catalog}/{collection}/{item_id}.zarr"
"""The default output where two catalogs have collections of one name."""


def order(sources: Sequence[Source], prefer: Sequence[str] | None, name: str) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the sources that are preferred to one of them, and those that it is preferred to, with the same acquisitions.

    Those are the other collections of its catalog, and whatever `prefer` names together with it; the first named, or the first
    configured, comes first. None = every source converts all of its items.
    """
    if prefer is None:
        return frozenset(), frozenset()
    ranked = sorted(sources, key=lambda s: prefer.index(s.name) if s.name in prefer else len(prefer))
    places = {s.name: n for n, s in enumerate(ranked)}
    own = next(s for s in sources if s.name == name)
    rivals = {
        s.name
        for s in sources
        if (s.api, s.collection) != (own.api, own.collection) and (s.api == own.api or {s.name, name} <= set(prefer))
    }
    ahead = frozenset(other for other in rivals if places[other] < places[name])
    return ahead, frozenset(rivals) - ahead


def catalog_name(api: str) -> str:
    """Returns a catalog's name as a part of a path: its host and port, and the path of its API."""
    parts = urlsplit(api)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{parts.netloc}{parts.path}".strip("/").lower())


def meeting(sources: Sequence[Source], output: str) -> str | None:
    """Returns what is wrong where items of two sources can have one output though they are not one conversion; else None."""
    for one, other in combinations(sources, 2):
        if (one.api, one.collection) == (other.api, other.collection):
            differing = [name for name in ("on", "same_as") if getattr(one, name) != getattr(other, name)]
            if differing and "{key}" not in output:
                return (
                    f"sources {one.name!r} and {other.name!r} watch one collection and differ in `{differing[0]}`: each would"
                    f" replace the other's outputs for ever; give both the same, or write {{key}} into recipe.output"
                )
        elif "{key}" not in output and _can_meet(one, other, output):
            return (
                f"sources {one.name!r} and {other.name!r} are of different collections, and recipe.output {output!r} can give an"
                f" item of each the same path; write {{catalog}} and {{collection}} into it as folders, for example {APART}"
            )
    return None


def default_output(sources: Any) -> str | None:  # noqa: ANN401  # as the file gives them
    """Returns the output where none is configured and the usual one will not do; `sources` as they are before they are checked."""
    seen: dict[str, str] = {}
    for source in sources if isinstance(sources, list | tuple) else ():
        api, collection = (
            str(source.get(name) if isinstance(source, dict) else getattr(source, name, "")) for name in ("api", "collection")
        )
        if seen.setdefault(collection, api.rstrip("/")) != api.rstrip("/"):
            return APART
    return None


def _can_meet(one: Source, other: Source, output: str) -> bool:
    """Tells whether no folder of the path is another one for the two sources, whatever their items are called."""
    paths = [_of(output, s).split("/") for s in (one, other)]
    return all(a == b or "{" in a + b for a, b in zip(*paths, strict=True))


def _of(output: str, source: Source) -> str:
    return output.replace("{catalog}", catalog_name(source.api)).replace("{collection}", folder_name(source.collection))
