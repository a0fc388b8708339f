"""The STAC API, asked one window at a time.

In: a window or a list of ids. Out: pages of item documents as dicts, with the server's own time.
Never: follows a server's `next` token (on pgstac an item id that a re-publish moves: the rest of the pages is lost with HTTP 200),
builds pystac objects (they leak 63 KB per item and die on assets without an href), follows a redirect, or waits for ever.

pystac-client 0.9.1 is behind it; what that version gets wrong is set right here: `Client.open` discards the time-out of the I/O
object it is given, POST is never retried, and a body that is not JSON raises no error of its own.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from pystac_client import Client
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import PystacClientWarning
from urllib3.util import Retry

from stac_watch.errors import CatalogUnavailable, ConfigError
from stac_watch.windows import Window, bounds

CONNECT, READ = 5.0, 60.0  # seconds; EODC answers a full page in 2.3 s, a big un-indexed query took 1.6 s on pgstac
TRIES = 4  # whole requests, body included; beyond that the window waits for the next tick
FIELDS = (
    "id", "collection", "bbox", "assets", "properties.datetime", "properties.start_datetime", "properties.updated",
    "properties.published", "properties.created", "properties.deprecated", "properties.eo:cloud_cover", "properties.grid:code",
    "properties.processing:version", "properties.processing:software",
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    """What one request returned."""

    items: list[dict[str, Any]]
    full: bool  # as many as were asked for: there may be more in this window
    server_now: datetime


class Catalog:
    """One collection of one STAC API."""

    def __init__(
        self,
        api: str,
        collection: str,
        *,
        now: Callable[[], datetime],
        sleep: Callable[[float], None],
        rng: random.Random,
        timeout: tuple[float, float] = (CONNECT, READ),
    ) -> None:
        self.api = api
        self.collection = collection
        self._now, self._sleep, self._rng, self._timeout = now, sleep, rng, timeout
        self._client: Client | None = None
        self._server_now: datetime | None = None

    def probe(self) -> datetime:
        """Asks for the collection; returns the server's time.

        Raises:
            ConfigError: there is no such collection, or the API redirects.
            CatalogUnavailable: no usable answer.
        """
        client = self._open()
        response = self._guarded(lambda: client._stac_io.session.get(self._collection_url(), timeout=self._timeout))  # type: ignore[union-attr]  # noqa: SLF001  # the session is where time-outs and retries are set
        if response.status_code == 404:
            raise ConfigError(
                f"catalogue {self.api} has no collection {self.collection!r}",
                hint=f"see {self.api}/collections for those there are, and correct `collection:`",
            )
        if not response.ok:
            raise CatalogUnavailable(f"{self._collection_url()} answered HTTP {response.status_code}", hint="try again later")
        self._json(response)
        return self._server_now or self._now()

    def search(self, window: Window, *, limit: int, typed: bool = False, extra: dict[str, Any] | None = None) -> Page:
        """Asks for one window in one request, oldest first.

        Raises:
            CatalogUnavailable: no usable answer after all tries.
        """
        condition = bounds(window, typed=typed)
        if extra is not None:
            condition = {"op": "and", "args": [condition, extra]}
        return self._page({"filter": condition, "filter_lang": "cql2-json", "sortby": _ascending(window.field)}, limit)

    def fetch(self, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Asks for items by id."""
        return self._page({"ids": list(item_ids)}, max(1, len(item_ids))).items

    def _page(self, query: dict[str, Any], limit: int) -> Page:
        def ask() -> dict[str, Any]:
            search = self._open().search(collections=[self.collection], limit=limit, fields=list(FIELDS), **query)
            return next(iter(search.pages_as_dicts()), {"features": []})

        document = self._guarded(ask)
        features = document.get("features")
        if not isinstance(features, list):
            raise CatalogUnavailable(f"{self.api} answered without a list of features", hint="is it a STAC API?")
        return Page(
            [f for f in features if isinstance(f, dict)],
            full=len(features) >= limit,
            server_now=self._server_now or self._now(),
        )

    def _open(self) -> Client:
        if self._client is None:
            io = StacApiIO(max_retries=_retries(), timeout=self._timeout)
            io.session.hooks["response"].append(self._note_date)
            io.session.max_redirects = 0  # a redirected POST becomes a GET without its body: other items, no error
            self._client = self._guarded(lambda: Client.open(self.api, stac_io=io, timeout=self._timeout))
        return self._client

    def _guarded[T](self, ask: Callable[[], T]) -> T:
        """Asks, and asks again, until there is an answer that can be read; says what is wrong in one line."""
        for tried in range(1, TRIES + 1):
            try:
                with warnings.catch_warnings():
                    # what a server conforms to is found out by asking it, not by what it claims
                    warnings.simplefilter("ignore", PystacClientWarning)
                    return ask()
            except requests.TooManyRedirects as error:
                target = getattr(error.response, "headers", {}).get("Location", "elsewhere")
                raise ConfigError(f"catalogue {self.api} redirects to {target}", hint="write that URL into `api:`") from None
            except (APIError, ClientTypeError, requests.RequestException, ValueError, KeyError) as error:
                status = getattr(error, "status_code", None)
                lasting = status is not None and 400 <= status < 500 and status not in (408, 429)
                if lasting or tried == TRIES:
                    raise self._unavailable(error, status) from error
                self._sleep(self._rng.uniform(0.5, 1.0) * 2 ** (tried - 1))
        raise AssertionError("unreachable")

    def _unavailable(self, error: Exception, status: int | None) -> CatalogUnavailable:
        if status is not None:
            why = f"answered HTTP {status}"
        elif isinstance(error, ValueError) and not isinstance(error, requests.RequestException):
            why = "answered something that is not JSON"
        elif isinstance(error, KeyError | ClientTypeError):
            why = "answered JSON that is not STAC"
        else:
            why = f"cannot be reached ({_reason(error)})"
        return CatalogUnavailable(
            f"catalogue {self.api} {why}", hint="check `api:` and the network; `stac-watch check` shows what answers"
        )

    def _json(self, response: requests.Response) -> Any:  # noqa: ANN401  # JSON
        try:
            return response.json()
        except ValueError as error:
            raise self._unavailable(error, None) from error

    def _note_date(self, response: requests.Response, **_: Any) -> None:  # noqa: ANN401  # requests' hook signature
        date = response.headers.get("Date")
        if date:
            self._server_now = parsedate_to_datetime(date).astimezone(UTC)

    def _collection_url(self) -> str:
        return f"{self.api}/collections/{self.collection}"


def _retries() -> Retry:
    return Retry(
        total=3, backoff_factor=0.5, backoff_jitter=0.5, status_forcelist=(429, 502, 503, 504), allowed_methods=None,
        redirect=0, respect_retry_after_header=True, raise_on_status=False,
    )  # fmt: skip


def _ascending(field: str) -> list[dict[str, str]]:
    return [{"field": f"properties.{field}", "direction": "asc"}, {"field": "id", "direction": "asc"}]


def _reason(error: BaseException) -> str:
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    text = str(error)
    for known in ("Connection refused", "Name or service not known", "timed out", "Connection reset", "certificate"):
        if known.lower() in text.lower():
            return known.lower()
    return text.splitlines()[0][:160] if text else type(error).__name__
