"""Ends a run in which nothing gets on any more: a request that nobody answers, a lock that nobody gives back.

It leaves the stacks of all threads on standard error. How fast a run is does not matter to it.

An upload was seen to stand still in a library that waited for an answer without a time-out (`upload`). Its Workflow would have
held its slot until its deadline, six hours later, and nobody would have known why.
"""

from __future__ import annotations

import faulthandler
import threading
from collections.abc import Callable
from typing import IO

LOOKS = 10  #: in the limit: a process that was stopped and goes on has not hung, whatever the clock says


class Watchdog:
    """Looks at a counter now and then, from a thread of its own, while it is entered."""

    def __init__(self, steps: Callable[[], int], limit: float, last_words: Callable[[], None], log: IO[str]) -> None:
        self._steps, self._limit, self._last_words, self._log = steps, limit, last_words, log
        self._over = threading.Event()

    def __enter__(self) -> None:
        if self._limit > 0:
            threading.Thread(target=self._look, name="watchdog", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _look(self) -> None:
        seen, looks = self._steps(), 0
        while not self._over.wait(self._limit / LOOKS):
            now = self._steps()
            looks = looks + 1 if now == seen else 0
            seen = now
            if looks >= LOOKS:
                faulthandler.dump_traceback(self._log, all_threads=True)
                self._last_words()
                return
