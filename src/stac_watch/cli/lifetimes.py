"""The verb `expire`: outputs whose lifetime is over."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, YesOption, acting, cli, show
from stac_watch.model.errors import Exit


class Counted(StrEnum):
    """From when the age of an output is counted."""

    ACQUIRED = "acquired"
    DONE = "done"


@cli.command()
def expire(
    context: typer.Context,
    older_than: Annotated[str, typer.Option(metavar="SPAN", help="Age of what goes: 90d, 36h.")],
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="Only this source's.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    yes: YesOption = False,
    since: Annotated[Counted, typer.Option(help="Age since the acquisition, or since the conversion was done.")] = Counted.ACQUIRED,
    at_most: Annotated[int | None, typer.Option(metavar="N", min=0, help="Refuse a plan that removes more outputs.")] = None,
) -> int:
    """Remove outputs whose lifetime is over: print how many and how many GB, or do it with --yes. They are not converted again."""
    from stac_watch.app import visible
    from stac_watch.cli.times import read_span
    from stac_watch.jobs import expire as job
    from stac_watch.report.jobs import render_expiry

    age = read_span(older_than)
    with acting(context, config) as (settings, parts):
        names = [settings.source(source).name] if source is not None else [one.name for one in settings.sources]
        found = job.plan(parts.ledger, names, parts.now() - age, since.value, lambda output: visible(settings, output), at_most)
        if yes:
            found = job.execute(found, parts.ledger, parts.now, registers=parts.registrar is not None)
    show(found, json, render_expiry)
    refused = len(found.outputs) - found.count
    if not json:
        what = "removed" if yes else "would be removed (--yes does it)"
        print(f"{found.count} outputs, {found.bytes / 1e9:.1f} GB {what}, {refused} refused")
    return Exit.NOT_ALL_WELL if refused else Exit.OK
