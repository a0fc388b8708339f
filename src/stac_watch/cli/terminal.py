"""The terminal that the verbs share: the Typer application, common options, opening and closing, signals, printing a view.

In: a verb's arguments. Out: parts, text on stdout. Never: a verb of its own.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console, RenderableType

from stac_watch import app as composition
from stac_watch.config.load import load
from stac_watch.config.model import Config
from stac_watch.ledger.ledger import Ledger
from stac_watch.report.as_json import as_json
from stac_watch.watch.loop import Parts

cli = typer.Typer(rich_markup_mode=None)
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON; its fields are a documented contract.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do it; without it, say what would be done.")]
SourceArgument = Annotated[str, typer.Argument(help="A source's name, as in the configuration.")]
ItemArgument = Annotated[str, typer.Argument(help="An item's id, or a conversion's key.")]
DEFAULT_CONFIG = Path("stac-watch.yaml")


def _version(asked: bool) -> None:
    if asked:
        print(f"stac-watch {version('stac-watch')}")
        raise typer.Exit


@cli.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")] = False,
) -> None:
    """Watch a STAC API, and convert what is new to GeoZarr."""


def show[V](value: V, json: bool, render: Callable[[V], RenderableType]) -> None:
    """Prints a view as JSON or as text."""
    if json:
        print(as_json(value))
    else:
        Console(markup=False, emoji=False).print(render(value))  # ids and errors of other people are no markup


@contextmanager
def reading(config: Path) -> Iterator[tuple[Config, Ledger]]:
    """Opens the ledger for a verb that asks: an older one is left as it is, and refused."""
    settings = load(config, os.environ)
    ledger = composition.open_ledger(settings, upgrade=False)
    try:
        yield settings, ledger
    finally:
        ledger.close()


@contextmanager
def acting(config: Path, *, stop_runs: bool = False) -> Iterator[tuple[Config, Parts]]:
    """Opens everything for a verb that acts; SIGTERM is an orderly end."""
    settings = load(config, os.environ)
    with stopping() as wait:
        parts = composition.build(settings, os.environ, wait)
        try:
            yield settings, parts
        finally:
            try:
                parts.engine.close(
                    stop_runs=stop_runs and parts.ledger.lease.is_held
                )  # a standby's end is not that of another's runs
            finally:  # a second Ctrl-C while runs are awaited must not leave the next watcher waiting
                parts.ledger.lease.release()
                parts.ledger.close()


@contextmanager
def stopping() -> Iterator[Callable[[float], bool]]:
    """Turns SIGTERM into an orderly end: yields a wait that is cut short by it. Ctrl-C stays KeyboardInterrupt."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop.wait
    finally:
        signal.signal(signal.SIGTERM, before)
