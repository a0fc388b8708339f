"""The demo catalog's memory: items and collections in SQLite, in a file or in memory.

A document that becomes visible later does so when a caller says what time it is.

One connection behind a lock: SQLite answers in microseconds to milliseconds, and tests put from one thread while the server reads.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from cql2 import Expr

from stac_watch.demo.filters import TYPED, Dialect, Json, Sql, stamp_micros, to_micros
from stac_watch.demo.items import Document, make_collection
from stac_watch.model.errors import CannotWrite, InputError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections (id TEXT PRIMARY KEY, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    seq INTEGER PRIMARY KEY, collection TEXT NOT NULL, id TEXT NOT NULL,
    updated INTEGER, updated_text TEXT, datetime INTEGER, starts INTEGER, ends INTEGER,
    west REAL, south REAL, east REAL, north REAL, core TEXT NOT NULL, doc TEXT NOT NULL,
    UNIQUE (collection, id));
CREATE INDEX IF NOT EXISTS items_id ON items (id);
CREATE INDEX IF NOT EXISTS items_starts ON items (starts);
CREATE INDEX IF NOT EXISTS items_updated ON items (updated);
CREATE INDEX IF NOT EXISTS items_updated_text ON items (updated_text);
CREATE INDEX IF NOT EXISTS items_datetime ON items (datetime);
CREATE TABLE IF NOT EXISTS pending (
    seq INTEGER PRIMARY KEY, visible INTEGER NOT NULL, collection TEXT NOT NULL, id TEXT NOT NULL, doc TEXT);
CREATE INDEX IF NOT EXISTS pending_visible ON pending (visible);
"""
_UPSERT = "INSERT OR REPLACE INTO items VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM pending WHERE collection = ? AND id = ?"


@dataclass(frozen=True)
class Query:
    """One search: what must hold, in which order, from which position."""

    collections: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    bbox: tuple[float, ...] = ()
    intersects: Document | None = None
    interval: tuple[datetime | None, datetime | None] = (None, None)
    filter: Json | None = None
    sortby: tuple[tuple[str, bool], ...] = ()  # property, descending
    limit: int = 10
    after: tuple[Any, ...] = ()  # sort values of the last item of the page before
    dialect: Dialect = TYPED


@dataclass(frozen=True)
class Slice:
    """The documents of one page as JSON text, their keys, and the position after the last of them (empty: no more)."""

    documents: list[str]
    keys: list[tuple[str, str]]
    after: tuple[Any, ...]


class Store:
    """Items and collections; safe to use from several threads."""

    def __init__(self, path: Path | None = None) -> None:
        """Opens or makes the database at `path`; None keeps it in memory.

        Raises:
            CannotWrite: the folder or the file cannot be written, or the file is no database.
        """
        self._lock = threading.RLock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(":memory:" if path is None else path, check_same_thread=False, isolation_level=None)
            # WAL and no fsync: a demo's catalog may lose its last second with the machine, not with the process.
            self._db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA case_sensitive_like=ON; {_SCHEMA}")
        except (OSError, sqlite3.Error) as error:
            raise CannotWrite(f"cannot keep the catalog in {path}: {error}", hint="choose a file that can be written") from error
        self._db.create_function("instant", 1, stamp_micros, deterministic=True)
        self._db.create_function("cql2_matches", 2, _matches, deterministic=True)

    def close(self) -> None:
        """Closes the database; the store cannot be used afterwards."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put_collection(self, document: Document) -> None:
        """Adds or replaces a collection."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO collections VALUES (?, ?)", (document["id"], json.dumps(document)))

    def collections(self) -> list[Document]:
        """Returns all collections, by id."""
        return [json.loads(doc) for (doc,) in self._rows("SELECT doc FROM collections ORDER BY id")]

    def collection(self, name: str) -> Document | None:
        """Returns one collection, or None."""
        return next((json.loads(doc) for (doc,) in self._rows("SELECT doc FROM collections WHERE id = ?", name)), None)

    def put(self, item: Document, *, visible: datetime | None = None) -> None:
        """Adds or replaces an item; with `visible`, only from then on, and what it replaces is shown until then."""
        self.put_many([item], visible=visible)

    def put_many(self, items: Iterable[Document], *, visible: datetime | None = None) -> None:
        """Adds or replaces items in one transaction; a collection that is not known is made.

        Raises:
            InputError: an item without id or collection.
        """
        items = list(items)
        for item in items:
            if not isinstance(item.get("id"), str) or not isinstance(item.get("collection"), str):
                raise InputError(f"an item needs id and collection, this one has {item.get('id')!r} and {item.get('collection')!r}")
        with self._lock, self._transaction():
            known = {name for (name,) in self._db.execute("SELECT id FROM collections")}
            for name in sorted({item["collection"] for item in items} - known):
                self.put_collection(make_collection(name))
            if visible is None:
                self._db.executemany(_FORGET, [(item["collection"], item["id"]) for item in items])  # newer than what waits
                self._db.executemany(_UPSERT, [_row(item) for item in items])
            else:
                due = to_micros(visible)
                rows = [(due, item["collection"], item["id"], json.dumps(item)) for item in items]
                self._db.executemany("INSERT INTO pending (visible, collection, id, doc) VALUES (?, ?, ?, ?)", rows)

    def delete(self, collection: str, item_id: str) -> bool:
        """Removes an item, also one that is not visible yet; says whether there was one."""
        with self._lock, self._transaction():
            waiting = self._db.execute(_FORGET, (collection, item_id)).rowcount
            visible = self._db.execute("DELETE FROM items WHERE collection = ? AND id = ?", (collection, item_id)).rowcount
        return bool(waiting or visible)

    def get(self, collection: str, item_id: str) -> Document | None:
        """Returns one visible item as it was put, or None."""
        rows = self._rows("SELECT doc FROM items WHERE collection = ? AND id = ?", collection, item_id)
        return next((json.loads(doc) for (doc,) in rows), None)

    def count(self, collection: str | None = None) -> int:
        """Returns the number of visible items."""
        rows = self._rows("SELECT count(*) FROM items WHERE ? IS NULL OR collection = ?", collection, collection)
        return int(rows[0][0])

    def publish_due(self, now: datetime) -> None:
        """Makes visible what was put for a time that has come, in the order in which it was put."""
        with self._lock:
            due = self._rows("SELECT seq, doc FROM pending WHERE visible <= ? ORDER BY visible, seq", to_micros(now))
            if due:
                with self._transaction():
                    self._db.executemany(_UPSERT, [_row(json.loads(doc)) for _, doc in due])
                    self._db.executemany("DELETE FROM pending WHERE seq = ?", [(seq,) for seq, _ in due])

    def search(self, query: Query) -> Slice:
        """Returns one page of what is visible now, from one snapshot.

        Raises:
            UnusableFilterError: a property name or a literal that cannot be used.
            FilterFailedError: a filter that makes this kind of server fail.
        """
        keys = [query.dialect.column(name)[0] for name, _ in query.sortby]
        where, values = _where(query, keys)
        columns = "".join(f", {sql}" for sql, _ in keys)
        order = ", ".join(
            f"{sql} {'DESC' if desc else 'ASC'} NULLS LAST" for (sql, _), (_, desc) in zip(keys, query.sortby, strict=True)
        )
        extra = [value for _, column_values in keys for value in column_values]
        statement = f"SELECT seq, collection, id{columns} FROM items WHERE {where} ORDER BY {order or 'seq'} LIMIT ?"  # noqa: S608  # values are bound
        with self._lock:
            rows = self._rows(statement, *extra, *values, *extra, query.limit + 1)
            shown = rows[: query.limit]
            wanted = json.dumps([row[0] for row in shown])
            documents = dict(self._rows("SELECT seq, doc FROM items WHERE seq IN (SELECT value FROM json_each(?))", wanted))
        after = tuple(shown[-1][3:]) if len(rows) > query.limit else ()
        return Slice([documents[row[0]] for row in shown], [(row[1], row[2]) for row in shown], after)

    def position(self, collection: str, item_id: str, query: Query) -> tuple[Any, ...] | None:
        """Returns the sort values that an item has *now*; None when it is gone."""
        keys = [query.dialect.column(name)[0] for name, _ in query.sortby]
        columns = ", ".join(sql for sql, _ in keys)
        values = [value for _, column_values in keys for value in column_values]
        rows = self._rows(f"SELECT {columns} FROM items WHERE collection = ? AND id = ?", *values, collection, item_id)  # noqa: S608  # idem
        return tuple(rows[0]) if rows else None

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401  # whatever SQLite can bind
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT; nested use joins the outer one."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db, self._outer = db, False

    def __enter__(self) -> None:
        self._outer = not self._db.in_transaction
        if self._outer:
            self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._outer:
            self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _row(item: Document) -> tuple[Any, ...]:
    properties = item.get("properties") or {}
    sensed = stamp_micros(properties.get("datetime"))
    starts, ends = (stamp_micros(properties.get(name)) for name in ("start_datetime", "end_datetime"))
    bbox: list[float] = item.get("bbox") or []
    box = (bbox[0], bbox[1], bbox[len(bbox) // 2], bbox[len(bbox) // 2 + 1]) if bbox else (None,) * 4  # six numbers have heights
    text = properties.get("updated")
    core = {
        name: item.get(name) for name in ("id", "collection", "geometry", "properties")
    }  # what filters may ask; assets weigh 10 KB
    return (
        item["collection"], item["id"], stamp_micros(text), text, sensed or starts, starts or sensed, ends or sensed,
        *box, json.dumps(core), json.dumps(item),
    )  # fmt: skip


def _where(query: Query, keys: Sequence[Sql]) -> Sql:
    parts: list[Sql] = [("1", [])]
    if query.collections:
        # The plus keeps SQLite from the index on collection, which selects nothing where there is one collection.
        parts.append(("+collection IN (SELECT value FROM json_each(?))", [json.dumps(query.collections)]))
    if query.ids:
        parts.append(("id IN (SELECT value FROM json_each(?))", [json.dumps(query.ids)]))
    start, end = query.interval
    if start is not None:
        parts.append(("ends >= ?", [to_micros(start)]))
    if end is not None:
        parts.append(("starts <= ?", [to_micros(end)]))
    if query.bbox:
        west, south, east, north = query.bbox
        across = "(east >= ? OR west <= ?)" if west > east else "(east >= ? AND west <= ?)"  # the box crosses the antimeridian
        parts.append((f"({across} AND north >= ? AND south <= ?)", [west, east, south, north]))
    if query.intersects:
        parts.append(query.dialect.where({"op": "s_intersects", "args": [{"property": "geometry"}, query.intersects]}))
    if query.filter is not None:
        parts.append(query.dialect.where(query.filter))
    if query.after:
        parts.append(_beyond(query, keys))
    return " AND ".join(sql for sql, _ in parts), [value for _, values in parts for value in values]


def _beyond(query: Query, keys: Sequence[Sql]) -> Sql:
    """What comes after a position in the query's order: equal in the first k keys and beyond in the next; NULL is last."""
    options: list[str] = []
    values: list[Any] = []
    for k, ((_, descending), last) in enumerate(zip(query.sortby, query.after, strict=True)):
        if last is None:  # nothing comes after NULL
            continue
        terms = [f"{sql} IS ?" for sql, _ in keys[:k]] + [f"({keys[k][0]} {'<' if descending else '>'} ? OR {keys[k][0]} IS NULL)"]
        for (_, bound), value in zip(keys[:k], query.after, strict=False):
            values += [*bound, value]
        values += [*keys[k][1], last, *keys[k][1]]
        options.append(f"({' AND '.join(terms)})")
    return f"({' OR '.join(options) or '0'})", values


@lru_cache(maxsize=64)
def _expression(text: str) -> Expr:
    return Expr(text)


def _matches(expression: str, document: str) -> bool:
    try:
        return bool(_expression(expression).matches(json.loads(document)))
    except Exception:  # noqa: BLE001  # cql2 raises bare Exception where SQL says NULL (a missing property): such an item does not match
        return False
