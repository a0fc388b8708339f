"""The verbs that act on what is asked for: backfill, replay, send, audit. None acts without being told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stac_watch.cli import completing
from stac_watch.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    SourceArgument,
    YesOption,
    acting,
    check_source,
    cli,
    filled,
    progress,
    show,
)
from stac_watch.model.errors import Exit, InputError, StacWatchError
from stac_watch.model.states import State

if TYPE_CHECKING:
    from datetime import datetime

    from stac_watch.config.model import Config
    from stac_watch.config.register import Register
    from stac_watch.jobs.audit import Evidence
    from stac_watch.ledger.records import ConversionRow
    from stac_watch.model.item import ItemDocument
    from stac_watch.runs.engine import Receipt
    from stac_watch.watch.loop import Parts

ItemsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ITEM",
        callback=filled,
        autocompletion=completing.items,
        help="Ids, keys, runs, tiles, or parts that only one item has.",
    ),
]
ErrorOption = Annotated[
    str | None, typer.Option(metavar="TEXT", callback=filled, help="Failed conversions whose error contains this text.")
]
WishesOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", resolve_path=True, help="Read ids or keys from a file, also from what `audit --file` wrote."),
]
HeldOption = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", callback=filled, help="Those of this source that are held: only their product's host changed."),
]
RunnerOption = Annotated[
    str | None, typer.Option(metavar="VERSION", callback=filled, help="Done ones whose output this release of geozarr-runner made.")
]
EventOption = Annotated[
    Path | None, typer.Option(metavar="FILE", resolve_path=True, help="Post this stored CloudEvent once more, byte for byte.")
]
EmptyOption = Annotated[
    bool, typer.Option("--allow-empty", help="Treat missing chunks as nodata; with --now also for those that wait.")
]
StartOption = Annotated[
    str, typer.Option(metavar="WHEN", help="First acquisition: a day, an RFC 3339 time, or a span before now (30d).")
]
EndOption = Annotated[
    str, typer.Option(metavar="WHEN", help="Last acquisition: a day, which is included, or a time or span (1d), which is not.")
]


@cli.command()
def backfill(
    context: typer.Context,
    source: SourceArgument,
    start: StartOption,
    end: EndOption,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    yes: YesOption = False,
    canary: Annotated[int, typer.Option(metavar="N", min=0, help="Convert this many first; the rest only if they succeed.")] = 0,
    max_items: Annotated[int | None, typer.Option(metavar="N", min=1, help="Admit at most this many.")] = None,
    max_failures: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Hold the backfill after this many failures.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait until finished; convert here if no watcher is running.")] = False,
) -> int:
    """Convert what was acquired in a range of days: print the plan, or carry it out with --yes. Run again to continue."""
    from stac_watch.cli.following import carry_out
    from stac_watch.cli.times import read_range
    from stac_watch.jobs import backfill as job
    from stac_watch.report.jobs import render_plan

    with acting(context, config) as (settings, parts):
        intake = parts.intake(settings.source(source))
        first, last = read_range(start, end, parts.now())
        request = job.check_range(job.BackfillRequest(first, last, canary, max_items, max_failures), parts.now())
        if not yes:
            show(job.plan(intake, parts.limits, request), json, render_plan)
            return Exit.OK
        return carry_out(parts, intake, request, follow=follow)


@cli.command()
def replay(
    context: typer.Context,
    item: ItemsArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    yes: YesOption = False,
    state: Annotated[State | None, typer.Option(help="Those in this state: failed, done or skipped.")] = None,
    since: Annotated[str | None, typer.Option(metavar="WHEN", help="Those that changed since: 10h, 3d, a day or a time.")] = None,
    error: ErrorOption = None,
    now: Annotated[bool, typer.Option("--now", help="Queued ones, too: send them at once, not when they are due.")] = False,
    allow_empty: EmptyOption = False,
    file: WishesOption = None,
    held: HeldOption = None,
    runner: RunnerOption = None,
    as_was: Annotated[bool, typer.Option("--as-was", help="Use the recipe that each had, not the current one.")] = False,
    event: EventOption = None,
    register: Annotated[bool, typer.Option("--register", help="Register the items named once more; nothing is converted.")] = False,
) -> int:
    """Try again: make the next attempt of each. Print what would be done, or do it with --yes."""
    if register:
        from stac_watch.cli.register import ask_for

        if not item or now or allow_empty or any(given is not None for given in (state, since, error, file, held, event)):
            raise InputError("replay --register takes items, and nothing else", hint="`stac-watch register` selects in other ways")
        return ask_for(context, config, item, None, json=json, yes=yes)
    from stac_watch.jobs import replay as job
    from stac_watch.report.jobs import render_targets

    with acting(context, config) as (settings, parts):
        if event is not None and allow_empty:
            raise InputError("an event is posted byte for byte: --allow-empty would change it", hint="replay the item instead")
        if event is not None:
            return _repost(parts, event, yes=yes)
        check_source(held, settings, parts.ledger)
        intakes = {source.name: parts.intake(source) for source in settings.sources}
        wanted = [job.Wish(name) for name in item or []] + (job.wishes(file) if file is not None else [])
        wanted += job.held(held, parts.ledger) if held is not None else []
        recipes = job.AS_THEY_WERE if as_was else intakes
        if wanted or file is not None or held is not None:
            _check_alone(state, since, error, runner)
            targets = job.named(wanted, parts.ledger, list(intakes), recipes, urgent=now)
        else:
            targets = job.chosen(_selected(parts, state, since, error, runner), parts.ledger, recipes, urgent=now)
        if yes:
            targets = job.execute(targets, parts.ledger, intakes, parts.now, allow_empty=allow_empty, as_was=as_was)
        else:
            targets = job.preview(job.fit_for_empty(targets, parts.ledger) if allow_empty else targets, intakes)
    show(targets, json, render_targets)
    refused = sum(t.refusal is not None for t in targets)
    if not json:
        print(f"{len(targets) - refused} {'queued' if yes else 'would be queued (--yes does it)'}, {refused} refused")
    return Exit.NOT_ALL_WELL if refused else Exit.OK


def _check_alone(*selection: object) -> None:
    if any(given is not None for given in selection):
        raise InputError(
            "items and --state, --since, --error or --runner exclude each other", hint="select by the one or by the other"
        )


def _selected(parts: Parts, state: State | None, since: str | None, error: str | None, runner: str | None) -> list[ConversionRow]:
    from stac_watch.cli.times import read_since
    from stac_watch.jobs import replay as job

    if (state, since, error, runner) == (None, None, None, None):
        hint = "name items, or give --file, or --state failed, --since 10h, --error TEXT, --runner 0.1.0"
        raise InputError("nothing is selected", hint=hint)
    moment = read_since(since, parts.now()) if since is not None else None
    usual = State.DONE if runner is not None else State.FAILED
    return parts.ledger.conversions.find(state=state or usual, since=moment, error=error, runner=runner, limit=job.MOST)


def _repost(parts: Parts, path: Path, *, yes: bool) -> int:
    from stac_watch.jobs import replay as job
    from stac_watch.jobs.replay import read_event

    body = read_event(path)
    known = job.stored(body, parts.ledger)
    print(f"event {known.event} of {known.item} ({known.state or 'unknown'}): {known.note}")
    if not yes:
        print("it would be posted (--yes does it)")
        return Exit.OK
    return _answer(job.repost(body, parts.ledger, parts.engine, parts.now()))


@cli.command()
def send(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A CloudEvent, as `stac-watch event ITEM` prints it; - = standard input.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
) -> int:
    """Post a CloudEvent from a file, byte for byte."""
    from stac_watch.jobs.replay import read_event, repost

    body = sys.stdin.buffer.read() if str(file) == "-" else read_event(file)
    with acting(context, config) as (_, parts):
        return _answer(repost(body, parts.ledger, parts.engine, parts.now()))


def _answer(receipt: Receipt) -> int:
    from stac_watch.runs.engine import Answer

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
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", resolve_path=True, help="Write the gaps that `replay --file` can close.")
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte of the outputs, and compare it with its checksum.")] = False,
    pace: Annotated[
        str | None, typer.Option(metavar="SIZE", help="With --deep: read at most so many bytes a second, for example 50M.")
    ] = None,
    runner: Annotated[
        str, typer.Option(metavar="VERSION", help="Call outputs of every other release of geozarr-runner drifted.")
    ] = "",
) -> int:
    """Compare catalog, ledger, runs and outputs over a range of days: exit code 0 only if nothing is missing, stale or doubled."""
    from stac_watch.cli.times import read_range
    from stac_watch.jobs import audit as job
    from stac_watch.jobs import registered
    from stac_watch.ledger.records import Audited
    from stac_watch.report.jobs import render_audit
    from stac_watch.runs.deep import ReadingStopped

    with acting(context, config) as (settings, parts), progress(quiet=json or not deep) as told:
        evidence, expect = _evidence(settings, parts, told, deep=deep, pace=pace)
        first, last = read_range(start, end, parts.now())
        try:
            found = job.audit(parts.intake(settings.source(source)), evidence, first, last, expect, runner=runner)
        except ReadingStopped:
            return Exit.INTERRUPTED
        unseen = None
        try:
            if settings.registration is not None:
                found = registered.compared(found, parts.ledger, partial(_listing, settings.registration, first, last))
        except StacWatchError as error:  # said last: what was found of the rest is not kept back
            unseen = error
        try:
            written = job.write(found, file) if file is not None else 0
            show(found, json, render_audit)
            if file is not None and not json:
                print(f"{written} of {len(found.gaps)} gaps written; `stac-watch replay --file {file}` tries them again")
        finally:  # last: a ledger that cannot be written must not keep back what was found, nor a broken pipe the note of it
            parts.ledger.sources.note_audit(Audited(source, found.at, found.start, found.end, found.kinds))
    if unseen is not None:
        raise unseen
    return Exit.NOT_ALL_WELL if found.gaps else Exit.OK


def _listing(register: Register, start: datetime, end: datetime) -> Iterator[ItemDocument]:
    """Yields the items of the catalog of outputs that were acquired in `[start, end)`."""
    from stac_watch import app
    from stac_watch.catalog.probe import probe
    from stac_watch.catalog.reader import leaves
    from stac_watch.catalog.windows import days
    from stac_watch.config.model import Source

    rng = app.jitter()
    if app.build_target(register, rng).described() is None:
        return
    place = Source(name="outputs", api=register.api, collection=register.collection, auth=register.auth)
    catalog = app.build_catalog(place, rng)
    probe(catalog, place.poll.page)
    for window in days("datetime", start, end):
        for leaf in leaves(catalog, window, place.poll.page):
            yield from leaf.documents


def _evidence(
    settings: Config, parts: Parts, told: Callable[[str, int, int], None], *, deep: bool, pace: str | None
) -> tuple[Evidence, Callable[[int], None]]:
    """Returns what an audit looks at, and what must be told how many bytes there are."""
    from stac_watch.app import visible
    from stac_watch.cli.times import read_size
    from stac_watch.jobs.audit import Evidence
    from stac_watch.runs import deep as bytewise
    from stac_watch.runs.markers import find_marker, missing

    if pace is not None and not deep:
        raise InputError("--pace is for what --deep reads", hint="add --deep, or leave it out")
    counted = {"read": 0, "expected": 0}

    def expect(size: int) -> None:
        counted["expected"] = size

    def read(size: int) -> None:
        counted["read"] += size
        told("bytes", counted["read"], max(counted["read"], counted["expected"]))

    speed = bytewise.Pace(read_size(pace) if pace is not None else None, parts.wait, read)
    look = partial(bytewise.damage, pace=speed) if deep else missing
    evidence = Evidence(
        parts.engine, find_marker, lambda output: visible(settings, output), look, volumes=parts.volumes, give_up=speed.stop
    )
    return evidence, expect


@cli.command()
def retire(
    context: typer.Context,
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="Only this source's.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    yes: YesOption = False,
    at_most: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Remove up to this many of a source, even if that is most of it.")
    ] = None,
) -> int:
    """Do what `on_gone` says with outputs whose items are gone from the catalog: print it, or do it with --yes."""
    from stac_watch.app import visible
    from stac_watch.jobs import retire as job
    from stac_watch.report.jobs import render_retiring

    with acting(context, config) as (settings, parts):
        sources = [settings.source(source)] if source is not None else list(settings.sources)
        targets = job.plan(parts.ledger, sources, lambda output: visible(settings, output), at_most)
        if yes:
            targets = job.execute(targets, parts.ledger, parts.now, registers=parts.registrar is not None)
    show([replace(target, retired=None) for target in targets], json, render_retiring)
    refused = sum(target.refusal is not None for target in targets)
    if not json:
        print(f"{len(targets) - refused} {'done' if yes else 'would be done (--yes does it)'}, {refused} refused")
    return Exit.NOT_ALL_WELL if refused else Exit.OK
