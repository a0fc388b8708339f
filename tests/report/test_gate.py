"""The page is answered under its own names only, and `/healthz` whoever else holds connections."""

import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import requests
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from stac_watch.model.hosts import serves
from stac_watch.report.web import server
from stac_watch.report.web.gate import CONNECTIONS, Connection, Gate


@pytest.fixture(scope="module")
def url():
    async def healthz(_):
        return PlainTextResponse("ok")

    app = Gate(
        Starlette(routes=[Route("/healthz", healthz), Route("/", healthz)]), lambda name: serves(name, ("page.example.org",))
    )
    with server.serving(app, "127.0.0.1", 0, name="test", hint="", http=Connection) as url:
        yield url


@pytest.mark.parametrize(
    "host", ["127.0.0.1:80", "localhost", "[::1]:8080", "stac-watch", "stac-watch.geozarr.svc:8080", "Page.Example.org", "10.1.2.3"]
)
def test_its_own_names_are_answered(url, host):
    assert requests.get(f"{url}/", headers={"Host": host}, timeout=5).text == "ok"


@pytest.mark.parametrize("host", ["evil.example", "page.example.org.evil.example", "127.0.0.1.nip.io:8080", "[", "evil.example:80"])
def test_a_name_that_leads_here_from_elsewhere_reads_nothing(url, host):
    answer = requests.get(f"{url}/", headers={"Host": host}, timeout=5)
    assert (answer.status_code, "ok" in answer.text) == (421, False)
    assert "web.hosts" in answer.text


def test_healthz_is_answered_while_idle_connections_are_held(url):
    where = (urlsplit(url).hostname, urlsplit(url).port)
    with ExitStack() as held:
        for n in range(CONNECTIONS + 40):
            idle = held.enter_context(socket.create_connection(where, timeout=5))
            if n % 2:
                idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-")  # half a request
        assert requests.get(f"{url}/healthz", timeout=5).text == "ok"
