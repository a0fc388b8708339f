"""One collection of a real STAC API, as tests and benchmarks use it: what publishers do to it, and our catalog before it.

In: an API. Out: items published, changed, deleted; a `Catalog` and a `Source`. Never: starts a server.
"""

import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pgstac_servers as servers
import requests

from stac_watch.catalog.client import Catalog
from stac_watch.catalog.http import CatalogHttp
from stac_watch.catalog.probe import probe
from stac_watch.config.model import Source
from stac_watch.demo.items import make_item
from stac_watch.model.product import acquisition


@dataclass
class Place:
    """One collection of a real API, as a test uses it."""

    api: servers.Api
    collection: str
    http: requests.Session = field(default_factory=requests.Session)
    sensed: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0) - timedelta(days=2))

    @property
    def url(self) -> str:
        return f"{self.api.url}/collections/{self.collection}"

    def item(self, number: int, updated: datetime | str, *, version: int = 1, sensed: datetime | None = None) -> dict:
        """Item `number`, small: its product, and nothing else."""
        moment = sensed or self.sensed + timedelta(seconds=number)
        item_id = f"S2A_MSIL2A_{moment:%Y%m%dT%H%M%S}_N0511_R122_T32TQM_{self.sensed:%Y%m%d}T{number:06d}"
        assert acquisition(item_id) is not None
        item = make_item(
            item_id, catalog_url=self.api.url, product_href=f"https://data.example/v{version}/{item_id}.zarr", updated=updated,
            datetime=moment, collection=self.collection,
        )  # fmt: skip
        return item | {"assets": {"product": item["assets"]["product"]}, "stac_extensions": []}

    def post(self, item: dict) -> None:
        self._send("POST", f"{self.url}/items", item, (201,))

    def put(self, item: dict) -> None:
        self._send("PUT", f"{self.url}/items/{item['id']}", item, (200,))

    def delete(self, item_id: str) -> None:
        self._send("DELETE", f"{self.url}/items/{item_id}", None, (200, 204))

    def search(self, **body) -> requests.Response:
        return self.http.post(f"{self.api.url}/search", json={"collections": [self.collection], **body}, timeout=30)

    def _send(self, method: str, url: str, body: dict | None, good: tuple[int, ...]) -> None:
        # pgstac 0.10 answers 500 (CheckViolationError) when two transactions widen a partition at once; uvicorn then drops the
        # connection, so that the next request on it is reset: a publisher repeats both
        for last in (False, False, False, False, False, True):
            try:
                answer = self.http.request(method, url, json=body, timeout=30)
            except requests.ConnectionError:
                if last:
                    raise
                continue
            if answer.status_code in (*good, 409):  # 409: the first try of a POST did arrive
                return
            assert answer.status_code >= 500, answer.text
            assert not last, answer.text

    def catalog(self, *, api: str | None = None, probed: bool = True, **over) -> Catalog:
        timeout = {"timeout": over.pop("timeout")} if "timeout" in over else {}
        http = CatalogHttp(api or self.api.url, now=lambda: datetime.now(UTC), sleep=time.sleep, rng=random.Random(1), **timeout)
        catalog = Catalog(http, self.collection, **over)
        if probed:
            probe(catalog, 1000)
        return catalog

    def source(self, *, api: str | None = None, name: str = "s2", **poll) -> Source:
        return Source(name=name, api=api or self.api.url, collection=self.collection, allowed_hosts=("data.example",), poll=poll)
