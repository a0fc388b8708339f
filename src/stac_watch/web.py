"""What the watcher tells over HTTP while it works: status page, page of an item, status.json, items.json, metrics, probes.

In: the ledger, the loop's pulse. Out: answers to GET and HEAD. Never: changes anything, asks the engine or a catalogue, shows a
password or a token, or holds the loop up: it runs in threads of its own, and reads the ledger once for all who ask at once.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypedDict

import uvicorn
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from stac_watch import asking
from stac_watch.config import Limits, Source
from stac_watch.errors import InputError, StacWatchError, Unavailable
from stac_watch.events import ITEM_ID, check_item_id
from stac_watch.ledger import Ledger
from stac_watch.pulse import Pulse
from stac_watch.records import Footprint
from stac_watch.states import State
from stac_watch.views import as_json
from stac_watch.views.health import Health, alive, as_text, ready
from stac_watch.views.metrics import Loop, families
from stac_watch.views.page import render, render_item
from stac_watch.views.status import Status

MOST = 1000  # items of one answer
KEPT = timedelta(seconds=2)  # a reading, for all who ask meanwhile: at a million items it costs the database up to a second
CONNECTIONS = 64  # at once; the page is for people and probes, and the loop shares the process
GRACE = 3.0  # seconds for answers that are under way when the watcher stops
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Choice(TypedDict):
    """Which items are asked for."""

    source: str | None
    state: State | None
    limit: int


@dataclass
class Window:
    """What the web may look at, and what it saw a moment ago."""

    ledger: Ledger
    sources: tuple[Source, ...]
    limits: Limits
    pulse: Callable[[], Pulse]
    now: Callable[[], datetime]
    version: str
    log_of: Callable[[str | None], Path | None] = lambda _: None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: tuple[Status, list[Footprint]] | None = None

    def look(self) -> tuple[Status, list[Footprint]]:
        """Returns status and footprints, at most two seconds old.

        Raises:
            StacWatchError: the ledger does not answer.
        """
        with self._lock:
            now = self.now()
            if self._seen is None or not timedelta(0) <= now - self._seen[0].at < KEPT:
                self._seen = None
                self._seen = (asking.status(self.ledger, self.sources, self.limits, now), asking.footprints(self.ledger))
            return self._seen

    def health(self) -> Health:
        """Tells whether the watcher can do its work; asks the ledger now."""
        pulse, problem = self.pulse(), None
        try:
            self.ledger.holder()
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
            sightings=pulse.sightings,
        )  # fmt: skip
        yield from families(view, loop, tuple(source.name for source in self._w.sources))


def create_app(window: Window) -> Starlette:
    """Returns the application."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Families(window))

    # plain functions: Starlette calls them in threads, and the ledger's driver blocks
    def page(_: Request) -> Response:
        view, footprints = window.look()
        return HTMLResponse(render(view, window.health(), footprints, window.version))

    def status(_: Request) -> Response:
        return Response(as_json(window.look()[0]) + "\n", media_type="application/json")

    def items(request: Request) -> Response:
        lines = asking.items(window.ledger, window.now(), **_chosen(request.query_params))
        return Response(as_json(lines) + "\n", media_type="application/json")

    def item(request: Request) -> Response:
        asked, now = request.path_params["item"], window.now()
        try:
            check_item_id(asked)  # what else stands there could not be in the ledger, and PostgreSQL refuses some of it
            chains = asking.explain(window.ledger, asked, window.limits, now, window.log_of)
        except InputError as error:
            return PlainTextResponse(f"{error}\n", 404)
        return HTMLResponse(render_item(chains, now, window.version))

    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=None, headers={"Content-Type": content_type})

    def healthz(request: Request) -> Response:
        return _verdict(request, alive(window.pulse().at, window.now()))

    def readyz(request: Request) -> Response:
        return _verdict(request, window.health())

    def no_answer(_: Request, error: Exception) -> Response:
        code = 400 if isinstance(error, InputError) else 503
        return PlainTextResponse(f"{error}\n", code, headers=HEADERS)  # an error of ours, which is one sentence without secrets

    routes = [
        Route(path, _sealed(answer), methods=["GET"])  # and HEAD; everything else is 405
        for path, answer in (
            ("/", page),
            ("/status.json", status),
            ("/items.json", items),
            ("/items/{item}", item),
            ("/metrics", metrics),
            ("/healthz", healthz),
            ("/readyz", readyz),
        )
    ]
    return Starlette(routes=routes, exception_handlers={StacWatchError: no_answer})


def _chosen(asked: Mapping[str, str]) -> Choice:
    """Returns what `items` is asked for: `state`, `source`, `limit`.

    Raises:
        InputError: a parameter or a value that there is not.
    """
    if unknown := sorted(asked.keys() - {"limit", "source", "state"}):
        raise InputError(f"no parameter {unknown[0][:80]!r}", hint="there are state, source and limit")
    state, source, limit = asked.get("state"), asked.get("source"), asked.get("limit", "50")
    if source is not None and not ITEM_ID.fullmatch(source):
        raise InputError(f"no source {source[:80]!r}", hint="as in the configuration")
    if state is not None and state not in list(State):
        raise InputError(f"no state {state[:80]!r}", hint=f"one of {', '.join(State)}")
    number = int(limit) if re.fullmatch(r"[0-9]{1,9}", limit) else 0
    if not 1 <= number <= MOST:
        raise InputError(f"limit {limit[:80]!r} is not a number from 1 to {MOST}", hint="`stac-watch items` has all")
    return {"source": source, "state": State(state) if state else None, "limit": number}


def _sealed(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    def sealed(request: Request) -> Response:
        response = answer(request)
        response.headers.update(HEADERS)
        return response

    return sealed


def _verdict(request: Request, health: Health) -> Response:
    """Returns a verdict as text, or as JSON to who asks for that."""
    code = 200 if health.ok else 503
    if "json" in request.headers.get("accept", ""):
        return Response(json.dumps(asdict(health), indent=2) + "\n", code, media_type="application/json")
    return PlainTextResponse(as_text(health), code)


@contextmanager
def serving(app: Starlette, host: str, port: int) -> Iterator[str]:
    """Serves the application in a thread; yields its URL, and stops it in order.

    Raises:
        Unavailable: it cannot listen there.
    """
    with _listening(host, port) as listener:
        config = uvicorn.Config(
            app, http="h11", ws="none", lifespan="off", loop="asyncio", log_config=None, log_level="error", access_log=False,
            server_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS, timeout_keep_alive=5,
            timeout_graceful_shutdown=int(GRACE),
        )  # fmt: skip
        server = uvicorn.Server(config)
        # a daemon: should it hang, the watcher's end must not wait for it
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="web", daemon=True)
        thread.start()
        try:
            shown, bound = (f"[{host}]" if ":" in host else host), listener.getsockname()[1]
            yield f"http://{shown}:{bound}/"
        finally:
            server.should_exit = True
            thread.join(2 * GRACE)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)  # with its protocol named, asyncio turns Nagle off
    except OSError as error:
        raise _taken(host, port, error) from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(128)  # from here on clients wait instead of being refused
        except OSError as error:
            raise _taken(host, port, error) from error
        yield listener


def _taken(host: str, port: int, error: OSError) -> Unavailable:
    return Unavailable(
        f"the web page cannot listen on {host}, port {port}: {error.strerror}",
        hint="another `stac-watch watch` may run here: set web.port (0 = any free one) or web.host, or `web: null` for none",
    )
