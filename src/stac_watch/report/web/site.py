"""What the watcher tells over HTTP while it works: status page and its stream, page of an item, JSON, metrics, probes.

In: the ledger, the loop's pulse. Out: answers to GET and HEAD. Never: changes anything, asks the engine or a catalog, shows a
password or a token, or holds the loop up: it runs in threads of its own, and reads the ledger once for all who ask at once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from stac_watch.config.model import Limits, Source
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Footprint
from stac_watch.model.errors import InputError, StacWatchError
from stac_watch.model.identity import check_item_id
from stac_watch.report import questions as asking
from stac_watch.report.as_json import as_json
from stac_watch.report.explain import Explanation
from stac_watch.report.health import Health, alive, as_text, ready
from stac_watch.report.metrics import Loop, families
from stac_watch.report.status import Status
from stac_watch.report.web import query as choices
from stac_watch.report.web.page import Links, Overview, beside, render, render_item, render_live
from stac_watch.report.web.places import Places
from stac_watch.report.web.query import View
from stac_watch.report.web.stream import Readers
from stac_watch.watch.pulse import Pulse

KEPT = timedelta(seconds=2)  # a reading, for all who ask meanwhile: at a million items it costs the database up to a second
READERS = 24  # of the stream at once; the others' pages reload themselves
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
FILE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"  # a report has neither scripts nor links of ours
)
UNBUFFERED = {"X-Accel-Buffering": "no"}  # nginx keeps a stream back otherwise
FILES = {
    "report": "text/html", "quicklook": "image/png", "report_json": "application/json", "item": "application/geo+json",
}  # fmt: skip
"""What of an outcome's `files` is shown, and as what."""


@dataclass
class Window:
    """What the web may look at, and what it saw a moment ago."""

    ledger: Ledger
    sources: tuple[Source, ...]
    limits: Limits
    pulse: Callable[[], Pulse]
    now: Callable[[], datetime]
    version: str
    places: Places = field(default_factory=Places)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: tuple[Status, list[Footprint]] | None = None
    _overviews: dict[View, Overview] = field(default_factory=dict)
    _contents: dict[View, str] = field(default_factory=dict)

    def look(self) -> tuple[Status, list[Footprint]]:
        """Returns status and footprints, at most two seconds old.

        Raises:
            StacWatchError: the ledger does not answer.
        """
        with self._lock:
            return self._look()

    def overview(self, view: View) -> Overview:
        """Returns what the status page shows of a part of the ledger, at most two seconds old.

        Raises:
            StacWatchError: the ledger does not answer.
        """
        with self._lock:
            return self._overview(view)

    def content(self, view: View) -> str:
        """Returns the part of the status page that changes, rendered once for all who read it, at most two seconds old.

        Raises:
            StacWatchError: the ledger does not answer.
        """
        with self._lock:
            seen = self._overview(view)
            if view not in self._contents:
                self._contents[view] = render_live(seen, self.health(), view)
            return self._contents[view]

    def _overview(self, view: View) -> Overview:
        seen = self._look()
        if view not in self._overviews:
            self._overviews[view] = asking.overview(self.ledger, *seen, view.scope(seen[0].at))
        return self._overviews[view]

    def _look(self) -> tuple[Status, list[Footprint]]:
        now = self.now()
        if self._seen is None or not timedelta(0) <= now - self._seen[0].at < KEPT:
            self._seen, self._overviews, self._contents = None, {}, {}
            status = asking.status(self.ledger, self.sources, self.limits, now, self.pulse().runs)
            self._seen = (status, asking.footprints(self.ledger))
        return self._seen

    def health(self) -> Health:
        """Tells whether the watcher can do its work; asks the ledger now."""
        pulse, problem = self.pulse(), None
        try:
            self.ledger.lease.holder()
        except StacWatchError as error:
            problem = error
        return ready(rounds=pulse.ticks, standby=pulse.standby, ailing=pulse.ailing, ledger=problem)


class _Families(Collector):
    def __init__(self, window: Window) -> None:
        self._w = window

    def collect(self) -> Iterator[Metric]:
        try:
            view = self._w.look()[0]
        except StacWatchError:
            view = None  # said by `ledger_up`; what the loop counted is told all the same
        pulse = self._w.pulse()
        loop = Loop(
            version=self._w.version, ticks=pulse.ticks, last_tick=pulse.at, leads=pulse.ticks > 0 and not pulse.standby,
            ailing=frozenset(pulse.ailing), answered=pulse.answered, problems=pulse.problems, facts=pulse.facts, posts=pulse.posts,
            sightings=pulse.sightings, steps={place: (d.cumulated(), d.total) for place, d in pulse.steps.items()},
        )  # fmt: skip
        yield from families(view, loop, tuple(source.name for source in self._w.sources))


def create_app(window: Window) -> Starlette:
    """Returns the application."""
    ended = threading.Event()
    site = _Site(window, ended)
    answers: dict[str, Callable[[Request], Response]] = {
        "/": site.page, "/events": site.events, "/live.js": site.script, "/icon.svg": site.icon,
        "/status.json": site.status, "/items.json": site.items,
        "/items/{item}": site.item, "/items/{item}/{file}": site.file, "/metrics": site.metrics, "/healthz": site.healthz,
        "/readyz": site.readyz,
    }  # fmt: skip
    routes = [Route(path, _sealed(answer), methods=["GET"]) for path, answer in answers.items()]  # and HEAD; all else is 405
    app = Starlette(routes=routes, exception_handlers={StacWatchError: _no_answer})
    app.state.ended = ended
    return app


class _Site:
    """The answers: plain functions, because Starlette calls them in threads, and the ledger's driver blocks."""

    def __init__(self, window: Window, ended: threading.Event) -> None:
        self._w, self._readers = window, Readers(READERS, ended.is_set)
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(_Families(window))

    def page(self, request: Request) -> Response:
        view = choices.view(request.query_params)
        return HTMLResponse(render(self._w.overview(view), self._w.health(), view, self._w.version))

    def events(self, request: Request) -> Response:
        view = choices.view(request.query_params)

        def content() -> tuple[str, str]:
            try:
                return "page", self._w.content(view)
            except StacWatchError as error:
                return "trouble", str(error)

        return StreamingResponse(self._readers.changes(content), media_type="text/event-stream", headers=UNBUFFERED)

    def script(self, _: Request) -> Response:
        return Response(beside("live.js"), media_type="text/javascript")

    def icon(self, _: Request) -> Response:
        return Response(beside("icon.svg"), media_type="image/svg+xml")

    def status(self, _: Request) -> Response:
        return Response(as_json(self._w.look()[0]) + "\n", media_type="application/json")

    def items(self, request: Request) -> Response:
        lines = asking.items(self._w.ledger, self._w.now(), **choices.items(request.query_params))
        return Response(as_json(lines) + "\n", media_type="application/json")

    def item(self, request: Request) -> Response:
        now = self._w.now()
        chains = _chains(self._w, request, now)
        links = {chain.line.key: _links(self._w.places, chain) for chain in chains}
        return HTMLResponse(render_item(chains, now, self._w.version, links))

    def file(self, request: Request) -> Response:
        kind, chains = request.path_params["file"], _chains(self._w, request, self._w.now())
        found = next((path for chain in chains if (path := _file(self._w.places, chain, kind))), None)
        if found is None:
            raise HTTPException(404, "there is no such file here")
        return FileResponse(found, media_type=FILES[kind], headers={"Content-Security-Policy": FILE_POLICY})

    def metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), media_type=None, headers={"Content-Type": content_type})

    def healthz(self, request: Request) -> Response:
        return _verdict(request, alive(self._w.pulse().at, self._w.now()))

    def readyz(self, request: Request) -> Response:
        return _verdict(request, self._w.health())


def _no_answer(_: Request, error: Exception) -> Response:
    code = 404 if isinstance(error, UnknownItemError) else 400 if isinstance(error, InputError) else 503
    return PlainTextResponse(f"{error}\n", code, headers=HEADERS)  # an error of ours, which is one sentence without secrets


class UnknownItemError(InputError):
    """The ledger has no item of that name."""


def _chains(window: Window, request: Request, now: datetime) -> list[Explanation]:
    """Returns the chains of the item that an address names.

    Raises:
        UnknownItemError: there is none.
    """
    asked = request.path_params["item"]
    try:
        check_item_id(asked)  # what else stands there could not be in the ledger, and PostgreSQL refuses some of it
        return asking.explain(window.ledger, asked, window.limits, now, window.places.log_of)
    except InputError as error:
        raise UnknownItemError(error.message, hint=error.hint) from None


def _hrefs(chain: Explanation) -> dict[str, str]:
    """Returns where what can be shown lies, by its kind, as the run said."""
    said = chain.outcome.files if chain.outcome is not None else {}
    return {kind: said[kind] for kind in FILES if kind in said}


def _file(places: Places, chain: Explanation, kind: str) -> Path | None:
    href = _hrefs(chain).get(kind)
    return places.file_of(chain.line.output, href) if href is not None else None


def _links(places: Places, chain: Explanation) -> Links:
    hrefs = _hrefs(chain)
    here = tuple(kind for kind, href in hrefs.items() if places.file_of(chain.line.output, href))
    there = {kind: href for kind, href in hrefs.items() if kind not in here}
    return Links(here, there, places.run_page(chain.line.run) if chain.line.run else None)


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
