"""What the last backfill of each source asked for, and whether it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import select, update

from stac_watch.ledger import moves
from stac_watch.ledger import schema as t
from stac_watch.ledger.records import Order
from stac_watch.ledger.session import Session


class Orders:
    """What backfills asked for."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def all(self) -> list[Order]:
        """Returns what the last backfill of each source asked for."""
        with self._session.read() as tx:
            return [Order(**r._mapping) for r in tx.execute(select(t.backfill))]  # noqa: SLF001  # SQLAlchemy's documented name

    def give(self, order: Order) -> None:
        """Keeps what a backfill of a source asks for, in place of what an earlier one did."""
        values = asdict(order)
        with self._session.write() as tx:
            moves.put(tx, t.backfill, [values], ("source",), *sorted(values.keys() - {"source"}))

    def hold(self, source: str, why: str) -> None:
        """Stops sending a source's backfill."""
        self._amend(source, {"held": why})

    def confirm_canary(self, source: str) -> None:
        """Notes that a backfill's canary went well: the rest may go."""
        self._amend(source, {"canary": 0})

    def _amend(self, source: str, values: Mapping[str, Any]) -> None:
        with self._session.write() as tx:
            tx.execute(update(t.backfill).where(t.backfill.c.source == source).values(values))
