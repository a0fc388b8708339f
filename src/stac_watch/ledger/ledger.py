"""The ledger opens here: the parts, each of which reads and writes a few tables, around one session."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from stac_watch.ledger.absences import Absences
from stac_watch.ledger.bygones import Bygones
from stac_watch.ledger.conversions import Conversions
from stac_watch.ledger.counts import Census
from stac_watch.ledger.deliveries import Deliveries
from stac_watch.ledger.freshness import Announcements
from stac_watch.ledger.items import Items
from stac_watch.ledger.lease import Lease
from stac_watch.ledger.migrations import is_current, migrate
from stac_watch.ledger.orders import Orders
from stac_watch.ledger.outbox import Outbox
from stac_watch.ledger.pruning import Pruning
from stac_watch.ledger.publications import Publications
from stac_watch.ledger.rebuilding import Rebuilding
from stac_watch.ledger.renaming import Renaming
from stac_watch.ledger.restamps import Restamps
from stac_watch.ledger.retirement import Retirements
from stac_watch.ledger.session import NO_DATABASE, Busy, Session, trouble
from stac_watch.ledger.sources import Sources
from stac_watch.model.errors import CannotWrite, ConfigError, Unavailable


class Ledger:
    """The parts of one ledger; they share its transactions.

    `clock` is the lease's time. Without it that is the database's own, or, where it has none, that of whoever asks.
    """

    def __init__(self, engine: Engine, session: Session | None = None, *, clock: Callable[[], datetime] | None = None) -> None:
        self._session = session or Session(engine)
        self._engine = engine
        self.listen = self._session.listen
        self.lease = Lease(self._session, clock)
        self.sources = Sources(self._session)
        self.items = Items(self._session)
        self.absences = Absences(self._session)
        self.conversions = Conversions(self._session)
        self.outbox = Outbox(self._session)
        self.orders = Orders(self._session)
        self.counts = Census(self._session)
        self.freshness = Announcements(self._session)
        self.pruning = Pruning(self._session)
        self.bygones = Bygones(self._session)
        self.retirements = Retirements(self._session)
        self.restamps = Restamps(self._session)
        self.renaming = Renaming(self._session)
        self.publications = Publications(self._session)
        self.deliveries = Deliveries(self._session)
        self.rebuilding = Rebuilding(self._session)

    def prepare(self, *, upgrade: bool = True) -> None:
        """Creates the tables where there are none, and brings an older ledger up to date if it may; closes what cannot be used.

        One that is up to date is only read: who asks need not wait for who writes.

        Raises:
            ConfigError: the database cannot be reached, is no ledger, is of a newer schema, or of an older one that must stay.
            CannotWrite: its disk is full or read-only.
            Unavailable: it is damaged: cut short, or overwritten in part.
            Busy: another client holds it, and does not let go.
        """
        try:
            with self._engine.execution_options(reads=True).connect() as tx:
                current = is_current(tx)
            if not current:
                with self._engine.begin() as tx:
                    migrate(tx, upgrade=upgrade)
        except DBAPIError as error:
            self.close()
            found = trouble(self._engine, error)
            if isinstance(found, CannotWrite | Busy):
                raise found from error
            if isinstance(found, Unavailable) and NO_DATABASE not in found.message:  # else `ledger` may name a wrong file
                raise found from error
            where = self._engine.url.render_as_string()
            hint = "check that `ledger:` names a database of ours, that it can be reached, and that its folder can be written"
            said = " ".join(str(error.orig).split())
            raise ConfigError(f"cannot use the ledger {where}: {said}", hint=hint) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()
