"""The verb about the ledger itself: `ledger prune`."""

from __future__ import annotations

from typing import Annotated

import typer

from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, YesOption, group, loaded, show, stopping
from stac_watch.model.errors import Exit

ledger = group("ledger")


@ledger.callback()
def _about() -> None:
    """Look after the ledger."""


@ledger.command()
def prune(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    older_than: Annotated[str, typer.Option(help="Only what has not changed for this long.")] = "400d",
    json: JsonOption = False,
    yes: YesOption = False,
) -> int:
    """Remove details of what was done or skipped long ago. Works beside a watcher; run again to continue."""
    from stac_watch import app
    from stac_watch.cli.times import read_span
    from stac_watch.jobs import prune as pruning
    from stac_watch.report.jobs import render_pruning

    age = read_span(older_than)
    settings = loaded(context, config)
    with stopping() as wait:
        opened = app.open_ledger(settings)
        try:
            found = pruning.prune(opened, app.wall_clock() - age, yes=yes, wait=wait)
        finally:
            opened.close()
    show(found, json, lambda view: render_pruning(view, app.ledger_file(settings)))
    return Exit.OK if found.complete else Exit.INTERRUPTED
