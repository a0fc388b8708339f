"""One database: reads beside anybody; writes one at a time, and of a watcher only while the lease is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, Table, update
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, InternalError, OperationalError

from stac_watch.ledger.records import Moved
from stac_watch.model.announcement import Audience
from stac_watch.model.errors import CannotWrite, Defect, StacWatchError, Temporary, Unavailable, room

CHUNK = 5_000  # values in one IN list; SQLite takes 32,766, PostgreSQL 65,535
NO_DATABASE = "file is not a database"
DAMAGED = ("malformed", NO_DATABASE, "invalid page", "could not read block", "data corrupted")
UNWRITABLE = ("full", "readonly", "read-only", "No space", "I/O error")
BUSY = ("database is locked", "lock timeout", "statement timeout", "starting up", "too many clients", "remaining connection slots")
MOVED = "moved"  # what a transaction has moved so far, kept with its connection

PUBLISHES = "publishes"
ANNOUNCES = "announces"


class StaleState(Defect):
    """Somebody else moved the conversion first; what was decided about it no longer holds."""


class Busy(Temporary):
    """Another client of the database works longer than is waited for, or stands still inside a transaction."""


class LeaseLost(Temporary):
    """Another watcher took the ledger over, because this one said nothing for too long."""


class Session:
    """Transactions of one database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._reads = engine.execution_options(reads=True)
        self._listeners: list[Callable[[Moved], None]] = []
        self.publishes = False  # whether what becomes done is to be registered
        self.audience: Audience | None = None  # who is told of outputs; None = nobody
        self.guard: Callable[[Connection], None] = lambda _: None  # of a watcher: renews its lease, or says that it is lost

    def listen(self, listener: Callable[[Moved], None]) -> None:
        """Tells a listener of each move of this process that was committed, in the thread that moved it."""
        self._listeners.append(listener)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yields a connection for reading, beside whoever writes."""
        with answering(self.engine), self._reads.connect() as tx:
            yield tx

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yields one transaction; of a watcher only as long as the ledger is its own."""
        with self.begin() as tx:
            self.guard(tx)
            yield tx

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Yields one transaction that needs no lease: the lease's own."""
        with answering(self.engine), self.engine.begin() as tx:
            moved: list[Moved] = []
            tx.info.update({MOVED: moved, PUBLISHES: self.publishes, ANNOUNCES: self.audience})
            yield tx
        for entry in moved:  # only now: what was rolled back did not happen
            for listener in self._listeners:
                listener(entry)

    def bring_forward(self, table: Table, waits: ColumnElement[bool], now: datetime, slack: timedelta) -> None:
        """Makes due which of the rows that wait do so for a time that was set by a clock that was further."""
        with self.write() as tx:
            tx.execute(update(table).where(waits, table.c.due > now + slack).values(due=now))


@contextmanager
def answering(engine: Engine) -> Iterator[None]:
    """Turns a database that cannot answer, or cannot take what is written, into an error of ours."""
    try:
        yield
    except DatabaseError as error:
        found = trouble(engine, error)
        if found is None:
            raise
        raise found from error
    except InterfaceError as error:
        raise _silent(engine, error) from error


def trouble(engine: Engine, error: DBAPIError) -> StacWatchError | None:
    """Returns what an error of the database means; None where it is a mistake of ours, in SQL or in values."""
    said = _said(error)
    if any(word in said for word in DAMAGED):
        hint = "stop the watcher, keep the file, and put a backup in its place; what happened since is found again"
        return Unavailable(f"the ledger {where(engine)} is damaged: {said}", hint=hint)
    if isinstance(error, OperationalError) and any(word in said for word in UNWRITABLE):
        file = engine.url.database if engine.dialect.name == "sqlite" and "full" in said else None
        hint = f"{room(file)}; free space" if file else "free space there, or check its mount"
        return CannotWrite(f"cannot write the ledger {where(engine)}: {said}", hint=hint)
    if isinstance(error, OperationalError) and any(word in said for word in BUSY):
        hint = "another program of ours works, or stands still inside a transaction; it is tried again"
        return Busy(f"the ledger {where(engine)} did not answer: {said}", hint=hint)
    if isinstance(
        error, OperationalError | InterfaceError | InternalError
    ):  # the latter two: a connection that was cut, a failover
        return _silent(engine, error)
    return None


def _silent(engine: Engine, error: DBAPIError) -> Temporary:
    return Temporary(f"the ledger {where(engine)} did not answer: {_said(error)}", hint="it is tried again")


def where(engine: Engine) -> str:
    """Returns a ledger's URL as people may see it: without its password."""
    return engine.url.render_as_string()


def _said(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())


def chunked(tx: Connection, query: Select[Any], values: Sequence[str], **asked: object) -> Iterator[Row[Any]]:
    """Yields the rows that have one of the values, asked for in parts that a database takes."""
    for start in range(0, len(values), CHUNK):
        yield from tx.execute(query, {**asked, "values": values[start : start + CHUNK]})
