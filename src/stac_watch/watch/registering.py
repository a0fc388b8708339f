"""Registering in a thread of its own: a target catalog that hangs keeps nobody waiting. One round at a time."""

from __future__ import annotations

import threading

from stac_watch.model.errors import Defect, StacWatchError, Temporary, told
from stac_watch.register.registrar import Registrar, Round


class Registering:
    """The rounds of a registrar, beside the loop."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar
        self._thread: threading.Thread | None = None
        self._round: Round | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Tells whether a round is under way."""
        return self._thread is not None

    def has_due(self) -> bool:
        """Tells whether a round is due; not while the catalog is left alone."""
        return self._registrar.is_due()

    def turn(self) -> tuple[Round | None, StacWatchError | None]:
        """Begins a round where one is due; returns what one that has ended did, or what was wrong."""
        done = self._collect()
        if self._thread is None and self._registrar.is_due():
            self._thread = threading.Thread(target=self._work, name="register", daemon=True)  # a stop must not wait for a time-out
            try:
                self._thread.start()
            except RuntimeError as error:
                self._thread = None
                return None, Temporary(f"this machine starts no thread: {error}", hint="see its limits of processes and memory")
        return done

    def _collect(self) -> tuple[Round | None, StacWatchError | None]:
        if self._thread is None or self._thread.is_alive():
            return None, None
        ended, error = self._round, self._error
        self._thread, self._round, self._error = None, None, None
        if error is None or isinstance(error, StacWatchError):
            return ended, error
        return ended, Defect(told(error), hint="it is tried again; please report the line")

    def _work(self) -> None:
        try:
            self._round = self._registrar.round()
        except BaseException as error:  # noqa: BLE001  # carried to the loop's thread, which says it
            self._error = error
