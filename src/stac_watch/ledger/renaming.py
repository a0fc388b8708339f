"""A source that has another name in the configuration now: what the ledger has of it goes on under the new one."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection, Table, and_, delete, exists, func, select, update

from stac_watch.ledger import moves
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.records import Place
from stac_watch.ledger.session import Session
from stac_watch.model.states import State


class Renaming:
    """Which sources have another name now."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def orphans(self, names: Mapping[str, str]) -> dict[str, str]:
        """Returns sources that are not configured any more, by name, and those that watch the same collection now.

        Args:
            names: of each configured source its name, by the collection's URL; the URL is what their events have as `source`.
        """
        with self._session.read() as tx:
            gone = {r.source for r in tx.execute(sql.FUNNEL)} - set(names.values())
            found = {name: names.get(_collection(tx, name)) for name in sorted(gone)}
        return {old: new for old, new in found.items() if new is not None}

    def rename(self, old: str, new: str) -> int:
        """Lets everything of a source go on under another name, beside what there is under that; returns how many conversions.

        Where both have a cursor, the earlier one stays: something is read twice, and nothing is left out.
        """
        with self._session.write() as tx:
            discovered = (
                t.unreadable,
                t.backfill,
                t.probe,
                t.lateness,
                t.sweep,
                t.audited,
                t.baseline,
                t.absent,
                t.moved,
                t.restamp,
                t.incident,
            )
            for table in (t.item, t.publication, *discovered):
                _take_over(tx, table, old, new)
            _cursors(tx, old, new)
            renamed = tx.execute(update(t.conversion).where(t.conversion.c.source == old).values(source=new)).rowcount
            tx.execute(update(t.outbox).where(t.outbox.c.source == old).values(source=new))
            f = t.funnel.c
            places = tx.execute(select(f.lane, f.state, f.cause, f.n).where(f.source == old)).all()
            moves.count(tx, {Place(new, r.lane, State(r.state), r.cause): r.n for r in places})
            tx.execute(delete(t.funnel).where(f.source == old))
            return renamed


def _collection(tx: Connection, source: str) -> str:
    """Returns the URL of the collection that a source watched, as its events say."""
    c, e = t.conversion.c, t.event.c
    newest = select(e.body).join(t.conversion, c.key == e.key).where(c.source == source).order_by(c.changed_at.desc()).limit(1)
    body = tx.execute(newest).scalar()
    return str(json.loads(body)["source"]) if body is not None else ""


def _take_over(tx: Connection, table: Table, old: str, new: str) -> None:
    there = table.alias("there")
    rest = [column.name for column in table.primary_key if column.name != "source"]
    same = and_(there.c.source == new, *(there.c[name] == table.c[name] for name in rest))
    tx.execute(update(table).where(table.c.source == old, ~exists().where(same)).values(source=new))
    tx.execute(delete(table).where(table.c.source == old))


def _cursors(tx: Connection, old: str, new: str) -> None:
    c = t.cursor.c
    mine = func.substr(c.name, 1, len(old) + 1) == f"{old}:"
    for row in tx.execute(select(c.name, c.position, c.changed_at).where(mine)).all():
        name = f"{new}:{row.name.partition(':')[2]}"
        there = tx.execute(sql.POSITION, {"of_name": name}).scalar()
        if there is None or row.position < there:
            moves.set_cursor(tx, name, row.position, row.changed_at)
    tx.execute(delete(t.cursor).where(mine))
