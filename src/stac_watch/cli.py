"""The command line: parse, one call, render, exit code.

In: argv and the environment. Out: text on stdout, errors as one line on stderr, a documented exit code. Never: decides anything.
This is the only module with argv, print, environ and exit; `geozarr_runner.cli` is its counterpart in the runner.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.live import Live

from stac_watch import app as composition
from stac_watch import views
from stac_watch.config import Config, load
from stac_watch.errors import Exit, InputError, StacWatchError, Unavailable
from stac_watch.ledger import Ledger
from stac_watch.records import ConversionRow
from stac_watch.states import State
from stac_watch.watch import Parts, Tick, Watcher

cli = typer.Typer(add_completion=False, rich_markup_mode=None, help=__doc__.splitlines()[0] if __doc__ else None)
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON; its fields are a documented contract.")]
DEFAULT_CONFIG = Path("stac-watch.yaml")


def main() -> None:
    """Runs the command line; every error of ours becomes one line and its exit code."""
    debug = "--debug" in sys.argv
    argv = [a for a in sys.argv[1:] if a != "--debug"] or ["--help"]
    try:
        code = cli(args=argv, standalone_mode=False)
    except StacWatchError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  → {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = Exit.INTERRUPTED
    except typer.TyperException as error:
        print(f"error: {error.format_message()}\n  → `stac-watch --help` lists the verbs and their options", file=sys.stderr)
        sys.exit(Exit.USAGE)
    except Exception as error:  # noqa: BLE001  # the top of the program: whatever it is, people get one line
        if debug:
            traceback.print_exc()
        print(f"error: a defect of stac-watch: {type(error).__name__}: {error}", file=sys.stderr)
        print("  → run it again with --debug and report the traceback", file=sys.stderr)
        sys.exit(Exit.DEFECT)
    if code == Exit.INTERRUPTED:  # typer turns Ctrl-C into this code by itself where it can
        print("interrupted; start the same command again to go on", file=sys.stderr)
    sys.exit(code or 0)


@cli.command()
def watch(config: ConfigOption = DEFAULT_CONFIG, once: Annotated[bool, typer.Option(help="One tick to the end.")] = False) -> int:
    """Watch the sources and convert what is new, until stopped."""
    settings = load(config, os.environ)
    with stopping() as wait:
        parts = composition.build(settings, os.environ, wait)
        try:
            parts_report = reporter(parts)
            with parts_report as report:
                return watch_once(parts, report) if once else watch_on(parts, report)
        finally:
            parts.engine.close(stop_runs=True)
            parts.ledger.close()


def watch_on(parts: Parts, report: Callable[[Tick], None]) -> int:
    """Loops until a signal; a stop by SIGTERM is an orderly end."""
    Watcher(parts).run(report)
    return Exit.OK


def watch_once(parts: Parts, report: Callable[[Tick], None]) -> int:
    """Returns 0 when everything that was due ended well, 1 when something is dead, 130 when interrupted."""
    before = {row.key for row in parts.ledger.conversions(state=State.DEAD)}
    if not Watcher(parts).drain(report):
        return Exit.INTERRUPTED
    dead = [row for row in parts.ledger.conversions(state=State.DEAD) if row.key not in before]
    return Exit.NOT_ALL_WELL if dead else Exit.OK


@cli.command()
def status(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> int:
    """Show how many conversions are where, and which need eyes."""
    with reading(config) as (_, ledger):
        now, due = composition.wall_clock(), ledger.waiting()
        rows = [r for s in (State.SENT, State.RUNNING, State.DEAD) for r in ledger.conversions(state=s)]
        view = views.status(ledger.counts(), len(ledger.quarantined()), [views.line(r, now, due=due.get(r.key)) for r in rows])
    show(view, json, views.render_status)
    return Exit.OK


@cli.command()
def items(
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the last changed first.")] = 50,
) -> int:
    """List conversions, the last changed first."""
    with reading(config) as (_, ledger):
        now, due = composition.wall_clock(), ledger.waiting()
        lines = [views.line(r, now, due=due.get(r.key)) for r in ledger.conversions(state=state, limit=limit)]
    show(lines, json, views.table)
    return Exit.OK


@cli.command()
def explain(item: str, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> int:
    """Show everything that happened to one item, and what comes next."""
    with reading(config) as (settings, ledger):
        now, due = composition.wall_clock(), ledger.waiting()
        chains = [
            views.explanation(
                row, now, history=ledger.history(row.key), bodies=ledger.events(row.key), due=due.get(row.key),
                log=composition.log_of(settings, row.run),
            )
            for row in known(ledger, item)
        ]  # fmt: skip
    show(chains, json, views.render_explanations)
    return Exit.OK


@cli.command()
def event(item: str, config: ConfigOption = DEFAULT_CONFIG) -> int:
    """Print the CloudEvent of an item's latest attempt, byte for byte as it was or will be posted."""
    with reading(config) as (_, ledger):
        body = ledger.events(known(ledger, item)[0].key)[-1]
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()
    return Exit.OK


@cli.command()
def check(config: ConfigOption = DEFAULT_CONFIG) -> int:
    """Check the configuration, the catalogues, the ledger and the engine: one line each, with what to do."""
    settings = load(config, os.environ)
    code = Exit.OK
    for name, probe in composition.checks(settings, os.environ):
        try:
            print(f"ok    {name}: {probe()}")
        except StacWatchError as error:
            code = max(code, error.exit_code)
            print(f"FAIL  {name}: {error.message}\n      → {error.hint}")
    return code


@cli.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything of the demo lies; made anew each time.")] = Path("var/demo"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the demo catalogue; 0 = any free one.")] = 0,
    size: Annotated[int, typer.Option(help="Pixels per side at 10 m; a multiple of 72.")] = 720,
    keep: Annotated[bool, typer.Option("--keep", help="Go on watching when the story is told.")] = False,
) -> int:
    """Show the whole thing on this machine in about a minute."""
    try:
        from stac_watch.demo import scenario  # numpy and a web server are not needed by any other verb
    except ModuleNotFoundError as error:
        raise Unavailable(f"the demo needs {error.name}", hint="install the extra: stac-watch[demo]") from error

    with stopping() as wait:
        return scenario.play(
            folder,
            port=port,
            size=size,
            keep=keep,
            build=lambda config, wait_: composition.build(config, os.environ, wait_),
            lines=composition.lines,
            wait=wait,
            console=Console(),
        )


# -- shared by the verbs -------------------------------------------------------------------------------------------------------


def known(ledger: Ledger, item: str) -> list[ConversionRow]:
    """Returns the conversions of an item, by its id or a key.

    Raises:
        InputError: the ledger has none.
    """
    rows = ledger.conversions(item_id=item) or [row for row in [ledger.get(item)] if row is not None]
    if not rows:
        raise InputError(f"the ledger knows no item or key {item!r}", hint="`stac-watch items` lists what it knows")
    return rows


def show[V](value: V, json: bool, render: Callable[[V], RenderableType]) -> None:
    """Prints a view as JSON or as text."""
    if json:
        print(views.as_json(value))
    else:
        Console().print(render(value))


@contextmanager
def reading(config: Path) -> Iterator[tuple[Config, Ledger]]:
    """Opens the ledger for a verb that asks."""
    settings = load(config, os.environ)
    ledger = composition.open_ledger(settings)
    try:
        yield settings, ledger
    finally:
        ledger.close()


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


@contextmanager
def reporter(parts: Parts) -> Iterator[Callable[[Tick], None]]:
    """Yields what shows a tick: a live table on a terminal, a line per change elsewhere."""
    console = Console()
    if not console.is_terminal:
        yield lambda tick: print_tick(tick)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield lambda tick: live.update(views.watching(composition.lines(parts), tick.problems))


def print_tick(tick: Tick) -> None:
    """Prints what a tick moved; nothing when nothing moved."""
    for source, problem in tick.problems.items():
        print(f"source {source}: {problem.message}; asked again at the next poll", flush=True)
    if not tick.idle:
        print(views.sentence(tick.tallies, tick.facts, tick.sent.accepted, tick.sent.unknown), flush=True)
