"""A proxy before a real STAC API that breaks every third answer to a search, each time in another way.

In: the API's URL. Out: a server on loopback that passes everything on. Never: random; `delivered` says what it did. A fault of an
item waits for a page that has items.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import requests
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stac_watch.demo.faults import EMPTY_PAGE, FaultControl, Faults, Server, Wire

WIRE = ("500", "502", "503", "429", "reset", "hang", "truncate", "bad_utf8", "html", "empty_page")
CONTENT = ("hrefless", "no_properties", "redirecting_next")
NONSENSE = (*WIRE, *CONTENT)
EVERY = 3


@dataclass
class Proxy:
    """The running proxy."""

    url: str
    delivered: list[str]
    calm: threading.Event  # set: from now on everything passes as it is


@contextmanager
def flaky(upstream: str) -> Iterator[Proxy]:
    """Runs the proxy."""
    delivered: list[str] = []
    calm = threading.Event()
    owed: list[str] = []
    control = FaultControl(Faults(hang=20.0, retry_after=1))
    plan, count = itertools.cycle(NONSENSE), itertools.count(1)
    with requests.Session() as session:

        async def pass_on(request: Request) -> Response:
            body = await request.body()
            url = f"{upstream}{request.url.path}"
            answer = await asyncio.to_thread(
                session.request, request.method, url, params=request.query_params, data=body,
                headers={"content-type": request.headers.get("content-type", "application/json")}, timeout=30,
            )  # fmt: skip
            content = answer.content
            if request.url.path == "/search" and answer.ok:
                page, fault = answer.json(), "empty_page" if request.scope.get(EMPTY_PAGE) else ""
                if not fault and owed and page["features"] and not calm.is_set():
                    fault = owed.pop(0)
                    delivered.append(fault)
                content = json.dumps(_spoil(page, fault, str(request.base_url))).encode()
            content = content.replace(upstream.encode(), str(request.base_url).rstrip("/").encode())
            return Response(content, answer.status_code, media_type=answer.headers.get("content-type"))

        class Break:
            """Decides which search is broken, and how."""

            def __init__(self, app) -> None:
                self._app = app

            async def __call__(self, scope, receive, send) -> None:
                if scope["type"] == "http" and scope["path"] == "/search" and not calm.is_set() and next(count) % EVERY == 0:
                    fault = next(plan)
                    if fault in WIRE:
                        delivered.append(fault)
                        control.set(wire=(*control.current.wire, fault))
                    else:
                        owed.append(fault)
                await self._app(scope, receive, send)

        routes = [Route("/{path:path}", pass_on, methods=["GET", "POST"])]
        middleware = [Middleware(Break), Middleware(Wire, control=control, now=lambda: datetime.now(UTC))]
        app = Starlette(routes=routes, middleware=middleware)
        app.state.faults = control
        with Server(app) as server:
            yield Proxy(server.url, delivered, calm)


def _spoil(page: dict, fault: str, base: str) -> dict:
    """Changes a page's content as real catalogs do."""
    following = {"rel": "next", "method": "POST", "href": f"{base}_moved/search", "body": {"token": "next:nowhere"}}
    if fault == "empty_page":
        return page | {"features": [], "links": [*page.get("links", []), following]}
    if fault == "redirecting_next":
        links = [link for link in page.get("links", []) if link.get("rel") != "next"]
        return page | {"links": [*links, following]}
    if fault == "no_properties":
        page["features"][0].pop("properties", None)
    if fault == "hrefless":
        for feature in page["features"]:
            feature.setdefault("assets", {})["thumbnail"] = {"type": "image/png", "roles": ["thumbnail"]}
    return page
