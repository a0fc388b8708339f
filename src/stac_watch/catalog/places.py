"""Where a catalog has what is asked of it: its root, its collection, its search. Each is looked for once, and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from stac_watch.catalog.answers import NoJson, Rejected, printable
from stac_watch.catalog.http import CatalogHttp, Reply
from stac_watch.catalog.landing import Endpoint, check_root, collection_urls, endpoints, named_in_page, shown_by_browser, similar
from stac_watch.model.errors import CatalogUnavailable, ConfigError, Refused, StacWatchError

GONE = (404, 410)


class Places:
    """One collection of one STAC API; safe to use from several threads, two of which may look for the same place."""

    def __init__(self, http: CatalogHttp, collection: str) -> None:
        self._http, self._api, self._collection = http, http.api, collection
        self._landing: dict[str, Any] | None = None
        self.collection_url, self._found = f"{http.api}/collections/{quote(collection, safe='')}", False
        self._search: dict[str, Endpoint] = {}  # of each method, where the search was found

    def landing(self) -> dict[str, Any]:
        """Returns the landing page, asked for once.

        Raises:
            ConfigError: what stands there is another part of an API, or no API.
            CatalogUnavailable: nothing that can be read.
        """
        if self._landing is None:
            roots = [f"{self._api}/"] if urlsplit(self._api).path in ("", "/") else [f"{self._api}/", self._api]
            errors = list[StacWatchError]()
            for root in roots:  # some have it with a slash at its end only, and some without one
                try:
                    document = self._http.ask(root).document
                except NoJson as error:
                    errors.append(self._no_root(error))
                except Rejected as error:
                    errors.append(_nothing_there(error) if error.status in GONE else error)
                except (Refused, ConfigError) as error:
                    errors.append(error)
                else:
                    check_root(document, self._api)
                    self._landing = document
                    return document
            raise next((e for e in errors if isinstance(e, Refused)), errors[0])
        return self._landing

    def _no_root(self, error: NoJson) -> StacWatchError:
        """Names what an HTML page at the root is, where it can be told, and the URL to write."""
        if error.page != "html":
            return error
        url = shown_by_browser(self._api) or named_in_page(error.text)
        if url is None and "stac-browser" not in error.text.lower() and "stac browser" not in error.text.lower():
            hint = "`api:` is the root of a STAC API, which answers JSON; this is a page for people, or the server is being mended"
            return CatalogUnavailable(error.message, hint=hint)
        there = f"write {url} into `api:`" if url else "`api:` is the catalog that it shows: its source link has the URL"
        return ConfigError(f"{error.message}: this is STAC Browser, a page for people", hint=there)

    def described(self) -> Reply:
        """Asks for the collection, where the specification has it, or where the links say."""
        elsewhere = (
            [self.collection_url]
            if self._found
            else dict.fromkeys([self.collection_url, *collection_urls(self.landing(), self._api, self._collection)])
        )
        for url in elsewhere:
            try:
                answer = self._http.ask(url)
            except Rejected as error:
                if error.status not in GONE:
                    raise
            else:
                if answer.document.get("code") not in (404, "404"):  # an old stac-server says so with HTTP 200
                    self.collection_url, self._found = url, True
                    return answer
        raise self._no_collection()

    def _no_collection(self) -> ConfigError:
        hint = f"see {self._api}/collections for those there are, and correct `collection:`"
        with contextlib.suppress(CatalogUnavailable, Refused, ConfigError):
            given = self._http.ask(f"{self._api}/collections", attempts=1).document.get("collections")
            names = (
                [c["id"] for c in given if isinstance(c, dict) and isinstance(c.get("id"), str)] if isinstance(given, list) else []
            )
            if near := similar(self._collection, names):
                hint = f"it has {', '.join(printable(n) for n in near)}: correct `collection:` ({self._api}/collections has all)"
        return ConfigError(f"catalog {self._api} has no collection {self._collection!r}", hint=hint)

    def search(self, method: str, parameters: Callable[[str], dict[str, Any]], attempts: int) -> Reply:
        """Asks where the search was found to be; where it was not found yet, everywhere that it may be.

        Args:
            method: POST or GET.
            parameters: gives them for a URL.
            attempts: whole requests before it is given up.

        Raises:
            Rejected: 404 or the like at each of these places, or a refusal.
            CatalogUnavailable: no usable answer.
        """
        known = self._search.get(method)
        places = [known] if known else [e for e in endpoints(self.landing(), self._api) if e.method == method]
        first: StacWatchError | None = None
        for endpoint in places:
            try:
                answer = self._http.ask(endpoint.url, method, parameters(endpoint.url), attempts=attempts)
            except (Rejected, NoJson, ConfigError, Refused) as error:
                first = first or error
                if isinstance(error, Rejected) and error.status not in (*GONE, 405):
                    first, self._search[method] = error, endpoint
                    break
            else:
                self._search[method] = endpoint
                return answer
        raise first or CatalogUnavailable(
            f"{self._api} has no search by {method}", hint="it must conform to STAC API - Item Search"
        )

    def methods(self) -> list[str]:
        """Returns the methods by which the catalog offers a search, in the order in which they are tried."""
        return list(dict.fromkeys(e.method for e in endpoints(self.landing(), self._api)))


def _nothing_there(error: Rejected) -> Rejected:
    hint = "nothing is at `api:`: has the catalog moved, or is its path not complete? It is the URL of the API's landing page"
    return Rejected(error.message, status=error.status, words=error.words, hint=hint)
