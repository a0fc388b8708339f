"""The demo's outputs as somebody finds them who knows nothing but the catalog: searched for, and opened where their items say."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stac_watch.catalog.http import CatalogHttp
from stac_watch.ledger.ledger import Ledger
from stac_watch.model.errors import StacWatchError
from stac_watch.model.publication import PublicationState

COLLECTION = "sentinel-2-geozarr"


@dataclass(frozen=True)
class OutputFound:
    """An item of the second collection, and what its store says of itself."""

    item_id: str
    href: str  # of its asset `product`
    format: object  # `zarr_format` of what lies there


def registered(ledger: Ledger, keys: Collection[str]) -> bool:
    """Tells whether these conversions, and none before them, are what the catalog was told of last, and nothing waits."""
    counts = {count.state for count in ledger.publications.counts()}
    rows = ledger.publications.find(PublicationState.REGISTERED, limit=len(keys) + 1)
    return counts == {PublicationState.REGISTERED} and {row.key for row in rows} == set(keys)


def search(url: str, now: Callable[[], datetime], rng: random.Random) -> list[OutputFound]:
    """Returns what a search of the second collection finds, each opened over HTTP; what does not open has no format."""
    http = CatalogHttp(url, now=now, sleep=lambda _: None, rng=rng)
    try:
        answer = http.ask(f"{url}/search", "POST", {"collections": [COLLECTION], "limit": 100}).document
    except StacWatchError:
        return []
    return [_opened(http, item) for item in answer.get("features", ())]


def _opened(http: CatalogHttp, item: dict[str, Any]) -> OutputFound:
    href = str(item["assets"]["product"]["href"])
    try:
        document = http.ask(f"{href}/zarr.json").document
    except StacWatchError:
        document = {}
    return OutputFound(str(item["id"]), href, document.get("zarr_format"))
