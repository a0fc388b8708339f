"""A folder over HTTP as an object store far away serves it: each request waits, each connection has so much bandwidth.

In: a folder, seconds per request, bytes per second and connection. Out: `python slow_http.py FOLDER LATENCY RATE` prints its port
and serves until it is ended; `GET /.requests` tells what was sent: path -> [times, bytes sent, bytes of the object]. Never: faster
than asked.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REQUESTS = "/.requests"
_PIECE = 512 * 1024  #: bytes between two waits: 26 ms at 20 MB/s


class Handler(SimpleHTTPRequestHandler):
    """Serves files, slowly."""

    protocol_version = "HTTP/1.1"
    sent: dict[str, list[int]] = {}  # noqa: RUF012  # one for all connections, on purpose
    lock = threading.Lock()

    def __init__(self, *args: object, latency: float, rate: float, **kwargs: object) -> None:
        self.latency, self.rate = latency, rate
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        """Answers after the latency."""
        time.sleep(self.latency)
        super().do_HEAD()

    def do_GET(self) -> None:
        """Answers after the latency, at the rate; the whole object, as static stores do without a Range header."""
        if self.path == REQUESTS:
            return self._answer(json.dumps(self.sent).encode())
        time.sleep(self.latency)
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        size = path.stat().st_size
        first, last = self._range(size)
        self.send_response(206 if self.headers.get("Range") else 200)
        self.send_header("Content-Length", str(last - first))
        self.send_header("Accept-Ranges", "bytes")
        if self.headers.get("Range"):
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{size}")
        self.end_headers()
        with suppress(ConnectionError):
            self._send(path, first, last)
        with self.lock:
            known = self.sent.setdefault(self.path, [0, 0, size])
            known[0], known[1] = known[0] + 1, known[1] + last - first
        return None

    def _range(self, size: int) -> tuple[int, int]:
        asked = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not asked[1]:
            return 0, size
        if not asked[0]:
            return max(0, size - int(asked[2])), size
        return int(asked[0]), min(size, int(asked[2]) + 1) if asked[2] else size

    def _send(self, path: Path, first: int, last: int) -> None:
        began = time.monotonic()
        with path.open("rb") as file:
            for start in range(first, last, _PIECE):
                stop = min(start + _PIECE, last)
                self.wfile.flush()
                self.connection.sendfile(file, start, stop - start)
                time.sleep(max(0.0, (stop - first) / self.rate - (time.monotonic() - began)))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing: a line per chunk would cost more than the chunk."""


class Server(ThreadingHTTPServer):
    """One thread per connection, as many as there are."""

    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    folder, latency, rate = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    server = Server(("127.0.0.1", 0), partial(Handler, latency=latency, rate=rate, directory=folder))
    print(server.server_port, flush=True)
    server.serve_forever()
