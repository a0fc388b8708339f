"""The verb `logs`: what an item's last run wrote, wherever it ran."""

from __future__ import annotations

import typer

from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, ItemArgument, cli, reading
from stac_watch.model.errors import Exit, InputError

LONGEST = 10_000  # letters of a line


@cli.command()
def logs(context: typer.Context, item: ItemArgument, config: ConfigOption = DEFAULT_CONFIG) -> int:
    """Print what an item's last run wrote: its log on this machine, or, of a cluster, what `cluster logs` prints."""
    from stac_watch.model.errors import printable
    from stac_watch.report.explain import known
    from stac_watch.report.links import last_log

    with reading(context, config) as (settings, ledger):
        row = known(ledger, item)[0]
    if settings.engine.kind == "argo":
        from stac_watch.cli import cluster

        return cluster.logs(context, row.run or "", config)
    log = last_log(settings, row)
    if log is None:
        hint = f"`stac-watch explain {row.item_id}` says what it waits for, or why it was skipped"
        raise InputError(f"no run of {row.item_id} wrote a log here", hint=hint)
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            print(printable(line.rstrip("\n"), LONGEST))
    return Exit.OK
