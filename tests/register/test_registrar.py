"""From done to registered: each item once, whatever the catalog does meanwhile, and never a moment without it."""

from __future__ import annotations

import contextlib
import threading

import pytest
import requests
from shop import AWAY, COLLECTION, described

from stac_watch.catalog.writing import TargetCollection
from stac_watch.model.errors import ConfigError, Refused, Temporary
from stac_watch.model.outcome import Outcome
from stac_watch.model.publication import PublicationState as P
from stac_watch.register.due import ENOUGH


def test_what_is_done_is_registered_once_with_its_collection(shop):
    names = [shop.finish(n) for n in range(20)]
    registrar = shop.registrar()
    assert registrar.is_due()
    assert registrar.round().registered == 20
    assert not registrar.is_due(), "nothing is sent twice"
    row = shop.publication(names[0])
    assert (row.state, row.attempts, row.reason, row.target) == (P.REGISTERED, 1, None, f"{shop.url}/collections/{COLLECTION}")
    found = requests.get(f"{row.target}/items/{names[3]}", timeout=5).json()
    assert found["assets"]["reflectance"]["href"] == f"https://data.example/geozarr/scenes/{names[3]}.zarr/measurements/reflectance"
    collection = requests.get(row.target, timeout=5).json()
    assert collection["extent"]["spatial"]["bbox"] == [[11.4, 41.4, 12.7, 42.4]]
    assert collection["extent"]["temporal"]["interval"] == [["2025-10-08T10:00:41Z", None]]
    assert collection["summaries"]["platform"] == ["sentinel-2a"]
    assert {c.state: c.n for c in shop.ledger.publications.counts()} == {P.REGISTERED: 20}


def test_nothing_is_enrolled_where_nothing_is_registered(shop, tmp_path, open_ledger):
    shop.ledger.close()
    shop.ledger = open_ledger(tmp_path / "other.db")
    item_id = shop.finish()
    assert shop.ledger.publications.of(item_id) == []
    assert shop.ledger.publications.next_due() is None
    [(source, item, key)] = shop.ledger.publications.unregistered(None, 10)
    assert (source, item) == ("s2", item_id)
    assert shop.ledger.publications.ask([key], shop.clock(), anew=False) == 1
    assert shop.on(shop.registrar()).registered == 1
    assert shop.ledger.publications.unregistered(None, 10) == []


def test_a_later_revision_takes_the_items_place_and_no_reader_meets_a_gap(shop):
    item_id = shop.finish(revision="rev-a")
    registrar = shop.registrar()
    registrar.round()
    url, stop, missed, reads = f"{shop.url}/collections/{COLLECTION}/items/{item_id}", threading.Event(), list[int](), list[int]()

    def read() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                status = session.get(url, timeout=5).status_code
                (reads if status == 200 else missed).append(status)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(10):
            shop.finish(revision=f"rev-{number}")
            shop.clock.forward(minutes=1)
            assert registrar.round().registered == 1
    finally:
        stop.set()
        reader.join()
    assert (missed, bool(reads)) == ([], True)
    row = shop.publication(item_id)
    assert row.key == shop.markers[f"s3://bucket/scenes/{item_id}.zarr"].key
    assert shop.there(item_id)["properties"]["updated"] == shop.markers[row.output_zarr].finished


def test_what_was_overtaken_before_it_was_done_is_not_enrolled(shop, make):
    first = make.sighting(item_id=shop.make.item_id[:-3] + "000", revision="rev-old", output_zarr="s3://bucket/scenes/o.zarr")
    shop.ledger.items.commit("s2", [first], [], None, shop.clock())
    old = shop.ledger.conversions.get(first.conversion.key)
    item_id = shop.finish(revision="rev-new")
    from stac_watch.ledger.records import Move
    from stac_watch.model.states import Fact

    old = shop.ledger.conversions.get(old.key)
    shop.ledger.conversions.move(old, Move(Fact.SUCCEEDED, "late"), shop.clock())
    assert shop.publication(item_id).key != old.key


def test_an_outage_of_a_day_costs_nothing_but_time(shop):
    names = [shop.finish(n) for n in range(5)]
    registrar = shop.registrar()
    shop.faults.set(wire=("503",) * 100_000, wire_paths=("/",), retry_after=None)
    tried = 0
    for _ in range(24):
        if registrar.is_due():
            tried += 1
            with pytest.raises(Temporary):
                registrar.round()
        shop.clock.forward(hours=1)
    assert tried == 24
    assert {shop.publication(name).state for name in names} == {P.PENDING}
    shop.faults.clear()
    assert shop.on(registrar).registered == 5
    assert {shop.publication(name).state for name in names} == {P.REGISTERED}


@pytest.mark.parametrize("fault", ["500", "503", "reset", "truncate"])
def test_answers_that_are_lost_leave_each_item_there_once(shop, fault):
    names = [shop.finish(n) for n in range(12)]
    registrar = shop.registrar(at_once=4)
    shop.faults.set(wire=(fault,) * 40, wire_paths=(f"/collections/{COLLECTION}/items",), retry_after=None)
    for _ in range(100):
        if registrar.is_due():
            with contextlib.suppress(Temporary):
                registrar.round()
        shop.clock.forward(minutes=10)
    assert [shop.publication(name).state for name in names] == [P.REGISTERED] * 12
    assert shop.store.count(COLLECTION) == 12


def test_killed_between_the_catalog_and_the_ledger_it_is_sent_again_and_is_there_once(shop):
    item_id = shop.finish()
    registrar = shop.registrar()
    registrar._make_ready([registrar.prepare(shop.publication(item_id)).document])  # as far as it came
    shop.target().put(registrar.prepare(shop.publication(item_id)).document)
    assert shop.publication(item_id).state is P.PENDING
    assert shop.registrar().round().registered == 1
    assert shop.store.count(COLLECTION) == 1


def test_a_revision_that_is_done_while_the_older_one_is_sent_stays_pending(shop):
    item_id = shop.finish(revision="rev-a")
    before = shop.publication(item_id)
    shop.finish(revision="rev-b")
    from dataclasses import replace

    assert not shop.ledger.publications.settle(before, replace(before, state=P.REGISTERED, digest="x"))
    assert shop.publication(item_id).state is P.PENDING


def test_what_the_catalog_refuses_has_failed_with_its_words_and_stops_no_other(shop):
    bad, good = shop.finish(0), shop.finish(1)
    shop.items[f"s3://bucket/scenes/{bad}.zarr"]["geometry"] = None
    assert shop.registrar().round().registered == 1
    row = shop.publication(bad)
    assert row.state is P.FAILED
    assert "has no geometry" in row.reason
    assert shop.publication(good).state is P.REGISTERED


def test_an_item_that_is_not_there_or_not_its_markers_is_not_sent(shop):
    gone, other, torn = shop.finish(0), shop.finish(1), shop.finish(2)
    place = "s3://bucket/scenes/{}.zarr".format
    del shop.items[place(gone)]
    shop.markers[place(other)] = Outcome(code=0, key="0" * 20, finished="2026-01-01T00:00:00Z")
    shop.items[place(torn)] = described(torn, "2020-01-01T00:00:00Z")
    registrar = shop.registrar()
    registrar.round()
    assert (shop.publication(gone).state, shop.publication(other).state) == (P.FAILED, P.PENDING)
    assert "no item lies beside" in shop.publication(gone).reason
    assert "not that of its marker" in shop.publication(torn).reason
    shop.on(registrar, 150)
    assert shop.publication(other).state is P.FAILED
    assert shop.publication(other).attempts == ENOUGH
    assert shop.store.count(COLLECTION) == 0


def test_an_item_that_is_given_back_otherwise_is_told_and_at_last_fails(shop):
    item_id = shop.finish()
    registrar = shop.registrar()
    shop.faults.set(no_properties=(item_id,), visibility_delay=10**9)  # the catalog says 201, and shows nothing
    for _ in range(200):
        if registrar.is_due():
            registrar.round()
        shop.clock.forward(minutes=10)
    row = shop.publication(item_id)
    assert (row.state, row.attempts) == (P.FAILED, ENOUGH)
    assert "gives back another: it is not there when it is read back" in row.reason


def test_wrong_credentials_are_nobodys_failure_and_the_catalog_is_left_alone(shop):
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Door(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_POST = answer  # noqa: N815  # the names of the standard library

        def log_message(self, *_: object) -> None:
            pass

    item_id = shop.finish()
    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shop.url = f"http://127.0.0.1:{server.server_address[1]}"
        registrar = shop.registrar()
        with pytest.raises(Refused):
            registrar.round()
        assert not registrar.is_due()
        server.shutdown()
    assert shop.publication(item_id).state is P.PENDING


def test_what_only_the_sources_item_says_is_waited_for_but_not_for_ever(shop):
    item_id = shop.finish()
    shop.sources[item_id] = AWAY
    registrar = shop.registrar()
    registrar.round()
    assert (shop.publication(item_id).state, shop.publication(item_id).attempts) == (P.PENDING, 1)
    assert shop.on(registrar, 100).registered == 1
    other = shop.finish(1)
    shop.sources[other] = {"properties": {"sci:doi": "10.5270/S2_-znk9xsj", "sat:absolute_orbit": 7}, "links": []}
    assert shop.on(registrar).registered == 1
    assert shop.there(other)["properties"]["sat:absolute_orbit"] == 7
    assert "sat:absolute_orbit" not in shop.there(item_id)["properties"]


def test_asked_for_once_more_the_same_is_sent_again_and_else_it_is_not(shop):
    item_id = shop.finish()
    registrar = shop.registrar()
    registrar.round()
    key = shop.publication(item_id).key
    shop.store.delete(COLLECTION, item_id)
    shop.ledger.publications.ask([key], shop.clock(), anew=False)
    assert shop.on(registrar).registered == 1
    assert shop.there(item_id) is None, "its content was sent already"
    shop.ledger.publications.ask([key], shop.clock(), anew=True)
    assert shop.on(registrar).registered == 1
    assert shop.there(item_id) is not None


def test_what_is_unregistered_is_taken_out_and_a_later_revision_comes_back(shop):
    gone, kept, never = shop.finish(0), shop.finish(1), shop.finish(2)
    registrar = shop.registrar()
    registrar.round()
    shop.store.delete(COLLECTION, never)  # a person was first
    assert shop.ledger.publications.withdraw([shop.publication(name).key for name in (gone, never)], shop.clock()) == 2
    assert {shop.publication(name).state for name in (gone, never)} == {P.WITHDRAWING}
    shop.faults.set(wire=("503", "reset", "truncate"), wire_paths=(f"/collections/{COLLECTION}/items",), retry_after=None)
    shop.on(registrar)
    row = shop.publication(gone)
    assert (row.state, row.reason, row.target, row.digest) == (P.WITHDRAWN, None, "", "")
    assert (shop.publication(never).state, shop.publication(kept).state) == (P.WITHDRAWN, P.REGISTERED)
    assert (shop.there(gone), shop.there(kept) is not None) == (None, True)
    assert shop.ledger.publications.withdraw([row.key], shop.clock()) == 0
    assert not registrar.is_due()
    shop.finish(0, revision="rev-b")
    assert shop.on(registrar).registered == 1
    assert shop.there(gone) is not None


def test_what_a_catalog_does_not_let_go_is_never_called_withdrawn(shop):
    item_id = shop.finish()
    registrar = shop.registrar()
    registrar.round()
    shop.ledger.publications.withdraw([shop.publication(item_id).key], shop.clock())
    shop.faults.set(wire=("403",) * 100, wire_paths=(f"/collections/{COLLECTION}/items",))
    with pytest.raises(Refused):
        registrar.round()
    row = shop.publication(item_id)
    assert (row.state, row.attempts > 0) == (P.WITHDRAWING, True)
    assert [p.item_id for p in shop.ledger.publications.troubled(5)] == [item_id]
    shop.faults.clear()
    elsewhere = shop.registrar(TargetCollection(shop.target()._http, "another"))
    shop.clock.forward(hours=2)
    elsewhere.round()
    assert "it is registered in" in shop.publication(item_id).reason
    assert shop.there(item_id) is not None
    shop.on(registrar)
    assert shop.publication(item_id).state is P.WITHDRAWN


def test_an_item_that_is_deprecated_beside_its_output_is_sent_as_it_is_now(shop):
    item_id = shop.finish()
    registrar = shop.registrar()
    registrar.round()
    shop.items[f"s3://bucket/scenes/{item_id}.zarr"]["properties"]["deprecated"] = True
    shop.ledger.publications.refresh(shop.publication(item_id).key, shop.clock())
    assert shop.on(registrar).registered == 1
    assert shop.there(item_id)["properties"]["deprecated"] is True


def test_the_collections_own_words_stay_and_only_what_an_item_lies_outside_of_grows(shop, tmp_path):
    path = tmp_path / "collection.json"
    path.write_text(
        f'{{"type": "Collection", "id": "{COLLECTION}", "stac_version": "1.1.0", "title": "Ours", "license": "x", "links": []}}'
    )
    shop.finish()
    registrar = shop.registrar(collection_file=path)
    registrar.round()
    known = shop.store.collection(COLLECTION)
    assert (known["title"], known["license"]) == ("Ours", "x")
    shop.store.put_collection(
        {**known, "description": "a person's", "extent": {**known["extent"], "spatial": {"bbox": [[0, 0, 12, 42]]}}}
    )
    shop.finish(1)
    shop.clock.forward(hours=1)
    registrar.round()
    known = shop.store.collection(COLLECTION)
    assert known["description"] == "a person's"
    assert known["extent"]["spatial"]["bbox"] == [[0, 0, 12.7, 42.4]]
    path.write_text("{}")
    shop.finish(2)
    shop.clock.forward(hours=1)
    with pytest.raises(ConfigError, match="is not the collection"):
        registrar.round()
