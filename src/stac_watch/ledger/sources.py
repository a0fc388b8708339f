"""What discovery remembers of a catalogue besides its items: abilities, lateness, sweeps, what was there before, what is missing.

In: what a source's windows and sweeps showed. Out: the same, after a restart. Every method is one transaction.
Never: decides what a catalogue can do or when a sweep is due (`probe`, `sweep`); reads the clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, func, or_, select, update

from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.conversions import CHUNK, chunked
from stac_watch.ledger.moves import Moves
from stac_watch.ledger.records import Audited, Known, Move, SweepRow
from stac_watch.model.item import SkipReason
from stac_watch.model.states import Fact, State

NEAR = timedelta(seconds=2)  # reprocessings of one acquisition may differ in the fraction of their sensing second
TIMES = 200  # intervals in one query


class Observations(Moves):
    """Named reads and writes of the tables that discovery keeps for itself."""

    # -- what the catalogue can do -----------------------------------------------------------------------------------

    def abilities(self, source: str) -> tuple[dict[str, Any], datetime, bool] | None:
        """Returns what was found, when, and whether it is doubted since; None when the catalogue was never probed."""
        with self._read() as tx:
            found = tx.execute(sql.ABILITIES, {"of_source": source}).first()
            return (found[0], found[1], bool(found[2])) if found is not None else None

    def note_abilities(self, source: str, found: Mapping[str, Any], now: datetime) -> None:
        """Keeps what a probe found."""
        row = {"source": source, "found": dict(found), "at": now, "doubted": 0}
        with self._write() as tx:
            self._put(tx, t.probe, [row], ("source",), "found", "at", "doubted")

    def doubt(self, source: str) -> None:
        """Notes that the catalogue did what it was not expected to: it is probed before it is asked again."""
        with self._write() as tx:
            tx.execute(update(t.probe).where(t.probe.c.source == source).values(doubted=1))

    # -- how late items are --------------------------------------------------------------------------------------------

    def lateness(self, source: str) -> dict[int, int]:
        """Returns how many new items were stamped less than 2^bucket seconds before the cursor; bucket 0 = not before it."""
        with self._read() as tx:
            return {r.bucket: r.n for r in tx.execute(sql.LATENESS, {"of_source": source})}

    def note_lateness(self, source: str, counts: Mapping[int, int]) -> None:
        """Adds to it."""
        rows = [{"source": source, "bucket": bucket, "n": n} for bucket, n in counts.items()]
        if rows:
            with self._write() as tx:
                tx.execute(sql.add(tx.dialect.name, t.lateness, ("source", "bucket")), rows)

    # -- audits ----------------------------------------------------------------------------------------------------------

    def note_audit(self, audited: Audited) -> None:
        """Keeps what an audit of a source found, in place of the one before."""
        with self._write() as tx:
            self._put(tx, t.audited, [asdict(audited)], ("source",), "at", "start", "end", "gaps")

    def audited(self) -> dict[str, Audited]:
        """Returns what the last audit of each source found."""
        a = t.audited.c
        with self._read() as tx:
            rows = tx.execute(select(a.source, a.at, a.start, a.end, a.gaps))
            return {r.source: Audited(*r) for r in rows}

    # -- cursors besides the live one -----------------------------------------------------------------------------------

    def set_position(self, name: str, position: datetime, now: datetime) -> None:
        """Moves a cursor that no window is committed with."""
        row = {"name": name, "position": position, "changed_at": now}
        with self._write() as tx:
            self._put(tx, t.cursor, [row], ("name",), "position", "changed_at")

    # -- sweeps --------------------------------------------------------------------------------------------------------

    def sweep(self, source: str, kind: str) -> SweepRow | None:
        """Returns the last or current sweep of that kind."""
        with self._read() as tx:
            found = tx.execute(sql.SWEEP, {"of_source": source, "of_kind": kind}).first()
            return SweepRow(**found._mapping) if found is not None else None  # noqa: SLF001  # SQLAlchemy's documented name

    def note_sweep(self, row: SweepRow) -> None:
        """Keeps how far a sweep is."""
        values = asdict(row)
        with self._write() as tx:
            self._put(tx, t.sweep, [values], ("source", "kind"), "number", "start", "end", "position", "begun_at", "done_at")

    def based(self, source: str, item_ids: Sequence[str]) -> set[str]:
        """Returns those of the items that were there before the source was watched."""
        with self._read() as tx:
            return {r.item_id for r in chunked(tx, sql.BASED, item_ids, of_source=source)}

    def base(self, source: str, item_ids: Collection[str]) -> None:
        """Notes items that were there before the source was watched."""
        rows = [{"source": source, "item_id": item_id} for item_id in item_ids]
        if rows:
            with self._write() as tx:
                tx.execute(sql.unless_there(tx.dialect.name, t.baseline), rows)

    # -- what is missing -----------------------------------------------------------------------------------------------

    def acquired(self, source: str, start: datetime, end: datetime) -> set[str]:
        """Returns the ids of known items acquired in `[start, end)`."""
        with self._read() as tx:
            return set(tx.execute(sql.ACQUIRED, {"of_source": source, "start": start, "end": end}).scalars())

    def miss(self, source: str, missing: Collection[str], number: int, now: datetime) -> list[str]:
        """Notes items that this sweep did not find; returns those that an earlier one did not find either."""
        a = t.absent.c
        rows = [
            {"source": source, "item_id": i, "missed_at": now, "sweeps": 1, "last_sweep": number, "withdrawn_at": None}
            for i in missing
        ]
        if not rows:
            return []
        with self._write() as tx:
            tx.execute(sql.miss(tx.dialect.name), rows)
            gone = select(a.item_id).where(a.source == source, a.sweeps >= 2, a.withdrawn_at.is_(None))
            return sorted(set(tx.execute(gone).scalars()) & set(missing))

    def find_again(self, source: str, present: Collection[str]) -> None:
        """Forgets that these items were missing."""
        a = t.absent.c
        with self._read() as tx:
            back = set(tx.execute(sql.ABSENT, {"of_source": source}).scalars()) & set(present)
        if back:
            with self._write() as tx:
                for item_id in back:
                    tx.execute(delete(t.absent).where(a.source == source, a.item_id == item_id))

    def withdraw(self, source: str, item_id: str, now: datetime) -> bool:
        """Notes that the catalogue no longer has an item; False while a run for it may exist, which is waited for.

        What waits or is dead is skipped; what is done stays done: an output does not vanish with its source.
        """
        a = t.absent.c
        with self._write() as tx:
            key = tx.execute(sql.CURRENT_KEY, {"of_source": source, "of_item": item_id}).scalar()
            row = self._rows(tx, [key]).get(key) if key is not None else None
            if row is not None:
                posted = tx.execute(sql.POSTS, {"of_key": key}).scalar()
                if row.state in (State.SENT, State.RUNNING) or posted:
                    return False
                if row.state in (State.QUEUED, State.DEAD):
                    why = "two sweeps did not find it, and the catalogue answers 404"
                    self._move(tx, row, Move(Fact.WITHDRAWN, why, reason=SkipReason.WITHDRAWN), now)
            tx.execute(update(t.absent).where(a.source == source, a.item_id == item_id).values(withdrawn_at=now))
            return True

    def move_item(self, source: str, item_id: str, sensing: datetime) -> None:
        """Notes that an item's acquisition time is another one now: that is where sweeps look for it."""
        i = t.item.c
        with self._write() as tx:
            tx.execute(update(t.item).where(i.source == source, i.item_id == item_id).values(sensing=sensing))
            tx.execute(delete(t.absent).where(t.absent.c.source == source, t.absent.c.item_id == item_id))

    def withdrawn(self, source: str) -> int:
        """Returns how many items the catalogue no longer has."""
        a = t.absent.c
        with self._read() as tx:
            query = select(func.count()).where(a.source == source, a.withdrawn_at.is_not(None))
            return tx.execute(query).scalar_one()

    # -- what could not be read ----------------------------------------------------------------------------------------

    def heal(self, source: str, readable: Collection[str], hidden: tuple[str, str] | None) -> None:
        """Takes out of the quarantine what can be read now: items by id, and names in `[low, high)` of what was hidden."""
        q = t.quarantine.c
        with self._read() as tx:
            bad = set(tx.execute(sql.QUARANTINED, {"of_source": source}).scalars())
        well = [i for i in bad if i in readable or (hidden is not None and hidden[0] <= i < hidden[1])]
        if well:
            with self._write() as tx:
                for start in range(0, len(well), CHUNK):
                    tx.execute(delete(t.quarantine).where(q.source == source, q.item_id.in_(well[start : start + CHUNK])))

    def not_met(self, source: str, since: datetime, limit: int) -> list[str]:
        """Returns what is in quarantine and was not met again since then, the longest ago first."""
        q = t.quarantine.c
        query = select(q.item_id).where(q.source == source, q.last_seen < since).order_by(q.last_seen, q.item_id).limit(limit)
        with self._read() as tx:
            return list(tx.execute(query).scalars())

    # -- reprocessing --------------------------------------------------------------------------------------------------

    def acquired_at(self, source: str, moments: Collection[datetime]) -> dict[str, Known]:
        """Returns what is known of the items that were acquired at these moments, give or take two seconds."""
        i, c = t.item.c, t.conversion.c
        query = select(i.item_id, i.revision, i.key, c.state, c.cause).join(t.conversion, c.key == i.key).where(i.source == source)
        seconds, found = sorted({m.replace(microsecond=0) for m in moments}), dict[str, Known]()
        with self._read() as tx:
            for start in range(0, len(seconds), TIMES):
                spans = [and_(i.sensing >= s - NEAR, i.sensing < s + NEAR) for s in seconds[start : start + TIMES]]
                for r in tx.execute(query.where(or_(*spans))):
                    found[r.item_id] = Known(r.revision, r.key, State(r.state), r.cause)
        return found

    def supersede(self, source: str, item_ids: Collection[str], why: Mapping[str, str], now: datetime) -> int:
        """Skips what waits or is dead of these items; what runs, or may, is waited for. Returns how many were skipped."""
        rows, n = self.current(source, item_ids), 0
        for item_id, row in rows.items():
            with self._write() as tx:
                before = self._rows(tx, [row.key])[row.key]
                posted = tx.execute(sql.POSTS, {"of_key": row.key}).scalar()
                if before.state is State.DEAD or (before.state is State.QUEUED and not posted):
                    self._move(tx, before, Move(Fact.SUPERSEDED, why[item_id], reason=SkipReason.SUPERSEDED), now)
                    n += 1
        return n
