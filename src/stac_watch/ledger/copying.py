"""Copies a ledger into another database, SQLite or PostgreSQL, row by row as it is, and proves that the copy is the same.

Until the last row is there and compared, the copy has the schema version `UNFINISHED`, which every verb refuses; the same call
again goes on where it ended. While a call lasts nobody can write into the source; what was written between two calls is seen when
both sides are compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, RowMapping, Table

from stac_watch.ledger import schema as t
from stac_watch.ledger.columns import Stamp
from stac_watch.ledger.migrations import UNFINISHED, create, is_current, version_of
from stac_watch.ledger.session import Busy, answering, where
from stac_watch.model.errors import ConfigError, InputError

_EMPTY = "name an empty database, or a file that is not there yet"
CHUNK = 2_000  # rows in one transaction of the target
PLACES = sa.Table(
    "copying",
    sa.MetaData(),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("position", sa.JSON, nullable=False),  # primary key of the last row that is there
)
"""How far a copy is; it goes with the copy's end."""

type Show = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Copied:
    """What a call did."""

    rows: dict[str, int]  # table -> rows of the copy
    complete: bool  # whether everything is there and was compared; else the same call goes on


def copy(
    source: Engine,
    target: Engine,
    now: datetime,
    *,
    wait: Callable[[float], bool] = lambda _: False,
    show: Show = lambda *_: None,
    chunk: int = CHUNK,
) -> Copied:
    """Copies every row, and compares both sides in the end.

    Args:
        source: a ledger of the current schema, which no watcher holds.
        target: an empty database, or an unfinished copy of the same ledger.
        now: the time, to know whether a watcher holds the source.
        wait: called between two transactions; True when asked to stop.
        chunk: rows in one transaction of the target.
        show: told of a table, how many of its rows are there, and how many there will be.

    Raises:
        ConfigError: the source is no ledger of this version; the target holds a ledger, or something else.
        Busy: a watcher runs on the source, or another client writes and does not end.
        InputError: the copy is not the same as its source: that was written meanwhile.
    """
    tables = [_raw(table) for table in t.metadata.sorted_tables if table.name != t.schema_version.name]
    with answering(source), answering(target), source.begin() as rows:  # a transaction that writes: nobody else does meanwhile
        if not is_current(rows):
            raise ConfigError(
                f"{where(source)} is no ledger of this version", hint="`stac-watch watch` makes or upgrades one first"
            )
        _check_free(rows, now)
        if rows.dialect.name == "postgresql":  # we say nothing to it while the other side writes
            rows.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        places = _begin(target)
        for table in tables:
            if not _copy_table(rows, target, table, _parts(rows, table, places.get(table.name), chunk), wait, show):
                return Copied(_counts(target, tables), complete=False)
        _compare(rows, source, target, tables, show)
    _finish(target, tables)
    return Copied(_counts(target, tables), complete=True)


def _check_free(rows: Connection, now: datetime) -> None:
    held = rows.execute(sa.select(t.lease.c.holder, t.lease.c.until).where(t.lease.c.until > now)).first()
    if held is not None:
        raise Busy(f"{held.holder} watches this ledger", hint="stop the watcher; half a minute later its lease is over in any case")


def _begin(target: Engine) -> dict[str, list[Any]]:
    """Makes the tables of an unfinished copy, or returns how far one is."""
    with target.begin() as tx:
        found = version_of(tx)
        if found is None:
            if there := sa.inspect(tx).get_table_names():
                said = f"{where(target)} holds other tables ({', '.join(sorted(there)[:3])})"
                raise ConfigError(said, hint=_EMPTY)
            create(tx)
            PLACES.create(tx)
            tx.execute(sa.insert(t.schema_version).values(version=UNFINISHED))
            return {}
        if found != UNFINISHED:
            raise ConfigError(
                f"{where(target)} is a ledger already", hint="name an empty database, or a file that is not there yet"
            )
        return {row.name: row.position for row in tx.execute(sa.select(PLACES))}


def _copy_table(
    rows: Connection, target: Engine, table: Table, parts: Iterator[list[RowMapping]], wait: Callable[[float], bool], show: Show
) -> bool:
    """Copies what is not there yet; False when asked to stop."""
    total = _count(rows, table)
    with target.connect() as tx:
        done = _count(tx, table)
    for part in parts:
        with target.begin() as tx:
            tx.execute(sa.insert(table), [dict(row) for row in part])
            tx.execute(sa.delete(PLACES).where(PLACES.c.name == table.name))
            position = [part[-1][column.name] for column in table.primary_key]
            tx.execute(sa.insert(PLACES).values(name=table.name, position=position))
        done += len(part)
        show(table.name, done, total)
        if wait(0):
            return False
    return True


def _parts(rows: Connection, table: Table, after: Sequence[Any] | None = None, chunk: int = CHUNK) -> Iterator[list[RowMapping]]:
    """Yields the rows behind a primary key, in parts that fit into memory."""
    key = list(table.primary_key)
    query = sa.select(table).order_by(*key).limit(chunk)
    while True:
        behind = sa.tuple_(*key) > sa.tuple_(*after) if after is not None else sa.true()
        part = list(rows.execute(query.where(behind)).mappings())
        if part:
            yield part
        if len(part) < chunk:
            return
        after = [part[-1][column.name] for column in key]


def _compare(rows: Connection, source: Engine, target: Engine, tables: Sequence[Table], show: Show) -> None:
    """Raises unless every table has the same rows on both sides, whatever their order."""
    with target.execution_options(reads=True).connect() as copied:
        for table in tables:
            there = _sum(copied, table)
            if _sum(rows, table) != there:
                raise InputError(
                    f"{where(target)}: table {table.name} is not as in {where(source)}, which was written since the copy began",
                    hint="remove the copy, and begin again while no watcher runs",
                )
            show(f"{table.name} compared", there[0], there[0])


def _sum(rows: Connection, table: Table) -> tuple[int, int]:
    """Returns how many rows there are and the sum of their digests: databases order texts in different ways."""
    count = total = 0
    for part in _parts(rows, table):
        for row in part:
            text = json.dumps(list(row.values()), sort_keys=True, default=_text)
            total += int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())
            count += 1
    return count, total % 2**128


def _text(value: Any) -> str:  # noqa: ANN401  # a timestamp or bytes
    return bytes(value).hex() if isinstance(value, bytes | memoryview) else str(value)


def _finish(target: Engine, tables: Sequence[Table]) -> None:
    """Makes the copy a ledger: numbers go on behind the last one, and the version is the true one."""
    with target.begin() as tx:
        if tx.dialect.name == "postgresql":
            for table in tables:
                for column in table.primary_key:
                    if column.autoincrement is True and isinstance(column.type, sa.Integer):
                        last = tx.execute(sa.select(sa.func.max(column))).scalar() or 0
                        named = sa.func.pg_get_serial_sequence(table.name, column.name)
                        tx.execute(sa.select(sa.func.setval(named, last + 1, False)))
        PLACES.drop(tx)
        tx.execute(sa.update(t.schema_version).values(version=t.SCHEMA_VERSION))


def _raw(table: Table) -> Table:
    """Returns a table whose columns are read and written as they are stored: packed events stay packed."""
    raw = table.to_metadata(sa.MetaData())
    for column in raw.columns:
        if isinstance(column.type, sa.TypeDecorator) and not isinstance(column.type, Stamp):
            column.type = column.type.impl_instance
        if isinstance(column.type, sa.JSON):
            column.type = sa.JSON(none_as_null=True)
    return raw


def _count(rows: Connection, table: Table) -> int:
    return rows.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _counts(engine: Engine, tables: Sequence[Table]) -> dict[str, int]:
    with engine.connect() as rows:
        return {table.name: _count(rows, table) for table in tables}
