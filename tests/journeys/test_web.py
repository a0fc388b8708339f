"""What the watcher tells over HTTP while it works: a server on loopback, the demo catalog, from nothing to done."""

import json
import random
import re
import signal
import socket
import subprocess
import sys
import urllib.error
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from sqlalchemy import event as sa_event
from status_page import ask, serve
from waiting import until

from stac_watch.catalog.client import Catalog
from stac_watch.catalog.http import CatalogHttp
from stac_watch.config.model import Limits, Source
from stac_watch.demo.catalog import Server, Store, create_app, make_collection
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Move
from stac_watch.model.errors import Unavailable
from stac_watch.model.states import Fact, State
from stac_watch.report import explain
from stac_watch.report import items as listing
from stac_watch.report import status as summing
from stac_watch.report.as_json import as_json
from stac_watch.report.web.answers import serving
from stac_watch.report.web.site import Site
from stac_watch.watch.loop import Watcher
from stac_watch.watch.pulse import Recorder

START = datetime(2026, 3, 1, 12, tzinfo=UTC)  # of the test's clock
COMMAND = Path(sys.executable).parent / "stac-watch"
EVIL = "<script>alert(1)</script> {{ 7 * 7 }} \" ' &"


@pytest.fixture
def site(build):
    """Serves the page of a new world, for each call one."""
    with ExitStack() as stack:
        yield lambda fault="", **source: stack.enter_context(serve(build(fault, **source)))


def of(name, *labels):
    return (f"stac_watch_{name}", frozenset(labels))


class Page(HTMLParser):
    """Everything that a page would fetch or run, and its words."""

    def __init__(self, text):
        super().__init__()
        self.fetches, self.tags, self.words = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.fetches += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data") and tag != "a"]
        assert not [k for k, _ in attrs if k.startswith("on")]

    def handle_data(self, data):
        self.words.append(data.strip())


def test_a_journey_from_nothing_to_done_as_the_page_shows_it(site):
    here = site()
    assert here.ask("/healthz")[:2] == (200, "ok   loop: last round ended 0 s ago\n")
    status, text, _ = here.ask("/readyz")
    assert (status, text.splitlines()[1]) == (503, "FAIL watcher: its first round is under way")
    items = [here.world.publish(n) for n in range(3)]
    here.turn()
    assert here.ask("/readyz")[:2] == (200, "ok   ledger: answers\nok   watcher: has the ledger\nok   engine: takes events\n")
    page = Page(here.ask("/")[1])
    assert set(items) <= set(page.words)
    found = here.metrics()
    assert (
        found[of("conversions", "demo", "live", "submitted")] == found[of("posts_total", "accepted")] == 1
    )  # the rate's first second
    assert found[of("conversions", "demo", "live", "queued")] == found[of("outbox_events")] == 2
    assert found[of("sightings_total", "demo", "admitted")] == 3
    assert found[of("overlap_seconds", "demo")] == 3600
    here.turn(8)
    found = here.metrics()
    assert found[of("conversions", "demo", "live", "done")] == 3
    assert found[of("outbox_events")] == 0
    assert found[of("facts_total", "succeeded")] == 3
    assert found[of("lag_seconds", "demo", "published")] == (9 + 30) * 60
    assert found[of("ticks_total")] == 9
    assert found[of("leads")] == found[of("ledger_up")] == 1
    text = here.ask("/")[1]
    assert re.search(r'class="place done" x="[-\d.]+" y="[-\d.]+" width="[\d.]+" height="[\d.]+"><title>T\w{5}: 3 done', text)
    assert "newest done" in text


def test_status_json_is_what_status_prints(site):
    here = site()
    here.world.publish(1)
    here.turn()
    status, text, headers = here.ask("/status.json")
    world = here.world
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert text == as_json(summing.read(world.ledger, [world.source], Limits(), world.clock())) + "\n"


def test_items_json_is_what_items_prints(site):
    here = site()
    world, wanted = here.world, [here.world.publish(n) for n in (1, 2, 3)]
    here.turn()
    status, text, headers = here.ask("/items.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert text == as_json(listing.read(world.ledger, world.clock())) + "\n"
    assert {row["item"] for row in json.loads(text)} == set(wanted)
    for query, number in (("?state=queued", 2), ("?state=failed", 0), ("?source=other", 0), ("?source=demo&limit=1", 1)):
        assert len(json.loads(here.ask(f"/items.json{query}")[1])) == number, query


@pytest.mark.parametrize(
    ("query", "said"),
    [("limit=0", "limit '0'"), ("limit=1001", "limit '1001'"), ("limit=x", "limit 'x'"), ("limit=" + "9" * 5000, "limit '999"),
     ("limit=0000000011001", "limit '0000000011001'"),
     ("state=gone", "no state 'gone'"), ("stat=failed", "no parameter 'stat'"), ("state=%3Cscript%3E", "no state"),
     ("source=%00", "no source")],
)  # fmt: skip
def test_a_question_that_cannot_be_answered_is_named(site, query, said):
    status, text, headers = site().ask(f"/items.json?{query}")
    assert status == 400
    assert said in text
    assert len(text) < 300
    assert headers["Content-Type"].startswith("text/plain")
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_leads_to_each_item_s_whole_story(site):
    here = site()
    world, ids = here.world, [here.world.publish(n) for n in (1, 2)]
    here.turn()
    text = here.ask("/")[1]
    for item in ids:
        assert f'href="items/{item}"' in text
    here.turn(8)
    status, text, headers = here.ask(f"/items/{ids[0]}")
    page = Page(text)
    assert (status, page.fetches) == (200, ["../icon.svg", "../live.js"])
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    [chain] = explain.read(world.ledger, ids[0], Limits(), world.clock(), lambda _: None)
    said = " ".join(page.words)
    assert chain.line.state is State.DONE
    for word in (chain.rule, chain.line.output, chain.line.key, chain.next.what, *(h.why for h in chain.history)):
        assert word in said
    documents = [json.loads(word) for word in page.words if word.startswith("{")]
    assert documents == [*chain.events, chain.outcome.document()]
    assert f'href="{documents[0]["data"]["item_href"]}" rel="noreferrer"' in text
    assert here.ask(f"/items/{chain.line.key}")[1] == text  # by its key as well


@pytest.mark.parametrize("item", ["unknown", "%3Cscript%3E", "x" * 5000, "..%2F..%2Fetc", "%00", "%ff"])
def test_an_item_that_is_not_known_is_not_found(site, item):
    status, text, headers = site().ask(f"/items/{item}")
    assert status == 404
    assert len(text) < 500
    assert headers["Content-Type"].startswith("text/plain")


def test_a_browser_is_told_so_on_a_page_that_leads_back(site):
    status, text, headers = site().ask("/items/unknown", Accept="text/html,*/*;q=0.8")
    assert (status, headers["Content-Type"].partition(";")[0]) == (404, "text/html")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert 'href="../#items"' in text
    assert "the ledger knows no item, key, run or tile &#39;unknown&#39;" in text


def test_a_loop_that_hangs_is_said_to(site):
    here = site()
    here.turn()
    here.world.clock.time += timedelta(minutes=14)
    assert here.ask("/healthz")[0] == 200
    here.world.clock.time += timedelta(minutes=2)
    status, text, _ = here.ask("/healthz")
    assert status == 503
    assert "the loop hangs" in text
    assert here.ask("/readyz")[0] == 200  # that is another question


def test_an_engine_that_refuses_us_is_not_ready_and_says_what_to_do_until_it_works(site):
    here = site("credentials refused for an hour")
    here.world.publish(1)
    for _ in range(3):  # also in the rounds in which it is left alone
        here.turn()
        status, text, _ = here.ask("/readyz")
        assert status == 503
        assert "FAIL engine: the EventSource refuses the token: HTTP 401 (set the token)" in text
    assert here.metrics()[of("ailing", "engine")] == 1
    assert json.loads(here.ask("/readyz", Accept="application/json")[1])["checks"][2]["ok"] is False
    assert "the EventSource refuses the token" in here.ask("/")[1]
    here.world.clock.time += timedelta(hours=1)
    here.turn(2)
    assert here.ask("/readyz")[0] == 200
    found = here.metrics()
    assert (found[of("ailing", "engine")], found[of("problems_total", "engine")]) == (0, 3)


def test_an_engine_that_does_not_answer_is_said_and_is_nothing_that_a_restart_would_mend(site):
    here = site("cannot be asked for an hour")
    here.world.publish(1)
    here.turn(2)
    status, text, _ = here.ask("/readyz")
    assert status == 200
    assert "engine: the Kubernetes API does not answer" in text


def test_a_catalog_that_does_not_answer_is_said_until_it_does_and_is_not_our_fault(site, tmp_path):
    here = site()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    other = Source(name="other", api=f"http://127.0.0.1:{port}", collection="sentinel-2-l2a")
    http = CatalogHttp(other.api, now=here.world.clock, sleep=lambda _: None, rng=random.Random(1))
    catalog = Catalog(http, other.collection)
    parts = here.world.parts
    here.watcher = Watcher(replace(parts, sources=(*parts.sources, other), catalogs={**parts.catalogs, "other": catalog}))
    here.turn()
    here.world.clock.time -= timedelta(seconds=59)  # a round in which nobody is asked
    here.turn()
    status, text, _ = here.ask("/readyz")
    assert status == 200
    assert "source other: GET http://127.0.0.1" in text
    assert f"http://127.0.0.1:{port} cannot be reached" in text
    assert here.metrics()[of("answered_timestamp_seconds", "demo")] == START.timestamp()
    with Store() as store, Server(create_app(store, products=tmp_path, now=here.world.clock), port=port):
        store.put_collection(make_collection())
        here.world.clock.time += timedelta(hours=1)
        here.turn()
    assert "source other" not in here.ask("/readyz")[1]


def test_a_standby_says_who_has_the_ledger_and_is_ready(site):
    here = site()
    assert here.world.ledger.lease.hold("another, process 7", here.world.clock)
    second = Watcher(replace(here.world.parts, ledger=type(here.world.ledger)(here.world.ledger._engine)))
    here.watcher = second
    here.turn()
    status, text, _ = here.ask("/readyz")
    assert (status, "standby: another, process 7 has the ledger" in text) == (200, True)
    assert here.metrics()[of("leads")] == 0


def test_a_ledger_that_does_not_answer_is_not_ready_and_the_loop_s_counts_are_told_all_the_same(site, tmp_path):
    here = site()
    here.turn()
    with here.world.ledger._engine.connect() as db:
        db.exec_driver_sql("ALTER TABLE lease RENAME TO lost")
        db.exec_driver_sql("ALTER TABLE funnel RENAME TO gone")
        db.exec_driver_sql("COMMIT")
    status, text, _ = here.ask("/readyz")
    assert status == 503
    assert text.startswith("FAIL ledger: ")
    here.world.clock.time += timedelta(seconds=3)
    assert here.ask("/")[0] == here.ask("/status.json")[0] == 503
    found = here.metrics()
    assert (found[of("ledger_up")], found[of("ticks_total")]) == (0, 1)
    assert of("outbox_events") not in found


def test_a_database_s_password_is_not_told_when_it_does_not_answer(build):
    world = build()
    ledger = Ledger(open_engine("postgresql+psycopg://me:hunter2@127.0.0.1:9/x"))
    pulse = Recorder(world.clock)
    told_of = Site(ledger, (world.source,), Limits(), pulse.read, world.clock, "1.2.3")
    with serving(told_of, "127.0.0.1", 0) as url:
        told = {path: ask(url, path) for path in ("/", "/status.json", "/metrics", "/healthz", "/readyz")}
    assert [told[path][0] for path in ("/", "/status.json", "/metrics", "/healthz", "/readyz")] == [503, 503, 200, 200, 503]
    assert "127.0.0.1:9/x" in told["/readyz"][1]
    assert not [path for path, (_, text, _) in told.items() if "hunter2" in text]


def test_what_other_people_wrote_is_shown_and_not_run(site):
    here = site()
    item = here.world.publish(1)
    here.turn()
    row = here.world.ledger.conversions.find(item_id=item)[0]
    here.world.ledger.conversions.move(row, Move(Fact.FAILED_PERMANENT, "x", reason=EVIL), here.world.clock())
    here.world.clock.time += timedelta(seconds=3)
    _, text, headers = here.ask("/")
    page = Page(text)
    assert page.fetches == ["icon.svg", "live.js", "./#items"]  # the search, which asks for the page itself
    assert text.count("<script") == 1
    assert "49" not in page.words
    assert EVIL in page.words
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    page = Page(here.ask(f"/items/{item}")[1])
    assert EVIL in page.words
    assert page.fetches == ["../icon.svg", "../live.js"]
    failures = [key for key in here.metrics() if key[0] == of("failures")[0]]
    assert len(failures) == 1


@pytest.mark.parametrize("path", ["/", "/live.js", "/status.json", "/items.json", "/metrics", "/healthz", "/readyz"])
def test_it_can_be_read_and_nothing_else(site, path):
    here = site()
    here.turn()
    status, text, headers = here.ask(path, "HEAD")
    assert (status, text) == (200, "")
    assert headers["Cache-Control"] == "no-store"
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert here.ask(path, method)[0] == 405
    assert here.ask(path + "x")[0] == 404


def test_many_who_ask_at_once_cost_one_reading(site):
    here = site()
    here.turn()
    asked = []
    sa_event.listen(here.world.ledger._engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    assert here.ask("/status.json")[0] == 200
    one, asked[:] = list(asked), []
    assert len(one) > 10
    for _ in range(20):
        assert here.ask("/status.json")[0] == 200
    assert asked == []


def test_a_port_that_is_taken_is_named(site):
    here = site()
    port = int(here.url.rstrip("/").rpartition(":")[2])
    with (
        pytest.raises(Unavailable, match=f"port {port}: Address already in use") as refusal,
        serving(None, "127.0.0.1", port),
    ):
        pass
    assert "web.port" in refusal.value.hint
    with (
        pytest.raises(Unavailable, match=r"cannot listen on no\.such\.host\.invalid"),
        serving(None, "no.such.host.invalid", 0),
    ):
        pass


# -- the command -----------------------------------------------------------------------------------------------------------


@contextmanager
def watching(folder, catalog, **changes):
    """`stac-watch watch` as a process of its own; yields it, its URL and its configuration."""
    document = {
        "ledger": f"sqlite:///{folder}/ledger.db",
        "sources": [{"name": "s2", "api": catalog, "collection": "sentinel-2-l2a"}],
        "recipe": {"output": f"{folder}/outputs/{{item_id}}.zarr"},
        "engine": {"kind": "local", "folder": f"{folder}/runs"},
        "web": {"port": 0},
        **changes,
    }
    config = folder / "stac-watch.yaml"
    config.write_text(yaml.safe_dump(document))
    process = subprocess.Popen(
        [str(COMMAND), "watch", "-c", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("web: http://127.0.0.1:"), line + process.stdout.read()
        yield process, line.split()[1], config
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_command_serves_it_while_it_watches_and_lets_go_of_it_in_order(build, tmp_path, stac_watch):
    world = build()
    world.store.put_collection(make_collection())
    with watching(tmp_path, world.url) as (process, url, config):
        until(lambda: ask(url, "/readyz")[0] == 200)
        assert ask(url, "/healthz")[0] == 200

        def alike():
            said, shown = json.loads(stac_watch("status", "--json", "-c", config).out), json.loads(ask(url, "/status.json")[1])
            assert said.keys() == shown.keys()
            for told in (said, shown):
                told["at"] = told["sources"][0]["cursor"] = told["ledger_bytes"] = ""  # time passes, and it is polled
            return said == shown and said

        said = until(alike)  # while it polls and sweeps for the first time, they may have been asked before and after
        assert f"process {process.pid}, " in said["watcher"]
        second = stac_watch("watch", "-c", config, STAC_WATCH__WEB__PORT=url.rstrip("/").rpartition(":")[2])
        assert (second.code, second.out) == (69, "")
        assert "cannot listen on 127.0.0.1, port" in second.err
        audited = stac_watch("audit", "s2", "--start=30d", "--end=1d", "-c", config)
        assert (audited.code, audited.err) == (0, "")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stdout.read() == ""
        with pytest.raises(urllib.error.URLError):
            ask(url, "/healthz")
