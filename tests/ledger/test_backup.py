"""A ledger is copied while it is written to, and its own disk never pays for it."""

import sqlite3
import threading
from contextlib import closing

import pytest

from stac_watch.ledger.backup import back_up, copies
from stac_watch.model.errors import CannotWrite, InputError, StacWatchError


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "stac-watch.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO rows (text) VALUES (?)", [("x" * 1000,)] * 500)
        connection.commit()
    return path


def rows(path):
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT count(*), min(length(text)) FROM rows").fetchone()


def test_it_is_whole_while_somebody_writes(database, tmp_path):
    stop = threading.Event()

    def write():
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            while not stop.is_set():
                connection.execute("INSERT INTO rows (text) VALUES (?)", ("y" * 1000,))
                connection.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = back_up(database, tmp_path / "copies", "1", 3)
    finally:
        stop.set()
        writer.join()
    count, shortest = rows(made.path)
    assert count >= 500
    assert shortest == 1000
    assert [p.name for p in (tmp_path / "copies").iterdir()] == ["stac-watch-1.db"], "one file, nothing beside it"


def test_the_last_ones_stay_and_what_a_killed_call_left_goes(database, tmp_path):
    folder = tmp_path / "copies"
    folder.mkdir()
    (folder / "stac-watch-0.db.part").write_bytes(b"half")
    (folder / "theirs.db").write_bytes(b"x")
    made = [back_up(database, folder, str(n), 2) for n in range(1, 5)]
    assert [m.removed for m in made] == [(), (), ("stac-watch-1.db",), ("stac-watch-2.db",)]
    assert {p.name for p in folder.iterdir()} == {"stac-watch-3.db", "stac-watch-4.db", "theirs.db"}


def test_without_room_older_copies_go_and_the_last_one_never(database, tmp_path):
    """A disk of a size: what the copies have is what is not free."""
    folder, size = tmp_path / "copies", database.stat().st_size

    def disk(total):
        return lambda _: total - sum(p.stat().st_size for p in folder.glob("*.db"))

    for name in ("1", "2", "3"):
        back_up(database, folder, name, 3)
    made = back_up(database, folder, "4", 3, free=disk(int(size * 3.5)))
    assert made.removed == ("stac-watch-1.db", "stac-watch-2.db")
    with pytest.raises(CannotWrite, match="no room for a backup") as error:
        back_up(database, folder, "5", 3, free=disk(int(size * 1.5)))
    assert "volume of their own" in error.value.hint
    assert [p.name for p in copies(folder)] == ["stac-watch-4.db"]
    assert rows(copies(folder)[0])[0] == 500


def test_on_the_ledgers_own_disk_as_much_must_stay_free_again(database, tmp_path):
    size = database.stat().st_size
    with pytest.raises(CannotWrite, match="on the ledger's own disk"):
        back_up(database, tmp_path, "1", 3, free=lambda _: int(size * 1.5))
    assert copies(tmp_path) == [], "nothing was written"


def test_a_damaged_ledger_leaves_the_copies_that_are_there(database, tmp_path):
    folder = tmp_path / "copies"
    back_up(database, folder, "1", 1)
    with database.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 8192)
    with pytest.raises(StacWatchError) as error:
        back_up(database, folder, "2", 1)
    assert "damaged" in error.value.message
    assert [p.name for p in folder.iterdir()] == ["stac-watch-1.db"]


def test_a_ledger_that_is_not_there_is_no_empty_copy(tmp_path):
    with pytest.raises(InputError, match="there is no ledger"):
        back_up(tmp_path / "none.db", tmp_path / "copies", "1", 3)
    assert not (tmp_path / "copies").exists()
