"""What people write into `api:` that is no STAC API, or not where it is: each is told by name, with the URL to write."""

import random
import re
import ssl
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from loopback import serving

from stac_watch.catalog import answers
from stac_watch.catalog.client import Catalog
from stac_watch.catalog.http import CatalogHttp
from stac_watch.model.errors import CatalogUnavailable, ConfigError, Refused, StacWatchError


def answering(status: int, body: bytes, **headers: str):
    """A server that answers everything alike; HERE in a header is its own URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value.replace("HERE", f"http://{self.headers['Host']}").replace("PATH", self.path))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    return serving(Handler)


def trouble(world, url: str) -> StacWatchError:
    http = CatalogHttp(url, now=world.clock, sleep=world.slept.append, rng=random.Random(1), timeout=(2, 2))
    with pytest.raises(StacWatchError) as error:
        Catalog(http, "c").clock()
    http.session.close()
    return error.value


BROWSER = b"<!doctype html><title>STAC Browser</title><script>window.x={catalogUrl: 'https://stac.example/v1'}</script>"
PLACES = {
    "nothing, since it moved": (
        404,
        b'{"detail": "Not Found"}',
        {},
        CatalogUnavailable,
        "HTTP 404: Not Found",
        "has the catalog moved",
    ),
    "a login, by redirect": (
        302,
        b"",
        {"Location": "https://sso.example/auth?client_id=a"},
        Refused,
        "wants a login",
        "auth:",
    ),
    "a login beside it": (303, b"", {"Location": "HERE/oauth2/start?rd=%2F"}, Refused, "wants a login", "auth:"),
    "a login page": (200, b"<html><title>Sign in</title>", {}, Refused, r"HTML page \('Sign in'\).*wants a login", "auth:"),
    "a form": (200, b"<html><form><input type=password></form>", {}, Refused, "wants a login", "auth:"),
    "a page": (200, b"<!DOCTYPE html><html><title>Our data</title>", {}, CatalogUnavailable, "HTML page .'Our data'", "JSON"),
    "STAC Browser": (200, BROWSER, {}, ConfigError, "STAC Browser", "write https://stac.example/v1 into"),
    "a moved root": (
        301,
        b"",
        {"Location": "https://new.example/v2PATH"},
        ConfigError,
        "redirects",
        "write https://new.example/v2",
    ),
    "a moved root, http": (308, b"", {"Location": "HERE/v2PATH"}, ConfigError, "redirects", "/v2 into `api:`"),
    "XML": (200, b"<?xml version='1.0'?><ListBucketResult/>", {}, CatalogUnavailable, "answered XML", ""),
    "other JSON": (200, b'{"hello": 1}', {}, ConfigError, "not STAC", "landing page"),
    "a list": (200, b"[1]", {}, CatalogUnavailable, "not STAC", ""),
    "files": (200, b'{"type": "Catalog", "links": [{"rel": "child", "href": "x"}]}', {}, ConfigError, "static catalog", "STAC API"),
    "nobody's redirect": (302, b"", {}, CatalogUnavailable, "without saying where", ""),
    "a redirect to nonsense": (302, b"", {"Location": "http://["}, CatalogUnavailable, "no URL", ""),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_stands_there_is_told_by_name(world, name):
    status, body, headers, kind, said, hint = PLACES[name]
    with answering(status, body, **headers) as url:
        error = trouble(world, url)
    assert isinstance(error, kind)
    assert re.search(said, error.message)
    assert hint in error.hint
    assert f"GET {url}" in error.message or url in error.message


PARTS = {
    "collections/c": b'{"type": "Collection", "links": []}',
    "collections/c/items": b'{"type": "FeatureCollection", "features": [], "links": []}',
    "collections/c/items/i": b'{"type": "Feature", "links": []}',
    "collections": b'{"collections": [], "links": []}',
    "search": b'{"type": "FeatureCollection", "features": [], "links": []}',
}


@pytest.mark.parametrize("part", PARTS)
def test_the_url_of_a_part_of_an_api_leads_to_its_root(world, part):
    with answering(200, PARTS[part]) as url:
        error = trouble(world, f"{url}/stac/{part}")
        assert f"write {url}/stac into `api:`" in error.hint


def test_a_page_of_stac_browser_names_the_api_that_it_shows(world):
    with answering(200, b"<html><title>x</title>") as url:
        error = trouble(world, f"{url}/browser/#/external/stac.example.org/v1/collections/c")
    assert "write https://stac.example.org/v1 into `api:`" in error.hint


@contextmanager
def tls(tmp_path):
    pem = tmp_path / "pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj",
         "/CN=x", "-keyout", pem, "-out", f"{pem}.crt"], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{pem}.crt", pem)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_tls_and_plain_http_at_the_other_s_port_are_told(world, tmp_path):
    with answering(200, b"{}") as url:
        error = trouble(world, url.replace("http:", "https:"))
        assert f"write {url} into `api:`" in error.hint
    with tls(tmp_path) as place:
        error = trouble(world, f"http://{place}")
        assert f"write https://{place} into `api:`" in error.hint
        error = trouble(world, f"https://{place}")
        assert "certificate is not trusted" in error.hint
    nginx = b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>"
    with answering(400, nginx) as url:
        assert f"write {url.replace('http:', 'https:')} into `api:`" in trouble(world, url).hint


WORDS = [
    (b'{"code": "X", "description": "limit: too large"}', "limit: too large"),
    (b'{"detail": [{"loc": ["body", "limit"], "msg": "too large"}, {"loc": [], "msg": "odd"}]}', "limit: too large; odd"),
    (b'{"error": {"message": "inner"}}', "inner"),
    (b'{"errors": ["one", "two"]}', "one; two"),
    (b'{"type": "about:blank", "title": "Bad Request", "detail": "the year"}', "the year"),
    (b"plain\n  words\x1b[31m\xe2\x80\xae", "plain words\\x1b[31m\\u202e"),
    (b"<html><title>502 Bad Gateway</title><body>nginx</body>", "502 Bad Gateway"),
    (b"x" * 500, "x" * 200 + "…"),
    (b"", ""),
    (b"[" * 5000, "[" * 200 + "…"),
    (b'{"message": 5}', ""),
]


@pytest.mark.parametrize(("raw", "said"), WORDS, ids=range(len(WORDS)))
def test_a_refusal_is_told_in_the_server_s_own_words(raw, said):
    assert answers.words(raw) == said
