"""What is remembered of a source and its catalog: cursors, abilities, lateness, sweeps, audits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from stac_watch.ledger import moves
from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.records import Audited, Remembered, SourceState, SweepRow
from stac_watch.ledger.session import Session, chunked


class Sources:
    """What is remembered of a source and its catalog: cursors, abilities, lateness, sweeps, audits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def state(self, source: str, cursors: Sequence[str]) -> SourceState:
        """Returns all that discovery needs to know before it asks a source; cursors by what follows `SOURCE:` in their names."""
        names = {f"{source}:{cursor}": cursor for cursor in cursors}
        with self._session.read() as tx:
            probed = tx.execute(sql.ABILITIES, {"of_source": source}).first()
            return SourceState(
                positions={names[r.name]: r.position for r in chunked(tx, sql.POSITIONS, list(names))},
                abilities=_abilities(probed),
                lateness={r.bucket: r.n for r in tx.execute(sql.LATENESS, {"of_source": source})},
                sweeps={r.kind: _sweep(r) for r in tx.execute(sql.SWEEPS, {"of_source": source})},
            )

    def position(self, name: str) -> datetime | None:
        """Returns the cursor of that name."""
        with self._session.read() as tx:
            return tx.execute(sql.POSITION, {"of_name": name}).scalar()

    def asked_at(self, source: str) -> datetime | None:
        """Returns when a window of the source was read last; None where none was."""
        c = t.cursor.c
        with self._session.read() as tx:
            mine = c.name.startswith(f"{source}:", autoescape=True)
            return tx.execute(select(func.max(c.changed_at)).where(mine)).scalar()

    def set_position(self, name: str, position: datetime, now: datetime) -> None:
        """Moves a cursor that no window is committed with."""
        self.set_positions({name: position}, now)

    def set_positions(self, positions: Mapping[str, datetime], now: datetime) -> None:
        """Moves cursors that no window is committed with, all at once."""
        with self._session.write() as tx:
            for name, position in positions.items():
                moves.set_cursor(tx, name, position, now)

    def note_abilities(self, source: str, found: Mapping[str, Any], now: datetime) -> None:
        """Keeps what a probe found."""
        row = {"source": source, "found": dict(found), "at": now, "invalidated": 0}
        with self._session.write() as tx:
            moves.put(tx, t.probe, [row], ("source",), "found", "at", "invalidated")

    def invalidate_abilities(self, source: str) -> None:
        """Notes that the catalog did what it was not expected to: it is probed before it is asked again."""
        with self._session.write() as tx:
            tx.execute(update(t.probe).where(t.probe.c.source == source).values(invalidated=1))

    def lateness(self, source: str) -> dict[int, int]:
        """Returns how many new items were stamped less than 2^bucket seconds before the cursor; bucket 0 = not before it."""
        with self._session.read() as tx:
            return {r.bucket: r.n for r in tx.execute(sql.LATENESS, {"of_source": source})}

    def note_sweep(self, row: SweepRow, cursor: tuple[str, datetime] | None = None) -> None:
        """Keeps how far a sweep is, and where one that is done leaves a cursor."""
        values = asdict(row)
        with self._session.write() as tx:
            moves.put(tx, t.sweep, [values], ("source", "kind"), "number", "start", "end", "position", "begun_at", "done_at")
            if cursor is not None:
                moves.set_cursor(tx, *cursor, row.done_at or row.begun_at)

    def note_audit(self, audited: Audited) -> None:
        """Keeps what an audit of a source found, in place of the one before."""
        with self._session.write() as tx:
            moves.put(tx, t.audited, [asdict(audited)], ("source",), "at", "start", "end", "gaps")

    def remembered(self, cursors: Collection[str]) -> Remembered:
        """Returns what discovery remembers of every source, and these cursors: five statements."""
        with self._session.read() as tx:
            lateness: dict[str, dict[int, int]] = {}
            for r in tx.execute(sql.ALL_LATENESS):
                lateness.setdefault(r.source, {})[r.bucket] = r.n
            return Remembered(
                abilities={r.source: (r.found, r.at) for r in tx.execute(sql.ALL_ABILITIES)},
                lateness=lateness,
                positions={r.name: r.position for r in chunked(tx, sql.POSITIONS, list(cursors))},
                swept={r.source: r.done_at for r in tx.execute(sql.ALL_SWEPT)},
                audits=_audits(tx),
            )


def _audits(tx: Connection) -> dict[str, Audited]:
    a = t.audited.c
    return {r.source: Audited(*r) for r in tx.execute(select(a.source, a.at, a.start, a.end, a.gaps))}


def _abilities(row: Sequence[Any] | None) -> tuple[dict[str, Any], datetime, bool] | None:
    return (row[0], row[1], bool(row[2])) if row is not None else None


def _sweep(row: Row[Any]) -> SweepRow:
    return SweepRow(**row._mapping)  # noqa: SLF001  # SQLAlchemy's documented name
