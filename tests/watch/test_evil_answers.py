"""Whatever one catalog answers is its own trouble, at the start too: the good one beside it is watched."""

import gc
import gzip
import json
import random
import tracemalloc
from http.server import BaseHTTPRequestHandler

import pytest
from loopback import serving

from stac_watch.catalog.client import Catalog
from stac_watch.catalog.http import MAX_BYTES, CatalogHttp
from stac_watch.config.model import Limits, Recipe, Source
from stac_watch.demo.catalog import COLLECTION
from stac_watch.model.errors import StacWatchError
from stac_watch.watch.loop import Parts, Watcher


class NoRoom:
    """An engine without room."""

    def headroom(self) -> int:
        return 0

    def runs(self, keys):
        return []


def answering(status=200, body=b"", **headers):
    """A server that gives one answer, whatever it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response_only(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  # the base class's names

        def log_message(self, *_):
            pass

    return serving(Handler)


def page(**more):
    links = [{"rel": "search", "href": "/search"}]
    return json.dumps({"id": "x", "links": links, "type": "FeatureCollection", "features": [], **more}).encode()


def packed(content):
    return {"body": gzip.compress(content, 1), "Content_Encoding": "gzip"}


ANSWERS = {
    "a link that is no URL": {"body": page(links=[{"rel": "search", "href": "http://[bad/search"}])},
    "a redirect": {"status": 301, "Location": "https://elsewhere.example/"},
    "a redirect to nonsense": {"status": 302, "Location": "http://[::bad/\x1b[2J"},
    "nothing there": {"status": 404},
    "a date at the calendar's end": {"body": page(), "Date": "Fri, 31 Dec 9999 23:59:59 GMT"},
    "a date before it": {"body": page(), "Date": "Mon, 01 Jan 0001 00:00:00 GMT"},
    "features that are none": {"body": page(features=[None, 1, "x", [], {}])},
    "features without names": {"body": page(features=[{"id": ["a"], "properties": {}}, {"id": None}, {"type": 7}])},
    "a list": {"body": b"[]"},
    "a number without end": {"body": b"9" * 10_000},
    "lists in lists": {"body": b"[" * 100_000},
    "half a character": {"body": page(features=[{"id": "\ud800", "properties": {"datetime": "2025-11-20T00:00:00Z"}}])},
    "more values than memory": packed(b'{"features": [' + b"{}," * 2_100_000 + b"{}]}"),
    "more bytes than a page has": packed(b'{"x": "' + b" " * (MAX_BYTES + 10) + b'"}'),
    "a pause for ever": {"status": 429, "Retry_After": "9" * 400},
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_one_answer_ends_no_watcher(world, answer):
    world.fill(2)
    with answering(**ANSWERS[answer]) as evil:
        urls = {"evil": evil, "good": world.url}
        sources = tuple(Source(name=n, api=u, collection=COLLECTION, poll={"since": "30d"}) for n, u in urls.items())
        rng = random.Random(1)
        made = {s.name: CatalogHttp(s.api, now=world.clock, sleep=lambda _: None, rng=rng, timeout=(2, 5)) for s in sources}
        parts = Parts(
            sources=sources, recipe=Recipe(), limits=Limits(), ledger=world.ledger, engine=NoRoom(), read_marker=lambda _: None,
            catalogs={name: Catalog(http, COLLECTION) for name, http in made.items()}, now=world.clock, wait=lambda _: True,
            rng=rng, patience=30,
        )  # fmt: skip
        watcher = Watcher(parts)
        tick = watcher.turn()
        assert tick.tallies["good"].admitted == 2
        said = tick.problems.get("evil")
        assert said is None or isinstance(said, StacWatchError)
        if said is not None:
            assert said.message.isprintable()
            assert len(said.message) < 4096
        world.clock.forward(minutes=10)
        world.store.put(world.item(90, updated=world.clock()))
        assert watcher.turn().tallies["good"].admitted == 1


@pytest.mark.parametrize("answer", ["more bytes than a page has", "more values than memory", "text that is no JSON"])
def test_what_could_not_be_used_is_not_kept_with_the_error_that_says_so(world, answer):
    """An error keeps its frames, and they kept 64 MiB each, till a collector came by: 245 kB ended a poller of 512 MiB."""
    given = {**ANSWERS, "text that is no JSON": packed(b'{"x": "' + b" " * (20 << 20) + b'"')}
    with answering(**given[answer]) as url:
        http = CatalogHttp(url, now=world.clock, sleep=lambda _: None, rng=random.Random(1), timeout=(2, 30))
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            errors = []
            for _ in range(2):
                with pytest.raises(StacWatchError) as caught:
                    http.ask(f"{url}/", attempts=1)
                errors.append(caught.value)
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
    assert kept < 4 << 20, errors
