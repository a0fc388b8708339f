"""What can be seen of a run while it works: a status file, Argo's progress file, a bar on a terminal, and log lines.

The status file is `{"stage", "done", "total"}`, Argo's has `N/M` for the whole run, log lines carry item, run and stage. A run does
not end because its progress could not be written.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Protocol

from stac_watch.model.files import replace_file

WEIGHTS = {"preflight": 2, "stage": 30, "convert": 45, "verify": 13, "package": 7, "report": 1, "publish": 2}
"""Share of each stage in a run, in percent: from a full tile over HTTP."""
_INTERVAL = 0.25  #: seconds between two writes; a thousand chunks must not become a thousand files


class Bar(Protocol):
    """What a terminal shows."""

    def show(self, stage: str, done: int, total: int) -> None:
        """Replaces what is shown."""


class Progress:
    """Counts steps and tells everybody who listens. Safe to call from worker threads."""

    def __init__(self, *, status: Path | None, argo: Path | None, bar: Bar | None, monotonic: Callable[[], float]) -> None:
        self.seconds: dict[str, float] = {}
        self.stage = "start"
        self.steps = 0  # of all stages, their beginnings included: what stands still has hung
        self._status, self._argo, self._bar, self._monotonic = status, argo, bar, monotonic
        self._done = self._total = 0
        self._written = float("-inf")
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def during(self, stage: str, total: int = 0) -> Iterator[Callable[[int], None]]:
        """Marks a stage and yields the function that counts its steps. Its seconds are kept, also when it fails."""
        self.stage, self._done, self._total = stage, 0, total
        self.steps += 1
        started = self._monotonic()
        self._tell(force=True)
        try:
            yield self._advance
            self._done = self._total
            self._tell(force=True)
        finally:
            self.seconds[stage] = round(self._monotonic() - started, 3)

    def _advance(self, steps: int) -> None:
        with self._lock:
            self.steps += 1
            self._done = min(self._done + steps, self._total)
            self._tell(force=False)

    def _tell(self, *, force: bool) -> None:
        now = self._monotonic()
        if not force and now - self._written < _INTERVAL:
            return
        self._written = now
        if self._bar is not None:
            self._bar.show(self.stage, self._done, self._total)
        with contextlib.suppress(OSError):  # a full disk must not end a run by its progress file; the run's own writes will say it
            if self._status is not None:
                replace_file(self._status, json.dumps({"stage": self.stage, "done": self._done, "total": self._total}) + "\n")
            if self._argo is not None:
                # appended: Argo takes the last line, and a run that is killed between two system calls leaves no empty file
                with self._argo.open("a") as file:
                    file.write(f"{self._percent()}/100\n")

    def _percent(self) -> int:
        stages = list(WEIGHTS)
        if self.stage not in WEIGHTS:
            return 0
        before = sum(WEIGHTS[s] for s in stages[: stages.index(self.stage)])
        share = self._done / self._total if self._total else 0.0
        return int(before + WEIGHTS[self.stage] * share)


class Lines(logging.Formatter):
    """One log record, one line: JSON for machines, words for a terminal; both with item, run and stage."""

    def __init__(self, *, item: str, run: str, progress: Progress, as_json: bool) -> None:
        super().__init__()
        self.item, self.run = item, run
        self._progress, self._as_json = progress, as_json

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        text = record.getMessage()
        if not self._as_json:
            return f"{self._progress.stage:>9}  {text}"
        return json.dumps({
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(), "message": text,
            "item": self.item, "run": self.run, "stage": self._progress.stage,
        })  # fmt: skip


def log_to(stream: IO[str], lines: Lines) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which our log, and the converter's, goes to `stream`, one line per record."""

    @contextlib.contextmanager
    def attached() -> Iterator[None]:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(lines)
        loggers = [logging.getLogger(name) for name in ("geozarr_runner", "eopf_geozarr")]
        for logger in loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
                logger.propagate = True

    return attached()
