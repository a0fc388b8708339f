"""The verb for a ledger that was lost: `ledger rebuild`."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from stac_watch.cli.ledger import ledger
from stac_watch.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    YesOption,
    environ_of,
    loaded,
    progress,
    show,
    stopping,
)
from stac_watch.model.errors import Exit, InputError, Temporary

if TYPE_CHECKING:
    from stac_watch.config.model import Config
    from stac_watch.jobs.rebuild import Rebuilt, Remnant


@ledger.command()
def rebuild(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    outputs: Annotated[
        str, typer.Option(metavar="PATTERN", help="Where outputs are, as in recipe.output; empty = as that says.")
    ] = "",
    json: JsonOption = False,
    yes: YesOption = False,
) -> int:
    """Rebuild a lost ledger: each output's marker and each Workflow becomes a row. Run again to continue."""
    from stac_watch.config.places import output_template
    from stac_watch.report.jobs import render_rebuilt

    settings = loaded(context, config)
    try:
        template = output_template(outputs or settings.recipe.output)
    except ValueError as error:
        raise InputError(f"--outputs: {error}", hint="write it as recipe.output is written") from None
    with stopping() as wait, progress(quiet=json) as told:
        found = _rebuilt(settings, environ_of(context), template, yes, wait, lambda n: told("outputs looked at", n, n))
    show(found, json, render_rebuilt)
    return Exit.OK if found.complete else Exit.INTERRUPTED


def _rebuilt(
    config: Config,
    environ: Mapping[str, str],
    template: str,
    yes: bool,  # as the verb was given it
    wait: Callable[[float], bool],
    told: Callable[[int], None],
) -> Rebuilt:
    from stac_watch.app import open_ledger, visible, wall_clock
    from stac_watch.jobs.rebuild import Owners, rebuild
    from stac_watch.runs.shelves import markers, outputs

    opened = open_ledger(config)
    holder = f"{socket.gethostname()}, process {os.getpid()}, ledger rebuild"

    def begin() -> None:
        if yes and not opened.lease.hold(holder, wall_clock):
            raise Temporary("a watcher has the ledger", hint="stop it first: it would admit what is about to be found")

    owners = Owners(config.sources, config.recipe, config.installation)
    places = outputs(template) if visible(config, template) else ()
    runs = _workflows(config, environ)
    try:
        begin()
        return rebuild(opened, owners, places, markers, runs, wall_clock, yes=yes, wait=wait, show=told, begin=begin)
    finally:
        opened.lease.release()
        opened.close()


def _workflows(config: Config, environ: Mapping[str, str]) -> Iterator[Remnant]:
    """Yields what the cluster's Workflows say: those whose outputs lie on their volumes, and those that have not ended."""
    from stac_watch.app import opened_argo
    from stac_watch.jobs.rebuild import Remnant
    from stac_watch.model.states import Fact
    from stac_watch.runs.engine import Phase

    if config.engine.kind != "argo":
        return
    with opened_argo(config.engine, environ) as argo:
        volumes = argo.volumes()
        for run, asked, source in argo.every():
            outside = "://" in asked.output_zarr
            if run.phase is Phase.SUCCEEDED and not outside and run.outcome is not None and run.name in volumes:
                yield Remnant(asked.output_zarr, run.outcome, Fact.SUCCEEDED, source, run.ended)
            elif run.phase in (Phase.PENDING, Phase.RUNNING):
                yield Remnant(asked.output_zarr, asked, Fact.ACCEPTED, source, run.started)
