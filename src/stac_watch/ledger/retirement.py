"""Outputs whose items are gone from their catalog: kept, marked, or removed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import and_, or_, select, update

from stac_watch.ledger import moves
from stac_watch.ledger import schema as t
from stac_watch.ledger.moves import conversion_of
from stac_watch.ledger.records import ConversionRow, Move, Retired
from stac_watch.ledger.session import Session
from stac_watch.model.item import Retirement, SkipReason
from stac_watch.model.states import Fact, State

_a = t.absent.c


class Retirements:
    """What became of outputs whose items a catalog no longer has."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def of(self, source: str, item_id: str) -> tuple[datetime | None, Retirement | None]:
        """Returns since when an item is gone (None = it is not), and what became of its output."""
        with self._session.read() as tx:
            query = select(_a.withdrawn_at, _a.output).where(_a.source == source, _a.item_id == item_id)
            found = tx.execute(query).first()
            return (found.withdrawn_at, Retirement(found.output) if found.output else None) if found is not None else (None, None)

    def pending(self, source: str, wanted: Retirement) -> Iterator[Retired]:
        """Yields outputs of items that are gone and with which less was done than is wanted; and those marked whose items are back.

        Only what is done, and was converted for this source: what another one asked for is that one's.
        """
        done = {
            Retirement.KEPT: [],
            Retirement.DEPRECATED: [Retirement.KEPT],
            Retirement.DELETED: [Retirement.KEPT, Retirement.DEPRECATED],
        }
        query = (
            select(t.conversion, _a.withdrawn_at, _a.output)
            .join(t.item, t.item.c.key == t.conversion.c.key)
            .join(t.absent, (_a.source == t.item.c.source) & (_a.item_id == t.item.c.item_id))
            .where(_a.source == source, t.conversion.c.source == source, t.conversion.c.state == State.DONE.value)
            .order_by(_a.item_id)
        )
        with self._session.read() as tx:
            rows = tx.execute(query).all()
        for row in rows:
            values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's documented name for it
            since, output = values.pop("withdrawn_at"), values.pop("output")
            if (since is not None and output in done[wanted]) or (since is None and output == Retirement.DEPRECATED):
                yield Retired(conversion_of(values), since)

    def aged(self, source: str, before: datetime, *, by_done: bool) -> Iterator[tuple[ConversionRow, datetime]]:
        """Yields what is done of a source and was acquired, or done, before then, and when it was acquired.

        Nothing of an earlier revision whose output that of the current one has replaced.
        """
        c, i, other = t.conversion.c, t.item.c, t.conversion.alias("other")
        query = (
            select(t.conversion, i.sensing)
            .join(t.item, (i.source == c.source) & (i.item_id == c.item_id))
            .join(other, other.c.key == i.key)
            .where(or_(c.key == i.key, c.output_zarr != other.c.output_zarr))
            .where(c.source == source, c.state == State.DONE.value, (c.changed_at if by_done else i.sensing) < before)
        )
        with self._session.read() as tx:
            rows = tx.execute(query).all()
        for row in rows:
            values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's documented name for it
            sensing = values.pop("sensing")
            yield conversion_of(values), sensing

    def bury(self, row: ConversionRow, why: str, now: datetime) -> None:
        """Notes that the lifetime of an output is over, and that it is no longer there.

        Raises:
            StaleState: the conversion was moved by somebody else meanwhile.
        """
        with self._session.write() as tx:
            moves.apply(tx, row, Move(Fact.RETIRED, why, reason=SkipReason.LIFETIME_OVER), now)

    def shares_output(self, row: ConversionRow) -> bool:
        """Tells whether another conversion is, or is to be, under the same name.

        Not one of an earlier revision of the item that was done: its output was replaced.
        """
        c = t.conversion.c
        replaced = and_(c.source == row.source, c.item_id == row.item_id, c.state == State.DONE.value)
        others = select(c.key).where(c.output_zarr == row.output_zarr, c.key != row.key, c.state != State.SKIPPED.value, ~replaced)
        others = others.limit(1)
        with self._session.read() as tx:
            return tx.execute(others).first() is not None

    def note(self, retired: Retired, what: Retirement, now: datetime) -> None:
        """Notes what was done with an output.

        Raises:
            StaleState: the conversion was moved by somebody else meanwhile.
        """
        row = retired.row
        this = (_a.source == row.source, _a.item_id == row.item_id)
        with self._session.write() as tx:
            if what is Retirement.DELETED:
                gone = Move(
                    Fact.RETIRED, "its item is gone from the catalog, and its output was removed", reason=SkipReason.RETIRED
                )
                moves.apply(tx, row, gone, now)
            if retired.since is None:  # it is back
                tx.execute(t.absent.delete().where(*this))
            else:
                tx.execute(update(t.absent).where(*this).values(output=what.value))
