"""What a scrape, a probe and a HEAD cost: counts whatever is in the ledger, and nothing that only a page shows."""

import http.client
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import event as sa_event
from sqlalchemy import insert, select

from stac_watch.config.model import Limits, Source
from stac_watch.ledger import schema as t
from stac_watch.ledger.records import Move
from stac_watch.model.states import Fact, State
from stac_watch.report.health import alive
from stac_watch.report.web.answers import READERS, serving
from stac_watch.report.web.site import Site
from stac_watch.watch.loop import Tick
from stac_watch.watch.pulse import Recorder

MOST = 17  # statements of a scrape, BEGIN included


@contextmanager
def served(ledger, make, sources):
    """The site of a ledger; yields what asks it over one kept connection."""
    given = tuple(Source(name=name, api="https://stac.example", collection="c") for name in sources)
    site = Site(ledger, given, Limits(), Recorder(lambda: make.now).read, lambda: make.now, "1")
    with serving(site, "127.0.0.1", 0) as url:
        kept = http.client.HTTPConnection(url.split("/")[2], timeout=20)

        def ask(path, method="GET", **headers):
            kept.request(method, path, headers=headers)
            answer = kept.getresponse()
            return answer.status, answer.read().decode(), answer.headers

        try:
            yield ask
        finally:
            kept.close()


@pytest.fixture(scope="module")
def empty(open_ledger, tmp_path_factory):
    """A ledger for what does not depend on its database."""
    ledger = open_ledger(tmp_path_factory.mktemp("empty") / "ledger.db")
    yield ledger
    ledger.close()


@pytest.fixture
def statements(ledger):
    """What the ledger is asked from now on."""
    asked = []
    sa_event.listen(ledger.conversions._session.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    return asked


def fill(ledger, make, sources, conversions):
    """So many conversions: of each source ten that the ledger admitted, one of which failed; the others are put there, done."""
    for source in sources if conversions else ():
        mine = [f"{source}-{n}" for n in range(conversions // len(sources))]
        ledger.items.commit(source, [make.sighting(item_id=i) for i in mine[:10]], [], None, make.now)
        row = ledger.conversions.find(source=source)[0]
        if row.state is State.QUEUED:
            ledger.conversions.move(row, Move(Fact.FAILED_PERMANENT, "x", reason="it broke"), make.now)
        with ledger.conversions._session.begin() as tx:
            done = [row._asdict() for row in tx.execute(select(t.conversion).where(t.conversion.c.source == source).limit(1))]
            item = [row._asdict() for row in tx.execute(select(t.item).where(t.item.c.source == source).limit(1))]
            have = set(tx.execute(select(t.item.c.item_id)).scalars())
            more = [{"item_id": i, "key": f"{i}-k"[:12]} for i in mine if i not in have]
            tx.execute(insert(t.conversion), [{**done[0], "state": "done", "cause": "", **named} for named in more])
            tx.execute(insert(t.item), [{**item[0], **named} for named in more])
            counted = {"source": source, "lane": "live", "state": "done", "cause": f"{conversions}", "n": len(more)}
            tx.execute(insert(t.funnel), [counted])


@pytest.mark.parametrize("sources", [["a"], list("abcde")], ids=["one source", "five sources"])
def test_a_scrape_is_the_same_few_statements_whatever_is_in_the_ledger(ledger, make, sources, statements):
    seen = {}
    for conversions in (0, 100, 10_000):
        fill(ledger, make, sources, conversions)
        statements.clear()
        with served(ledger, make, sources) as ask:
            status, text, _ = ask("/metrics")
            assert status == 200
            assert len(statements) <= MOST
            seen[conversions] = list(statements)
            counted = [float(x.split()[-1]) for x in text.splitlines() if x.startswith("stac_watch_conversions{")]
            assert sum(counted) == conversions
    assert seen[0] == seen[100] == seen[10_000]
    for statement in seen[10_000]:  # nothing of an item, of an event or of a run
        assert not {"bbox", "body", "outcome", "output_zarr", "reason"} & set(statement.replace(".", " ").replace(",", " ").split())


def test_probes_read_as_little_as_they_need(ledger, make, statements):
    fill(ledger, make, ["a"], 100)
    with served(ledger, make, ["a"]) as ask:
        statements.clear()
        assert ask("/healthz")[0] == 200
        assert statements == []
        assert ask("/readyz")[0] == 503  # the loop has not gone round
        assert [s for s in statements if "lease" not in s and not s.startswith("BEGIN")] == []
        assert len(statements) <= 2


@pytest.mark.parametrize("path", ["/", "/events", "/events?period=day", "/metrics", "/status.json", "/healthz", "/live.js"])
def test_head_answers_with_headers_only_and_the_connection_goes_on(empty, make, path):
    with served(empty, make, ["a"]) as ask:
        for _ in range(READERS + 6):
            status, text, headers = ask(path, "HEAD")
            assert (status, text) == (200, "")
            assert headers["Cache-Control"] == "no-store"
        assert ask("/")[0] == 200
        assert ask("/events?lane=fast", "HEAD")[0] == 400
        assert ask("/healthz")[0] == 200


@pytest.mark.parametrize("version", ["\xff", "x", "1..2"])
def test_who_asks_for_metrics_in_a_version_that_is_none_gets_what_everybody_reads(empty, make, version):
    with served(empty, make, ["a"]) as ask:
        status, text, headers = ask("/metrics", Accept=f"application/openmetrics-text; version={version}")
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
    assert "stac_watch_" in text


def test_head_of_the_stream_says_what_the_stream_is_and_is_no_reader(empty, make):
    with served(empty, make, ["a"]) as ask:
        for _ in range(READERS + 6):
            assert ask("/events", "HEAD")[2]["Content-Type"].startswith("text/event-stream")
        assert ask("/")[0] == 200


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1)])
def test_a_clock_that_is_set_does_not_have_a_loop_restarted_that_moves_nor_spare_one_that_hangs(jump, make):
    now, beats = [make.now], [100.0]
    pulse = Recorder(lambda: now[0], clock=lambda: beats[0])
    pulse.note(Tick())
    now[0] += jump
    beats[0] += 60
    assert alive(pulse.read().age).ok
    beats[0] += 3600
    assert not alive(pulse.read().age).ok
