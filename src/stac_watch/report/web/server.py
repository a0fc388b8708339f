"""An application on a port of its own, in a thread, while something else is the program's business.

In: an application, a host, a port. Out: its URL, while the context lasts. Never: knows what is served, or keeps its program from
ending.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from stac_watch.model.errors import Unavailable

CONNECTIONS = 64  # at once; the page is for people and probes, and the loop shares the process
GRACE = 3.0  # seconds for answers that are under way when the watcher stops


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
            app.state.ended.set()
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
