"""Writing to a STAC API that takes items (Transactions): one item, one collection at a time.

Source: STAC API - Transactions 1.0.0, as stac-fastapi-pgstac keeps to it: PUT replaces an item without a moment in which it is not
there, and answers 404 where there is none; POST creates one, and answers 409 where there is one. There is no locking.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from stac_watch.catalog.answers import Rejected
from stac_watch.catalog.http import CatalogHttp
from stac_watch.model.errors import ConfigError

GONE = (404, 410)
NOBODYS = "stac-watch-check"  # no item has this id
_NO_TRANSACTIONS = (405, 501)


class WritingHttp(CatalogHttp):
    """Requests to a catalog that is written to: of the answer to a write nothing is read but its status."""

    def _document(self, heard: Any) -> dict[str, Any]:  # noqa: ANN401  # the base's own value
        return super()._document(heard) if heard.method == "GET" else {}


class TargetCollection:
    """One collection of a STAC API that takes items; safe to use from several threads."""

    def __init__(self, http: WritingHttp, collection: str) -> None:
        self._http = http
        self.collection = collection
        self.url = f"{http.api}/collections/{quote(collection, safe='')}"

    def item(self, item_id: str) -> dict[str, Any] | None:
        """Returns an item as readers get it; None when there is none."""
        return self._read(self._item_url(item_id))

    def put(self, item: dict[str, Any]) -> None:
        """Replaces the item, or creates it where there is none; no reader meets a moment without it.

        Raises:
            Rejected: the catalog does not take it.
            CatalogUnavailable: no clear answer; the same again does no harm.
            Refused: it wants credentials, or others.
            ConfigError: it takes no items at all.
        """
        place = self._item_url(str(item["id"]))
        if not self._write("PUT", place, item, unless=GONE) and not self._write("POST", f"{self.url}/items", item, unless=(409,)):
            self._write("PUT", place, item)  # another writer created it meanwhile, or our own POST that seemed to fail

    def remove(self, item_id: str) -> bool:
        """Removes an item; tells whether there was one."""
        return self._write("DELETE", self._item_url(item_id), None, unless=GONE)

    def knock(self) -> None:
        """Asks to remove an item that nobody has, which changes nothing: 404 says that we may write.

        Raises:
            Refused: it wants credentials, or others.
            ConfigError: it takes no items at all.
            CatalogUnavailable: no clear answer.
        """
        self.remove(NOBODYS)

    def described(self) -> dict[str, Any] | None:
        """Returns the collection as readers get it; None when there is none."""
        return self._read(self.url)

    def describe(self, collection: dict[str, Any], *, there: bool) -> None:
        """Creates the collection, or replaces its description where there is one; its items stay."""
        if there or not self._write("POST", f"{self._http.api}/collections", collection, unless=(409,)):
            self._write("PUT", self.url, collection)

    def _item_url(self, item_id: str) -> str:
        return f"{self.url}/items/{quote(item_id, safe='')}"

    def _read(self, url: str) -> dict[str, Any] | None:
        try:
            document = self._http.ask(url).document
        except Rejected as error:
            if error.status in GONE:
                return None
            raise
        return document if document.get("type") in ("Feature", "Collection") else None

    def _write(self, method: str, url: str, body: dict[str, Any] | None, *, unless: tuple[int, ...] = ()) -> bool:
        """Sends; False where the answer is one of those that say that another request is the right one."""
        try:
            self._http.ask(url, method, body)
        except Rejected as error:
            if error.status in unless:
                return False
            if error.status in _NO_TRANSACTIONS:
                hint = "registering needs a STAC API with the extension Transactions, which its operator may have to switch on"
                raise ConfigError(error.message, hint=hint) from error
            raise
        return True
