"""What goes wrong on the wire, and what pystac-client 0.9.1 makes of it: each fault costs time, and never an item."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from stac_watch.catalog.answers import BadAnswer, Rejected
from stac_watch.catalog.http import CatalogHttp
from stac_watch.catalog.reader import leaves
from stac_watch.catalog.windows import Window
from stac_watch.model.errors import CatalogUnavailable, ConfigError


def read(world, limit=10, **catalog) -> list[str]:
    window = Window("updated", world.clock() - timedelta(days=10), world.clock())
    client = world.catalog(**catalog)
    client.assume(typed=True)
    return [d["id"] for leaf in leaves(client, window, limit) for d in leaf.documents]


ONCE = ["500", "502", "503", "429", "reset", "truncate", "bad_utf8", "html", "empty_page"]


@pytest.mark.parametrize("fault", ONCE)
@pytest.mark.parametrize("first", [0, 1, 3])
def test_a_fault_at_any_request_changes_nothing(world, fault, first):
    wanted = world.fill(38)
    client = world.catalog()
    client.assume(typed=True)
    window = Window("updated", world.clock() - timedelta(days=10), world.clock())
    found = []
    for n, leaf in enumerate(leaves(client, window, 10)):
        if n == first:
            world.faults.set(wire=(fault,))
        found += [d["id"] for d in leaf.documents]
    assert found == wanted
    assert world.faults.delivered == [fault]


def test_a_hanging_answer_is_cut_off_and_asked_for_again(world):
    wanted = world.fill(5)
    world.faults.set(wire=("hang",), hang=30.0)
    started = time.monotonic()
    assert read(world, timeout=(1, 0.5)) == wanted
    assert time.monotonic() - started < 10


def test_retry_after_is_what_is_waited(world):
    world.fill(1)
    world.faults.set(wire=("429", "503"), retry_after=7)
    assert len(read(world)) == 1
    assert world.slept == [7.0, 7.0]


def test_a_server_that_asks_for_an_hour_is_left_alone_for_an_hour(world):
    world.fill(1)
    http = CatalogHttp(world.url, now=world.clock, sleep=world.slept.append, rng=random.Random(1))
    world.faults.set(wire=("429",), retry_after=3600)
    with pytest.raises(CatalogUnavailable, match="429"):
        http.ask(f"{world.url}/search", "POST", {"limit": 1})
    assert world.slept == []
    with pytest.raises(CatalogUnavailable, match="left alone until 13:00:00"):
        http.ask(f"{world.url}/search", "POST", {"limit": 1})
    assert len(world.faults.delivered) == 1
    world.clock.forward(hours=1)
    assert http.ask(f"{world.url}/search", "POST", {"limit": 1}).document["features"]
    http.session.close()


def test_a_server_that_fails_and_fails_is_left_alone_ever_longer_and_tried_by_one_request(world):
    http = CatalogHttp(world.url, now=world.clock, sleep=world.slept.append, rng=random.Random(1))

    def fails() -> str:
        world.faults.set(wire=("503",) * 4, retry_after=None)
        before = len(world.faults.delivered)
        with pytest.raises(CatalogUnavailable) as error:
            http.ask(f"{world.url}/search", "POST", {})
        return "asked" if len(world.faults.delivered) > before else error.value.message

    assert [fails() for _ in range(5)] == ["asked"] * 5
    assert "left alone until 12:00:30" in fails()
    world.clock.forward(seconds=31)
    assert fails() == "asked"
    assert "left alone until 12:01:31" in fails()
    world.faults.set(wire=())
    world.clock.forward(minutes=2)
    http.ask(f"{world.url}/search", "POST", {})
    world.faults.set(wire=("503",) * 4)
    with pytest.raises(CatalogUnavailable, match="503"):
        http.ask(f"{world.url}/search", "POST", {})
    http.session.close()


def test_what_the_server_does_not_take_is_not_asked_again(world):
    catalog = world.catalog()
    with pytest.raises(Rejected, match="HTTP 400"):
        catalog.ask({"filter": {"op": "nonsense", "args": []}, "filter_lang": "cql2-json"}, limit=1)
    assert world.slept == []


def test_a_redirect_is_never_followed_and_never_needed(world):
    wanted = world.fill(38)
    world.faults.set(redirect_next=True)
    assert read(world) == wanted
    http = CatalogHttp(world.url, now=world.clock, sleep=world.slept.append, rng=random.Random(1))
    with pytest.raises(ConfigError, match=r"redirects \(HTTP 301\) to"):
        http.ask(f"{world.url}/_moved/search", "POST", {"limit": 1})
    assert http.here("http://elsewhere.example/stac/search?x=1") == f"{world.url}/stac/search?x=1"
    http.session.close()


def test_tokens_that_lose_items_are_never_followed(world):
    world.faults.set(id_tokens=True, text_updated=True)
    wanted = world.fill(38)
    catalog = world.catalog()
    window = Window("updated", world.clock() - timedelta(days=10), world.clock() + timedelta(days=1))
    found, moved = [], False
    for leaf in leaves(catalog, window, 10):
        found += [d["id"] for d in leaf.documents]
        if found and not moved:
            world.store.put(world.item(len(found) - 1, version=2, updated=world.clock()))
            moved = True
    assert set(found) == set(wanted)


def test_items_that_pystac_dies_of_do_not_hide_the_others(world):
    wanted = world.fill(12)
    world.faults.set(hrefless=("*",), no_properties=(wanted[3],))
    tally = world.poll()
    assert (tally.admitted, tally.unreadable) == (11, 1)
    assert world.ledger.absences.unreadable() == [("s2", wanted[3], "the item has no properties")]


@pytest.mark.parametrize("limit", [1, 5, 1000])
@pytest.mark.parametrize("poisoned", [[0], [7], [19], [3, 4, 11]])
def test_an_item_that_the_server_cannot_serve_is_alone_in_its_misfortune(world, limit, poisoned):
    wanted = world.fill(20)
    world.poll()
    world.faults.set(poison=tuple(wanted[n] for n in poisoned))
    world.settings["on"] = "restamp"
    later = world.clock()
    world.store.put_many([world.item(n, version=2, updated=later + timedelta(seconds=n // 4)) for n in range(20)])
    world.clock.forward(minutes=1)
    world.settings["poll"] = {"page": limit, "since": "30d"}
    tally = world.poll()
    hidden = {n // 4 for n in poisoned}
    assert tally.unreadable == len(hidden)
    found = {row.item_id for row in world.ledger.conversions.find(limit=100) if any("/v2/" in href for href in _hrefs(world, row))}
    between = {n for n in range(20) if _between(n, poisoned)}
    assert found == {i for n, i in enumerate(wanted) if n not in poisoned and n not in between}


def _hrefs(world, row) -> list[str]:
    return [body.decode() for body in world.ledger.conversions.events(row.key)]


def _between(n: int, poisoned: list[int]) -> bool:
    """In one second with two poisoned items, what lies between the two cannot be told from them."""
    same = [p for p in poisoned if p // 4 == n // 4]
    return len(same) > 1 and min(same) < n < max(same)


def test_an_outage_is_not_taken_for_poison(world):
    world.fill(20)
    world.poll()
    world.faults.set(wire=("500",) * 1000)
    with pytest.raises(BadAnswer, match="HTTP 500"):
        world.poll()
    assert len(world.faults.delivered) < 10
    assert world.ledger.absences.unreadable() == []


def test_a_server_that_clips_the_limit_without_a_word_loses_nothing(world):
    wanted = world.fill(35)
    world.faults.set(ignore=frozenset({"limit"}))  # ten at most, whatever was asked for
    assert read(world, limit=1000) == wanted
    assert world.poll().admitted == 35
    assert world.ledger.sources.state("s2", ()).abilities[0]["max_page"] == 10


def test_a_server_that_drips_is_not_waited_for_for_ever(world):
    """Each byte comes within the read time-out; only the limit for the whole answer ends it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while True:
                connection.sendall(b" " * 70_000)
                time.sleep(0.02)

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    http = CatalogHttp(url, now=world.clock, sleep=world.slept.append, rng=random.Random(1), timeout=(1, 5), total=0.1)
    with pytest.raises(BadAnswer, match="for one answer"):
        http.ask(url, attempts=1)
    http.session.close()
    thread.join(5)
    listener.close()
    assert not thread.is_alive()


@contextlib.contextmanager
def answering(raw: bytes) -> Iterator[str]:
    """A server that answers every request with these bytes; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(raw)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def response(status: str, body: bytes = b"{}", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@pytest.mark.parametrize(
    ("raw", "said", "waited"),
    [
        (response("200 OK", b"[" * 20_000), "not JSON", 3),
        (response("503 No", Retry_After="999999999999"), "left alone until 12:00:00", 0),
        (response("503 No", Retry_After="Wed, 01 Jan 2025 07:28:00"), "HTTP 503", 3),  # no zone: UTC, long past
        (response("503 No", Retry_After="\u00b2"), "HTTP 503", 3),
        (response("503 No", Date="Fri, 31 Dec 9999 23:59:59 -1200", Retry_After="Fri, 01 Jan 1999 00:00:00 GMT"), "HTTP 503", 3),
    ],
    ids=["nested", "forever", "no-zone", "a-digit-that-is-no-number", "date-beyond-the-calendar"],
)  # fmt: skip
def test_an_odd_answer_is_a_catalog_s_trouble_and_never_the_watcher_s_end(world, raw, said, waited):
    with answering(raw) as url:
        http = CatalogHttp(url, now=world.clock, sleep=world.slept.append, rng=random.Random(1))
        with pytest.raises(CatalogUnavailable, match=r"HTTP 503|not JSON"):
            http.ask(url)
        assert len(world.slept) == waited
        with pytest.raises(CatalogUnavailable, match=said):
            http.ask(url)
        world.clock.forward(days=1)
        with pytest.raises(CatalogUnavailable, match=r"HTTP 503|not JSON"):  # asked again after a day, whatever it wanted
            http.ask(url, attempts=1)
        http.session.close()


def test_a_date_that_is_none_is_ours(world):
    with answering(response("200 OK", Date="Fri, 31 Dec 9999 23:59:59 -1200")) as url:
        http = CatalogHttp(url, now=world.clock, sleep=world.slept.append, rng=random.Random(1))
        assert http.ask(url).server_now == world.clock()
        http.session.close()
