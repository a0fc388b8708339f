"""Runs the demo catalog in a thread on loopback.

In: the application, a port. Out: a URL that answers from the moment the context is entered. Never: listens on another address,
logs, or leaves a thread or a socket behind.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Self

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from stac_watch.demo.faults import FaultControl
from stac_watch.model.errors import Unavailable


class Server:
    """Runs an application in a thread on 127.0.0.1; a context manager, ready when entered and stopped when left.

    Args:
        app: what `create_app` returned.
        port: 0 takes any free one.

    Raises:
        Unavailable: on entering, when the port is in use.
    """

    def __init__(self, app: Starlette, *, port: int = 0) -> None:
        self._app, self._port = app, port
        self.faults: FaultControl = app.state.faults
        self.url = ""

    def __enter__(self) -> Self:
        # With the protocol named, asyncio turns Nagle off; without, each answer waits 40 ms for the client's delayed ACK.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", self._port))
        except OSError as error:
            self._socket.close()
            raise Unavailable(
                f"port {self._port} on 127.0.0.1 cannot be used: {error.strerror}",
                hint="stop what listens there, or choose another port; 0 takes any free one",
            ) from error
        self._socket.listen(128)  # from here on clients wait instead of being refused
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._app, http=_tracking(self.faults), ws="none", lifespan="off", loop="asyncio", log_config=None,
            log_level="critical", access_log=False, server_header=False, date_header=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="demo-catalog", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


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
