"""Between a registrar and a real STAC API: a proxy that breaks requests, a reader who never stops, a process that dies.

In: the API's URL. Out: servers and threads that end with their context. Never: random.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

import requests
from sqlalchemy import event
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stac_watch.demo.faults import FaultControl, Server, Wire

METHODS = ["GET", "POST", "PUT", "DELETE"]


@contextmanager
def passing(upstream: str | Callable[[], str]) -> Iterator[Server]:
    """Runs a proxy that passes everything on, to where that is now; its `faults.set(wire=…, wire_paths=…)` breaks what comes."""
    control = FaultControl()
    where = upstream if callable(upstream) else lambda: upstream
    with requests.Session() as session:

        async def pass_on(request: Request) -> Response:
            body = await request.body()
            kind = {"content-type": request.headers.get("content-type", "application/json")}
            if let_in := request.headers.get("authorization"):
                kind["authorization"] = let_in
            answer = await asyncio.to_thread(
                session.request, request.method, f"{where()}{request.url.path}", data=body, headers=kind, timeout=60
            )
            return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

        middleware = [Middleware(Wire, control=control, now=lambda: datetime.now(UTC))]
        app = Starlette(routes=[Route("/{path:path}", pass_on, methods=METHODS)], middleware=middleware)
        app.state.faults = control
        with Server(app) as server:
            yield server


@dataclass
class Reader:
    """Reads some items for ever, one after the other; what was not there for a moment is remembered."""

    urls: Sequence[str]
    reads: int = 0
    missed: list[tuple[str, int]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join()

    def _read(self) -> None:
        with requests.Session() as session:
            while not self.stop.is_set():
                url = self.urls[self.reads % len(self.urls)]
                status = session.get(url, timeout=60).status_code
                self.reads += 1
                if status != 200:
                    self.missed.append((url, status))
                self.stop.wait(0.01)  # the machine is needed by who writes


class Killed(BaseException):
    """The process is no more."""


@contextmanager
def dies_at(engine: object, commit: int) -> Iterator[None]:
    """Lets no commit of a database through from the given one on (the first is 1), as when the process is killed before it."""
    count, lock = 0, threading.Lock()

    def counted(_: object) -> None:
        nonlocal count
        with lock:
            count += 1
            if count >= commit:
                raise Killed

    event.listen(engine, "commit", counted)
    try:
        yield
    finally:
        event.remove(engine, "commit", counted)
