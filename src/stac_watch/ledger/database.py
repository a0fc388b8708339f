"""Opens the ledger's database: SQLite in WAL mode (default), or PostgreSQL."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, make_url
from sqlalchemy import event as sa_event
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError

from stac_watch.model.errors import CannotWrite, ConfigError

WRITE_LOCK = 0x57AC  # any number, the same for all; PostgreSQL's advisory locks are per database
TCP = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""libpq's settings: a server that lost its power or network is given up after half a minute, not after the kernel's hours."""


@dataclass(frozen=True)
class Waits:
    """How long PostgreSQL lets a client of ours wait, in seconds."""

    lock: float = 10  # for who writes; longer than any transaction of ours but a migration
    statement: float = 300
    idle: float = 30  # inside a transaction, saying nothing: the server ends it, for everybody else waits for its lock


def open_engine(url: str, waits: Waits = Waits(), *, asks: bool = False) -> Engine:
    """Opens a SQLite or PostgreSQL database. For who only `asks` no file is made, and one that may not be written is read as it is.

    Raises:
        ConfigError: the URL is not one of the two, or there is nothing to ask.
        CannotWrite: the folder of a SQLite file cannot be made.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        shown = url.partition(":")[0][:40]  # what follows may hold a password, whatever else is wrong with it
        raise ConfigError(f"ledger '{shown}:…' is not a database URL", hint="write sqlite:///var/stac-watch.db") from None
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(url, parsed.database, asks=asks)
    try:
        return _open_postgresql(url, waits)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(
            f"ledger {parsed.render_as_string()!r}: {error}",
            hint="use sqlite:///FILE, or postgresql+psycopg://… with the extra `stac-watch[postgresql]`",
        ) from None


def has_password(url: str) -> bool:
    """Tells whether a database URL holds a password."""
    try:
        return bool(make_url(url).password)
    except ArgumentError:  # what it is instead, `open_engine` says
        return False


def shown_url(url: str) -> str:
    """Returns a database URL as people may see it: without its password."""
    return make_url(url).render_as_string(hide_password=True)


def _open_postgresql(url: str, waits: Waits) -> Engine:
    # the values that a statement was given are ids of items: an error of ours is a sentence, and not a dump of them
    engine = create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args={"connect_timeout": 10, **TCP})

    @sa_event.listens_for(engine, "connect")
    def _limit(connection: Any, _record: Any) -> None:  # noqa: ANN401  # DBAPI objects
        limits = {
            "lock_timeout": waits.lock, "statement_timeout": waits.statement, "idle_in_transaction_session_timeout": waits.idle,
        }  # fmt: skip
        connection.execute("; ".join(f"SET {name} = {seconds * 1000:.0f}" for name, seconds in limits.items()))
        connection.commit()  # else the first rollback would take them back

    @sa_event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # one writes at a time, as on SQLite: what a transaction read is what it changes, and no two wait for each other
        if connection.dialect.name == "postgresql" and not connection.get_execution_options().get("reads", False):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")

    return engine


def _open_sqlite(url: str, database: str | None, *, asks: bool) -> Engine:
    if not database or database == ":memory:":
        raise ConfigError(
            f"ledger '{shown_url(url)}' names no file: it would be forgotten", hint="write sqlite:///var/stac-watch.db"
        )
    path = Path(database).absolute()
    if asks and not (path.exists() and path.stat().st_size):  # an empty file is none yet: it would be made one by being looked at
        raise ConfigError(
            f"there is no ledger at {path}", hint="is it the right configuration (--config)? `stac-watch watch` makes the ledger"
        )
    _make_folder(path.parent)
    as_it_is = asks and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
    # connections stay open: the last one to close writes the whole WAL into the file, which was a third of a watcher's work
    place = _read_only(path) if as_it_is else url
    engine = create_engine(place, max_overflow=-1, hide_parameters=True, connect_args={"timeout": 30})

    @sa_event.listens_for(engine, "connect")
    def _configure(connection: Any, record: Any) -> None:  # noqa: ANN401  # DBAPI objects
        record.info["file"] = _file(path)
        connection.isolation_level = None  # SQLAlchemy's recipe: we say BEGIN ourselves
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000")[as_it_is:]:
            connection.execute(f"PRAGMA {pragma}")

    @sa_event.listens_for(engine, "checkout")
    def _check(_connection: Any, record: Any, _proxy: Any) -> None:  # noqa: ANN401  # SQLAlchemy's events are untyped
        if record.info["file"] != _file(path):  # a backup was put in its place: what we wrote would be in a file without a name
            raise DisconnectionError

    @sa_event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # a deferred transaction that later wants to write fails at once when another wrote meanwhile, whatever the busy timeout;
        # one that only reads needs no lock, and must not wait for a writer's: `status` beside a watcher
        reads = connection.get_execution_options().get("reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot make the ledger's folder {folder}: {error.strerror}", hint="choose another `ledger:`") from error


def _read_only(path: Path) -> str:
    """Returns the URL of a file that may not be written; without a write-ahead log nobody is writing it, and it needs no lock."""
    alone = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    return f"sqlite:///file:{quote(str(path))}?mode=ro{alone}&uri=true"


def _file(path: Path) -> tuple[int, int] | None:
    """Returns which file a path leads to now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
