"""Who is let in to the page: under which names, how many at once, and how long somebody may say nothing.

A name that this page does not have is another page's that leads its reader's browser here (DNS rebinding): it may read nothing.
Connections that say nothing end by themselves; `/healthz` is answered while all others are busy, for it decides over a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

REQUESTS = 64  # at once; the page is for people and probes, and the loop shares the process
CONNECTIONS = 256  # beyond them the one that has said nothing for longest gives way
SILENCE = 10.0  # seconds until a connection has asked something


class Gate:
    """Answers requests under names that `serves` knows, and so many at once."""

    def __init__(self, app: ASGIApp, serves: Callable[[str], bool]) -> None:
        self._app, self._serves, self._busy = app, serves, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request in, or says why not."""
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        if given and not self._serves(_name(given)):
            said = f"this page is not served under the name {_name(given)[:80]!r}; if that is right, add it to `web.hosts`\n"
            await PlainTextResponse(said, HTTPStatus.MISDIRECTED_REQUEST)(scope, receive, send)
        elif scope["path"] == "/healthz":
            await self._app(scope, receive, send)
        elif self._busy >= REQUESTS:
            await PlainTextResponse("too many ask at once\n", HTTPStatus.SERVICE_UNAVAILABLE)(scope, receive, send)
        else:
            self._busy += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._busy -= 1


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return f"{host}."  # nobody's


class Connection(H11Protocol):
    """uvicorn's, with an end to silence: it has none before the first request, and none for half of one."""

    _began = 0.0
    _patience: asyncio.TimerHandle | None = None

    @property
    def silent(self) -> bool:
        """Whether nothing is asked on it now."""
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request, whatever its type says
        return cycle is None or cycle.response_complete

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  # asyncio's own
        """Begins to wait for a request; where there are too many connections another one ends."""
        super().connection_made(transport)
        self._began = self.loop.time()
        self._wait()
        if len(self.connections) > CONNECTIONS:
            silent = [c for c in self.connections if isinstance(c, Connection) and c is not self and c.silent]
            if silent:
                min(silent, key=lambda c: c._began).hang_up()  # noqa: SLF001  # its own kind

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what came; half a request is silence."""
        super().data_received(data)
        if not self.silent:
            self._stop_waiting()
        elif self._patience is None:
            self._wait()

    def hang_up(self) -> None:
        """Ends it."""
        if self.silent and not self.transport.is_closing():
            self.transport.close()

    def _wait(self) -> None:
        self._patience = self.loop.call_later(SILENCE, self.hang_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
