"""An application on a port of its own, in a thread, while something else is the program's business."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from starlette.applications import Starlette

from stac_watch.model.errors import Unavailable


@contextmanager
def serving(
    app: Starlette,
    host: str,
    port: int,
    *,
    name: str,
    hint: str,
    grace: int = 1,
    stopping: Callable[[], None] = lambda: None,
    **settings: Any,  # noqa: ANN401  # uvicorn's own
) -> Iterator[str]:
    """Serves the application in a thread; yields its URL, from which it answers at once, and stops it in order.

    Args:
        app: what is served.
        host: where it listens.
        port: 0 takes any free one.
        name: of the thread, and of what cannot listen when the port is taken.
        hint: what a person can do then.
        grace: seconds for answers that are under way when it stops.
        stopping: called first when it stops: ends answers that would not end by themselves.
        settings: what uvicorn is told besides.

    Raises:
        Unavailable: it cannot listen there.
    """
    with _listening(host, port, name, hint) as listener:
        usual: dict[str, Any] = {
            "http": "h11", "ws": "none", "lifespan": "off", "loop": "asyncio", "log_config": None, "log_level": "error",
            "access_log": False, "server_header": False, "proxy_headers": False, "timeout_graceful_shutdown": grace,
        }  # fmt: skip
        server = _Server(uvicorn.Config(app, **(usual | settings)))
        # a daemon: should it hang, its program's end must not wait for it
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name=name, daemon=True)
        thread.start()
        try:
            yield f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        finally:
            stopping()
            server.stop()
            thread.join(2 * grace)


class _Server(uvicorn.Server):
    """uvicorn's, told when to stop: of itself it looks ten times a second whether it is to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._asked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Ends it, from another thread."""
        self.should_exit = True
        if self._loop is not None:  # else it has not begun to wait, and sees it before it does
            with suppress(RuntimeError):  # it ended already
                self._loop.call_soon_threadsafe(self._asked.set)

    async def main_loop(self) -> None:
        """Waits until it is to stop."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # sets the time of the Date header, in seconds
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), 1.0)


@contextmanager
def _listening(host: str, port: int, name: str, hint: str) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # with its protocol named, asyncio turns Nagle off; else each answer waits 40 ms for the client's delayed ACK
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _taken(host, port, name, hint, error) from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(128)  # from here on clients wait instead of being refused
        except OSError as error:
            raise _taken(host, port, name, hint, error) from error
        yield listener


def _taken(host: str, port: int, name: str, hint: str, error: OSError) -> Unavailable:
    return Unavailable(f"{name} cannot listen on {host}, port {port}: {error.strerror}", hint=hint)
