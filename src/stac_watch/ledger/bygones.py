"""What others were told long ago, and publications that are over: found, and removed a few hundred at a time.

What still waits stays, and so does the last event of each item and of each cause, packed: the next one follows from it. Of
publications only those go that were taken out of the catalog and whose outputs are no more.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, LargeBinary, and_, bindparam, delete, exists, func, select, type_coerce, update

from stac_watch.ledger import schema as t
from stac_watch.ledger.session import Session
from stac_watch.model.announcement import DeliveryState
from stac_watch.model.publication import PublicationState
from stac_watch.model.states import State

ROW_BYTES = 200  # of an announcement besides its body, its deliveries included
_a, _d, _p, _c = t.announcement.c, t.delivery.c, t.publication.c, t.conversion.c
_its_deliveries = and_(_d.topic == _a.topic, _d.announcement == _a.id)  # by topic: there is an index


@dataclass(frozen=True)
class Forgotten:
    """What a part of the announcements has that nobody asks for."""

    removed: int
    packed: int
    bytes: int  # that this frees, indexes apart
    end: int | None  # the announcement up to which this part goes; None when there is no further one


class Bygones:
    """Announcements and publications of long ago."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def announcements(self, before: datetime, after: int, limit: int, *, yes: bool) -> Forgotten:
        """Looks at the next `limit` announcements made before then; with `yes` removes or packs them."""
        with self._session.write() if yes else self._session.read() as tx:
            rows = tx.execute(_old(before, after, limit)).all()
            bodies = {row.id: bytes(row.raw) for row in rows}
            gone = [row.id for row in rows if row.newer]
            packed = {row.id: zlib.compress(bodies[row.id], 9) for row in rows if not row.newer and bodies[row.id].startswith(b"{")}
            if yes:
                _forget(tx, gone, packed)
        freed = sum(len(bodies[which]) + ROW_BYTES for which in gone)
        freed += sum(len(bodies[which]) - len(body) for which, body in packed.items())
        return Forgotten(len(gone), len(packed), freed, rows[-1].id if len(rows) == limit else None)

    def publications(self, before: datetime, limit: int, *, yes: bool) -> int:
        """Returns how many publications are over since before then; with `yes` removes them, at most `limit` at a time."""
        over = and_(_p.state == PublicationState.WITHDRAWN.value, _p.changed_at < before, _c.state != State.DONE.value)
        joined = t.publication.join(t.conversion, _c.key == _p.key)
        if not yes:
            with self._session.read() as tx:
                return int(tx.execute(select(func.count()).select_from(joined).where(over)).scalar_one())
        with self._session.write() as tx:
            rows = tx.execute(select(_p.source, _p.item_id).select_from(joined).where(over).limit(limit)).all()
            if rows:
                mine = and_(_p.source == bindparam("of_source"), _p.item_id == bindparam("of_item"))
                tx.execute(delete(t.publication).where(mine), [{"of_source": r.source, "of_item": r.item_id} for r in rows])
            return len(rows)


def _old(before: datetime, after: int, limit: int) -> Any:  # noqa: ANN401  # a query
    """Selects announcements of which nothing waits, and whether their topic has a newer one."""
    later = t.announcement.alias("later")
    last = select(_a.id).where(_a.created_at < before).order_by(_a.created_at.desc()).limit(1).scalar_subquery()
    waits = exists().where(_its_deliveries, _d.state == DeliveryState.WAITING.value)
    newer = exists().where(later.c.topic == _a.topic, later.c.id > _a.id)
    query = select(_a.id, type_coerce(_a.body, LargeBinary).label("raw"), newer.label("newer"))
    return query.where(_a.id > after, _a.id <= last, _a.created_at < before, ~waits).order_by(_a.id).limit(limit)


def _forget(tx: Connection, gone: Sequence[int], packed: dict[int, bytes]) -> None:
    if gone:
        found = select(_d.sink, _d.announcement).join(t.announcement, _its_deliveries).where(_a.id.in_(gone))
        deliveries = [{"of_sink": row.sink, "of_announcement": row.announcement} for row in tx.execute(found)]
        one = and_(_d.sink == bindparam("of_sink"), _d.announcement == bindparam("of_announcement"))
        if deliveries:
            tx.execute(delete(t.delivery).where(one), deliveries)
        tx.execute(delete(t.announcement).where(_a.id.in_(gone)))
    if packed:
        pack = update(t.announcement).where(_a.id == bindparam("which")).values(body=bindparam("packed"))
        tx.execute(pack, [{"which": which, "packed": body} for which, body in packed.items()])
