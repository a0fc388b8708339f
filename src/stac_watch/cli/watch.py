"""The verb `watch`."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, acting, cli


class Log(StrEnum):
    """How a watcher says what it does where no terminal shows it."""

    TEXT = "text"
    JSON = "json"


@cli.command()
def watch(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    once: Annotated[bool, typer.Option("--once", help="Poll once, finish what was found, and exit.")] = False,
    log: Annotated[
        Log, typer.Option(help="text: a sentence for each round that moved something; json: a line for each move.")
    ] = Log.TEXT,
) -> int:
    """Watch the sources and convert what is new, until stopped."""
    from stac_watch import app
    from stac_watch.cli.rounds import reporter, watch_on, watch_once

    with acting(context, config, stop_runs=True) as (settings, parts):
        if once:
            return watch_once(parts, as_json=log is Log.JSON)
        with app.serving(settings, parts) as (url, note):
            if url:
                print(json.dumps({"event": "web", "url": url}) if log is Log.JSON else f"web: {url}", flush=True)
            with reporter(parts, as_json=log is Log.JSON) as report:
                return watch_on(parts, report, note)
