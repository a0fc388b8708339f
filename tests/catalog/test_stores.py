"""Looking at a product's store: one document and the sizes of its objects, whatever servers make of HEAD and of lengths."""

import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import pytest
from loopback import serving

from stac_watch.catalog.stores import Stores
from stac_watch.model.errors import InputError, Temporary

OBJECTS = {"/p.zarr/zarr.json": b'{"zarr_format": 3}', "/p.zarr/b/c/0/0": b"x" * 7, "/p.zarr/b/c/0/1": b""}


@dataclass
class Manners:
    """How a server answers."""

    objects: dict = field(default_factory=lambda: OBJECTS)
    head: int = 200
    length: bool = True
    ranges: bool = True
    absent: int = 404


class Files(BaseHTTPRequestHandler):
    """Answers by its manners; subclasses have them, and the requests that came."""

    protocol_version = "HTTP/1.1"
    manners: Manners
    asked: list

    def reply(self, code, body=b"", **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if self.manners.length or not body:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self):
        if self.manners.head == 200:
            self.do_GET()
        else:
            self.asked.append((self.command, *self.path.partition("?")[::2]))
            self.reply(self.manners.head)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.asked.append((self.command, path, query))
        body = self.manners.objects.get(path)
        if path.startswith("/moved/"):
            self.reply(302, Location=path.removeprefix("/moved"))
        elif path.startswith("/nowhere/"):
            self.reply(302, Location="http://[nowhere")
        elif path.startswith("/away/"):
            self.reply(302, Location=f"http://elsewhere.example{path}")
        elif not isinstance(body, bytes):
            self.reply(body or self.manners.absent)
        elif (given := self.headers.get("Range")) and self.manners.ranges:
            self.part(body, int(re.match(r"bytes=(\d+)", given)[1]))
        else:
            self.reply(200, body)

    def part(self, body, first):
        if first >= len(body):
            self.reply(416, Content_Range=f"bytes */{len(body)}")
        else:
            self.reply(206, body[first : first + 1], Content_Range=f"bytes {first}-{first}/{len(body)}")

    def log_message(self, *_):
        pass


def files(objects=OBJECTS, **manners):
    """A handler that answers as configured, and the requests that it got."""
    asked = []
    return type("Answering", (Files,), {"manners": Manners(objects, **manners), "asked": asked}), asked


def stores(**over) -> Stores:
    return Stores(("127.0.0.1",), **({"rate": 20.0, "sleep": lambda _: None} | over))


@pytest.mark.parametrize(
    "server",
    [{}, {"head": 405}, {"head": 501}, {"head": 403}, {"head": 400}, {"ranges": False}, {"head": 405, "ranges": False}],
)
def test_sizes_are_told_whatever_becomes_of_head_and_of_ranges(server):
    handler, _ = files(**server)
    with serving(handler) as url:
        asked = stores()
        told = [asked.size(f"{url}/p.zarr/", key) for key in ("b/c/0/0", "b/c/0/1", "b/c/9/9")]
        assert told == [7, 0, None]
        assert asked.root(f"{url}/p.zarr") == OBJECTS["/p.zarr/zarr.json"]


def test_a_server_that_refuses_head_is_not_asked_so_again():
    handler, asked = files(head=405)
    with serving(handler) as url:
        found = stores()
        for _ in range(3):
            found.size(f"{url}/p.zarr", "b/c/0/0")
    assert [method for method, _, _ in asked] == ["HEAD", "GET", "GET", "GET"]


def test_who_tells_no_length_but_ranges_is_asked_for_one_byte():
    handler, _ = files(length=False)
    with serving(handler) as url:
        assert stores().size(f"{url}/p.zarr", "b/c/0/0") == 7


def test_of_who_tells_no_length_at_all_an_object_is_read_and_counted():
    handler, _ = files({"/p.zarr/b": b"x" * 200_000}, length=False, ranges=False)
    with serving(handler) as url:
        assert stores().size(f"{url}/p.zarr", "b") == 200_000
        assert stores().size(f"{url}/p.zarr", "c") is None


def test_403_means_absent_as_of_stores_that_may_not_be_listed():
    handler, _ = files(absent=403)
    with serving(handler) as url:
        assert stores().size(f"{url}/p.zarr", "b/c/9/9") is None
        assert stores().root(f"{url}/other.zarr") is None


def test_a_redirect_to_what_is_no_url_is_trouble():
    handler, _ = files()
    with serving(handler) as url, pytest.raises(Temporary, match="Invalid IPv6 URL"):
        stores().size(f"{url}/nowhere/p.zarr", "b")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_trouble_is_no_fact(status):
    handler, _ = files({"/p.zarr/b": status, "/p.zarr/zarr.json": status})
    with serving(handler) as url:
        with pytest.raises(Temporary, match=str(status)):
            stores().size(f"{url}/p.zarr", "b")
        with pytest.raises(Temporary, match=str(status)):
            stores().root(f"{url}/p.zarr")


def test_nobody_there_is_temporary():
    with pytest.raises(Temporary):
        stores().size("http://127.0.0.1:9/p.zarr", "b")


def test_a_signature_goes_with_each_object_and_is_shown_nowhere():
    handler, asked = files({"/p.zarr/b": 503})
    with serving(handler) as url, pytest.raises(Temporary) as told:
        stores().size(f"{url}/p.zarr/?X-Amz-Signature=secret", "b")
    assert asked[0] == ("HEAD", "/p.zarr/b", "X-Amz-Signature=secret")
    assert "secret" not in str(told.value)


def test_redirects_lead_to_hosts_that_may_be_asked_and_nowhere_else():
    handler, _ = files({"/p.zarr/b": b"1234"})
    with serving(handler) as url:
        assert stores().size(f"{url}/moved/p.zarr", "b") == 4
        with pytest.raises(InputError, match=r"elsewhere\.example"):
            stores().size(f"{url}/away/p.zarr", "b")


def test_a_private_address_behind_a_name_is_not_asked():
    with pytest.raises(InputError):
        Stores(("data.example",), rate=9, sleep=lambda _: None).root("http://127.0.0.1/p.zarr")


def test_other_peoples_servers_are_asked_no_faster_than_said():
    slept = []
    found = Stores(("data.invalid.example",), rate=4.0, sleep=slept.append)
    for _ in range(3):
        with pytest.raises((Temporary, InputError)):
            found.size("https://data.invalid.example/p.zarr", "b")
    assert len(slept) == 2, "the first goes out at once"
    assert 0 < slept[0] <= 0.25 < slept[1] <= 0.5, "this sleep takes no time, so that the second waits for two"
