"""A finished GeoZarr on servers that say no length, send elsewhere, refuse HEAD, or compress: taken in, and looked at."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import loopback
import pytest

from stac_watch.catalog.stores import Stores
from stac_watch.discover.restamps import is_same

pytestmark = pytest.mark.long

CHUNKED, ELSEWHERE = "chunked transfer", "every object elsewhere, where HEAD is refused and all is compressed"


@dataclass
class Server:
    """A folder over HTTP, by the manners of some server."""

    folder: Path
    manners: str
    url: str = ""

    def store(self) -> str:
        """The address of the one store there."""
        return f"{self.url}/{next(self.folder.glob('*.zarr')).name}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: object, server_of: Server) -> None:
        self.of = server_of
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        there = self.path.startswith("/there/")
        path = self.of.folder / self.path.removeprefix("/there").lstrip("/")
        if self.of.manners == ELSEWHERE and not there:
            self._answer(302, b"", Location=f"/there{self.path}")
        elif self.of.manners == ELSEWHERE and self.command == "HEAD":
            self._answer(403, b"signed for GET")
        elif not path.is_file():
            self._answer(404, b"no")
        elif self.of.manners == CHUNKED:
            self._in_pieces(path.read_bytes())
        else:
            self._answer(200, gzip.compress(path.read_bytes(), 1, mtime=0), Content_Encoding="gzip")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self._body(body)

    def _in_pieces(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        pieces = [body[i : i + 50_000] for i in range(0, len(body), 50_000)]
        self._body(b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""]))

    def _body(self, body: bytes) -> None:
        if self.command == "HEAD":
            return
        with suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(request, own_native) -> Iterator[Server]:
    found = Server(own_native.parent, request.param)
    with loopback.serving(partial(_Handler, server_of=found)) as url:
        found.url = url
        yield found


def same(server: Server, fingerprint: str) -> bool:
    """What a watcher's look at the store finds."""
    return is_same(Stores(("127.0.0.1",), rate=20.0, sleep=lambda _: None), server.store(), fingerprint)


@pytest.mark.parametrize(
    ("server", "mode"), [(CHUNKED, "mirror"), (CHUNKED, "reference"), (ELSEWHERE, "mirror")], indirect=["server"]
)
def test_it_is_taken_in_and_a_look_tells_the_same_store_from_another(server, runner, tree, own_native, tmp_path, mode):
    output, first = tmp_path / "a.zarr", {"package": "none", "key": "1" * 20, "native": mode}
    made = runner(server.store(), output, **first)
    assert made.code == 0, made.said
    assert mode == "reference" or tree(output) == tree(own_native)
    assert same(server, made.outcome["fingerprint"])
    again = runner(server.store(), output, **first | {"key": "2" * 20})
    assert (again.code, again.outcome["reason"]) == (0, "unchanged"), again.said

    mask = own_native / "quality/mask/r10m/b02/c/0/0"
    mask.write_bytes(mask.read_bytes() + b"longer")
    assert not same(server, made.outcome["fingerprint"])
