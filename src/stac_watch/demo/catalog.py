"""The demo catalog: a STAC API on this machine, in front of a `Store`, with faults that can be switched on.

It answers search by GET and POST, items, collections, queryables and transactions, and serves `/products/…` as static
files; `Server` runs it on loopback. The `Date` header comes from the clock that it is given. It counts no matches and
lists no folders.
Conforms to STAC API 1.0 with item search, fields, sort, filter (CQL2 text and JSON) and transactions; pystac-client works with it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from stac_watch.demo.faults import EMPTY_PAGE, NO_FAULTS, FaultControl, Faults, Server, Wire
from stac_watch.demo.filters import FilterFailedError, UnusableFilterError
from stac_watch.demo.items import COLLECTION, Document, item_links, make_collection, make_item
from stac_watch.demo.search import BadRequestError, Search, from_get, from_post, next_link, parse_value_token, render, value_token
from stac_watch.demo.store import Slice, Store
from stac_watch.model.errors import IdentityError
from stac_watch.model.identity import check_item_id

__all__ = ["COLLECTION", "FaultControl", "Faults", "Server", "Store", "create_app", "make_collection", "make_item"]

GEOJSON = "application/geo+json"
QUERYABLES = "http://www.opengis.net/def/rel/ogc/1.0/queryables"
CONFORMANCE = (
    "https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features", "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/item-search#fields", "https://api.stacspec.org/v1.0.0/item-search#sort",
    "https://api.stacspec.org/v1.0.0/item-search#filter", "https://api.stacspec.org/v1.0.0/ogcapi-features#fields",
    "https://api.stacspec.org/v1.0.0/ogcapi-features#sort",
    "https://api.stacspec.org/v1.0.0/ogcapi-features/extensions/transaction",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core", "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/features-filter",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-text", "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-cql2",
)  # fmt: skip


class HttpError(Exception):
    """An answer other than 2xx, in stac-fastapi's shape: a code and a description."""

    def __init__(self, status: int, code: str, description: str) -> None:
        super().__init__(description)
        self.status, self.code = status, code


def create_app(
    store: Store,
    *,
    products: Path | None = None,
    outputs: Path | None = None,
    faults: Faults | FaultControl = NO_FAULTS,
    now: Callable[[], datetime],
) -> Starlette:
    """Returns the application.

    Args:
        store: what is in the catalog; it may be changed while the application runs.
        products: folder of Zarr products, served under `/products/`; None serves none.
        outputs: folder of what is made of them, served under `/outputs/`; None serves none.
        faults: the switches, or their control; `app.state.faults` is the control.
        now: the catalog's clock: Date headers, and when delayed items become visible.
    """
    control = faults if isinstance(faults, FaultControl) else FaultControl(faults)
    api = _Api(store, control, now)
    routes: list[BaseRoute] = [
        Route("/", api.landing),
        Route("/_mgmt/ping", lambda _: JSONResponse({"message": "PONG"})),
        Route("/conformance", lambda _: JSONResponse({"conformsTo": CONFORMANCE})),
        Route("/queryables", api.queryables),
        Route("/collections", api.collections),
        Route("/collections", api.create_collection, methods=["POST"]),
        Route("/collections/{collection}", api.collection),
        Route("/collections/{collection}", api.replace_collection, methods=["PUT"]),
        Route("/collections/{collection}/queryables", api.queryables),
        Route("/collections/{collection}/items", api.items),
        Route("/collections/{collection}/items", api.create, methods=["POST"]),
        Route("/collections/{collection}/items/{item}", api.item),
        Route("/collections/{collection}/items/{item}", api.replace, methods=["PUT"]),
        Route("/collections/{collection}/items/{item}", api.delete, methods=["DELETE"]),
        Route("/search", api.search, methods=["GET", "POST"]),
        Route("/_moved/{path:path}", _moved, methods=["GET", "POST"]),
    ]
    for name, folder in (("products", products), ("outputs", outputs)):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            routes.append(Mount(f"/{name}", StaticFiles(directory=folder)))
    handlers: Any = {
        HttpError: lambda _, error: _failure(error.status, error.code, str(error)),
        BadRequestError: lambda _, error: _failure(400, "InvalidQueryParameter", str(error)),
        UnusableFilterError: lambda _, error: _failure(400, "InvalidQueryParameter", str(error)),
        FilterFailedError: lambda _, error: _failure(500, "UndefinedFunctionError", str(error)),
    }
    app = Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(Wire, control=control, now=now)])
    app.state.faults = control
    return app


class _Api:
    """The endpoints; each reads the store once, after what is due has become visible."""

    def __init__(self, store: Store, control: FaultControl, now: Callable[[], datetime]) -> None:
        self._store, self._control, self._now = store, control, now

    def landing(self, request: Request) -> Response:
        root = _root(request)
        links = [
            _link("self", f"{root}/"), _link("root", f"{root}/"), _link("data", f"{root}/collections"),
            _link("conformance", f"{root}/conformance"), _link(QUERYABLES, f"{root}/queryables", "application/schema+json"),
            _link("search", f"{root}/search", GEOJSON) | {"method": "GET"},
            _link("search", f"{root}/search", GEOJSON) | {"method": "POST"},
        ]  # fmt: skip
        links += [_link("child", f"{root}/collections/{c['id']}") for c in self._store.collections()]
        return JSONResponse(
            {
                "type": "Catalog", "id": "stac-watch-demo", "title": "stac-watch demo", "stac_version": "1.0.0",
                "description": "A STAC API on this machine.", "conformsTo": CONFORMANCE, "links": links,
            }
        )  # fmt: skip

    def queryables(self, request: Request) -> Response:
        if "collection" in request.path_params:
            self._known(request)
        time = {"type": "string", "format": "date-time"}
        properties: Document = {
            "id": {"type": "string"}, "collection": {"type": "string"}, "datetime": time, "eo:cloud_cover": {"type": "number"},
            "geometry": {"$ref": "https://geojson.org/schema/Geometry.json"},
        }  # fmt: skip
        if not self._control.current.text_updated:
            properties["updated"] = time
        schema = {"$schema": "https://json-schema.org/draft-07/schema#", "$id": str(request.url), "type": "object"}
        return JSONResponse(schema | {"title": "Queryables", "properties": properties, "additionalProperties": True})

    def collections(self, request: Request) -> Response:
        root = _root(request)
        documents = [_linked(c, root) for c in self._store.collections()]
        links = [_link("self", f"{root}/collections"), _link("root", f"{root}/")]
        return JSONResponse({"collections": documents, "links": links, "numberReturned": len(documents)})

    def collection(self, request: Request) -> Response:
        return JSONResponse(_linked(self._known(request), _root(request)))

    async def create_collection(self, request: Request) -> Response:
        document = await _body(request)
        if not isinstance(document, dict) or document.get("type") != "Collection" or not isinstance(document.get("id"), str):
            raise HttpError(400, "InvalidBody", "not a STAC collection")
        if self._store.collection(document["id"]) is not None:
            raise HttpError(409, "ConflictError", f"Collection {document['id']} already exists")
        self._store.put_collection(document)
        return JSONResponse(_linked(document, _root(request)), 201)

    async def replace_collection(self, request: Request) -> Response:
        name, document = self._known(request)["id"], await _body(request)
        if not isinstance(document, dict) or document.get("id") != name:
            raise HttpError(400, "InvalidBody", "the collection's id is not the one in the URL")
        self._store.put_collection(document)
        return JSONResponse(_linked(document, _root(request)))

    def item(self, request: Request) -> Response:
        self._store.publish_due(self._now())
        return JSONResponse(self._stored(request), media_type=GEOJSON)

    def items(self, request: Request) -> Response:
        collection = self._known(request)["id"]
        search = from_get(request.query_params, self._control.current)
        narrowed = replace(search, query=replace(search.query, collections=(collection,)))
        return self._page(request, narrowed, "GET", f"/collections/{collection}/items")

    async def search(self, request: Request) -> Response:
        faults = self._control.current
        if request.method == "POST" and faults.post_search != "yes":
            if faults.post_search == "405":
                raise HttpError(405, "MethodNotAllowed", "Method Not Allowed")
            return RedirectResponse(f"{_root(request)}/_moved/search", 301)
        search = from_get(request.query_params, faults) if request.method == "GET" else from_post(await _body(request), faults)
        if faults.slow and search.query.filter is not None and not any(search.query.interval):
            self._control.delivered.append("slow")
            await asyncio.sleep(faults.slow)
        return await asyncio.to_thread(self._page, request, search, request.method, "/search")

    def _page(self, request: Request, search: Search, method: str, path: str) -> Response:
        faults, root = self._control.current, _root(request)
        self._store.publish_due(self._now())
        query = search.query
        if search.token:
            query = replace(query, after=self._after(search, faults))
        page = self._store.search(query)
        if poisoned := {item_id for _, item_id in page.keys}.intersection(faults.poison):
            raise HttpError(500, "InternalServerError", f"cannot serialise {min(poisoned)}")
        links = [_link("root", f"{root}/"), _link("self", str(request.url), GEOJSON)]
        token = self._token(page, faults)
        if request.scope.get(EMPTY_PAGE):
            page, token = Slice([], [], ()), search.token or "start"
        if token:
            links.append(next_link(search, token, method, f"{root}/_moved{path}" if faults.redirect_next else f"{root}{path}"))
        features = ",".join(render(page, search, faults))
        counts = {"numberReturned": len(page.keys)} | ({} if faults.matched is None else {"numberMatched": faults.matched})
        tail = json.dumps({"links": links, **counts})
        return Response(f'{{"type": "FeatureCollection", "features": [{features}], {tail[1:]}', media_type=GEOJSON)

    def _after(self, search: Search, faults: Faults) -> tuple[Any, ...]:
        """The position that a token means: sort values in it, or the *present* ones of the item that it names."""
        if search.token == "start":  # noqa: S105  # the token of an empty first page
            return ()
        if not faults.id_tokens:
            return parse_value_token(search.token, search.query)
        _, collection, item_id = (*search.token.split(":", 2), "", "")[:3]
        position = self._store.position(collection, item_id, search.query)
        if position is None:
            raise HttpError(500, "InternalServerError", f"Could not find item using token: {search.token}")
        return position

    def _token(self, page: Slice, faults: Faults) -> str:
        if not page.after:
            return ""
        return f"next:{page.keys[-1][0]}:{page.keys[-1][1]}" if faults.id_tokens else value_token(page.after)

    async def create(self, request: Request) -> Response:
        collection, document = self._known(request)["id"], await _body(request)
        single = isinstance(document, dict) and document.get("type") != "FeatureCollection"
        features = [document] if single else document.get("features", []) if isinstance(document, dict) else []
        items = [_accepted(feature, collection, _root(request)) for feature in features]
        if not items:
            raise HttpError(400, "InvalidBody", "neither an item nor a FeatureCollection of items")
        if present := [item["id"] for item in items if self._store.get(collection, item["id"])]:
            raise HttpError(409, "ConflictError", f"Item {present[0]} in collection {collection} already exists")
        self._store.put_many(items, visible=self._visible())
        if not single:
            return Response(status_code=201)
        return JSONResponse(
            items[0], 201, {"location": f"{_root(request)}/collections/{collection}/items/{items[0]['id']}"}, GEOJSON
        )

    async def replace(self, request: Request) -> Response:
        self._store.publish_due(self._now())
        stored = self._stored(request)
        item = _accepted(await _body(request), stored["collection"], _root(request))
        if item["id"] != stored["id"]:
            raise HttpError(400, "InvalidBody", f"item id {item['id']!r} is not the one in the URL, {stored['id']!r}")
        self._store.put(item, visible=self._visible())
        return JSONResponse(item, media_type=GEOJSON)

    def delete(self, request: Request) -> Response:
        if not self._store.delete(request.path_params["collection"], request.path_params["item"]):
            self._stored(request)
        return Response(status_code=204)

    def _visible(self) -> datetime | None:
        delay = self._control.current.visibility_delay
        return self._now() + timedelta(seconds=delay) if delay else None

    def _known(self, request: Request) -> Document:
        name = request.path_params["collection"]
        found = self._store.collection(name)
        if found is None:
            raise HttpError(404, "NotFoundError", f"Collection {name} does not exist.")
        return found

    def _stored(self, request: Request) -> Document:
        collection, item_id = request.path_params["collection"], request.path_params["item"]
        found = self._store.get(collection, item_id)
        if found is None:
            raise HttpError(404, "NotFoundError", f"Item {item_id} in Collection {collection} does not exist.")
        return found


def _accepted(document: Any, collection: str, root: str) -> Document:  # noqa: ANN401  # a client's JSON
    """Returns a client's item with this API's links, or says what is wrong with it."""
    if not isinstance(document, dict) or document.get("type") != "Feature":
        raise HttpError(400, "InvalidBody", "not a STAC item: type is not Feature")
    if missing := [name for name in ("id", "properties", "geometry", "assets") if document.get(name) is None]:
        raise HttpError(400, "InvalidBody", f"not a STAC item: {missing[0]} is missing")
    if document.get("collection", collection) != collection:
        raise HttpError(400, "InvalidBody", f"collection {document['collection']!r} is not the one in the URL, {collection!r}")
    try:
        item_id = check_item_id(str(document["id"]))
    except IdentityError as error:
        raise HttpError(400, "InvalidBody", str(error)) from error
    own = {"self", "parent", "collection", "root"}
    others = [link for link in document.get("links", []) if link.get("rel") not in own]
    return {**document, "collection": collection, "links": [*item_links(root, collection, item_id), *others]}


async def _body(request: Request) -> Any:  # noqa: ANN401  # a client's JSON
    try:
        return await request.json()
    except ValueError as error:
        raise HttpError(400, "InvalidBody", f"the body is not JSON: {error}") from error


def _moved(request: Request) -> Response:
    """What a `next` link behind a misconfigured proxy leads to; most clients turn a redirected POST into a bare GET."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{_root(request)}/{request.path_params['path']}{query}", 301)


def _linked(collection: Document, root: str) -> Document:
    here = f"{root}/collections/{collection['id']}"
    links = [
        _link("self", here), _link("parent", f"{root}/"), _link("root", f"{root}/"), _link("items", f"{here}/items", GEOJSON),
        _link(QUERYABLES, f"{here}/queryables", "application/schema+json"),
    ]  # fmt: skip
    return {**collection, "links": links}


def _link(rel: str, href: str, media: str = "application/json") -> Document:
    return {"rel": rel, "type": media, "href": href}


def _root(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _failure(status: int, code: str, description: str) -> Response:
    return JSONResponse({"code": code, "description": description}, status)
