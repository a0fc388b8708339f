"""The answers to GET and HEAD: status page and its stream, page of an item, JSON, metrics, probes.

There are no others, but for hints where the configuration has a token for them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from stac_watch.model.errors import InputError, StacWatchError
from stac_watch.model.hosts import serves
from stac_watch.model.identity import check_item_id
from stac_watch.report import explain, items
from stac_watch.report.as_json import as_json
from stac_watch.report.explain import Explanation
from stac_watch.report.health import Health, alive, as_text
from stac_watch.report.links import Links
from stac_watch.report.metrics import Loop, families
from stac_watch.report.web import query, server
from stac_watch.report.web.freshness import CONTENT
from stac_watch.report.web.gate import Connection, Gate
from stac_watch.report.web.page import ItemLinks, ItemStory, beside, render, render_absent, render_item, render_item_live
from stac_watch.report.web.site import Site
from stac_watch.report.web.stream import Readers

READERS = 24  # of the stream at once; the others' pages reload themselves
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
FILE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"  # a report has neither scripts nor links of ours
)
EVENTS = "text/event-stream"
UNBUFFERED = {"X-Accel-Buffering": "no"}  # nginx keeps a stream back otherwise
FILES = {
    "report": "text/html", "quicklook": "image/png", "report_json": "application/json", "item": "application/geo+json",
}  # fmt: skip
"""What of an outcome's `files` is shown, and as what."""


GRACE = 3  # seconds for answers that are under way when the watcher stops


@contextmanager
def serving(site: Site, host: str, port: int, hosts: tuple[str, ...] = ()) -> Iterator[str]:
    """Serves a site, under names that only exist inside and those of `hosts`; yields its URL. Streams end at once when it stops.

    Raises:
        Unavailable: it cannot listen there.
    """
    ended = threading.Event()
    with server.serving(
        create_app(site, ended.is_set, hosts), host, port, name="the web page", grace=GRACE, stopping=ended.set,
        http=Connection, timeout_keep_alive=5,
        hint="another `stac-watch watch` may run here: set web.port (0 = any free one) or web.host, or `web: null` for none",
    ) as url:  # fmt: skip
        yield f"{url}/"


def create_app(site: Site, ended: Callable[[], bool] = lambda: False, hosts: tuple[str, ...] = ()) -> Starlette:
    """Returns the application; `ended` tells its streams when it is time to stop, `hosts` are its names."""
    told = _Answers(site, ended)
    answers: dict[str, Callable[[Request], Response]] = {
        "/": told.page, "/events": told.events, "/live.js": told.script, "/icon.svg": told.icon,
        "/status.json": told.status, "/items.json": told.items, "/freshness/": told.freshness, "/freshness/{file}": told.freshness,
        "/items/{item}": told.item, "/items/{item}/events": told.item_events, "/items/{item}/{file}": told.file,
        "/metrics": told.metrics, "/readyz": told.readyz,
    }  # fmt: skip
    routes = [Route(path, _sealed(answer), methods=["GET"]) for path, answer in answers.items()]  # and HEAD; all else is 405

    async def healthz(request: Request) -> Response:  # asks no ledger, so it needs no thread, of which none may be free
        return _sealed(told.healthz)(request)

    routes.append(Route("/healthz", healthz, methods=["GET"]))

    async def hints(request: Request) -> Response:
        return await site.desk.answer(request) if site.desk is not None else PlainTextResponse("no hints here\n", 404)

    routes.append(Route("/hints", hints, methods=["POST"]))
    middleware = [Middleware(Gate, serves=lambda name: serves(name, hosts))]
    return Starlette(routes=routes, middleware=middleware, exception_handlers={StacWatchError: partial(_no_answer, site)})


class _Families(Collector):
    def __init__(self, site: Site) -> None:
        self._site = site

    def collect(self) -> Iterator[Metric]:
        try:
            whole, burns = self._site.totals(), self._site.burns()
        except StacWatchError:
            whole, burns = None, []  # said by `ledger_up`; what the loop counted is told all the same
        pulse = self._site.pulse()
        hints, hinted = self._site.desk.hints.counts() if self._site.desk is not None else ({}, {})
        loop = Loop(
            version=self._site.version, installation=self._site.installation,
            ticks=pulse.ticks, last_tick=pulse.at, leads=pulse.ticks > 0 and not pulse.standby,
            ailing=frozenset(pulse.ailing), answered=pulse.answered, problems=pulse.problems, facts=pulse.facts, posts=pulse.posts,
            sightings=pulse.sightings, products=pulse.products,
            steps={place: (d.cumulated(), d.total) for place, d in pulse.steps.items()}, hints=hints, hinted=hinted,
        )  # fmt: skip
        yield from families(whole, loop, tuple(source.name for source in self._site.sources), burns)


class _Answers:
    """The answers: plain functions, because Starlette calls them in threads, and the ledger's driver blocks."""

    def __init__(self, site: Site, ended: Callable[[], bool]) -> None:
        self._site, self._readers = site, Readers(READERS, ended)
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(_Families(site))

    def page(self, request: Request) -> Response:
        view, site = query.view(request.query_params, self._site.names()), self._site
        return HTMLResponse(render(site.overview(view), site.standing(), view, site.sources, site.version))

    def events(self, request: Request) -> Response:
        view = query.view(request.query_params, self._site.names())
        return self._stream(request, lambda: self._site.content(view))

    def item_events(self, request: Request) -> Response:
        self._item_page(request)  # or there is none
        return self._stream(request, lambda: render_item_live(self._item_page(request)))

    def _stream(self, request: Request, render_part: Callable[[], str]) -> Response:
        if request.method == "HEAD":  # nobody reads on: a stream would never end, and would be one of those that are read
            return StreamingResponse(iter(()), media_type=EVENTS, headers=UNBUFFERED)

        def content() -> tuple[str, str]:
            try:
                return "page", render_part()
            except StacWatchError as error:
                return "trouble", str(error)

        return StreamingResponse(self._readers.changes(content), media_type=EVENTS, headers=UNBUFFERED)

    def script(self, _: Request) -> Response:
        return Response(beside("live.js"), media_type="text/javascript")

    def icon(self, _: Request) -> Response:
        return Response(beside("icon.svg"), media_type="image/svg+xml")

    def status(self, _: Request) -> Response:
        return Response(as_json(self._site.status()) + "\n", media_type="application/json")

    def freshness(self, request: Request) -> Response:
        name, published = request.path_params.get("file", "index.html"), self._site.freshness()
        if name not in published:
            raise HTTPException(404, "there is no such file here")
        return Response(published[name], media_type=CONTENT[name])

    def items(self, request: Request) -> Response:
        lines = items.read(self._site.ledger, self._site.now(), **query.items(request.query_params))
        return Response(as_json(lines) + "\n", media_type="application/json")

    def item(self, request: Request) -> Response:
        return HTMLResponse(render_item(self._item_page(request), self._site.version))

    def _item_page(self, request: Request) -> ItemStory:
        site, now = self._site, self._site.now()
        chains = _chains(site, request, now)
        return ItemStory(chains, now, {chain.line.key: _links(site.links, chain) for chain in chains}, site.links.cluster)

    def file(self, request: Request) -> Response:
        kind, chains = request.path_params["file"], _chains(self._site, request, self._site.now())
        found = next((path for chain in chains if (path := _file(self._site.links, chain, kind))), None)
        if found is None:
            raise HTTPException(404, "there is no such file here")
        return FileResponse(found, media_type=FILES[kind], headers={"Content-Security-Policy": FILE_POLICY})

    def metrics(self, request: Request) -> Response:
        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):  # a version that is no number: who asks so gets what everybody reads
            encode, content_type = choose_encoder("")
        return Response(encode(self._registry), media_type=None, headers={"Content-Type": content_type})

    def healthz(self, request: Request) -> Response:
        return _verdict(request, alive(self._site.pulse().age))

    def readyz(self, request: Request) -> Response:
        return _verdict(request, self._site.health())


def _no_answer(site: Site, request: Request, error: Exception) -> Response:
    """Returns an error of ours, which is one sentence without secrets: as a page to browsers, with the way back."""
    code = 404 if isinstance(error, UnknownItemError) else 400 if isinstance(error, InputError) else 503
    if isinstance(error, StacWatchError) and "text/html" in request.headers.get("accept", ""):
        root = "../" * (request.url.path.count("/") - 1)
        return HTMLResponse(render_absent(code, error, root, site.version), code, headers=HEADERS)
    return PlainTextResponse(f"{error}\n", code, headers=HEADERS)


class UnknownItemError(InputError):
    """The ledger has no item of that name."""


def _chains(site: Site, request: Request, now: datetime) -> list[Explanation]:
    """Returns the chains of the item that an address names.

    Raises:
        UnknownItemError: there is none.
    """
    asked = request.path_params["item"]
    try:
        check_item_id(asked)  # what else stands there could not be in the ledger, and PostgreSQL refuses some of it
        return explain.read(site.ledger, asked, site.limits, now, site.links.log_of)
    except InputError as error:
        raise UnknownItemError(error.message, hint=error.hint) from None


def _hrefs(chain: Explanation) -> dict[str, str]:
    """Returns where what can be shown lies, by its kind, as the run said."""
    said = chain.outcome.files if chain.outcome is not None and chain.has_output else {}
    return {kind: said[kind] for kind in FILES if kind in said}


def _file(links: Links, chain: Explanation, kind: str) -> Path | None:
    href = _hrefs(chain).get(kind)
    return links.file_of(chain.line.output, href) if href is not None else None


def _links(links: Links, chain: Explanation) -> ItemLinks:
    hrefs = _hrefs(chain)
    here = tuple(kind for kind, href in hrefs.items() if links.file_of(chain.line.output, href))
    there = {kind: href for kind, href in hrefs.items() if kind not in here}
    return ItemLinks(here, there, links.run_page(chain.line.run) if chain.line.run else None)


def _sealed(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    def sealed(request: Request) -> Response:
        response = answer(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return sealed


def _verdict(request: Request, health: Health) -> Response:
    """Returns a verdict as text, or as JSON to who asks for that."""
    code = 200 if health.ok else 503
    if "json" in request.headers.get("accept", ""):
        return Response(json.dumps(asdict(health), indent=2) + "\n", code, media_type="application/json")
    return PlainTextResponse(as_text(health), code)
