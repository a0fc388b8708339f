"""Which collections a STAC API offers."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urljoin

from stac_watch.catalog.http import CatalogHttp
from stac_watch.catalog.landing import links
from stac_watch.catalog.places import Places

PAGES = 20  # of a list of collections, at most
_ZARR_2A = ("sentinel", "l2a")  # what is in the id of a collection that is worth to be the first choice


@dataclass(frozen=True)
class Offered:
    """A collection, as its catalog names it."""

    id: str
    title: str


def collections(http: CatalogHttp) -> list[Offered]:
    """Returns the collections of an API in its order, those of Sentinel-2 L2A first.

    Raises:
        ConfigError: it is no root of a STAC API.
        CatalogUnavailable: no usable answer.
        Refused: it wants credentials.
    """
    Places(http, "").landing()  # what is wrong with the root is said first
    url, found, seen = f"{http.api}/collections", dict[str, Offered](), set[str]()
    while url not in seen and len(seen) < PAGES:
        seen.add(url)
        document = http.ask(url).document
        given = document.get("collections")
        for entry in given if isinstance(given, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("id"), str):
                title = entry.get("title")
                found.setdefault(entry["id"], Offered(entry["id"], title if isinstance(title, str) else ""))
        following = links(document, "next")
        url = urljoin(url, following[0]["href"]) if following else url
    return sorted(found.values(), key=lambda offered: not all(part in offered.id.lower() for part in _ZARR_2A))
