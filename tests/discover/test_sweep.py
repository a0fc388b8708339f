"""The sweep finds what no window on a stamp can, and takes nothing for gone that is not."""

import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from stac_watch.catalog.abilities import Abilities
from stac_watch.catalog.windows import LAUNCH
from stac_watch.demo.items import make_collection
from stac_watch.discover.sweep import DAYS, sweep
from stac_watch.ledger.records import Move
from stac_watch.model.states import Fact


def again(world, hours=6):
    world.clock.forward(hours=hours)
    return world.sweep()


@pytest.fixture
def watched(world):
    """Ten items, polled and swept once."""
    world.settings["poll"] = {"since": "30d", "sweep": "6h", "sweep_back": "14d", "sweep_all": "off"}
    world.fill(10)
    world.poll()
    world.sweep()
    return world


def test_a_back_dated_item_is_found(watched):
    watched.store.put(watched.item(20, updated="2025-11-20T00:00:00Z"))
    watched.clock.forward(minutes=1)
    assert watched.poll().admitted == 0
    assert again(watched).admitted == 1


def test_a_silent_change_is_found(watched):
    watched.store.put(watched.item(3, version=2))
    watched.clock.forward(minutes=1)
    assert watched.poll().seen == 0
    assert again(watched).admitted == 1
    assert sum("/v2/" in href for href in watched.hrefs()) == 1


def test_what_is_unchanged_is_no_event_and_writes_nothing_of_it(watched):
    assert again(watched) == type(again(watched))()
    assert len(watched.ledger.conversions.find()) == 10


def test_one_that_is_missing_once_is_not_gone(watched):
    gone = watched.item(3)
    watched.store.delete("sentinel-2-l2a", gone["id"])
    again(watched)
    assert watched.states()[gone["id"]] == "queued"
    watched.store.put(gone)
    again(watched)
    watched.store.delete("sentinel-2-l2a", gone["id"])
    again(watched)
    assert watched.states()[gone["id"]] == "queued"  # missing once again: the first time does not count any more
    again(watched)
    assert watched.states()[gone["id"]] == "withdrawn"
    assert watched.ledger.absences.withdrawn("s2") == 1


def test_a_run_in_flight_is_waited_for_and_what_is_done_stays_done(watched):
    rows = {row.item_id: row for row in watched.ledger.conversions.find()}
    running, done = watched.item(1)["id"], watched.item(2)["id"]
    now = watched.clock()
    for item_id, facts in ((running, [Fact.ACCEPTED, Fact.RUN_SEEN]), (done, [Fact.SUCCEEDED])):
        for fact in facts:
            watched.ledger.conversions.move(watched.ledger.conversions.get(rows[item_id].key), Move(fact, "as a test"), now)
        watched.store.delete("sentinel-2-l2a", item_id)
    for _ in range(3):
        again(watched)
    assert (watched.states()[running], watched.states()[done]) == ("running", "done")
    watched.ledger.conversions.move(
        watched.ledger.conversions.get(rows[running].key), Move(Fact.NOT_READY, "404", reason="404"), now
    )
    again(watched)
    assert watched.states()[running] == "withdrawn"


def test_what_returns_is_wanted_again(watched):
    gone = watched.item(3)
    watched.store.delete("sentinel-2-l2a", gone["id"])
    again(watched)
    again(watched)
    assert watched.states()[gone["id"]] == "withdrawn"
    watched.store.put(gone)
    again(watched)
    assert watched.states()[gone["id"]] == "queued"
    assert watched.ledger.absences.withdrawn("s2") == 0


def test_an_item_whose_acquisition_time_was_corrected_is_not_gone(watched):
    moved = watched.item(3)
    moved["properties"] |= dict.fromkeys(("datetime", "start_datetime", "end_datetime"), "2025-11-22T05:00:00Z")
    watched.store.put(moved)
    for _ in range(4):
        again(watched)
    assert watched.states()[moved["id"]] == "queued"
    assert watched.ledger.absences.withdrawn("s2") == 0


def test_items_that_a_server_cannot_serve_are_not_gone(watched):
    hidden = watched.item(3)["id"]
    watched.faults.set(poison=(hidden,))
    for _ in range(3):
        again(watched)
    assert watched.states()[hidden] == "queued"
    assert [why for _, _, why in watched.ledger.absences.unreadable() if "cannot serve" in why]


def test_what_was_there_before_the_watch_is_no_news_and_what_appears_later_is_whatever_its_stamp(world):
    world.settings["poll"] = {"since": "1h", "sweep_all": "off"}
    world.fill(50)
    assert world.poll().admitted == 0
    assert world.sweep().admitted == 0
    world.clock.forward(hours=6)
    world.store.put(world.item(60, updated="2025-11-01T00:00:00Z"))
    assert world.sweep().admitted == 1
    world.store.put(world.item(7, version=2, updated=world.clock()))
    world.clock.forward(minutes=1)
    assert world.poll().admitted == 1
    assert len(world.states()) == 2


def test_it_goes_on_where_it_stopped_and_a_step_is_a_few_days(watched):
    intake = watched.intake()
    intake.catalog.assume(typed=True)
    watched.clock.forward(hours=6)
    sweep(intake)
    row = watched.ledger.sources.state("s2", ()).sweeps.get("recent")
    assert (row.number, row.done_at) == (2, None)
    assert row.position - row.start == timedelta(days=DAYS)
    sweep(watched.intake(intake.catalog))
    assert watched.ledger.sources.state("s2", ()).sweeps.get("recent").position - row.start == timedelta(days=2 * DAYS)
    watched.sweep()
    assert watched.ledger.sources.state("s2", ()).sweeps.get("recent").done_at == watched.clock()


def test_once_a_week_everything_is_compared_from_the_first_item_on(world):
    world.settings["poll"] = {"since": "30d", "sweep_back": "1d", "sweep_all": "7d"}
    world.fill(10)
    world.poll()
    world.sweep()
    world.store.put(world.item(3, version=2))  # silently, and older than the recent days
    assert again(world).admitted == 0
    world.clock.forward(days=37)
    assert world.sweep().admitted == 1
    row = world.ledger.sources.state("s2", ()).sweeps.get("all")
    assert row.start.isoformat() == "2025-11-20T00:00:00+00:00"
    assert row.done_at is not None


def test_what_can_be_read_again_is_no_longer_in_quarantine_whether_it_changed_or_not(watched):
    spoiled, poisoned, gone = (watched.item(n)["id"] for n in (2, 5, 8))
    watched.faults.set(no_properties=(spoiled, gone), poison=(poisoned,))
    again(watched)
    assert {name for _, name, _ in watched.ledger.absences.unreadable()} == {
        spoiled,
        gone,
        "(unreadable) datetime 2025-11-20T05:00:00Z",
    }
    watched.faults.clear()
    watched.store.delete("sentinel-2-l2a", gone)
    again(watched)
    assert [name for _, name, _ in watched.ledger.absences.unreadable()] == [gone]
    assert len(watched.ledger.conversions.find()) == 10  # it was no change
    watched.settings["poll"] |= {"sweep_all": "7d"}
    watched.clock.forward(days=38)
    watched.sweep()
    assert watched.ledger.absences.unreadable() == []


def test_what_a_poll_could_not_read_and_the_next_can_is_no_longer_unreadable(world):
    wanted = world.fill(6)
    world.poll()
    world.clock.forward(minutes=2)
    world.store.put_many([world.item(n, updated=world.clock() - timedelta(seconds=n)) for n in range(6)])
    world.faults.set(no_properties=(wanted[1],), poison=(wanted[4],))
    assert world.poll().unreadable == 2
    world.faults.clear()
    world.clock.forward(minutes=1)
    world.poll()
    assert world.ledger.absences.unreadable() == []


def test_one_item_that_is_dated_ages_ago_makes_no_sweep_of_every_day_since_then(world):
    world.clock.time = datetime(2015, 7, 10, 12, tzinfo=UTC)
    world.settings["poll"] = {"since": "1d", "sweep_back": "1d", "sweep_all": "1h"}
    world.store.put(world.item(9, datetime=world.clock(), updated=world.clock()))
    world.poll()
    world.clock.forward(days=1)
    world.sweep()
    for number, sensed in enumerate(("0001-01-01", "0999-12-31", "1970-01-01", "2015-06-22", "2015-06-25")):
        moment = datetime.fromisoformat(f"{sensed}T00:00:00Z")
        world.store.put(world.item(number, datetime=moment, updated="2015-06-30T00:00:00Z"))
    world.clock.forward(days=5)
    world.sweep()  # gives up after 200 steps; 2,000 years of days are 184,000
    row = world.ledger.sources.state("s2", ()).sweeps.get("all")
    assert (row.start, row.done_at) == (datetime(1, 1, 1, tzinfo=UTC), world.clock())
    noted = world.ledger.absences.preexisting("s2", [world.item(n)["id"] for n in range(5)])
    assert len(noted) + len(world.states().keys() - {world.item(9)["id"]}) == 5  # met, every one


def test_a_catalog_that_does_not_say_when_it_begins_is_swept_from_the_beginning_of_time(world):
    """An item without a readable time sorted first, and a collection without an extent: the archive was never swept."""
    world.settings["poll"] = {"since": "1d", "sweep_back": "1d", "sweep_all": "1h"}
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
    world.store.put_collection(make_collection() | {"extent": extent})
    world.store.put(world.item(1, datetime=world.clock() - timedelta(days=100), updated="2015-06-30T00:00:00Z"))
    world.poll()
    world.clock.forward(days=3)
    intake = world.intake()
    intake.catalog.abilities = Abilities(sorts=False)
    while (row := world.ledger.sources.state("s2", ()).sweeps.get("all")) is None:
        assert sweep(intake) is not None
    assert row.start == datetime(1, 1, 1, tzinfo=UTC)
    assert row.position > LAUNCH  # all before it was one window


STOPPED = """
import random, sys, threading, time
from datetime import UTC, datetime, timedelta
from stac_watch.catalog.client import Catalog
from stac_watch.catalog.http import CatalogHttp
from stac_watch.catalog.reader import sweep_leaves
from stac_watch.catalog.windows import days

start = datetime(2025, 11, 20, tzinfo=UTC)
http = CatalogHttp(sys.argv[1], now=lambda: datetime.now(UTC), sleep=time.sleep, rng=random.Random(1))
catalog = Catalog(http, "c")
windows = days("datetime", start, start + timedelta(days=4))
threading.Thread(target=lambda: list(sweep_leaves(catalog, windows, 10, workers=2)), daemon=True).start()
sys.stdin.readline()
"""


def test_a_stop_does_not_wait_for_a_catalog_that_does_not_answer_a_sweep():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        program = subprocess.Popen([sys.executable, "-c", STOPPED, url], stdin=subprocess.PIPE, text=True)
        asked = [listener.accept()[0] for _ in range(2)]  # both windows are being asked for, and nobody answers
        started = time.monotonic()
        try:
            program.communicate("\n", timeout=30)
        finally:
            program.kill()
            program.wait()
            for connection in asked:
                connection.close()
    assert program.returncode == 0
    assert time.monotonic() - started < 3
