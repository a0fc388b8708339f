"""The demo catalog's faults: what real STAC servers were seen doing, each a switch, all off.

They are set before or while the server runs. An ASGI layer breaks answers on the wire, the search looks at the others, and `Server`
knows the connections that a fault resets. Nothing is random: a fault happens exactly as often as it was asked for, and
`FaultControl.delivered` says what happened.

Source: measurements of stac-fastapi-pgstac with pgstac 0.9 and 0.10, and faults reported for public catalogs.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from types import TracebackType
from typing import Any, Literal, Self

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from stac_watch.model.errors import Defect
from stac_watch.report.web.server import serving

WireFault = Literal["500", "502", "503", "429", "reset", "hang", "truncate", "bad_utf8", "html", "empty_page"]
EMPTY_PAGE = "stac_watch.empty_page"


@dataclass(frozen=True)
class Faults:
    """The switches.

    Attributes:
        text_updated: `updated` is compared and sorted as text, and not declared as a queryable.
        id_tokens: `next` tokens name the last item; it is looked up when the page is asked for. Gone: 500. Changed: items are lost.
        hrefless: ids of items that get an asset without `href`; `("*",)` means all.
        no_properties: ids of items that are served without `properties`.
        visibility_delay: seconds between a transaction's answer and the item being visible.
        wire: what happens to the next requests, one entry each: a status, a broken connection or body, an empty page with `next`.
        wire_paths: prefixes of the paths that `wire` is about.
        retry_after: value of Retry-After at 429 and 503; None leaves it out.
        hang: seconds that a hanging answer takes.
        redirect_next: `next` points to a URL that answers 301, as behind a proxy that lost its scheme.
        poison: ids of items; a page that would hold one of them is 500.
        ignore: search parameters that are silently ignored, of sortby, fields, filter, limit, datetime, collections.
        post_search: what a search by POST gets: an answer, 405 (many read-only APIs), or 301 (a proxy that lost its scheme).
        slow: seconds that a filter takes without a limit on the acquisition time, as on a change stamp that has no index.
        matched: what every page says of how many items match, whatever there are; pgstac 0.10 keeps counts that are out of date.
    """

    text_updated: bool = False
    id_tokens: bool = False
    hrefless: tuple[str, ...] = ()
    no_properties: tuple[str, ...] = ()
    visibility_delay: float = 0.0
    wire: tuple[WireFault, ...] = ()
    wire_paths: tuple[str, ...] = ("/search",)
    retry_after: int | None = 1
    hang: float = 30.0
    redirect_next: bool = False
    poison: tuple[str, ...] = ()
    ignore: frozenset[str] = field(default_factory=frozenset)
    post_search: Literal["yes", "405", "301"] = "yes"
    slow: float = 0.0
    matched: int | None = None


NO_FAULTS = Faults()


class FaultControl:
    """The switches of a running server; safe to use from any thread."""

    def __init__(self, faults: Faults = NO_FAULTS) -> None:
        self._faults, self._lock = faults, threading.Lock()
        self.delivered: list[WireFault | Literal["slow"]] = []
        self.transports: dict[tuple[str, int], asyncio.Transport] = {}  # filled by the server; a reset needs the socket itself

    @property
    def current(self) -> Faults:
        """The switches as they are now."""
        with self._lock:
            return self._faults

    def set(self, **changes: Any) -> Faults:  # noqa: ANN401  # the fields of Faults
        """Changes the named switches and returns all of them."""
        with self._lock:
            self._faults = replace(self._faults, **changes)
            return self._faults

    def clear(self) -> None:
        """Turns all faults off; `delivered` is kept."""
        with self._lock:
            self._faults = NO_FAULTS

    def take(self, path: str) -> WireFault | None:
        """Returns the fault that the next request to `path` must show, and takes it off the list."""
        with self._lock:
            if not self._faults.wire or not path.startswith(self._faults.wire_paths):
                return None
            first, *rest = self._faults.wire
            self._faults = replace(self._faults, wire=tuple(rest))
            self.delivered.append(first)
            return first


class Wire:
    """ASGI layer around the catalog: sets the Date header from the catalog's own clock, and breaks what must break."""

    def __init__(self, app: ASGIApp, *, control: FaultControl, now: Callable[[], datetime]) -> None:
        self._app, self._control, self._now = app, control, now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = format_datetime(self._now().astimezone(UTC), usegmt=True).encode()
                message["headers"] = [*message.get("headers", []), (b"date", date)]
            await send(message)

        fault = self._control.take(scope["path"])
        if fault is None:
            await self._app(scope, receive, dated)
        elif fault == "empty_page":
            await self._app({**scope, EMPTY_PAGE: True}, receive, dated)
        elif fault == "reset":
            await self._reset(scope, receive)
        elif fault == "hang":
            await _hang(receive, self._control.current.hang)
            self._transport(scope).close()
        elif fault in ("truncate", "bad_utf8"):
            await self._broken_body(fault, scope, receive, dated)
        else:
            await self._answer(fault)(scope, receive, dated)

    def _answer(self, fault: str) -> Response:
        if fault == "html":
            return HTMLResponse("<html><head><title>Maintenance</title></head><body>We will be back soon.</body></html>")
        retry_after = self._control.current.retry_after
        headers = {"retry-after": str(retry_after)} if fault in ("429", "503") and retry_after is not None else {}
        return JSONResponse({"code": fault, "description": "a fault that was switched on"}, int(fault), headers)

    async def _broken_body(self, fault: str, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        start, body = messages[0], b"".join(m.get("body", b"") for m in messages[1:])
        middle = len(body) // 2
        if fault == "truncate":
            await send(start)
            await send({"type": "http.response.body", "body": body[:middle], "more_body": True})
            self._transport(scope).close()  # what was written still goes out; the client misses the rest of Content-Length
            return
        at = body.find(b'"id":') + len(b'"id": "')
        broken = body[: at or middle] + b"\xff" + body[(at or middle) + 1 :]  # same length: Content-Length stays right
        await send(start)
        await send({"type": "http.response.body", "body": broken})

    async def _reset(self, scope: Scope, receive: Receive) -> None:
        while (await receive()).get("more_body"):  # a client that is still sending would see a broken pipe instead
            pass
        transport = self._transport(scope)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
        transport.abort()

    def _transport(self, scope: Scope) -> asyncio.Transport:
        transport = self._control.transports.get(tuple(scope["client"] or ()))
        if transport is None:
            raise Defect("this fault needs the connection itself", hint="serve the app with stac_watch.demo.faults.Server")
        return transport


async def _hang(receive: Receive, seconds: float) -> None:
    """Waits until the client has gone or the time is over."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        await asyncio.wait_for(gone(), seconds)
    except TimeoutError:
        return


class Server:
    """Runs an application with faults on 127.0.0.1; a context manager, ready when entered and stopped when left.

    Args:
        app: what `create_app` returned, or another one with a `FaultControl` as `state.faults`.
        port: 0 takes any free one.

    Raises:
        Unavailable: on entering, when the port is in use.
    """

    def __init__(self, app: Starlette, *, port: int = 0) -> None:
        self.faults: FaultControl = app.state.faults
        self.url = ""
        self._serving = serving(
            app, "127.0.0.1", port, name="the demo catalog", http=_tracking(self.faults), date_header=False, log_level="critical",
            hint="stop what listens there, or choose another port; 0 takes any free one",
        )  # fmt: skip

    def __enter__(self) -> Self:
        self.url = self._serving.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._serving.__exit__(kind, error, trace)


def _tracking(control: FaultControl) -> type[H11Protocol]:
    """Returns uvicorn's protocol with its connections known to `control`: an ASGI application cannot reset one otherwise."""

    class Tracking(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
            super().connection_made(transport)
            self._address = self.client or ("", 0)
            control.transports[self._address] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            control.transports.pop(self._address, None)
            super().connection_lost(exc)

    return Tracking
