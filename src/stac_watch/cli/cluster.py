"""The verbs of whoever runs the cluster: `cluster runs`, `logs`, `fetch`, `clean`, `doctor`.

They need no ledger on a cluster, and remove nothing that was not listed before.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, YesOption, environ_of, group, loaded, reading, show
from stac_watch.cli.values import ValuesOption, engine_of, settings_from
from stac_watch.model.errors import ConfigError, Exit, StacWatchError

if TYPE_CHECKING:
    from datetime import timedelta
    from types import FrameType

    from rich.console import Console

    from stac_watch.cluster.diagnosis import Finding
    from stac_watch.cluster.doctor import Expected
    from stac_watch.cluster.fetch import Fetched, Watching
    from stac_watch.cluster.manifests.settings import Settings
    from stac_watch.config.model import ArgoSettings, Config
    from stac_watch.runs.cleaning import Cleaning, Leftover
    from stac_watch.runs.kubernetes_api import Cluster

cluster = group("cluster")
NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", metavar="NAME", help="Namespace; default: the configuration's engine.namespace.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's name; @latest = the newest one.")]


@cluster.callback()
def _about() -> None:
    """Run an installation on Kubernetes: its manifests, its runs, what they leave."""


@cluster.command()
def runs(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="One run, with its steps; @latest = the newest one.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    namespace: NamespaceOption = "",
    json: JsonOption = False,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most this many.")] = 20,
    ui: Annotated[str, typer.Option(metavar="URL", help="Where the Argo UI is reached, for links.")] = "https://localhost:2746",
) -> int:
    """Show the runs that the cluster has, or one of them with its steps."""
    from stac_watch.app import wall_clock
    from stac_watch.cluster import runs as seen
    from stac_watch.cluster.tables import render_run, render_runs

    with operating(context, config, namespace) as opened:
        now = wall_clock()
        if run:
            show(seen.view(seen.found(opened, run), now, ui), json, render_run)
        else:
            workflows = seen.newest_first(opened.items(opened.argo("workflows"), seen.SELECTOR))
            show([seen.view(workflow, now, ui) for workflow in workflows[:limit]], json, render_runs)
    return Exit.OK


@cluster.command()
def logs(
    context: typer.Context,
    run: RunArgument = "@latest",
    config: ConfigOption = DEFAULT_CONFIG,
    namespace: NamespaceOption = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow until the run has ended.")] = False,
) -> int:
    """Print what a run's steps wrote, each line with its step; with --follow until it has ended, and exit code 1 if it failed."""
    from stac_watch.app import wall_clock
    from stac_watch.cluster import runs as seen
    from stac_watch.cluster.logs import logs as lines
    from stac_watch.runs.engine import Phase

    with operating(context, config, namespace) as opened:
        name = seen.found(opened, run)["metadata"]["name"]
        shown = False
        for line in lines(opened, name, follow=follow, wait=threading.Event().wait):
            shown = True
            print(f"{line.step:<12} {line.text}", flush=True, file=sys.stderr if line.ours else sys.stdout)
        end = seen.view(seen.found(opened, name), wall_clock())
        if not shown:
            said = f"the pods of run {name} are gone, and their logs with them; `stac-watch cluster runs {name}` has its end"
            print(said, file=sys.stderr)
        if follow:
            print(f"{name}: {end.phase.value}" + (f": {end.reason}" if end.reason else ""), file=sys.stderr)
    return Exit.NOT_ALL_WELL if follow and end.phase is Phase.FAILED else Exit.OK


@cluster.command()
def fetch(
    context: typer.Context,
    run: RunArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    namespace: NamespaceOption = "",
    out: Annotated[Path, typer.Option(metavar="FOLDER", resolve_path=True, help="Files go to OUT/RUN/.")] = Path("runs"),
    json: JsonOption = False,
) -> int:
    """Copy what a run left on its volume: package, report, item, Dask's report. Run again to continue where it stopped.

    Where the run made no package, its output is packed on the way; the archive has the checksum that the run's would have.
    """
    from rich.console import Console

    from stac_watch.app import helper_name
    from stac_watch.cluster.fetch import fetch as fetched

    console = Console(stderr=True)
    with ending_by_signal(), operating(context, config, namespace) as opened, _bars(console) as watching:
        files = fetched(opened, run, out, pod=helper_name, watching=watching)
    if json:
        from stac_watch.report.as_json import as_json

        print(as_json(files))
    else:
        for file in files:
            print(_told(file))
    return Exit.OK


@cluster.command()
def clean(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    namespace: NamespaceOption = "",
    volumes: Annotated[
        bool, typer.Option("--volumes", help="The volumes of runs that have ended or are gone, with what is on them.")
    ] = False,
    older_than: Annotated[str, typer.Option(metavar="SPAN", help="Keep what ended more recently.")] = "1h",
    yes: YesOption = False,
    json: JsonOption = False,
) -> int:
    """Remove Workflows that have ended, with their pods but not their volumes; with --volumes, the volumes. List them, and ask.

    With the local engine: folders of ended runs, and what was staged for conversions that are final.
    """
    from stac_watch.cli.times import read_span
    from stac_watch.cluster.tables import removed, render_cleaning

    with _cleaning(context, config, namespace, read_span(older_than), volumes=volumes) as (plan, carry_out):
        show(plan, json, render_cleaning)
        if not plan.remove or not (yes or (not json and _agreed(len(plan.remove)))):
            return Exit.OK
        for item, done in carry_out(plan):
            print(removed(item, done=done), flush=True, file=sys.stderr if json else sys.stdout)
    return Exit.OK


@cluster.command()
def doctor(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    values: ValuesOption = None,
    namespace: NamespaceOption = "",
    send_test: Annotated[
        bool,
        typer.Option("--send-test", help="Also send a test event, see it become a Workflow, and remove that."),
    ] = False,
    json: JsonOption = False,
) -> int:
    """Say what is wrong with an installation on a cluster: one line each, with the remedy. Exit code 1 when anything is broken."""
    import shutil

    from rich.console import Console

    from stac_watch.app import build_cluster
    from stac_watch.cluster.diagnosis import Verdict
    from stac_watch.cluster.doctor import examine, tools
    from stac_watch.cluster.tables import finding
    from stac_watch.report.as_json import as_json

    if values is None:
        _argo(loaded(context, config))
    settings = settings_from(context, config, values)
    console = Console(highlight=False, soft_wrap=True)
    connect = partial(build_cluster, engine_of(settings), environ_of(context), namespace)
    found: list[Finding] = []

    def look() -> Iterator[Finding]:
        yield from tools(lambda program: shutil.which(program, path=environ_of(context).get("PATH")))
        yield from examine(connect, _expected(settings))
        if send_test:
            yield _tried(connect)

    for entry in look():
        found.append(entry)
        if not json:
            console.print(finding(entry))
    if json:
        print(as_json(found))
    return Exit.NOT_ALL_WELL if any(entry.verdict is Verdict.FAIL for entry in found) else Exit.OK


@contextmanager
def operating(context: typer.Context, config: Path, namespace: str) -> Iterator[Cluster]:
    """Opens the cluster of a configuration."""
    from stac_watch.app import build_cluster

    opened = build_cluster(_argo(loaded(context, config)), environ_of(context), namespace)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def _cleaning(
    context: typer.Context, config: Path, namespace: str, age: timedelta, *, volumes: bool
) -> Iterator[tuple[Cleaning, Callable[[Cleaning], Iterator[tuple[Leftover, bool]]]]]:
    """Yields what may go, and what removes it."""
    from stac_watch.app import wall_clock
    from stac_watch.cluster import clean
    from stac_watch.runs import folders

    engine, now = loaded(context, config).engine, wall_clock()
    if engine.kind == "local" and not volumes:
        with reading(context, config) as (_, ledger):
            yield (
                folders.plan(engine.folder, ledger.conversions.get, now, age),
                partial(folders.carry_out, engine.folder, ledger.conversions.get),
            )
        return
    with operating(context, config, namespace) as opened:
        yield clean.plan_volumes(opened) if volumes else clean.plan_runs(opened, now, age), partial(clean.carry_out, opened)


@contextmanager
def ending_by_signal() -> Iterator[None]:
    """Turns SIGTERM into an exception, once: what was made is removed on the way out, and a second signal does not stop that."""

    def end(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(Exit.TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _bars(console: Console) -> Iterator[Watching]:
    """Yields what shows a bar for each file; without a terminal a line for each."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from stac_watch.cluster.fetch import Watching

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:

        def begin(name: str, size: int) -> None:
            bars.add_task(name, total=size)
            if not console.is_terminal:
                console.print(f"{name}: {size:,} bytes", markup=False, highlight=False)

        def advance(count: int) -> None:
            bars.advance(bars.task_ids[-1], count)

        yield Watching(begin, advance, threading.Event().wait)


def _told(file: Fetched) -> str:
    how = f"{file.fetched:,} of {file.bytes:,} bytes fetched" if file.fetched else "was here already"
    return f"{file.path}  {how}, SHA-256 {file.sha256}"


def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        print("nothing was removed: say --yes")
        return False
    return typer.confirm(f"remove {count}?")


def _argo(settings: Config) -> ArgoSettings:
    if settings.engine.kind != "argo":
        raise ConfigError(
            f"engine.kind is {settings.engine.kind}, and this verb is for a cluster",
            hint="name the configuration of the cluster's watcher: --config FILE, with `engine: {kind: argo, …}`",
        )
    return settings.engine


def _tried(connect: Callable[[], Cluster]) -> Finding:
    """Sends the test event, and returns what became of it."""
    from stac_watch.app import wall_clock
    from stac_watch.cluster import trial
    from stac_watch.cluster.diagnosis import Finding, Verdict

    try:
        with closing(connect()) as opened:
            return trial.send(opened, trial.conversion(wall_clock()), now=wall_clock, wait=threading.Event().wait)
    except StacWatchError as error:
        return Finding(trial.CHECK, Verdict.FAIL, error.message, error.hint)


def _expected(settings: Settings) -> Expected:
    """Returns what this release installs with these values."""
    from stac_watch.cluster.doctor import Expected
    from stac_watch.cluster.manifests import settings as names
    from stac_watch.cluster.manifests.convert import convert_template
    from stac_watch.cluster.manifests.facts import BESIDE

    return Expected(
        template=convert_template(settings),
        bus=settings.bus,
        event_source=names.EVENT_SOURCE,
        sensors=tuple(map(names.sensor_name, range(settings.values.event_bus.sensors))),
        poller=names.POLLER,
        accounts=(names.RUN, names.SENSOR_ACCOUNT, names.POLLER),
        instance_id=settings.instance_id,
        slots=int(settings.parallelism) - BESIDE,
    )
