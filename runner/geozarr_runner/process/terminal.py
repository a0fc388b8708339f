"""The progress bar that a person sees. Loaded only on a terminal."""

from __future__ import annotations

from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class TerminalBar:
    """One bar, of the stage that is being worked on; each new stage starts anew."""

    def __init__(self, stream: IO[str]) -> None:
        columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(file=stream), transient=True)
        self._stage = ""
        self._task = self._progress.add_task("start", total=None)

    def show(self, stage: str, done: int, total: int) -> None:
        """Redraws the line."""
        if stage != self._stage:
            self._progress.start()
            self._progress.reset(self._task, description=stage, total=total or None)
            self._stage = stage
        self._progress.update(self._task, completed=done)
        if stage == "publish" and done == total:
            self._progress.stop()
