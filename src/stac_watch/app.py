"""The composition root: the only place that knows concrete classes, the wall clock and randomness.

In: a configuration and an environment. Out: the parts that the verbs work with. Never: prints, or does work before it is asked.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from stac_watch.catalog.client import FIELDS, Catalog
from stac_watch.catalog.probe import probe, words
from stac_watch.catalog.windows import DAY, floor_day
from stac_watch.config.model import ENV_PREFIX, ArgoEngine, Config, LocalEngine, Source, parse_duration
from stac_watch.discover.intake import overlap_of
from stac_watch.discover.policy import fields_for
from stac_watch.ledger.admission import Ledger
from stac_watch.ledger.database import open_engine, shown_url
from stac_watch.model.errors import CannotWrite, InputError, Refused, Unavailable, cannot_write
from stac_watch.model.event import parse_stamp, stamp
from stac_watch.model.states import IN_FLIGHT, State
from stac_watch.report.lines import Line, line
from stac_watch.runs.engine import Engine
from stac_watch.runs.local import LOG
from stac_watch.runs.local import LocalEngine as LocalRuns
from stac_watch.runs.markers import read_marker
from stac_watch.runs.workflow import page_of
from stac_watch.watch.loop import Parts, Tick
from stac_watch.watch.pulse import Recorder

if TYPE_CHECKING:
    from stac_watch.runs.argo import ArgoEngine as ArgoRuns
    from stac_watch.runs.kubernetes_api import Cluster


def wall_clock() -> datetime:
    """Returns the time, aware, UTC."""
    return datetime.now(UTC)


def open_ledger(config: Config, *, upgrade: bool = True) -> Ledger:
    """Opens the ledger, makes its tables where there are none, and brings older ones up to date: not for who only asks."""
    ledger = Ledger(open_engine(config.ledger))
    ledger.prepare(upgrade=upgrade)
    return ledger


def ledger_file(config: Config) -> str | None:
    """Returns the file that the ledger is, None where it is a server's."""
    return config.ledger.removeprefix("sqlite:///") if config.ledger.startswith("sqlite:///") else None


def build(config: Config, environ: Mapping[str, str], wait: Callable[[float], bool], *, beat: float = 1.0) -> Parts:
    """Puts the parts of a watcher together.

    Raises:
        CannotWrite: a folder of ours cannot be written.
        Unavailable: the runner is not installed (local engine).
        ConfigError: the ledger or the engine cannot be used as configured.
    """
    check_output(config)
    rng = random.Random()  # noqa: S311  # jitter only; identities never use it
    catalogs = {source.name: build_catalog(source, rng) for source in config.sources}
    return Parts(
        sources=config.sources,
        recipe=config.recipe,
        limits=config.engine.limits,
        engine=build_engine(config, environ),
        ledger=open_ledger(config),
        catalogs=catalogs,
        read_marker=read_marker,
        now=wall_clock,
        wait=wait,
        rng=rng,
        beat=beat,
        holder=f"{socket.gethostname()}, process {os.getpid()}, {uuid.uuid4().hex[:6]}",  # two containers may share the former
    )


@contextmanager
def serving(config: Config, parts: Parts) -> Iterator[tuple[str, Callable[[Tick], None]]]:
    """Serves the web page where the configuration wants one: yields its URL (else nothing), and what must hear of each tick.

    Raises:
        Unavailable: it cannot listen there.
    """
    if config.web is None:
        yield "", lambda _: None
        return
    from stac_watch.report.web import server  # a web server and a template engine take 0.2 s that no other verb needs
    from stac_watch.report.web import site as web

    pulse = Recorder(parts.now)
    parts.ledger.listen(pulse.hear)
    places = web.Places(partial(log_of, config), partial(file_of, config), partial(run_page, config))
    window = web.Window(parts.ledger, parts.sources, parts.limits, pulse.read, parts.now, version("stac-watch"), places)
    with server.serving(web.create_app(window), config.web.host, config.web.port) as url:
        yield url, pulse.note


def build_catalog(source: Source, rng: random.Random) -> Catalog:
    """Returns a source's catalogue, which reads of an item what the source's rules need."""
    fields = (*FIELDS, *fields_for(source.filter))
    whole = source.filter.cql2 is not None  # an expression may name any property
    return Catalog(
        source.api, source.collection, now=wall_clock, sleep=time.sleep, rng=rng, fields=fields, whole=whole, hosts=source.hosts()
    )


def build_engine(config: Config, environ: Mapping[str, str]) -> Engine:
    """Returns the configured engine."""
    if isinstance(config.engine, ArgoEngine):
        return build_argo(config.engine, environ)
    return _local(config, config.engine, environ)


def build_argo(engine: ArgoEngine, environ: Mapping[str, str]) -> ArgoRuns:
    """Returns the engine on a cluster."""
    from stac_watch.runs.argo import ArgoEngine as ArgoRuns  # the kubernetes client takes 0.6 s that no other engine needs
    from stac_watch.runs.argo import connect

    return ArgoRuns(
        engine.webhook,
        engine.token,
        namespace=engine.namespace,
        max_in_flight=engine.limits.max_in_flight,
        confirm_after=engine.limits.confirm_after,
        api=connect(environ),
        now=wall_clock,
    )


@contextmanager
def opened_argo(engine: ArgoEngine, environ: Mapping[str, str]) -> Iterator[ArgoRuns]:
    """Opens the engine on a cluster, and closes its connections; runs live on."""
    argo = build_argo(engine, environ)
    try:
        yield argo
    finally:
        argo.close(stop_runs=False)


def build_cluster(engine: ArgoEngine, environ: Mapping[str, str], namespace: str = "") -> Cluster:
    """Returns the cluster as the operator's verbs need it; a namespace takes the place of the configured one."""
    from stac_watch.runs.argo import connect
    from stac_watch.runs.kubernetes_api import Cluster

    return Cluster(connect(environ), namespace or engine.namespace)


def helper_name(run: str) -> str:
    """Returns a fresh name for a helper pod of a run: two may fetch the same one."""
    return f"fetch-{run[:48].rstrip('-.')}-{uuid.uuid4().hex[:6]}"


def _local(config: Config, engine: LocalEngine, environ: Mapping[str, str]) -> LocalRuns:
    beside = Path(sys.executable).parent / "geozarr-runner"
    runner = str(beside) if beside.exists() else shutil.which("geozarr-runner", path=environ.get("PATH"))
    if runner is None:
        raise Unavailable(
            "geozarr-runner is not installed", hint="install it beside stac-watch: `make install`, or pip install ./runner"
        )
    make_folder(engine.folder)
    hosts = sorted({host for source in config.sources for host in source.hosts()})
    return LocalRuns(
        engine.folder.resolve(),
        command=[runner, "run", f"--allowed-hosts={','.join(hosts)}"],
        max_in_flight=engine.limits.max_in_flight,
        environ={name: value for name, value in environ.items() if not name.startswith(ENV_PREFIX)},
    )


def check_output(config: Config) -> None:
    """Finds out before the first conversion whether local outputs can be written; on a cluster a path is the run's volume's."""
    if isinstance(config.engine, LocalEngine) and "://" not in config.recipe.output:
        make_folder(Path(config.recipe.output.split("{", 1)[0]).absolute())


def make_folder(folder: Path) -> None:
    """Makes a folder and writes a file in it, to know.

    Raises:
        CannotWrite: one of the two failed.
    """
    probe = folder / ".stac-watch-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise cannot_write(error, folder) or CannotWrite(
            f"cannot write {folder}: {error.strerror}", hint="choose another folder in the configuration"
        ) from error


def lines(parts: Parts, limit: int = 15) -> list[Line]:
    """Returns the conversions that a person wants to see now: what is in flight and what changed last."""
    rows = {row.key: row for row in [*parts.ledger.unfinished(), *parts.ledger.conversions(limit=limit)]}
    shown = sorted(rows.values(), key=lambda row: row.created_at)[-limit:]
    runs = {(run.key, run.attempt): run for run in parts.engine.runs([row.key for row in shown if row.state in IN_FLIGHT])}
    waits = parts.ledger.outbox([row.key for row in shown if row.state is State.QUEUED])
    return [
        line(row, parts.now(), run=runs.get((row.key, row.attempt)), due=waits[row.key].due if row.key in waits else None)
        for row in shown
    ]


def log_of(config: Config, run: str | None) -> Path | None:
    """Returns the log of a local run, where there is one."""
    if run is None or not isinstance(config.engine, LocalEngine):
        return None
    path = config.engine.folder / run / LOG
    return path if path.exists() else None


def file_of(config: Config, output: str, href: str) -> Path | None:
    """Returns a file that an outcome names, where it lies beside the output and on this machine."""
    path = Path(href)
    if not isinstance(config.engine, LocalEngine) or "://" in href or path.parent != Path(output).parent:
        return None
    return path if path.is_file() and not path.is_symlink() else None


def run_page(config: Config, run: str) -> str | None:
    """Returns a run's page in the Argo UI, where the configuration says where that is."""
    if not isinstance(config.engine, ArgoEngine) or config.engine.ui is None:
        return None
    return page_of(run, config.engine.namespace, config.engine.ui)


def visible(config: Config, output: str) -> bool:
    """Tells whether an output's marker can be read from here: not where it is a path on a run's own volume."""
    return "://" in output or isinstance(config.engine, LocalEngine)


def read_range(start: str, end: str, now: datetime) -> tuple[datetime, datetime]:
    """Reads `--start` and `--end`, each a day, an RFC 3339 time or a span before now; a day as the end is included.

    A span in days leads to the start of its day, and a day that is not over ends with today, so that the same command is the
    same range for a day: a backfill goes on.

    Raises:
        InputError: one is none of these, or nothing that is past lies between them.
    """
    first, last = _read_bound(start, now), _read_bound(end, now) + timedelta(days=int(_is_day(end)))
    last = min(last, floor_day(now) + DAY)
    if first >= min(last, now):
        raise InputError(
            f"nothing lies between {stamp(first.replace(microsecond=0))} and {stamp(last.replace(microsecond=0))}",
            hint="--start is before --end, and before now: two days, times, or spans before now (--start=30d --end=1d)",
        )
    return first, last


def _read_bound(text: str, now: datetime) -> datetime:
    moment = read_since(text, now)
    in_days = text.strip().endswith("d")
    return moment.replace(hour=0, minute=0, second=0, microsecond=0) if in_days else moment


def read_since(text: str, now: datetime) -> datetime:
    """Reads `--since`: a span before now (`10h`, `3d`), a day, or an RFC 3339 time.

    Raises:
        InputError: it is none of these.
    """
    try:
        return now - parse_duration(text)
    except ValueError:
        return read_moment(text)


def read_span(text: str) -> timedelta:
    """Reads a span of time, as in `90s`, `1h`, `3d`.

    Raises:
        InputError: it is none.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InputError(f"{text!r} is no span of time: {error}", hint="write 90s, 1h or 3d") from None


def read_moment(text: str) -> datetime:
    """Reads a day (its start, UTC) or an RFC 3339 time.

    Raises:
        InputError: it is neither.
    """
    moment = parse_stamp(f"{text}T00:00:00Z" if _is_day(text) else text)
    if moment is None:
        raise InputError(
            f"{text!r} is neither a day nor a time", hint="write 2025-10-01, 2025-10-01T12:00:00Z, or a span before now: 30d, 10h"
        )
    return moment


def read_event(path: Path) -> bytes:
    """Reads an event's bytes from a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="`stac-watch event ITEM > FILE` writes one") from None


def _is_day(text: str) -> bool:
    return re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) is not None


def checks(config: Config, environ: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields what can be checked, each a call that returns what was found or raises what is wrong."""
    yield "outputs", lambda: _checked_output(config)
    yield "ledger", lambda: _checked_ledger(config)
    if isinstance(config.engine, ArgoEngine):
        yield "webhook", partial(_with_argo, config.engine, environ, lambda argo: argo.knock())
        yield "permissions", partial(_with_argo, config.engine, environ, _checked_rights)
        yield "engine argo", partial(_with_argo, config.engine, environ, lambda argo: f"room for {argo.headroom()} runs")
    else:
        yield "engine local", lambda: f"room for {build_engine(config, environ).headroom()} runs"
    rng = random.Random()  # noqa: S311  # jitter only
    for source in config.sources:
        yield f"source {source.name}", partial(_checked_catalog, config, source, build_catalog(source, rng))


def _checked_output(config: Config) -> str:
    check_output(config)
    return config.recipe.output


def _with_argo(engine: ArgoEngine, environ: Mapping[str, str], ask: Callable[[ArgoRuns], str]) -> str:
    with opened_argo(engine, environ) as argo:
        return ask(argo)


def _checked_rights(argo: ArgoRuns) -> str:
    if missing := argo.missing_rights():
        raise Refused(
            f"this account may not {', '.join(missing)} workflows in namespace {argo.namespace!r}",
            hint="the poller's Role needs get, list and watch of workflows.argoproj.io: kubectl apply -f deploy/base/rbac.yaml",
        )
    return f"may look at workflows in namespace {argo.namespace!r}"


def _checked_ledger(config: Config) -> str:
    open_ledger(config, upgrade=False).close()
    return shown_url(config.ledger)


def _checked_catalog(config: Config, source: Source, catalog: Catalog) -> str:
    """Probes the catalogue anew, keeps what was found for the watcher, and tells it."""
    server_now = catalog.clock()
    found = probe(catalog, source.poll.page)
    ledger = open_ledger(config, upgrade=False)
    try:
        ledger.note_abilities(source.name, asdict(found), wall_clock())
        overlap = overlap_of(source, found.stamp, ledger.lateness(source.name))
    finally:
        ledger.close()
    skew = (server_now - wall_clock()).total_seconds()
    told = [*words(found), f"overlap {overlap.total_seconds() / 60:.0f} min, its clock is {skew:+.0f} s from ours"]
    return "\n      ".join([f"{catalog.collection} at {catalog.api}", *told])
