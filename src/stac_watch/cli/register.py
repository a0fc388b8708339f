"""The verbs about registering: `item` prints what is sent, `register` asks for it, `unregister` for the opposite; `announce`."""

from __future__ import annotations

import json as json_
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, ItemArgument, JsonOption, YesOption, cli, reading, show
from stac_watch.model.errors import Exit, InputError


@cli.command()
def item(context: typer.Context, item: ItemArgument, config: ConfigOption = DEFAULT_CONFIG) -> int:
    """Print the STAC item of an output as it is, or would be, registered: absolute hrefs, collection, links."""
    from stac_watch import app
    from stac_watch.jobs import register as job

    with reading(context, config) as (settings, ledger):
        rng = app.jitter()
        catalogs = {source.name: app.build_catalog(source, rng) for source in settings.sources}
        registrar = app.build_registrar(settings, ledger, catalogs, rng)
        found = registrar.prepare(job.publication_of(job.done(ledger, item)))
    print(json_.dumps(found.document, indent=2))
    return Exit.OK


@cli.command()
def register(
    context: typer.Context,
    item: Annotated[
        list[str] | None, typer.Argument(metavar="ITEM", help="Ids, keys, runs: sent again, also where nothing changed.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    yes: YesOption = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Outputs done since (10h, 3d, a day or a time) that nobody asked to register."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Those that could not be registered; with --since, since then.")] = False,
) -> int:
    """Register outputs that were done before, or once more. Print which, or queue it with --yes; the watcher sends."""
    return ask_for(context, config, item or [], since, json=json, yes=yes, failed=failed)


@cli.command()
def unregister(
    context: typer.Context,
    item: Annotated[list[str], typer.Argument(metavar="ITEM", help="Ids, keys, runs of what is taken out of the catalog.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    yes: YesOption = False,
) -> int:
    """Remove items from the catalog of registered outputs. Print which, or queue it with --yes; outputs stay."""
    from stac_watch import app
    from stac_watch.jobs import register as job
    from stac_watch.report.jobs import render_wanted

    with reading(context, config) as (settings, ledger):
        target = app.build_target(app.require_register(settings), app.jitter()).url
        wanted = job.registered(ledger, item, target)
        asked = ledger.publications.withdraw([one.key for one in wanted], app.wall_clock()) if yes else 0
    show(wanted, json, partial(render_wanted, title="to be taken out of the catalog"))
    if not json:
        print(f"{asked} asked for; the watcher takes them out" if yes else f"{len(wanted)} would be asked for (--yes does it)")
    return Exit.OK


@cli.command()
def announce(
    context: typer.Context,
    item: Annotated[list[str] | None, typer.Argument(metavar="ITEM", help="Ids, keys, runs.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    yes: YesOption = False,
    since: Annotated[str | None, typer.Option(metavar="WHEN", help="Events made since (10h, 3d, a day or a time).")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Events that a sink did not accept.")] = False,
    sink: Annotated[str | None, typer.Option(metavar="URL", help="Only of this sink: its URL, without what follows a `?`.")] = None,
) -> int:
    """Print what sinks were or will be told, or queue it once more with --yes, byte for byte; the watcher posts."""
    from stac_watch import app
    from stac_watch.cli.times import read_since
    from stac_watch.jobs import register as job
    from stac_watch.report.jobs import render_told

    if not item and since is None and not failed:
        raise InputError("name items, or give --since or --failed", hint="`stac-watch status` shows how many events wait")
    now = app.wall_clock()
    with reading(context, config) as (settings, ledger):
        names = [one.name for one in settings.sinks]
        if sink is not None and sink not in names:
            raise InputError(f"no sink is called {sink!r}", hint=f"the configuration has: {', '.join(names) or 'none'}")
        wanted = job.told(ledger, item or [], read_since(since, now) if since is not None else None, failed=failed)
        wanted = [one for one in wanted if one.sink in (names if sink is None else [sink])]
        asked = ledger.deliveries.again(wanted, now) if yes else 0
    show(wanted, json, render_told)
    if not json:
        print(f"{asked} asked for; the watcher posts them" if yes else f"{len(wanted)} would be posted again (--yes does it)")
    return Exit.OK


def ask_for(
    context: typer.Context, config: Path, item: list[str], since: str | None, *, json: bool, yes: bool, failed: bool = False
) -> int:
    """Asks for the registration of what is selected, or prints what that is."""
    from stac_watch import app
    from stac_watch.cli.times import read_since
    from stac_watch.jobs import register as job
    from stac_watch.report.jobs import render_wanted

    if bool(item) == bool(since or failed):
        raise InputError("name items, or give --since or --failed", hint="`stac-watch status` shows what is not registered")
    now = app.wall_clock()
    moment = read_since(since, now) if since is not None else None
    with reading(context, config) as (settings, ledger):
        app.require_register(settings)
        if item:
            wanted = job.named(ledger, item)
        elif failed:
            wanted = job.failed(ledger, moment)
        else:
            wanted = job.unregistered(ledger, moment)
        asked = job.ask(ledger, wanted, now, anew=bool(item)) if yes else 0
    show(wanted, json, render_wanted)
    if not json:
        print(f"{asked} asked for; the watcher sends them" if yes else f"{len(wanted)} would be asked for (--yes does it)")
    return Exit.OK
