"""Who may watch: a row that each of the holder's writes renews in the same transaction.

`hold` sets the session's guard the first time it succeeds. From then on every write of this process is fenced, by whichever thread:
a watcher that was paused past its lease cannot write over what the next one did.

Its time is PostgreSQL's own, one clock for all who may watch; that of a SQLite file is its machine's. A clock that is given counts
in place of both: a simulation's. A lease that ends later than one can was written before the clock was
set back, and holds nobody up.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from stac_watch.ledger import schema as t
from stac_watch.ledger import statements as sql
from stac_watch.ledger.session import LeaseLost, Session

LEASE = timedelta(seconds=30)
"""How long a watcher that says nothing keeps the ledger: longer than a slow tick, shorter than anybody's patience.

A killed watcher's lease is waited for to its end, also on its own host: a process number may be somebody else's by now, and
containers have host names and process numbers in common.
"""
WATCH, WISH = "watch", "wish"
"""Rows of the lease table: who watches, and who would if the one that does gave way."""


class Lease:
    """The lease of one ledger."""

    def __init__(self, session: Session, clock: Callable[[], datetime] | None = None) -> None:
        self._session, self._clock = session, clock
        self._fence: tuple[str, Callable[[], datetime]] | None = None  # who once had the lease writes only while it has it
        self._renewed: datetime | None = None  # the lease; None = it has it not

    def hold(self, holder: str, now: Callable[[], datetime], *, gives_way: bool = False) -> bool:
        """Takes the lease if nobody else has it; from then on each write renews it, and fails once it is lost.

        One that gives way has it only while nobody who does not give way wants it: a backfill that is followed must not keep a
        watcher from discovering what is new.
        """
        if gives_way and self._wanted(holder, now):
            self.release()
            return False
        asked = now()
        if self._renewed is not None and timedelta(0) <= asked - self._renewed < LEASE / 3:  # below 0: the clock was set back
            return True  # an idle watcher need not write every second; if it was lost meanwhile, the next write says so
        with self._session.begin() as tx:
            moment = self._time(tx, now)
            mine = self._claim(tx, WATCH, holder, moment)
            if mine:
                tx.execute(sql.GIVE_BACK, {"of_name": WISH, "of_holder": holder})
            elif not gives_way:
                self._claim(tx, WISH, holder, moment)
        self._renewed = asked if mine else None
        if mine:
            self._fence, self._session.guard = (holder, now), self._renew
        return mine

    def _claim(self, tx: Connection, name: str, holder: str, moment: datetime) -> bool:
        """Writes one's name where there is none, or one whose time is over; tells whether it stands there."""
        mine = {"name": name, "holder": holder, "until": moment + LEASE}
        tx.execute(sql.claim(tx.dialect.name), {**mine, "moment": moment, "latest": moment + LEASE})
        return bool(tx.execute(sql.HOLDER, {"of_name": name}).scalar() == holder)

    def _wanted(self, holder: str, now: Callable[[], datetime]) -> bool:
        """Tells whether somebody else watches, or wishes to."""
        with self._session.read() as tx:
            moment, until = self._time(tx, now), t.lease.c.until
            others = select(t.lease.c.name).where(t.lease.c.holder != holder, until > moment, until <= moment + LEASE)
            return bool(tx.execute(others).first())

    @property
    def is_held(self) -> bool:
        """Whether this ledger's writer is the one that may watch, as far as it knows."""
        return self._renewed is not None

    def release(self) -> None:
        """Gives the lease back, so that the next watcher need not wait for its end."""
        if self._renewed is not None and self._fence is not None:
            with self._session.begin() as tx:
                tx.execute(sql.GIVE_BACK, {"of_name": WATCH, "of_holder": self._fence[0]})
            self._renewed = None

    def holder(self) -> tuple[str, datetime] | None:
        """Returns who has the lease, and until when."""
        with self._session.read() as tx:
            found = tx.execute(sql.HOLDER, {"of_name": WATCH}).first()
            return (found[0], found[1]) if found is not None else None

    def _renew(self, tx: Connection) -> None:
        if self._fence is None:
            return
        holder, now = self._fence
        by_database = self._by_database(tx)
        by_hand = {} if by_database else {"until": (self._clock or now)() + LEASE}
        renewed = tx.execute(sql.renew(LEASE, by_database=by_database), {"of_name": WATCH, "of_holder": holder, **by_hand})
        if renewed.rowcount != 1:
            self._renewed = None
            raise LeaseLost("another watcher took over the ledger", hint="this one waits until it is free again")

    def _by_database(self, tx: Connection) -> bool:
        return self._clock is None and tx.dialect.name == "postgresql"

    def _time(self, tx: Connection, now: Callable[[], datetime]) -> datetime:
        if not self._by_database(tx):
            return (self._clock or now)()
        found: datetime = tx.execute(select(sql.CLOCK)).scalar_one()
        return found
