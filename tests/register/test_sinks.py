"""Others are told of outputs and of what fails: each event at least once, in order for each item, whatever a sink does."""

from __future__ import annotations

import json
import random
import re
import shlex
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import loopback
import pytest
import yaml
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from shop import COLLECTION

from stac_watch.cli.main import main
from stac_watch.config.model import Limits
from stac_watch.config.sinks import EventSink
from stac_watch.demo.items import make_collection
from stac_watch.ledger.records import Move
from stac_watch.model.announcement import Audience, DeliveryState
from stac_watch.model.errors import ConfigError, InputError, Refused, Temporary
from stac_watch.model.states import Fact
from stac_watch.register.causes import Causes
from stac_watch.register.due import ENOUGH
from stac_watch.register.sinks import Announcer, Mailbox
from stac_watch.report import explain
from stac_watch.report.web.page import ItemLinks, ItemStory, render_item
from stac_watch.watch.aside import Telling

CREATE, REPLACE, DELETE = (f"org.ogc.api.collection.item.{kind}" for kind in ("create", "replace", "delete"))
DOCS = Path(__file__).parents[2] / "docs"


@dataclass
class Listener:
    """A sink: what it was told, and how it answers next (status; 0 = takes it and breaks off)."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    told: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    retry_after: str = ""

    def types(self, subject: str | None = None) -> list[str]:
        return [event["type"] for event in self.told if subject in (None, event["subject"])]


@pytest.fixture
def listener():
    heard = Listener()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = heard.answers.pop(0) if heard.answers else 202
            heard.headers.append(dict(self.headers))
            if status < 300:
                heard.told.append(json.loads(body))
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            if heard.retry_after:
                self.send_header("Retry-After", heard.retry_after)
            self.send_header("Location", "https://elsewhere.example/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_OPTIONS(self):
            self.send_response(405)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with loopback.serving(Hook) as url:
        heard.url = f"{url}/hook?key=s3cr3t-key"
        yield heard


@pytest.fixture
def sink(listener) -> EventSink:
    return EventSink(url=listener.url)


def audience(sink: EventSink, *, registers: bool, types: tuple[str, ...] = ()) -> Audience:
    return Audience("prod", {sink.name: frozenset(types)}, registers)


def announcer(shop, sink) -> Announcer:
    return Announcer(shop.ledger, sink, Mailbox(sink, now=shop.clock, agent="test", timeout=(2, 5)), shop.clock, random.Random(1))


def post(shop, sink, rounds: int = 40) -> None:
    """Lets time pass until nothing is due within an hour."""
    posting = announcer(shop, sink)
    for _ in range(rounds):
        while posting.is_due():
            try:
                posting.round()
            except (Temporary, Refused, ConfigError):
                break
        shop.clock.forward(minutes=10)


def test_an_item_is_told_of_when_it_is_found_changed_and_gone(shop, sink, listener):
    shop.ledger.deliveries.enrol(audience(sink, registers=True))
    item_id = shop.finish(revision="rev-a")
    assert not announcer(shop, sink).is_due(), "done, and not yet found by anybody"
    registrar = shop.registrar()
    registrar.round()
    post(shop, sink, 1)
    [event] = listener.told
    assert (event["type"], event["subject"], event["source"]) == (CREATE, item_id, f"{shop.url}/collections/{COLLECTION}")
    assert event["data"]["item_href"] == f"{shop.url}/collections/{COLLECTION}/items/{item_id}"
    assert event["data"]["output_zarr"] == f"s3://bucket/scenes/{item_id}.zarr"
    assert (event["data"]["tile"], event["data"]["installation"], event["data"]["collection"]) == ("T32TQM", "prod", COLLECTION)
    assert listener.headers[0]["Content-Type"] == "application/cloudevents+json"
    read = from_structured_event(HTTPMessage({"content-type": "application/cloudevents+json"}, json.dumps(event).encode()))
    assert read.get_id() == event["id"]

    key = shop.publication(item_id).key
    shop.ledger.publications.ask([key], shop.clock(), anew=False)
    shop.on(registrar)
    post(shop, sink)
    assert listener.types() == [CREATE], "nothing changed, nobody is told"
    shop.finish(revision="rev-b")
    shop.on(registrar)
    shop.ledger.publications.withdraw([shop.publication(item_id).key], shop.clock())
    shop.on(registrar)
    shop.finish(revision="rev-c")
    shop.on(registrar)
    post(shop, sink)
    assert listener.types() == [CREATE, REPLACE, DELETE, CREATE]
    assert len({event["id"] for event in listener.told}) == 4


def test_without_a_catalog_the_output_itself_is_told_of(shop, sink, listener):
    shop.ledger.deliveries.enrol(audience(sink, registers=False))
    item_id = shop.finish(revision="rev-a")
    shop.finish(revision="rev-b")
    row = next(row for row in shop.ledger.conversions.find(item_id=item_id) if row.revision == "rev-b")
    shop.ledger.conversions.move(row, Move(Fact.RETIRED, "gone", reason="retired"), shop.clock())
    shop.finish(revision="rev-c")
    post(shop, sink)
    assert listener.types(item_id) == [CREATE, REPLACE, DELETE, CREATE]
    assert {event["data"]["item_href"] for event in listener.told} == {""}


def test_who_wants_some_types_gets_no_others_and_nobody_is_told_where_there_is_no_sink(shop, sink, listener):
    item_id = shop.finish(revision="rev-a")
    shop.ledger.deliveries.enrol(audience(sink, registers=False, types=(REPLACE,)))
    shop.finish(1)
    shop.finish(1, revision="rev-b")
    post(shop, sink)
    assert listener.types() == [REPLACE]
    assert shop.ledger.deliveries.find(topics=[item_id], limit=9) == []


def test_explain_says_what_was_told_of_each_revision_and_what_waits(shop, sink, listener):
    shop.ledger.deliveries.enrol(audience(sink, registers=False))
    item_id = shop.finish(revision="rev-a")
    post(shop, sink, 1)
    shop.finish(revision="rev-b")
    listener.answers = [422]
    announcer(shop, sink).round()
    shop.finish(number=1)
    chains = explain.read(shop.ledger, item_id, Limits(), shop.clock(), lambda _: None)
    found = {chain.line.revision: [(one.type, one.state) for one in chain.deliveries] for chain in chains}
    assert found == {"rev-a": [(CREATE, DeliveryState.DELIVERED)], "rev-b": [(REPLACE, DeliveryState.WAITING)]}
    told = {chain.line.revision: explain.tidings(chain.deliveries) for chain in chains}
    assert told["rev-a"].startswith(f"create to {sink.name}: delivered 2")
    assert re.fullmatch(rf"replace to {sink.name}: waiting since 2.*, try 1 went wrong: .*HTTP 422.*", told["rev-b"])
    many = explain.tidings(chains[0].deliveries * 12).splitlines()
    assert (len(many), many[0]) == (11, f"2 earlier ones: `stac-watch announce {item_id}` shows them")
    page = render_item(ItemStory(chains, shop.clock(), {chain.line.key: ItemLinks() for chain in chains}, cluster=False), "1")
    assert f"create to {sink.name}: delivered" in page


def test_whatever_a_sink_answers_each_event_comes_and_those_of_an_item_in_order(shop, sink, listener):
    shop.ledger.deliveries.enrol(audience(sink, registers=False))
    names = [shop.finish(n, revision=revision) for revision in ("rev-a", "rev-b", "rev-c") for n in range(6)]
    listener.answers = [503, 0, 500, 202, 400, 202, 0, 429, 401, 404, 302, 202, 413, 0, 503] * 2
    post(shop, sink)
    first = {}  # what comes twice is the same event
    for event in listener.told:
        first.setdefault(event["id"], event)
    assert len(first) == len(names)
    for item_id in set(names):
        assert [e["type"] for e in first.values() if e["subject"] == item_id] == [CREATE, REPLACE, REPLACE]
        revisions = [e["data"]["revision"] for e in first.values() if e["subject"] == item_id]
        assert revisions == ["rev-a", "rev-b", "rev-c"]
    assert {c.state for c in shop.ledger.deliveries.counts()} == {DeliveryState.DELIVERED}


def test_killed_between_a_post_and_the_ledger_the_same_bytes_come_again(shop, sink, listener):
    shop.ledger.deliveries.enrol(audience(sink, registers=False))
    shop.finish()
    [waiting] = shop.ledger.deliveries.due(sink.name, shop.clock(), 10)
    Mailbox(sink, now=shop.clock, agent="test").post(waiting.body)  # as far as it came
    post(shop, sink, 1)
    assert len(listener.told) == 2
    assert listener.told[0] == listener.told[1]


def test_an_event_that_a_sink_never_takes_is_refused_and_keeps_no_other_back_for_ever(shop, sink, listener):
    shop.ledger.deliveries.enrol(audience(sink, registers=False))
    item_id = shop.finish()
    listener.answers = [422] * ENOUGH
    posting = announcer(shop, sink)
    for _ in range(ENOUGH):
        posting.round()
        shop.clock.forward(hours=1)
    shop.finish(revision="rev-b")
    post(shop, sink, 1)
    assert listener.types() == [REPLACE]
    [refused] = shop.ledger.deliveries.find(state=DeliveryState.REFUSED, limit=9)
    assert (refused.topic, refused.attempts) == (item_id, ENOUGH)
    assert "HTTP 422" in refused.reason
    assert "s3cr3t" not in refused.reason
    assert shop.ledger.deliveries.again([refused], shop.clock()) == 1
    post(shop, sink, 1)
    assert listener.types() == [REPLACE, CREATE]


def test_a_sink_that_is_away_is_left_alone_and_as_long_as_it_asks(shop, sink, listener):
    shop.ledger.deliveries.enrol(audience(sink, registers=False))
    shop.finish()
    posting = announcer(shop, sink)
    listener.answers, listener.retry_after = [503], "600"
    with pytest.raises(Temporary, match="HTTP 503"):
        posting.round()
    shop.clock.forward(minutes=9)
    assert not posting.is_due()
    shop.clock.forward(minutes=2)
    assert posting.round().delivered == 1


def test_the_token_is_read_for_each_post_and_stands_in_one_header(shop, listener, tmp_path):
    token = tmp_path / "token"
    sink = EventSink(url=listener.url, token_file=token)
    mailbox = Mailbox(sink, now=shop.clock, agent="test")
    with pytest.raises(ConfigError, match="cannot read"):
        mailbox.post(b"{}")
    for secret in ("first-t0ken", "second-t0ken"):
        token.write_text(f"{secret}\n")
        mailbox.post(b"{}")
    assert [h["Authorization"] for h in listener.headers] == ["Bearer first-t0ken", "Bearer second-t0ken"]
    token.write_text("two words")
    with pytest.raises(ConfigError, match="must hold a token") as caught:
        mailbox.post(b"{}")
    assert "two words" not in caught.value.message
    token.write_text("t0ken")
    for status, error in (
        (401, Refused),
        (403, Refused),
        (404, ConfigError),
        (307, ConfigError),
        (400, InputError),
        (502, Temporary),
    ):
        listener.answers = [status]
        with pytest.raises(error) as caught:
            mailbox.post(b"{}")
        assert f"HTTP {status}" in caught.value.message
        assert "s3cr3t" not in caught.value.message + caught.value.hint
    assert len(listener.headers) == 8, "no redirect was followed"


def fail(shop, numbers, reason: str, revision: str = "rev-a") -> None:
    """Lets items fail for a reason."""
    for n in numbers:
        item_id = shop.make.item_id[:-3] + f"{n:03}"
        if not shop.ledger.conversions.find(item_id=item_id):
            seen = shop.make.sighting(item_id=item_id, revision=revision, output_zarr=f"/out/{item_id}.zarr", time=shop.clock())
            shop.ledger.items.commit("s2", [seen], [], None, shop.clock())
        [row] = shop.ledger.conversions.find(item_id=item_id)
        shop.ledger.conversions.move(row, Move(Fact.FAILED_PERMANENT, "x", reason=reason), shop.clock())
        shop.clock.forward(seconds=1)


def test_what_fails_is_told_once_for_each_cause_and_once_more_when_it_is_over(shop, sink, listener):
    told = audience(sink, registers=False)
    shop.ledger.deliveries.enrol(told)
    causes = Causes(shop.ledger, told, shop.clock)
    fail(shop, range(30), "no group measurements/reflectance in product 7")
    fail(shop, range(30, 33), "disk is full")
    assert causes.look() == 0, "a minute is waited, so that the count says something"
    shop.clock.forward(minutes=2)
    assert causes.look() == 2
    fail(shop, range(40, 80), "no group measurements/reflectance in product 8")
    for _ in range(5):
        shop.clock.forward(minutes=2)
        assert causes.look() == 0
    post(shop, sink, 1)
    assert listener.types() == ["conversion.failed"] * 2
    begun = {event["data"]["count"]: event["data"] for event in listener.told}
    first = shop.make.item_id[:-3] + "000"
    assert begun[30]["first_item"] == first
    assert begun[30]["error"] == "no group measurements/reflectance in product 7"
    assert begun[30]["next"] == f"stac-watch explain {first}"

    replayed = shop.ledger.conversions.find(error="disk is full")
    for row in replayed:
        shop.ledger.conversions.move(row, Move(Fact.REPLAYED, "again"), shop.clock())
    for minutes in (2, 30):  # they run, and may fail with it again
        shop.clock.forward(minutes=minutes)
        assert causes.look() == 0
    shop.clock.forward(hours=2)
    assert causes.look() == 1
    shop.clock.forward(hours=25)
    assert causes.look() == 1, "nothing more failed with the other one"
    post(shop, sink, 1)
    over = {event["data"]["cause"]: event["data"]["why"] for event in listener.told if event["type"] == "conversion.resolved"}
    assert over["disk is full"] == "none is failed any more"
    assert [why for why in over.values() if why.startswith("none failed with it for a day; 70 are")]

    fail(shop, range(90, 92), "no group measurements/reflectance in product 9")
    shop.clock.forward(minutes=2)
    assert causes.look() == 1, "it began anew"
    post(shop, sink, 1)
    assert listener.told[-1]["data"]["count"] == 2
    assert len({event["id"] for event in listener.told}) == len(listener.told) == 5


def test_the_command_that_is_told_finds_what_failed(shop, sink, listener):
    told = audience(sink, registers=False)
    fail(shop, [1], "product 'x y' at /data/it's has 3 holes; see https://a.example/b")
    shop.clock.forward(minutes=2)
    Causes(shop.ledger, told, shop.clock).look()
    post(shop, sink, 1)
    [event] = listener.told
    verb = shlex.split(event["data"]["again"])
    assert verb[:3] == ["stac-watch", "replay", "--error"]
    assert len(shop.ledger.conversions.find(error=verb[3])) == 1


def test_each_sink_has_a_thread_of_its_own_and_what_is_wrong_with_one_is_told_until_it_works(shop, sink, listener):
    away = EventSink(url="http://127.0.0.1:9/away")
    everybody = Audience("prod", {sink.name: frozenset(), away.name: frozenset()}, registers=False)
    shop.ledger.deliveries.enrol(everybody)
    shop.finish()
    telling, seen, problems = Telling([announcer(shop, away), announcer(shop, sink)], None), 0, Counter()
    while telling.has_work:
        posted, problem, well = telling.turn()
        seen += posted.delivered
        problems[str(problem).partition(" ")[0]] += problem is not None
        assert not well
    assert (seen, len(listener.told)) == (1, 1)
    assert problems["sink"] == 1


CONFIG = """
ledger: sqlite:///{folder}/ledger.db
sources: [{{name: s2, api: "{api}", collection: sentinel-2-l2a}}]
sinks: [{{url: "{url}"}}]
"""


def test_what_was_told_is_shown_and_told_again(shop, sink, listener, tmp_path, capsys):
    file = tmp_path / "stac-watch.yaml"
    file.write_text(CONFIG.format(folder=tmp_path, api=shop.url, url=listener.url))
    shop.ledger.deliveries.enrol(audience(sink, registers=False))
    item_id = shop.finish()
    post(shop, sink, 1)
    assert main(["announce", item_id, "-c", str(file), "--json"], {}) == 0
    [told] = json.loads(capsys.readouterr().out)
    assert (told["type"], told["state"], told["sink"]) == (CREATE, "delivered", listener.url.partition("?")[0])
    assert main(["announce", item_id, "-c", str(file)], {}) == 0
    assert "1 would be posted again" in capsys.readouterr().out
    assert main(["announce", "--since", "100000h", "--yes", "-c", str(file)], {}) == 0
    assert "1 asked for" in capsys.readouterr().out
    post(shop, sink, 1)
    assert len(listener.told) == 2
    assert listener.told[0] == listener.told[1]
    assert main(["status", "-c", str(file)], {}) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 delivered" in said
    assert "s3cr3t" not in said
    for wrong in (["announce"], ["announce", "nobody"], ["announce", "--failed", "--sink", "http://x.example"]):
        assert main([*wrong, "-c", str(file)], {}) == 65
    capsys.readouterr()
    main(["check", "-c", str(file)], {})
    assert "answers (HTTP 405 to OPTIONS)" in " ".join(capsys.readouterr().out.split())
    file.write_text(CONFIG.format(folder=tmp_path, api=shop.url, url=f'{listener.url}"}}, {{url: "{listener.url}&more'))
    assert main(["status", "-c", str(file)], {}) == 78
    assert "two sinks are" in capsys.readouterr().err


def test_the_sensor_of_the_docs_maps_what_events_have(shop, sink, listener):
    page = (DOCS / "registering.md").read_text(encoding="utf-8")
    source, sensor, *_ = yaml.safe_load_all(next(b for b in page.split("```yaml\n") if "kind: Sensor" in b).partition("```")[0])
    shop.ledger.deliveries.enrol(audience(sink, registers=True))
    shop.finish()
    shop.registrar().round()
    post(shop, sink, 1)
    [event] = listener.told
    [dependency] = sensor["spec"]["dependencies"]
    assert dependency["eventSourceName"] == source["metadata"]["name"]
    assert dependency["eventName"] in source["spec"]["webhook"]
    [wanted] = dependency["filters"]["data"]
    assert {event["type"], REPLACE} == set(wanted["value"])
    [trigger] = sensor["spec"]["triggers"]
    for parameter in trigger["template"]["k8s"]["parameters"]:
        found = {"body": event}
        for part in parameter["src"]["dataKey"].split("."):
            found = found[part]
        assert isinstance(found, str)
        assert found


def test_a_watcher_tells_what_waits_and_what_is_wrong_with_a_sink_stops_nothing(shop, sink, listener, tmp_path, capsys):
    file = tmp_path / "stac-watch.yaml"
    away = "http://127.0.0.1:9/away"
    text = CONFIG.format(folder=tmp_path, api=shop.url, url=listener.url)
    text = text.replace("sinks: [", f'sinks: [{{url: "{away}"}}, ')
    file.write_text(text.replace("collection: s", "poll: {sweep_all: off, sweep_back: 1d}, collection: s"))
    shop.store.put_collection(make_collection("sentinel-2-l2a"))
    everybody = Audience("default", {sink.name: frozenset(), away: frozenset()}, registers=False)
    shop.ledger.deliveries.enrol(everybody)
    shop.finish()
    assert main(["watch", "--once", "-c", str(file)], {"PATH": ""}) == 0
    said = capsys.readouterr()
    assert listener.types() == [CREATE]
    assert "sink http://127.0.0.1:9/away cannot be reached" in said.out + said.err
    assert {(c.sink, c.state.value) for c in shop.ledger.deliveries.counts()} == {
        (sink.name, "delivered"), (away, "waiting"),
    }  # fmt: skip
