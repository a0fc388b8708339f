"""The verbs that ask: status, items, explain, event. They read the ledger and nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stac_watch.cli import completing
from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, ItemArgument, JsonOption, check_source, cli, filled, reading, show
from stac_watch.model.errors import Exit, InputError
from stac_watch.model.states import State

if TYPE_CHECKING:
    from datetime import datetime

    from stac_watch.ledger.records import Where

MOST = 10_000_000  # lines of one answer: more than a ledger has


@cli.command()
def status(context: typer.Context, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> int:
    """Show counts by state, how far behind each source is, what waits and why, and what failed."""
    from stac_watch.app import wall_clock
    from stac_watch.report import status as summary

    with reading(context, config) as (settings, ledger):
        view = summary.read(ledger, settings.sources, settings.engine.limits, wall_clock(), lifetime=settings.lifetime)
    show(view, json, summary.render_status)
    return Exit.OK


@cli.command()
def items(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    tile: Annotated[
        str | None,
        typer.Option(metavar="TILE", autocompletion=completing.tiles, help="Only those on this MGRS tile: T32TQM or 32TQM."),
    ] = None,
    sensed: Annotated[
        str | None,
        typer.Option(metavar="DAYS", help="Only those acquired then: yesterday, 2026-08-01, 2026-08, 2026-06..2026-08, or 3d."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only those that changed since: 10h, 3d, a day or a time.")
    ] = None,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", callback=filled, autocompletion=completing.sources, help="Only those of this source."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", callback=filled, help="Only those with this in the id or the run's name, or as the key's start."
        ),
    ] = None,
    runner: Annotated[
        str | None,
        typer.Option(metavar="VERSION", callback=filled, help="Only those whose output this release of geozarr-runner made."),
    ] = None,
    unreadable: Annotated[bool, typer.Option("--unreadable", help="List unreadable items instead, and why.")] = False,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=MOST, help="At most this many, the last changed first.")] = 50,
) -> int:
    """List conversions, the last changed first."""
    from stac_watch.app import wall_clock
    from stac_watch.cli.times import read_since
    from stac_watch.ledger.records import Scope
    from stac_watch.report import items as listing
    from stac_watch.report.lines import plain, table

    now = wall_clock()
    where, changed = _where(tile, sensed, text, now), read_since(since, now) if since is not None else None
    with reading(context, config) as (settings, ledger):
        check_source(source, settings, ledger)
        if unreadable:
            show(listing.read_unreadable(ledger, limit), json, listing.render_unreadable, listing.plain_unreadable)
            return Exit.OK
        scope = Scope(changed, source)
        lines = listing.read(ledger, now, scope=scope, state=state, runner=runner, where=where, limit=limit)
    show(lines, json, table, plain)
    if not lines:
        print("no conversion matches; `stac-watch status` counts what there is", file=sys.stderr)
    if len(lines) == limit:
        print(f"the first {limit}; --limit shows more, --tile, --sensed, --state and --text fewer", file=sys.stderr)
    return Exit.OK


def _where(tile: str | None, sensed: str | None, text: str | None, now: datetime) -> Where:
    from stac_watch.cli.times import read_days
    from stac_watch.ledger.records import Where
    from stac_watch.model.identity import tile_name

    try:
        named = tile_name(tile) if tile is not None else None
    except ValueError as error:
        raise InputError(str(error), hint="`stac-watch items --text TEXT` finds parts of an id") from None
    return Where(named, read_days(sensed, now) if sensed is not None else None, text)


@cli.command()
def explain(context: typer.Context, item: ItemArgument, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> int:
    """Show everything that happened to one item, and what comes next."""
    from stac_watch.app import wall_clock
    from stac_watch.report import explain as chain
    from stac_watch.report import links

    with reading(context, config) as (settings, ledger):
        chains = chain.read(ledger, item, settings.engine.limits, wall_clock(), lambda run: links.log_of(settings, run))
    show(chains, json, chain.render_explanations)
    return Exit.OK


@cli.command()
def event(context: typer.Context, item: ItemArgument, config: ConfigOption = DEFAULT_CONFIG) -> int:
    """Print the CloudEvent of an item's latest attempt, byte for byte as it was or will be posted."""
    from stac_watch.report.explain import known

    with reading(context, config) as (_, ledger):
        body = ledger.conversions.events(known(ledger, item)[0].key)[-1]
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()
    return Exit.OK
