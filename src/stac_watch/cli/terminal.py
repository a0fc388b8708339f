"""What the verbs share: the Typer applications, common options, opening and closing, signals, printing a view.

A verb gets its environment from `context`, as `main` was given it; nothing here reads the process's own. A module of verbs imports
what a verb works with inside the verb: SQLAlchemy, pydantic, rich and the Kubernetes client take a second together, and `--help` or
a wrong option needs none of them (held by tests/cli/test_imports.py).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stac_watch.cli import completing
from stac_watch.cli.synopsis import Synopsis
from stac_watch.model.errors import Exit, InputError, Temporary

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import RenderableType

    from stac_watch.config.model import Config
    from stac_watch.ledger.ledger import Ledger
    from stac_watch.watch.loop import Parts

SHORT = {"help_option_names": ["-h", "--help"]}
cli = typer.Typer(rich_markup_mode=None, cls=Synopsis, context_settings=SHORT)


def _config(context: typer.Context, value: Path) -> Path:
    """Returns the file that is named; not resolved, for a ConfigMap's is a link into a folder that goes with its next version."""
    source = context.get_parameter_source("config")
    if source is not None and source.name == "DEFAULT" and (named := environ_of(context).get(completing.ENVIRONMENT)):
        value = Path(named)
    return value.absolute()


def filled(parameter: typer.CallbackParam, value: Any) -> Any:  # noqa: ANN401  # a text, several, or none
    """Refuses a value that is empty, as a shell's variable that is not set makes it: an empty text is part of every other one.

    Raises:
        InputError: names the option.
    """
    given = [value] if isinstance(value, str) else value or []
    if any(not text.strip() for text in given):
        raise InputError(f"{parameter.opts[-1]} is empty", hint="give it a value, or leave it out")
    return value


ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config", "-c", metavar="FILE", callback=_config, help="The configuration file; else that of STAC_WATCH_CONFIG."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON; its fields are a documented contract.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do it; without it, print what would be done.")]
SourceArgument = Annotated[
    str, typer.Argument(metavar="SOURCE", autocompletion=completing.sources, help="A source's name, as in the configuration.")
]
ItemArgument = Annotated[
    str,
    typer.Argument(
        metavar="ITEM",
        callback=filled,
        autocompletion=completing.items,
        help="An item's id, a key, a run's name, a tile, or a part that only one has.",
    ),
]
ASKING = frozenset({"status", "items", "explain", "event", "logs"})
"""Verbs that end before the search for cycles, which `cli.program` stopped, would pay; all others may go on for long."""
GRACE = 28.0
"""Seconds from SIGTERM to the end: Kubernetes kills after 30, and runs of this machine are given 24 of them."""
PIPE_WIDTH = 240
"""Columns of what is written to a pipe or a file, where no terminal says how many there are: ids and paths are not broken."""
DEFAULT_CONFIG = Path(completing.FILE)


@dataclass
class Call:
    """One call of the command line: what it was given beside its arguments."""

    environ: Mapping[str, str]
    debug: bool = False


def environ_of(context: typer.Context) -> Mapping[str, str]:
    """Returns the environment that `main` was given."""
    call: Call = context.obj
    return call.environ


def loaded(context: typer.Context, config: Path) -> Config:
    """Loads the configuration that a verb names, with the environment's overrides.

    Relative paths in it are relative to its folder, so that the same file means the same ledger and outputs from everywhere: the
    program goes there. Paths of the command line were made absolute by then.
    """
    from stac_watch.config.load import load

    if config.parent.is_dir():
        os.chdir(config.parent)
    return load(config, environ_of(context))


def group(name: str) -> typer.Typer:
    """Returns a new sub-application: `stac-watch NAME VERB`."""
    made = typer.Typer(rich_markup_mode=None, cls=Synopsis)
    cli.add_typer(made, name=name)
    return made


def alone(program: typer.Typer, verb: str) -> typer.Typer:
    """Returns the application with this verb, or this sub-application, only; with all where it has no such one.

    Typer evaluates each annotation of each verb that it is given: of all of them that is a tenth of what `status` costs.
    """
    verbs = [command for command in program.registered_commands if _name(command) == verb]
    groups = [inner for inner in program.registered_groups if inner.name == verb]
    if not verbs and not groups:
        return program
    made = typer.Typer(rich_markup_mode=None, cls=Synopsis, context_settings=SHORT)
    made.registered_callback, made.registered_commands, made.registered_groups = program.registered_callback, verbs, groups
    return made


def _name(command: typer.models.CommandInfo) -> str | None:
    return command.name or (command.callback and command.callback.__name__.replace("_", "-"))


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"stac-watch {version('stac-watch')}")
        raise typer.Exit


@cli.callback()
def _options(
    context: typer.Context,
    _version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Add the traceback to an error.")] = False,
) -> None:
    """Watch a STAC API, and convert what is new to GeoZarr."""
    call: Call = context.obj
    call.debug = debug
    if context.invoked_subcommand not in ASKING:
        gc.enable()


def show[V](value: V, json: bool, render: Callable[[V], RenderableType], plain: Callable[[V], str] | None = None) -> None:
    """Prints a view as JSON, as text for a terminal, or, where it is a pipe, as what `plain` makes of it; there nothing is cut."""
    if json:
        from stac_watch.report.as_json import as_json

        print(as_json(value))
        return
    if plain is not None and not sys.stdout.isatty():
        if text := plain(value):
            print(text)
        return
    from rich.console import Console

    # ids and errors of other people are no markup
    width = None if sys.stdout.isatty() else get_terminal_size((PIPE_WIDTH, 0)).columns
    Console(markup=False, emoji=False, width=width).print(render(value))


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yields what shows how far something is (its name, done, of how many): bars on a terminal, nothing in a pipe."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    bars: dict[str, TaskID] = {}
    console = Console(stderr=True)
    with Progress(console=console, disable=quiet or not console.is_terminal) as shown:

        def told(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = shown.add_task(name, total=total)
            shown.update(bars[name], completed=done)

        yield told


@contextmanager
def reading(context: typer.Context, config: Path) -> Iterator[tuple[Config, Ledger]]:
    """Opens the ledger for a verb that asks: none is made, and an older one is left as it is, and refused."""
    from stac_watch.app import open_ledger

    settings = loaded(context, config)
    ledger = open_ledger(settings, asks=True)
    try:
        yield settings, ledger
    finally:
        ledger.close()


def check_source(name: str | None, config: Config, ledger: Ledger) -> None:
    """Makes sure that there is such a source, or was: what it found stays in the ledger.

    Raises:
        ConfigError: there is none; the hint lists those there are.
    """
    if name is not None and name not in {place.source for place in ledger.counts.funnel()}:
        config.source(name)


@contextmanager
def acting(context: typer.Context, config: Path, *, stop_runs: bool = False) -> Iterator[tuple[Config, Parts]]:
    """Opens everything for a verb that acts; SIGTERM is an orderly end."""
    from stac_watch.app import build

    settings = loaded(context, config)
    with stopping() as wait:
        parts = build(settings, environ_of(context), wait)
        try:
            yield settings, parts
        finally:
            try:
                # a standby's end is not that of another's runs
                parts.engine.close(stop_runs=stop_runs and parts.ledger.lease.is_held)
            finally:  # a second Ctrl-C while runs are awaited must not leave the next watcher waiting
                with suppress(Temporary):  # a ledger that does not answer lets the lease run out by itself
                    parts.ledger.lease.release()
                parts.ledger.close()


@contextmanager
def stopping(grace: float = GRACE) -> Iterator[Callable[[float], bool]]:
    """Turns SIGTERM into an orderly end: yields a wait that is cut short by it. Ctrl-C stays KeyboardInterrupt.

    It ends within `grace` seconds, whatever the program waits for: Python runs a handler only between two steps of the main thread,
    and a database that does not answer is one step. So the number goes through a pipe, which the kernel's own handler writes.
    """
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    hears, says = socket.socketpair()
    says.setblocking(False)
    ended = threading.Event()
    last = threading.Thread(target=_end_by_force, args=(hears, stop, ended, grace), name="last resort", daemon=True)
    before = signal.signal(signal.SIGTERM, ask)
    told = signal.set_wakeup_fd(says.fileno(), warn_on_full_buffer=False)
    last.start()
    try:
        yield stop.wait
    finally:
        ended.set()
        signal.set_wakeup_fd(told)
        signal.signal(signal.SIGTERM, before)
        says.close()
        last.join()
        hears.close()


def _end_by_force(hears: socket.socket, stop: threading.Event, ended: threading.Event, grace: float) -> None:
    """Waits for SIGTERM, and then for an orderly end; nothing is lost without one, for the ledger survives any."""
    while signal.SIGTERM not in (heard := hears.recv(64)):
        if not heard:  # the other end was closed
            return
    stop.set()
    if not ended.wait(grace):
        os._exit(Exit.TERMINATED)
