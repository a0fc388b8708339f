"""A ledger moves to another database and back, whole, or not at all."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, text

from stac_watch.ledger import schema
from stac_watch.ledger.copying import copy
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.session import Busy
from stac_watch.model.errors import ConfigError, InputError

NOW = datetime(2026, 11, 30, tzinfo=UTC)
LANDED = Path(__file__).with_name("ledger-3.sql")


@pytest.fixture
def filled(tmp_path):
    """A ledger with every state, as version 0.1.0 wrote it, brought up to date."""
    file = tmp_path / "ledger.db"
    with closing(sqlite3.connect(file)) as db:
        db.executescript(LANDED.read_text())
    ledger = Ledger(open_engine(f"sqlite:///{file}"))
    ledger.prepare()
    ledger.close()
    return f"sqlite:///{file}"


@pytest.fixture
def engine():
    opened = []

    def open_(url):
        opened.append(open_engine(url))
        return opened[-1]

    yield open_
    for one in opened:
        one.dispose()


def rows(url):
    """Everything that a database of ours holds, as it stores it, by table; an upgraded one has its columns in another order."""
    other, found = create_engine(url, poolclass=NullPool), {}
    with other.connect() as db:
        for table in schema.metadata.sorted_tables:
            kept = db.execute(text(f"SELECT * FROM {table.name}")).mappings()  # a name of ours
            found[table.name] = sorted(str(sorted((name, str(value)) for name, value in row.items())) for row in kept)
    return found


def test_every_row_is_copied_as_it_is(filled, tmp_path, engine):
    target = f"sqlite:///{tmp_path}/copy.db"
    told = []
    done = copy(engine(filled), engine(target), NOW, show=lambda *said: told.append(said))
    assert done.complete
    assert rows(target) == rows(filled)
    assert done.rows["conversion"] > 5
    assert ("conversion", done.rows["conversion"], done.rows["conversion"]) in told
    ledger = Ledger(engine(target))
    ledger.prepare(upgrade=False)  # a ledger like any other


def test_a_copy_that_was_stopped_is_no_ledger_and_goes_on(filled, tmp_path, engine):
    target = f"sqlite:///{tmp_path}/copy.db"
    calls = 0

    def stop(_seconds):
        nonlocal calls
        calls += 1
        return calls % 3 == 0

    ends = [copy(engine(filled), engine(target), NOW, wait=stop, chunk=2)]
    with pytest.raises(ConfigError, match="unfinished copy"):
        Ledger(engine(target)).prepare()
    while not ends[-1].complete:
        ends.append(copy(engine(filled), engine(target), NOW, wait=stop, chunk=2))
    assert len(ends) > 3
    assert rows(target) == rows(filled)


def test_what_was_written_between_two_calls_is_seen(filled, tmp_path, engine):
    target = f"sqlite:///{tmp_path}/copy.db"
    told = []
    stopped = copy(
        engine(filled), engine(target), NOW, wait=lambda _: told[-1][0] == "item", show=lambda *said: told.append(said), chunk=2
    )
    assert not stopped.complete
    with closing(sqlite3.connect(filled.removeprefix("sqlite:///"))) as db, db:
        db.execute("UPDATE item SET tile = 'T01AAA'")
    with pytest.raises(InputError, match="table item is not as in"):
        copy(engine(filled), engine(target), NOW)
    with pytest.raises(ConfigError, match="unfinished copy"):
        Ledger(engine(target)).prepare()


def test_a_ledger_that_is_watched_is_not_copied(filled, tmp_path, engine):
    ledger = Ledger(engine(filled))
    assert ledger.lease.hold("host:1", lambda: NOW)
    with pytest.raises(Busy, match="host:1 watches"):
        copy(engine(filled), engine(f"sqlite:///{tmp_path}/copy.db"), NOW)
    assert copy(engine(filled), engine(f"sqlite:///{tmp_path}/copy.db"), NOW + timedelta(minutes=1)).complete


def test_nothing_is_copied_over_what_is_there(filled, tmp_path, engine):
    other = tmp_path / "other.db"
    Ledger(engine(f"sqlite:///{other}")).prepare()
    with pytest.raises(ConfigError, match="is a ledger already"):
        copy(engine(filled), engine(f"sqlite:///{other}"), NOW)
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as db:
        db.execute("CREATE TABLE theirs (n)")
    with pytest.raises(ConfigError, match="holds other tables"):
        copy(engine(filled), engine(f"sqlite:///{foreign}"), NOW)
    with pytest.raises(ConfigError, match="is no ledger of this version"):
        copy(engine(f"sqlite:///{tmp_path}/nothing.db"), engine(f"sqlite:///{tmp_path}/copy.db"), NOW)


def test_the_verb_takes_no_password_and_says_what_is_there(filled, tmp_path, stac_watch):
    target = tmp_path / "copy.db"
    (tmp_path / "to").write_text(f"sqlite:///{target}\n")
    refused = stac_watch("ledger", "copy", filled, "postgresql+psycopg://me:secret@db/ledger")
    assert refused.code == 78
    assert "secret" not in refused.said
    assert "@FILE" in refused.err
    done = stac_watch("ledger", "copy", "env:FROM_URL", f"@{tmp_path}/to", FROM_URL=filled)
    assert done.code == 0, done.said
    assert "every row was copied" in done.out
    assert rows(f"sqlite:///{target}") == rows(filled)
