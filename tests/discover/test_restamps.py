"""A known item without a checksum is stamped anew: it is looked at, cheaply and once, and converted again only if it differs."""

import json
from http.server import BaseHTTPRequestHandler

import pytest
from loopback import serving

from stac_watch.catalog.stores import Stores
from stac_watch.config.model import Limits
from stac_watch.discover.restamps import TRIES, look
from stac_watch.ledger.naming import Sort
from stac_watch.ledger.records import Move
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import Fact, State
from stac_watch.model.zarr3 import fingerprint
from stac_watch.report import explain, status

V3 = "application/vnd.zarr; version=3"
CHUNKS = {"regular": {"name": "regular", "configuration": {"chunk_shape": [2, 2]}}}


def array(size: int) -> dict:
    return {
        "zarr_format": 3, "node_type": "array", "shape": [size, size], "data_type": "uint16", "fill_value": 0,
        "chunk_grid": CHUNKS["regular"], "chunk_key_encoding": {"name": "default"}, "codecs": [{"name": "bytes"}],
    }  # fmt: skip


class Shelf:
    """Stores of four objects each under one server, whatever they are called; what it was asked."""

    def __init__(self) -> None:
        nodes = {"r10m/b02": array(4)}
        self.root = json.dumps({"zarr_format": 3, "node_type": "group", "consolidated_metadata": {"metadata": nodes}}).encode()
        self.sizes = {f"c/{y}/{x}": 10 + 2 * y + x for y in range(2) for x in range(2)}
        self.other: dict[str, bytes] = {}  # by path: what is there instead
        self.status = 200
        self.asked: list[str] = []
        shelf = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                shelf.asked.append(self.path)
                body = shelf.root if self.path.endswith("/zarr.json") else b"x" * shelf.sizes[self.path.partition("b02/")[2]]
                body = shelf.other.get(self.path, body)
                self.send_response(shelf.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def do_HEAD(self):
                self.do_GET()

            def log_message(self, *_):
                pass

        self.handler = Handler

    def fingerprint(self) -> str:
        return fingerprint(self.root, {f"r10m/b02/{key}": size for key, size in self.sizes.items()}, {"r10m/b02/c/0/0": 7})


class Native:
    """Items of the new form, their stores, and a watcher's discovery of both."""

    def __init__(self, world, url: str, shelf: Shelf) -> None:
        self.world, self.url, self.shelf = world, url, shelf
        world.settings["allowed_hosts"] = ("127.0.0.1",)
        self.stores = Stores(("127.0.0.1",), rate=20.0, sleep=lambda _: None)

    def put(self, *numbers: int, stamp=None, deprecated: bool = False, **product: object) -> None:
        documents = []
        for number in numbers:
            document = self.world.item(number, **({"updated": stamp} if stamp else {}))
            href = f"{self.url}/{document['id']}.zarr"
            document["assets"] = {"product": {"href": href, "type": V3, "zarr:consolidated": True, **product}}
            document["properties"] |= {"deprecated": True} if deprecated else {}
            documents.append(document)
        self.world.store.put_many(documents)

    def finish(self, fact: Fact = Fact.SUCCEEDED, **outcome: object) -> None:
        """Ends everything that waits, as runs would."""
        given = Outcome(**({"code": 0, "fingerprint": self.shelf.fingerprint()} | outcome))
        for row in self.world.ledger.conversions.find(state=State.QUEUED, limit=9999):
            self.world.ledger.conversions.move(row, Move(fact, "x", reason="x", outcome=given), self.world.clock())

    def restamp(self, *numbers: int) -> None:
        self.world.clock.forward(minutes=5)
        self.put(*numbers, stamp=self.world.clock())
        self.world.poll()

    def look(self) -> int | None:
        return look(self.world.intake(), self.stores)

    def rows(self) -> list[tuple[str, int]]:
        rows = self.world.ledger.conversions.find(limit=9999, sort=Sort.OLDEST)
        return sorted((row.state.value, row.attempt) for row in rows)

    def counts(self) -> dict[str, int]:
        view = status.read(self.world.ledger, [self.world.source()], Limits(), self.world.clock())
        return {name: n for name, n in view.sources[0].restamped.items() if n}


@pytest.fixture
def native(world):
    shelf = Shelf()
    with serving(shelf.handler) as url:
        found = Native(world, url, shelf)
        found.put(1, 2, 3)
        world.poll()
        yield found


def test_what_is_the_same_is_looked_at_once_and_not_converted(native):
    native.finish()
    native.restamp(1, 2, 3)
    assert native.rows() == [("done", 1)] * 3
    assert native.counts() == {"waiting": 3}
    native.shelf.asked.clear()
    assert native.look() == 3
    assert len(native.shelf.asked) == 3 * 5, "the root and each object's size"
    assert native.look() is None
    for _ in range(2):  # it is shown again by the overlap, and by a sweep
        native.world.poll()
        native.world.sweep()
    assert native.look() is None
    assert len(native.shelf.asked) == 3 * 5
    assert native.rows() == [("done", 1)] * 3
    assert native.counts() == {"same": 3}


def another_root(shelf: Shelf, path: str) -> None:
    shelf.other[f"{path}/zarr.json"] = shelf.root.replace(b'"group"', b'"group" ')


def another_size(shelf: Shelf, path: str) -> None:
    shelf.other[f"{path}/r10m/b02/c/1/1"] = b"another"


@pytest.mark.parametrize("differs", [another_root, another_size])
def test_what_differs_is_converted_again_over_what_is_there(native, differs):
    native.finish()
    item = native.world.item(2)["id"]
    differs(native.shelf, f"/{item}.zarr")
    native.restamp(1, 2, 3)
    native.look()
    assert native.rows() == [("done", 1), ("done", 1), ("queued", 2)]
    (row,) = native.world.ledger.conversions.find(state=State.QUEUED)
    event = json.loads(native.world.ledger.conversions.events(row.key)[-1])["data"]
    assert (row.item_id, event["reason"], event["options"]["overwrite"], event["attempt"]) == (item, "updated", "true", 2)
    first = json.loads(native.world.ledger.conversions.events(row.key)[0])["data"]
    assert event["fence"] > first["fence"]
    assert native.counts() == {"same": 2, "changed": 1}
    native.world.poll()
    assert native.look() is None


def test_a_wave_asks_a_bounded_number_of_times_and_goes_on_where_it_was(native):
    native.put(*range(4, 104), stamp=native.world.clock())
    native.world.poll()
    native.finish()
    native.restamp(*range(1, 104))
    native.shelf.asked.clear()
    steps = []
    while (step := native.look()) is not None:
        steps.append(step)
        assert sum(native.counts().values()) == 103
    assert sum(steps) == 103
    assert max(steps) <= 50
    assert len(native.shelf.asked) == 103 * 5
    assert native.rows() == [("done", 1)] * 103


def test_a_step_ends_in_time_and_the_next_goes_on_within_the_same_store(native):
    native.finish()
    native.restamp(1, 2, 3)
    asked = native.shelf.asked
    asked.clear()
    assert look(native.world.intake(), native.stores, clock=lambda: 1.2 * len(asked)) == 1
    assert native.counts() == {"waiting": 2, "same": 1}
    assert len(asked) == 5 + 4, "polls have their turn while the second store is half asked"
    assert native.look() == 2
    sizes = [path for path in asked if not path.endswith("/zarr.json")]
    assert len(sizes) == len(set(sizes)) == 3 * 4
    assert native.counts() == {"same": 3}


def test_what_is_under_way_is_looked_at_when_it_has_ended(native):
    native.restamp(1)
    assert native.look() is None
    native.finish()
    assert native.look() == 1
    assert native.counts() == {"same": 1}


def test_what_had_failed_is_tried_again_when_it_is_stamped_anew(native):
    native.finish(Fact.FAILED_PERMANENT, code=65, fingerprint="")
    native.shelf.asked.clear()
    native.restamp(1)
    assert native.look() == 1
    assert native.rows() == [("failed", 1), ("failed", 1), ("queued", 2)]
    assert native.shelf.asked == []
    assert native.counts() == {"retried": 1}


def test_what_a_rule_kept_out_for_a_while_is_looked_at_when_it_is_back(native):
    """Its revision is the one that was done, and what lies under its name may be another product."""
    native.finish()
    document = native.world.item(1)
    native.world.clock.forward(minutes=5)
    native.put(1, stamp=native.world.clock(), deprecated=True)
    native.world.poll()
    native.look()
    another_size(native.shelf, f"/{document['id']}.zarr")
    native.restamp(1)
    (row,) = native.world.ledger.conversions.find(state=State.QUEUED)
    event = json.loads(native.world.ledger.conversions.events(row.key)[-1])["data"]
    assert (row.item_id, event["attempt"], event["options"]["overwrite"]) == (document["id"], 2, "true")


def test_no_answer_is_asked_for_again_later_and_said_in_the_end(native):
    native.finish()
    native.restamp(1)
    native.shelf.status = 503
    assert native.look() == 1
    assert native.look() is None
    for _ in range(TRIES - 1):
        native.world.clock.forward(days=1)
        assert native.look() == 1
    assert native.counts() == {"unclear": 1}
    assert native.rows() == [("done", 1)] * 3


def test_a_store_that_is_gone_for_a_while_is_looked_at_again(native):
    native.finish()
    native.restamp(1)
    native.shelf.status = 404
    native.look()
    native.shelf.status = 200
    another_size(native.shelf, f"/{native.world.item(1)['id']}.zarr")
    native.world.clock.forward(minutes=16)
    assert native.look() == 1
    assert native.counts() == {"changed": 1}


def test_a_checksum_or_another_form_says_enough(native):
    now = native.world.clock()
    native.put(4, stamp=now, **{"file:checksum": "1620ab"})
    native.put(5, stamp=now, type="application/vnd+zarr")
    native.world.poll()
    native.finish()
    native.world.clock.forward(minutes=5)
    native.put(4, stamp=native.world.clock(), **{"file:checksum": "1620ab"})
    native.put(5, stamp=native.world.clock(), type="application/vnd+zarr")
    native.world.poll()
    assert native.look() is None


def test_a_stamp_that_comes_while_one_waits_is_the_same_look(native):
    native.finish()
    native.restamp(1)
    native.restamp(1)
    native.shelf.asked.clear()
    assert native.look() == 1
    assert native.look() is None
    assert len(native.shelf.asked) == 5


def test_explain_says_that_it_was_looked_at(native):
    native.finish()
    native.restamp(1)

    def said() -> str:
        (view,) = explain.read(native.world.ledger, native.world.item(1)["id"], Limits(), native.world.clock(), lambda _: None)
        return view.restamped

    assert "is to be looked at" in said()
    native.look()
    assert "same" in said()


def test_with_restamp_every_stamp_is_a_revision_and_nothing_is_looked_at(native):
    native.finish()
    native.world.settings["on"] = "restamp"
    native.restamp(1)
    assert native.look() is None
    assert ("queued", 1) in native.rows()


def test_a_killed_watcher_has_forgotten_nothing(native):
    native.finish()
    native.restamp(1, 2)
    assert native.counts() == {"waiting": 2}
    native.world.clock.forward(seconds=1)
    native.stores = Stores(("127.0.0.1",), rate=20.0, sleep=lambda _: None)
    assert native.look() == 2
    native.world.clock.forward(days=9)
    assert native.look() is None
    assert native.world.ledger.restamps.get("s2", native.world.item(1)["id"]) is None, "forgotten after a week"
