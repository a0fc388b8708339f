"""A backfill that is carried out: how far admission is, and with --follow how far the conversions are, until nothing moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from stac_watch.discover.intake import Intake
from stac_watch.jobs import backfill
from stac_watch.model.errors import Exit
from stac_watch.model.stamps import stamp
from stac_watch.report.watching import Troubles, over, trouble
from stac_watch.watch.loop import Parts, Tick, Watcher

LINE_EVERY = timedelta(seconds=10)  # where there is no terminal to draw a bar on


def carry_out(parts: Parts, intake: Intake, request: backfill.BackfillRequest, *, follow: bool) -> int:
    """Admits what was planned; with `follow` it stays until that is through. Returns the verb's exit code."""
    backfill.begin(intake, request)
    admitted = 0
    with _bar() as bar:
        task = bar.add_task("admitted", total=None)
        for until, admitted in backfill.admit(intake, request):
            bar.update(task, completed=admitted, description=f"read up to {until:%Y-%m-%d}, admitted")
            if parts.wait(0):
                return Exit.INTERRUPTED
    print(f"{admitted} admitted", flush=True)
    if follow:
        return _follow(parts, intake, request)
    held = parts.ledger.lease.holder()
    if held is None or held[1] < parts.now():
        print("no watcher is running: start `stac-watch watch`, or repeat the command with --follow")
    return Exit.OK


def _follow(parts: Parts, intake: Intake, request: backfill.BackfillRequest) -> int:
    """Shows how far it is until nothing moves any more; works itself while no watcher does, and gives way to one."""
    last = None
    try:
        last = _see_through(parts, intake, request)
    finally:
        if last is None:  # interrupted; runs of another watcher are not ours to end
            parts.engine.close(stop_runs=parts.ledger.lease.is_held)
    if last is None:
        return Exit.INTERRUPTED
    if last.held:
        print(f"on hold: {last.held}; `stac-watch status` shows what failed, the same command resumes")
    if last.waiting:
        print(f"{last.waiting} not available yet: a watcher keeps looking for them; `stac-watch status` says when")
    return Exit.NOT_ALL_WELL if last.held or last.failed or last.waiting else Exit.OK


def _see_through(parts: Parts, intake: Intake, request: backfill.BackfillRequest) -> backfill.BackfillProgress | None:
    """Returns how far it is when nothing moves any more; None when asked to stop before."""
    watcher = Watcher(replace(parts, holder=f"{parts.holder}, backfill --follow", gives_way=True), observing=False)
    began = parts.now()
    done_before = backfill.progress(parts.ledger, intake.source.name, request, began, 0, began).done
    with _bar() as bar:
        show = _Follower(bar, parts.now)
        while True:
            tick = watcher.turn()
            found = backfill.progress(parts.ledger, intake.source.name, request, began, done_before, parts.now())
            show(tick, found)
            if found.settled:
                return found
            if parts.wait(parts.beat):
                return None


class _Follower:
    """Shows a backfill's progress: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, bar: Progress, now: Callable[[], datetime]) -> None:
        self._bar, self._now = bar, now
        self._task = bar.add_task("converted", total=None)
        self._troubles = Troubles()
        self._said, self._said_at = "", now() - LINE_EVERY

    def __call__(self, tick: Tick, progress: backfill.BackfillProgress) -> None:
        """Shows what a turn led to."""
        news = self._troubles.news(tick.ailing, tick.standby)
        for text in (*(trouble(name, problem) for name, problem in news.begun.items()), *map(over, news.ended)):
            self._bar.console.print(text, markup=False)
        if news.standby is not None:
            self._bar.console.print(f"{news.standby or 'this command'} converts", markup=False, highlight=False)
        counts, text = progress.counts, progress.counts
        if progress.eta is not None:
            left = max(timedelta(0), progress.eta - self._now())
            text += f", {timedelta(seconds=round(left.total_seconds()))} left (until {stamp(progress.eta.replace(microsecond=0))})"
        self._bar.update(self._task, total=progress.total, completed=progress.done + progress.failed, description=text)
        due = self._now() - self._said_at >= LINE_EVERY or progress.settled
        if not self._bar.console.is_terminal and due and counts != self._said:
            print(text, flush=True)
            self._said, self._said_at = counts, self._now()


def _bar() -> Progress:
    console = Console()
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console, disable=not console.is_terminal)
