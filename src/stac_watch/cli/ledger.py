"""The verbs about the ledger itself: `ledger prune`.

In: a span. Out: what would be forgotten, and with --yes what was; an exit code. Never: touches anything without being told.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from stac_watch import app as composition
from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, YesOption, cli, loaded, show, stopping
from stac_watch.cli.times import read_span
from stac_watch.jobs.prune import prune
from stac_watch.model.errors import Exit
from stac_watch.report.jobs import render_pruning


class Task(StrEnum):
    """What can be done to a ledger."""

    PRUNE = "prune"


@cli.command()
def ledger(
    context: typer.Context,
    task: Annotated[Task, typer.Argument(help="prune: forget what nobody asks for of what is long done or skipped.")],  # noqa: ARG001
    config: ConfigOption = DEFAULT_CONFIG,
    older_than: Annotated[str, typer.Option(help="Only what did not change for so long.")] = "400d",
    json: JsonOption = False,
    yes: YesOption = False,
) -> int:
    """Look after the ledger. Works beside a watcher; stopped and run again, it goes on."""
    age = read_span(older_than)
    settings = loaded(context, config)
    with stopping() as wait:
        opened = composition.open_ledger(settings)
        try:
            found = prune(opened, composition.wall_clock() - age, yes=yes, wait=wait)
        finally:
            opened.close()
    show(found, json, lambda view: render_pruning(view, composition.ledger_file(settings)))
    return Exit.OK if found.complete else Exit.INTERRUPTED
