"""The command line: parse, one call, render, exit code.

`main` is the entry of the program and of tests: it is given argv and the environment, and returns the exit code. This package is
the only one with argv, print, environ and exit; `geozarr_runner.cli` is its counterpart in the runner.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from stac_watch import app as composition
from stac_watch.cli import ask as cli_asking
from stac_watch.cli import cluster as cli_operating
from stac_watch.cli import deploy as cli_deploying
from stac_watch.cli import jobs as cli_acting
from stac_watch.cli import ledger as cli_ledger
from stac_watch.cli.setup import checks
from stac_watch.cli.terminal import DEFAULT_CONFIG, Call, ConfigOption, acting, cli, environ_of, loaded, stopping
from stac_watch.model.errors import Exit, Refused, StacWatchError, Temporary, Unavailable
from stac_watch.model.states import State
from stac_watch.report.lines import Line
from stac_watch.report.log import as_line, over_line, standby_line, trouble_line
from stac_watch.report.watching import News, Troubles, over, sentence, trouble, waiting, watching
from stac_watch.watch.loop import Parts, Tick, Watcher

# the parts register their verbs when they are imported
__all__ = ["cli", "cli_acting", "cli_asking", "cli_deploying", "cli_ledger", "cli_operating", "main"]


class Log(StrEnum):
    """How a watcher says what it does where no terminal shows it."""

    TEXT = "text"
    JSON = "json"


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Runs one command line and returns its exit code; every error of ours becomes one line on stderr.

    The process's own arguments where none are given. A verb that is ended by a signal may raise SystemExit with its code.
    """
    call = Call(environ)
    try:
        code = cli(
            args=list(sys.argv[1:] if argv is None else argv) or ["--help"],
            prog_name="stac-watch",
            standalone_mode=False,
            obj=call,
        )
    except Exception as error:  # noqa: BLE001  # the top of the program: whatever it is, people get one line
        if call.debug:
            traceback.print_exc()
        text, hint, code = _said(error)
        if text:
            print(f"error: {text}", file=sys.stderr)
        if hint:
            print(f"  → {hint}", file=sys.stderr)
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    if code == Exit.INTERRUPTED:  # typer turns Ctrl-C into this code by itself where it can
        print("interrupted; start the same command again to go on", file=sys.stderr)
    return code or Exit.OK


def _said(error: Exception) -> tuple[str, str, Exit]:
    """Returns what is said of an error: its line, the hint and the exit code."""
    if isinstance(error, StacWatchError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, typer.Abort):
        return "", "", Exit.INTERRUPTED
    if isinstance(error, typer.TyperException):
        return error.format_message(), "`stac-watch --help` lists the verbs and their options", Exit.USAGE
    text = f"a defect of stac-watch: {type(error).__name__}: {error}"
    return text, "run it again as `stac-watch --debug …` and report the traceback", Exit.DEFECT


@cli.command()
def watch(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    once: Annotated[bool, typer.Option(help="One tick to the end.")] = False,
    log: Annotated[
        Log, typer.Option(help="text: a sentence for each round that moved something; json: a line for each move.")
    ] = Log.TEXT,
) -> int:
    """Watch the sources and convert what is new, until stopped."""
    with acting(context, config, stop_runs=True) as (settings, parts):
        if once:
            with reporter(parts, log) as report:
                return watch_once(parts, report)
        with composition.serving(settings, parts) as (url, note):
            if url:
                print(json.dumps({"event": "web", "url": url}) if log is Log.JSON else f"web: {url}", flush=True)
            with reporter(parts, log) as report:
                return watch_on(parts, report, note)


def watch_on(parts: Parts, report: Callable[[Tick], None], note: Callable[[Tick], None]) -> int:
    """Loops until a signal; a stop by SIGTERM is an orderly end."""

    def told(tick: Tick) -> None:
        note(tick)
        report(tick)

    Watcher(parts).run(told)
    return Exit.OK


def watch_once(parts: Parts, report: Callable[[Tick], None]) -> int:
    """Returns 0 when everything that was due ended well, 1 when something has failed, 130 when interrupted."""
    started = parts.now()
    if not Watcher(parts).drain(report):
        return Exit.INTERRUPTED
    return Exit.NOT_ALL_WELL if parts.ledger.conversions.find(state=State.FAILED, since=started, limit=1) else Exit.OK


@cli.command()
def check(context: typer.Context, config: ConfigOption = DEFAULT_CONFIG) -> int:
    """Check the configuration, the catalogs, the ledger and the engine: one line each, with what to do."""
    settings = loaded(context, config)
    code = Exit.OK
    for name, probe in checks(settings, environ_of(context)):
        try:
            print(f"ok    {name}: {probe()}")
        except StacWatchError as error:
            code = max(code, error.exit_code)
            print(f"FAIL  {name}: {error.message}\n      → {error.hint}")
    return code


@cli.command()
def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Where everything of the demo lies; made anew each time.")] = Path("var/demo"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the demo catalog; 0 = any free one.")] = 0,
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
            build=lambda config, wait_: composition.build(config, environ_of(context), wait_),
            serving=composition.serving,
            lines=composition.lines,
            wait=wait,
            console=Console(),
        )


@contextmanager
def reporter(parts: Parts, log: Log) -> Iterator[Callable[[Tick], None]]:
    """Yields what shows a tick: JSON if that is asked for, a live table on a terminal, a line per change elsewhere."""
    console, troubles = Console(markup=False, emoji=False), Troubles()
    if log is Log.JSON:
        parts.ledger.listen(lambda moved: _write(as_line(moved)))
        yield lambda tick: write_news(troubles.news(tick.ailing, tick.standby), parts.now())
        return
    if not console.is_terminal:
        yield lambda tick: print_tick(tick, troubles.news(tick.ailing, tick.standby))
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield lambda tick: live.update(watching(_lines(parts), tick.ailing, tick.standby))


def _lines(parts: Parts) -> list[Line]:
    """Returns the table's lines; none while engine or ledger do not answer, which the tick says."""
    try:
        return composition.lines(parts)
    except (Temporary, Refused):
        return []


def write_news(news: News, now: datetime) -> None:
    """Writes what is wrong as JSON; what moved was written when it was committed."""
    for name, problem in news.begun.items():
        _write(trouble_line(name, problem, now))
    for name in news.ended:
        _write(over_line(name, now))
    if news.standby:
        _write(standby_line(news.standby, now))


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")  # in one piece: sources commit in threads of their own
    sys.stdout.flush()


def print_tick(tick: Tick, news: News) -> None:
    """Prints what a tick moved; nothing when nothing moved."""
    for name, problem in news.begun.items():
        print(trouble(name, problem), flush=True)
    for name in news.ended:
        print(over(name), flush=True)
    if news.standby:
        print(waiting(news.standby), flush=True)
    if not tick.standby and not tick.idle:
        print(sentence(tick.tallies, tick.facts, tick.sent.accepted, tick.sent.unknown), flush=True)
