"""Where a URL may lead: judged by its text, and again by the address that is really connected to, in the poller and in the runner.

`0x7f.1` stands for a public name that leads inside: it is no address to a parser, and getaddrinfo makes 127.0.0.1 of it.
"""

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from geozarr_runner.source.store import Patience, open_source
from hypothesis import given
from hypothesis import strategies as st
from loopback import serving

from stac_watch.catalog.http import CatalogHttp
from stac_watch.model.errors import ConfigError, IdentityError, InputError, StacWatchError
from stac_watch.model.hosts import check_address, check_href

METADATA = [
    "169.254.169.254",
    "fe80::1",
    "100.100.100.200",
    "168.63.129.16",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
]
NEVER = [*METADATA, "0.0.0.0", "224.0.0.1", "255.255.255.255", "ff02::1", "::", "fe80::1%eth0", "no address"]
PRIVATE = [
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "127.0.0.1",
    "::1",
    "fc00::1",
    "fec0::1",
    "::ffff:10.0.0.1",
    "2002:a00:1::1",
]
PUBLIC = ["193.0.6.139", "2001:67c:2e8:22::c100:68b"]


@pytest.mark.parametrize("address", NEVER)
def test_nobody_is_sent_to_metadata_services_whatever_is_allowed(address):
    for hosts in ((), ("data.example",), ("0.0.0.0/0", "::/0", "data.example", address)):
        with pytest.raises(IdentityError, match="nobody"):
            check_address("data.example", address, hosts)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_public_name_that_leads_inside_is_refused_until_the_network_is_allowed(address):
    for hosts in ((), ("data.example",), ("*.example",)):
        with pytest.raises(IdentityError, match="private") as error:
            check_address("data.example", address, hosts)
        assert "allowed_hosts" in error.value.hint
    network = error.value.hint.rpartition(" ")[2]  # the remedy that it names is one
    check_address("data.example", address, ("data.example", network))


@pytest.mark.parametrize("host", ["localhost", "catalog.demo.svc", "minio", "10.1.2.3", "db.internal"])
def test_a_name_that_is_inside_says_so_itself_when_it_is_allowed(host):
    check_address(host, "10.1.2.3", (host,))
    with pytest.raises(IdentityError, match="private"):
        check_address(host, "10.1.2.3", ("data.example",))
    with pytest.raises(IdentityError, match="nobody"):
        check_address(host, "169.254.169.254", (host,))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_what_the_list_of_hosts_is_for(address):
    check_address("data.example", address, ("data.example",))
    check_address("data.example", address, ())


@given(st.ip_addresses())
def test_every_address_is_public_or_named_by_the_operator(address):
    try:
        check_address("data.example", str(address), ("data.example",))
    except IdentityError:
        return
    found = getattr(address, "sixtofour", None) or getattr(address, "ipv4_mapped", None) or address  # an IPv4 one, wrapped
    assert found.is_global
    assert not found.is_link_local


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "[fe80::1%25eth0]", "0.0.0.0", "exa%6dple.com", "a@b"]
)
@pytest.mark.parametrize("allowed", [(), ("169.254.169.254", "*.com", "data.example", "0.0.0.0")])
def test_a_href_to_such_a_host_is_refused_by_its_text(host, allowed):
    with pytest.raises(IdentityError):
        check_href(f"http://{host}/x.zarr", allowed)


def test_a_network_in_the_list_allows_its_addresses_as_hosts():
    assert check_href("http://10.1.2.3:9000/x.zarr", ("10.0.0.0/8",))
    with pytest.raises(IdentityError, match="not allowed"):
        check_href("http://11.1.2.3:9000/x.zarr", ("10.0.0.0/8",))


@dataclass
class Site:
    """A server on loopback that remembers what it was asked; `headers` go into its redirects."""

    port: int
    asked: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def site(monkeypatch) -> Iterator[Site]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)  # behind a proxy it is the proxy that connects

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            self.send_response(302 if site.headers and self.path == "/start" else 200)
            for name, value in site.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            return

    with serving(Handler) as url:
        site = Site(int(url.rpartition(":")[2]))
        yield site


def read(url: str, *allowed: str, named: str = "") -> bytes:
    patience = Patience(attempts=1, timeout=5)
    return open_source(url, allowed_hosts=allowed, patience=patience, wait=threading.Event().wait, named=named).read()


def test_the_runner_asks_nothing_of_a_name_that_leads_inside(site):
    url = f"http://0x7f.1:{site.port}/x"
    for allowed in ((), ("0x7f.1",)):
        with pytest.raises(IdentityError, match=r"leads to 127\.0\.0\.1"):
            read(url, *allowed)
    assert site.asked == []
    assert read(url, "0x7f.1", "127.0.0.0/8") == b"{}"


def test_by_hand_the_host_that_a_person_wrote_may_be_private_and_no_other(site):
    url = f"http://127.0.0.1:{site.port}/x"
    assert read(url) == b"{}"
    assert read(url, named=f"http://127.0.0.1:{site.port}/item.json") == b"{}"
    with pytest.raises(IdentityError, match="private"):  # a public catalog's item that points at this machine
        read(url, named="https://stac.example/item.json")
    assert site.asked == ["/x", "/x"]


@pytest.mark.parametrize("header", ["Location", "URI"])
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("http://169.254.169.254/latest/meta-data/", "nobody may be sent to|not allowed"),
        ("http://0x7f.1:{port}/inside", "leads to 127.0.0.1"),
        ("http://10.255.255.1/inside", "private|not allowed"),
        ("http://evil.example/x", "not allowed"),
        ("file:///etc/passwd", "cannot read http://127.0.0.1|scheme"),
    ],
)
def test_a_redirect_is_judged_like_the_first_url_whichever_header_it_came_with(site, header, target, said):
    site.headers = {header: target.format(port=site.port)}
    with pytest.raises((InputError, StacWatchError), match=said):
        read(f"http://127.0.0.1:{site.port}/start", "127.0.0.1", "0x7f.1")
    assert site.asked == ["/start"]


def test_the_runner_follows_a_redirect_to_a_host_that_is_allowed(site):
    site.headers = {"Location": f"http://localhost:{site.port}/there"}
    assert read(f"http://127.0.0.1:{site.port}/start", "127.0.0.1", "localhost") == b"{}"
    assert site.asked == ["/start", "/there"]


def catalog(url: str, *hosts: str) -> CatalogHttp:
    return CatalogHttp(url, now=lambda: datetime.now(UTC), sleep=lambda _: None, rng=random.Random(1), timeout=(2, 2), hosts=hosts)


def test_the_poller_says_nothing_to_a_catalog_whose_name_leads_inside(site):
    """The connection is made, its other end is looked at, and it is closed: no request, and no second look-up that could differ."""
    url = f"http://0x7f.1:{site.port}"
    for hosts in ((), ("0x7f.1",), ("data.example",)):
        with pytest.raises(ConfigError, match=r"leads to 127\.0\.0\.1, a private address") as error:
            catalog(url, *hosts).ask(url)
        assert "127.0.0.1/32" in error.value.hint
    assert site.asked == []
    assert catalog(url, "127.0.0.0/8").ask(url).document == {}
    own = f"http://127.0.0.1:{site.port}"
    assert catalog(own).ask(own).document == {}


def test_the_poller_follows_no_redirect_at_all(site):
    site.headers = {"Location": "http://169.254.169.254/"}
    url = f"http://127.0.0.1:{site.port}"
    with pytest.raises(ConfigError, match="redirects"):
        catalog(url).ask(f"{url}/start")
    assert site.asked == ["/start"]


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "/etc/passwd", "http://127.0.0.1/x.zarr", "gopher://data.example/x", "http://169.254.169.254/x"]
)
def test_with_a_list_of_hosts_the_runner_opens_nothing_else(url):
    with pytest.raises(InputError):
        open_source(url, allowed_hosts=("data.example",), patience=Patience(), wait=threading.Event().wait)


def test_a_file_is_only_read_where_a_person_named_it(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"mine")
    assert read(str(tmp_path / "x")) == b"mine"
