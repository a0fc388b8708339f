"""The verbs that ask: status, items, explain, event. They read the ledger and nothing else."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, ItemArgument, JsonOption, cli, reading, show
from stac_watch.model.errors import Exit
from stac_watch.model.states import State


@cli.command()
def status(context: typer.Context, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> int:
    """Show how many conversions are where, how far behind, what waits and why, and what failed."""
    from stac_watch.app import wall_clock
    from stac_watch.report import status as summary

    with reading(context, config) as (settings, ledger):
        view = summary.read(ledger, settings.sources, settings.engine.limits, wall_clock())
    show(view, json, summary.render_status)
    return Exit.OK


@cli.command()
def items(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    source: Annotated[str | None, typer.Option(help="Only those of this source.")] = None,
    unreadable: Annotated[bool, typer.Option("--unreadable", help="List unreadable items instead, and why.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the last changed first.")] = 50,
) -> int:
    """List conversions, the last changed first."""
    from stac_watch.app import wall_clock
    from stac_watch.report import items as listing
    from stac_watch.report.lines import table

    with reading(context, config) as (_, ledger):
        bad = listing.read_unreadable(ledger, limit) if unreadable else []
        lines = [] if unreadable else listing.read(ledger, wall_clock(), source=source, state=state, limit=limit)
    if unreadable:
        show(bad, json, listing.render_unreadable)
    else:
        show(lines, json, table)
    return Exit.OK


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
