"""A PostgreSQL ledger in bad company: clients that stand still, locks that are not given back."""

import time
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, text

from stac_watch.ledger.copying import copy
from stac_watch.ledger.database import WRITE_LOCK, Waits, open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.session import Busy
from stac_watch.model.errors import Temporary

SHORT = Waits(lock=0.3, idle=0.5)


@pytest.fixture
def url(postgres, request):
    schema = f"held_{abs(hash(request.node.name)) % 10**9}"
    postgres.sql(f"CREATE SCHEMA {schema}")
    return postgres.url(schema=schema)


@pytest.fixture
def ledger(url):
    ledger = Ledger(open_engine(url, SHORT))
    ledger.prepare()
    yield ledger
    ledger.close()


@pytest.fixture
def stranger(url):
    """A client without our time-outs that has the writers' lock, and says nothing any more."""
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})"))
        yield connection
    engine.dispose()


def now():
    return datetime.now(UTC)


def test_who_stands_still_with_the_lock_makes_others_say_so_and_go_on_later(ledger, stranger, make):
    began = time.monotonic()
    with pytest.raises(Busy, match="lock timeout") as caught:
        ledger.items.commit("s2", [make.sighting()], [], None, make.now)
    assert time.monotonic() - began < 5
    assert "transaction" in caught.value.hint
    with pytest.raises(Temporary):
        ledger.lease.hold("a", now)
    assert ledger.conversions.find() == []  # who reads waits for nobody
    stranger.rollback()
    assert ledger.items.commit("s2", [make.sighting()], [], None, make.now).admitted == 1


def test_a_ledger_that_is_up_to_date_opens_while_somebody_stands_still(ledger, stranger, url):
    other = Ledger(open_engine(url, SHORT))
    other.prepare()
    assert other.conversions.find() == []
    other.close()


def test_a_new_ledger_does_not_wait_for_ever_to_be_made(postgres, stranger):
    postgres.sql("CREATE SCHEMA held_new")
    with pytest.raises(Busy, match="did not answer"):
        Ledger(open_engine(postgres.url(schema="held_new"), SHORT)).prepare()


def test_a_client_of_ours_that_stands_still_in_a_transaction_is_ended_by_the_server(ledger, url, make):
    still = Ledger(open_engine(url, SHORT))
    with still._engine.connect() as connection:
        connection.execute(text("SELECT 1"))  # it has the writers' lock, and its host loses its power
        deadline = time.monotonic() + 10
        while True:
            try:
                assert ledger.items.commit("s2", [make.sighting()], [], None, make.now).admitted == 1
                break
            except Busy:
                assert time.monotonic() < deadline
        connection.invalidate()
    still.close()


def test_a_server_that_lost_its_network_is_given_up_within_a_minute(url):
    engine = open_engine(url)
    with engine.connect() as connection:
        asked = connection.connection.dbapi_connection.info.get_parameters()
        limits = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in (
            "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout",
        )]  # fmt: skip
    engine.dispose()
    assert int(asked["keepalives_idle"]) + int(asked["keepalives_interval"]) * int(asked["keepalives_count"]) <= 60
    assert int(asked["tcp_user_timeout"]) <= 60_000
    assert limits == ["10s", "5min", "30s"]


def test_a_ledger_moves_to_postgresql_and_back_and_goes_on(url, make, tmp_path):
    """A pilot on SQLite becomes production: what is copied is used, and numbers go on behind the last one."""
    small, back = f"sqlite:///{tmp_path}/small.db", f"sqlite:///{tmp_path}/back.db"
    first = Ledger(open_engine(small))
    first.prepare()
    first.items.commit("s2", [make.sighting(item_id=f"item-{n}") for n in range(5)], [], None, make.now)
    first.close()
    for source, target in ((small, url), (url, back)):
        engines = open_engine(source), open_engine(target)
        try:
            done = copy(*engines, make.now, chunk=2)
        finally:
            for engine in engines:
                engine.dispose()
        assert done.complete
        assert (done.rows["item"], done.rows["outbox"], done.rows["history"]) == (5, 5, 5)
    for moved in (url, back):
        ledger = Ledger(open_engine(moved))
        ledger.prepare(upgrade=False)
        assert ledger.items.commit("s2", [make.sighting(item_id="one-more")], [], None, make.now).admitted == 1
        assert len(ledger.conversions.find()) == 6
        ledger.close()
