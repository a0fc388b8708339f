"""Work beside the loop, in threads of its own: whoever hangs at the other end keeps nobody waiting. One round at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from stac_watch.model.errors import Defect, StacWatchError, Temporary, told
from stac_watch.register.causes import Causes
from stac_watch.register.sinks import Announcer, Posted


class Rounds[R](Protocol):
    """What is done in rounds."""

    def is_due(self) -> bool:
        """Tells whether there is something to do, and nobody is left alone."""
        ...

    def round(self) -> R:
        """Does it; raises what is wrong with the other end."""
        ...


class Aside[R]:
    """The rounds of one work, beside the loop."""

    def __init__(self, work: Rounds[R], name: str) -> None:
        self._work, self._name = work, name
        self._thread: threading.Thread | None = None
        self._round: R | None = None
        self._error: BaseException | None = None

    @property
    def has_work(self) -> bool:
        """Tells whether a round is under way, or due; not while the other end is left alone."""
        return self._thread is not None or self._work.is_due()

    def turn(self) -> tuple[R | None, StacWatchError | None]:
        """Begins a round where one is due; returns what one that has ended did, or what was wrong."""
        done = self._collect()
        if self._thread is None and self._work.is_due():
            self._thread = threading.Thread(target=self._do, name=self._name, daemon=True)  # a stop must not wait for a time-out
            try:
                self._thread.start()
            except RuntimeError as error:
                self._thread = None
                return None, Temporary(f"this machine starts no thread: {error}", hint="check its limits on processes and memory")
        return done

    def _collect(self) -> tuple[R | None, StacWatchError | None]:
        if self._thread is None or self._thread.is_alive():
            return None, None
        ended, error = self._round, self._error
        self._thread, self._round, self._error = None, None, None
        if error is None or isinstance(error, StacWatchError):
            return ended, error
        return ended, Defect(told(error), hint="it is tried again; please report the line")

    def _do(self) -> None:
        try:
            self._round = self._work.round()
        except BaseException as error:  # noqa: BLE001  # carried to the loop's thread, which says it
            self._error = error


class Telling:
    """What sinks are told: each in a thread of its own, so that one that hangs keeps no other waiting."""

    def __init__(self, announcers: Sequence[Announcer], causes: Causes | None) -> None:
        self._asides = {one.name: Aside(one, "sink") for one in announcers}
        self._causes = causes
        self._wrong: dict[str, StacWatchError] = {}  # by sink, until it works

    @property
    def has_work(self) -> bool:
        """Tells whether something is posted, or is to be now."""
        return any(aside.has_work for aside in self._asides.values())

    def turn(self) -> tuple[Posted, StacWatchError | None, bool]:
        """Looks at causes, begins rounds; returns what those that ended did, what is wrong now, and whether nothing is any more."""
        if self._causes is not None:
            self._causes.look()
        total, problem, before = Posted(), None, bool(self._wrong)
        for name, aside in self._asides.items():
            ended, error = aside.turn()
            if error is not None:
                self._wrong[name] = problem = error
            elif ended is not None:
                self._wrong.pop(name, None)
                sums = (total.delivered + ended.delivered, total.refused + ended.refused, total.later + ended.later)
                total = Posted(*sums)
        return total, problem, before and not self._wrong
