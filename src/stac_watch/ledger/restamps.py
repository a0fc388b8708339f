"""Known items that the catalog stamped anew and that have no checksum: what waits to be looked at, and what the looks found."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, delete, select, update

from stac_watch.ledger import moves
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.moves import rows_of
from stac_watch.ledger.records import Move, Restamp
from stac_watch.ledger.session import Session
from stac_watch.model.item import Look

_r = t.restamp.c
_this = (_r.source == bindparam("of_source"), _r.item_id == bindparam("of_item"))


class Restamps:
    """What was stamped anew: looked at in its turn."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def due(self, source: str, now: datetime, most: int) -> list[Restamp]:
        """Returns what is to be looked at now, with the conversion that it was known by, the oldest first.

        What is under way waits: its run may have fetched the one product or the other, and its outcome says which.
        """
        with self._session.read() as tx:
            found = tx.execute(sql.RESTAMPED, {"of_source": source, "now": now, "most": most}).all()
            rows = rows_of(tx, [r.key for r in found])
            return [Restamp(source, r.item_id, r.stamp, r.href, r.tries, rows[r.key]) for r in found]

    def get(self, source: str, item_id: str) -> tuple[datetime, str, datetime | None] | None:
        """Returns an item's last new stamp, what a look at it found (empty = not looked yet), and when that was."""
        with self._session.read() as tx:
            found = tx.execute(select(_r.stamp, _r.found, _r.looked_at).where(*_this), _named(source, item_id)).first()
            return (found.stamp, found.found, found.looked_at) if found is not None else None

    def settle(self, restamp: Restamp, found: Look, now: datetime, move: Move | None = None) -> None:
        """Writes down what a look found, and what follows from it.

        Raises:
            StaleState: the conversion was moved by somebody else meanwhile; it is looked at again.
        """
        with self._session.write() as tx:
            if move is not None:
                moves.apply(tx, restamp.row, move, now)
            named = _named(restamp.source, restamp.item_id)
            tx.execute(update(t.restamp).where(*_this, _r.stamp == restamp.stamp).values(found=found.value, looked_at=now), named)
            i = t.item.c
            known = (i.source == restamp.source, i.item_id == restamp.item_id, i.updated < restamp.stamp)
            tx.execute(update(t.item).where(*known).values(updated=restamp.stamp))

    def put_off(self, restamp: Restamp, due: datetime) -> None:
        """Notes that a look gave no answer, and when the next one is due."""
        with self._session.write() as tx:
            again = update(t.restamp).where(*_this).values(due=due, tries=restamp.tries + 1)
            tx.execute(again, _named(restamp.source, restamp.item_id))

    def forget(self, source: str, before: datetime) -> None:
        """Forgets what was looked at before then."""
        with self._session.read() as tx:
            old = select(_r.item_id).where(_r.source == source, _r.found != "", _r.looked_at < before).limit(1)
            if tx.execute(old).first() is None:
                return
        with self._session.write() as tx:
            tx.execute(delete(t.restamp).where(_r.source == source, _r.found != "", _r.looked_at < before))


def _named(source: str, item_id: str) -> dict[str, str]:
    return {"of_source": source, "of_item": item_id}
