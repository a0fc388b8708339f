"""The verbs that one begins with: check and demo."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, cli, environ_of, loaded, stopping
from stac_watch.model.errors import Exit, StacWatchError, Unavailable


@cli.command()
def check(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    wait: Annotated[
        str, typer.Option(metavar="SPAN", help="Keep asking for this long (60s, 5m) while something does not answer.")
    ] = "0s",
) -> int:
    """Check the configuration, the catalogs, the ledger and the engine: one line each, with what to do."""
    from stac_watch.cli.checks import checks, patiently
    from stac_watch.cli.times import read_span

    settings = loaded(context, config)
    end = time.monotonic() + read_span(wait, "--wait").total_seconds()
    code = Exit.OK
    for name, probe in checks(settings, environ_of(context)):
        try:
            print(f"ok    {name}: {patiently(probe, lambda: time.monotonic() < end, time.sleep)}", flush=True)
        except StacWatchError as error:
            code = max(code, error.exit_code)
            print(f"FAIL  {name}: {error.message}\n      → {error.hint}", flush=True)
    return code


@cli.command()
def demo(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", resolve_path=True, help="The demo's folder; recreated each time.")
    ] = Path("var/demo"),
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port of the demo catalog; 0 = any free one.")] = 0,
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Pixels per side at 10 m; a multiple of 12.")] = 756,
    keep: Annotated[bool, typer.Option("--keep", help="Keep watching after the demo has ended.")] = False,
) -> int:
    """Show the whole thing on this machine in about a minute."""
    from rich.console import Console

    from stac_watch import app

    try:
        from stac_watch.demo import scenario
    except ModuleNotFoundError as error:
        raise Unavailable(f"the demo needs {error.name}", hint="install the extra: stac-watch[demo]") from error

    with stopping() as wait:
        return scenario.play(
            folder,
            port=port,
            size=size,
            keep=keep,
            build=lambda config, wait_: app.build(config, environ_of(context), wait_),
            serving=app.serving,
            lines=app.lines,
            wait=wait,
            console=Console(),
        )
