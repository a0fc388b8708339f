"""The verbs that act on what is asked for: backfill, replay, send, audit.

In: options. Out: what would be done, and with --yes what was done; an exit code. Never: acts without being told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from stac_watch import app as composition
from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, SourceArgument, YesOption, acting, cli, show
from stac_watch.cli.times import read_range, read_since
from stac_watch.discover.intake import Intake
from stac_watch.jobs import audit as auditing
from stac_watch.jobs import backfill as backfilling
from stac_watch.jobs import replay as replaying
from stac_watch.jobs.replay import ReplayTarget, Wish
from stac_watch.ledger import records
from stac_watch.model.errors import Exit, InputError
from stac_watch.model.stamps import stamp
from stac_watch.model.states import State
from stac_watch.report.jobs import render_audit, render_plan, render_targets
from stac_watch.report.watching import Troubles, over, trouble
from stac_watch.runs.engine import Answer, Receipt
from stac_watch.runs.markers import find_marker
from stac_watch.watch.loop import Parts, Tick, Watcher

LINE_EVERY = timedelta(seconds=10)  # where there is no terminal to draw a bar on

StartOption = Annotated[str, typer.Option(help="First acquisition: a day, an RFC 3339 time, or a span before now (30d).")]
EndOption = Annotated[str, typer.Option(help="Last acquisition: a day, which is included, or a time or span (1d), which is not.")]


@cli.command()
def backfill(
    context: typer.Context,
    source: SourceArgument,
    start: StartOption,
    end: EndOption,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    yes: YesOption = False,
    canary: Annotated[int, typer.Option(min=0, help="So many first; the rest only when they went well.")] = 0,
    max_items: Annotated[int | None, typer.Option(min=1, help="Admit at most so many.")] = None,
    max_failures: Annotated[int | None, typer.Option(min=1, help="Stop sending after so many failed.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Stay until it is through; converts by itself while no watcher does.")
    ] = False,
) -> int:
    """Convert what was acquired in a range of days: prints the plan, and does it with --yes. Run again, it goes on."""
    with acting(context, config) as (settings, parts):
        chosen = settings.source(source)
        intake = parts.intake(chosen)
        first, last = read_range(start, end, parts.now())
        request = backfilling.check_range(backfilling.BackfillRequest(first, last, canary, max_items, max_failures), parts.now())
        if not yes:
            show(backfilling.plan(intake, parts.limits, request), json, render_plan)
            return Exit.OK
        return _carry_out(parts, intake, request, follow=follow)


def _carry_out(parts: Parts, intake: Intake, request: backfilling.BackfillRequest, *, follow: bool) -> int:
    backfilling.begin(intake, request)
    admitted = 0
    with _bar() as bar:
        task = bar.add_task("admitted", total=None)
        for until, admitted in backfilling.admit(intake, request):
            bar.update(task, completed=admitted, description=f"read up to {until:%Y-%m-%d}, admitted")
            if parts.wait(0):
                return Exit.INTERRUPTED
    print(f"{admitted} admitted", flush=True)
    if follow:
        return _follow(parts, intake, request)
    held = parts.ledger.lease.holder()
    if held is None or held[1] < parts.now():
        print("no watcher runs: `stac-watch watch` converts them, or the same command with --follow")
    return Exit.OK


def _follow(parts: Parts, intake: Intake, request: backfilling.BackfillRequest) -> int:
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
        print(f"held: {last.held}; `stac-watch status` shows what failed, the same command goes on")
    if last.waiting:
        print(f"{last.waiting} are not there yet: a watcher looks for them again; `stac-watch status` says when")
    return Exit.NOT_ALL_WELL if last.held or last.failed or last.waiting else Exit.OK


def _see_through(parts: Parts, intake: Intake, request: backfilling.BackfillRequest) -> backfilling.BackfillProgress | None:
    """Returns how far it is when nothing moves any more; None when asked to stop before."""
    watcher = Watcher(replace(parts, holder=f"{parts.holder}, backfill --follow", gives_way=True), observing=False)
    began = parts.now()
    done_before = backfilling.progress(parts.ledger, intake.source.name, request, began, 0, began).done
    with _bar() as bar:
        show = _Follower(bar, parts.now)
        while True:
            tick = watcher.turn()
            found = backfilling.progress(parts.ledger, intake.source.name, request, began, done_before, parts.now())
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

    def __call__(self, tick: Tick, progress: backfilling.BackfillProgress) -> None:
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


@cli.command()
def replay(
    context: typer.Context,
    item: Annotated[list[str] | None, typer.Argument(help="Ids or keys.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    yes: YesOption = False,
    state: Annotated[State | None, typer.Option(help="Those in this state: failed, done or skipped.")] = None,
    since: Annotated[str | None, typer.Option(help="Those that changed since: 10h, 3d, a day or a time.")] = None,
    error: Annotated[str | None, typer.Option(help="Failed ones whose error has this text.")] = None,
    file: Annotated[Path | None, typer.Option(help="Those of a file: ids, keys, or what `audit --file` wrote.")] = None,
    event: Annotated[Path | None, typer.Option(help="Post this stored CloudEvent once more, byte for byte.")] = None,
) -> int:
    """Try again: makes the next attempt of each. Says what it would do, and does it with --yes."""
    with acting(context, config) as (settings, parts):
        if event is not None:
            return _repost(parts, event, yes=yes)
        intakes = {source.name: parts.intake(source) for source in settings.sources}
        targets = _selected(parts, list(intakes), item or [], file, state, since, error)
        if yes:
            targets = replaying.execute(targets, parts.ledger, intakes, parts.now)
    show(targets, json, render_targets)
    refused = sum(t.refusal is not None for t in targets)
    if not json:
        print(f"{len(targets) - refused} {'queued' if yes else 'would be queued (--yes does it)'}, {refused} refused")
    return Exit.NOT_ALL_WELL if refused else Exit.OK


def _selected(
    parts: Parts, sources: list[str], items: list[str], file: Path | None, state: State | None, since: str | None, error: str | None
) -> list[ReplayTarget]:
    wanted = [Wish(name) for name in items] + (replaying.wishes(file) if file is not None else [])
    by_state = state is not None or since is not None or error is not None
    if by_state and (wanted or file is not None):
        raise InputError("items and --state, --since or --error exclude each other", hint="select by the one or by the other")
    if not by_state and not wanted and file is None:
        raise InputError("nothing is selected", hint="name items, or give --file, or --state failed, --since 10h, --error TEXT")
    if not by_state:
        return replaying.named(wanted, parts.ledger, sources)
    moment = read_since(since, parts.now()) if since is not None else None
    rows = parts.ledger.conversions.find(state=state or State.FAILED, since=moment, error=error, limit=replaying.MOST)
    return replaying.chosen(rows, parts.ledger)


def _repost(parts: Parts, path: Path, *, yes: bool) -> int:
    body = composition.read_event(path)
    known = replaying.stored(body, parts.ledger)
    print(f"event {known.event} of {known.item} ({known.state or 'unknown'}): {known.note}")
    if not yes:
        print("it would be posted (--yes does it)")
        return Exit.OK
    return _answer(replaying.repost(body, parts.ledger, parts.engine, parts.now()))


@cli.command()
def send(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A CloudEvent, as `stac-watch event ITEM` prints it.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> int:
    """Post a CloudEvent from a file, byte for byte."""
    with acting(context, config) as (_, parts):
        return _answer(replaying.repost(composition.read_event(file), parts.ledger, parts.engine, parts.now()))


def _answer(receipt: Receipt) -> int:
    print(f"{receipt.answer.value} {receipt.detail}".strip())
    return {Answer.ACCEPTED: Exit.OK, Answer.REFUSED: Exit.BAD_INPUT, Answer.UNKNOWN: Exit.TEMPORARY}[receipt.answer]


@cli.command()
def audit(
    context: typer.Context,
    source: SourceArgument,
    start: StartOption,
    end: EndOption,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    file: Annotated[Path | None, typer.Option(help="Write the gaps that `replay --file` can close.")] = None,
) -> int:
    """Compare catalog, ledger, runs and outputs over a range of days: 0 only when nothing is missing, stale or doubled."""
    with acting(context, config) as (settings, parts):
        evidence = auditing.Evidence(parts.engine, find_marker, lambda output: composition.visible(settings, output))
        first, last = read_range(start, end, parts.now())
        found = auditing.audit(parts.intake(settings.source(source)), evidence, first, last)
        try:
            written = auditing.write(found, file) if file is not None else 0
            show(found, json, render_audit)
            if file is not None and not json:
                print(f"{written} of {len(found.gaps)} gaps written; `stac-watch replay --file {file}` tries them again")
        finally:  # last: a ledger that cannot be written must not keep back what was found, nor a broken pipe the note of it
            parts.ledger.sources.note_audit(records.Audited(source, found.at, found.start, found.end, found.kinds))
    return Exit.NOT_ALL_WELL if found.gaps else Exit.OK
