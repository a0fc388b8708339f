"""One watcher at a time: who has the ledger, who waits, and when the next one takes over."""

import json
import random
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event as sa_event

from stac_watch import app as composition
from stac_watch.config.load import load
from stac_watch.config.model import Limits, Recipe
from stac_watch.ledger import schema as t
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.lease import LEASE
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Move
from stac_watch.ledger.session import LeaseLost
from stac_watch.model.states import Fact, State
from stac_watch.watch.loop import Parts, Watcher


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock(make):
    return Clock(make.now)


@pytest.fixture
def wait(clock, database, ledger):
    """Lets time pass: on PostgreSQL a lease's time is the server's, so there the lease itself becomes older."""

    def later(by):
        clock.now += by
        if database.startswith("postgresql"):
            with ledger._engine.begin() as tx:
                tx.exec_driver_sql(f"UPDATE lease SET until = until - interval '{by.total_seconds()} s'")

    return later


@pytest.fixture
def ends(clock, database):
    """Tells whether a lease ends when one that is renewed now does."""

    def now(until):
        at = datetime.now(UTC) if database.startswith("postgresql") else clock.now
        return abs(until - at - LEASE) < timedelta(seconds=5)

    return now


@pytest.fixture
def other(ledger, database):
    ledger = Ledger(open_engine(database))
    yield ledger
    ledger.close()


def test_a_second_watcher_waits_and_takes_over_when_the_first_says_nothing_any_more(ledger, other, clock, wait, ends):
    assert ledger.lease.hold("a", clock)
    assert not other.lease.hold("b", clock)
    holder, until = other.lease.holder()
    assert (holder, ends(until)) == ("a", True)
    wait(LEASE - timedelta(seconds=1))
    assert not other.lease.hold("b", clock)
    wait(timedelta(seconds=1))
    assert other.lease.hold("b", clock)
    assert (ledger.lease.is_held, other.lease.is_held) == (True, True)  # the first does not know it yet


def test_who_was_overtaken_can_write_nothing_any_more(ledger, other, clock, wait, make, consistent):
    ledger.lease.hold("a", clock)
    ledger.items.commit("s2", [make.sighting()], [], None, clock())
    wait(LEASE)
    other.lease.hold("b", clock)
    row = ledger.conversions.get(make.conversion().key)
    with pytest.raises(LeaseLost):
        ledger.conversions.move(row, Move(Fact.ACCEPTED, "too late"), clock())
    assert not ledger.lease.is_held
    with pytest.raises(LeaseLost):  # not the second time either, and not after a stop: threads of sources go on for a while
        ledger.conversions.move(row, Move(Fact.ACCEPTED, "later still"), clock())
    ledger.lease.release()
    with pytest.raises(LeaseLost):
        ledger.conversions.note_wait(row, "its turn")
    assert other.conversions.get(row.key).state is State.QUEUED
    other.conversions.move(row, Move(Fact.ACCEPTED, "in time"), clock())
    consistent()


def test_each_write_renews_and_so_does_each_tick(ledger, other, clock, wait, make):
    ledger.lease.hold("a", clock)
    for number in range(10):
        wait(LEASE / 2)
        if number % 2:
            ledger.items.commit("s2", [make.sighting(item_id=f"item-{number}")], [], None, clock())
        else:
            assert ledger.lease.hold("a", clock)
        assert not other.lease.hold("b", clock)


def test_a_clock_that_is_given_is_the_lease_s_time_on_any_database(ledger, database, clock, make):
    """A simulation's time is neither a server's nor a machine's."""
    first, second = (Ledger(open_engine(database), clock=clock) for _ in range(2))
    assert first.lease.hold("a", clock)
    clock.now += LEASE / 2
    first.items.commit("s2", [make.sighting()], [], None, clock())
    assert first.lease.holder() == ("a", clock.now + LEASE)
    clock.now += LEASE * 0.9
    assert not second.lease.hold("b", clock)
    clock.now += LEASE * 0.1
    assert second.lease.hold("b", clock)
    first.close()
    second.close()


def test_an_orderly_end_leaves_nobody_waiting(ledger, other, clock):
    ledger.lease.hold("a", clock)
    ledger.lease.release()
    assert other.lease.holder() is None
    assert other.lease.hold("b", clock)
    ledger.lease.release()  # it has nothing to give back
    assert other.lease.holder()[0] == "b"


def test_others_read_and_insert_meanwhile(ledger, other, clock, make, consistent):
    ledger.lease.hold("a", clock)
    other.items.commit("s2", [make.sighting(lane="backfill")], [], None, clock())
    assert len(ledger.conversions.find()) == 1
    row = other.conversions.get(make.conversion().key)
    ledger.conversions.move(row, Move(Fact.ACCEPTED, "submitted"), clock())
    assert other.conversions.get(row.key).state is State.SUBMITTED
    consistent()


def test_a_followed_backfill_gives_way_to_a_watcher_and_takes_over_when_none_is_there(ledger, other, clock):
    assert ledger.lease.hold("backfill", clock, gives_way=True)
    assert not other.lease.hold("watcher", clock)  # but it has said that it would
    assert not ledger.lease.hold("backfill", clock, gives_way=True)
    assert ledger.lease.holder() is None
    assert other.lease.hold("watcher", clock)
    assert not ledger.lease.hold("backfill", clock, gives_way=True)
    other.lease.release()
    assert ledger.lease.hold("backfill", clock, gives_way=True)


def test_a_wish_is_over_when_the_one_who_had_it_says_nothing_any_more(ledger, other, clock, wait, ends):
    ledger.lease.hold("backfill", clock, gives_way=True)
    other.lease.hold("watcher", clock)
    wait(LEASE)
    assert ledger.lease.hold("backfill", clock, gives_way=True)
    holder, until = ledger.lease.holder()
    assert (holder, ends(until)) == ("backfill", True)


def test_watchers_do_not_give_way_to_each_other(ledger, other, clock, wait):
    ledger.lease.hold("a", clock)
    for _ in range(5):
        wait(LEASE / 3)
        assert not other.lease.hold("b", clock)
        assert ledger.lease.hold("a", clock)
    assert not ledger.lease.hold("backfill", clock, gives_way=True), "two who follow backfills have no wish that counts"


@pytest.mark.parametrize("ahead", [timedelta(minutes=2), timedelta(days=1), timedelta(days=365)], ids=str)
def test_a_lease_that_was_written_by_a_clock_that_ran_ahead_holds_nobody_up(ledger, other, clock, make, database, ahead):
    assert ledger.lease.hold("a", clock)
    now = datetime.now(UTC) if database.startswith("postgresql") else clock.now
    with ledger._engine.begin() as tx:
        tx.execute(t.lease.update().values(until=now + ahead))
    assert other.lease.hold("b", clock)
    with pytest.raises(LeaseLost):
        ledger.items.commit("s2", [make.sighting()], [], None, clock())


@pytest.mark.parametrize("by", [-timedelta(days=1), -timedelta(hours=1), timedelta(days=1)], ids=str)
def test_a_watcher_whose_clock_is_set_keeps_its_lease(ledger, other, clock, database, by):
    assert ledger.lease.hold("a", clock)
    clock.now += by
    assert ledger.lease.hold("a", clock)
    assert not other.lease.hold("b", clock)
    if database.startswith("postgresql"):  # one clock for all: it does not matter how far theirs are apart
        assert not other.lease.hold("b", Clock(clock.now + timedelta(hours=6)))


def test_two_watchers_that_have_host_name_and_process_number_in_common_are_two(tmp_path):
    """As in containers: both are process 1, and the host name may be the service's."""
    document = {
        "ledger": f"sqlite:///{tmp_path}/ledger.db", "recipe": {"output": f"{tmp_path}/outputs/{{item_id}}.zarr"},
        "sources": [{"name": "s2", "api": "https://stac.example", "collection": "c"}],
        "engine": {"kind": "local", "folder": f"{tmp_path}/runs"},
    }  # fmt: skip
    (tmp_path / "stac-watch.yaml").write_text(json.dumps(document))
    config = load(tmp_path / "stac-watch.yaml", {})
    first, second = (composition.build(config, {}, lambda _: False) for _ in range(2))
    assert first.ledger.lease.hold(first.holder, first.now)
    assert not second.ledger.lease.hold(second.holder, second.now)
    for parts in (first, second):
        parts.ledger.close()


def test_a_watcher_outlives_a_ledger_that_is_away(tmp_path, make):
    """PostgreSQL is restarted, or somebody locks the file: what stops with it goes on with it."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = Ledger(open_engine(url))
    ledger.prepare()
    moment = Clock(make.now)
    parts = Parts(
        sources=(), recipe=Recipe(), limits=Limits(), ledger=ledger, engine=NoEngine(), catalogs={}, read_marker=lambda _: None,
        now=moment, wait=lambda _: False, rng=random.Random(1), holder="a",
    )  # fmt: skip
    watcher = Watcher(parts)
    assert watcher.turn().problems == {}
    sa_event.listen(ledger._engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=0"))
    ledger._engine.dispose()  # connections that are open wait for 30 s
    lock = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    moment.now += LEASE / 2
    tick = watcher.turn()
    assert "did not answer" in tick.problems["ledger"].message
    lock.execute("ROLLBACK")
    lock.close()
    assert watcher.turn().ailing == {}
    ledger.close()


class NoEngine:
    """Has room and no runs."""

    def runs(self, _keys):
        return []

    def headroom(self):
        return 1
