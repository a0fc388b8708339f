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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stac_watch.catalog import FIELDS, Catalog
from stac_watch.config import ENV_PREFIX, ArgoEngine, Config, LocalEngine, Source, parse_duration
from stac_watch.database import open_engine
from stac_watch.discover import overlap_of
from stac_watch.engines import Engine
from stac_watch.engines.local import LOG
from stac_watch.engines.local import LocalEngine as LocalRuns
from stac_watch.errors import CannotWrite, InputError, Unavailable, cannot_write
from stac_watch.events import parse_stamp
from stac_watch.ledger import Ledger
from stac_watch.markers import read_marker
from stac_watch.policy import fields_for
from stac_watch.probe import probe, words
from stac_watch.states import IN_FLIGHT, State
from stac_watch.views.lines import Line, line
from stac_watch.watch import Parts

if TYPE_CHECKING:
    from stac_watch.engines.argo import ArgoEngine as ArgoRuns


def wall_clock() -> datetime:
    """Returns the time, aware, UTC."""
    return datetime.now(UTC)


def open_ledger(config: Config) -> Ledger:
    """Opens the ledger and brings its tables up to date."""
    ledger = Ledger(open_engine(config.ledger))
    ledger.prepare()
    return ledger


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
        holder=f"{socket.gethostname()}, process {os.getpid()}",
    )


def build_catalog(source: Source, rng: random.Random) -> Catalog:
    """Returns a source's catalogue, which reads of an item what the source's rules need."""
    fields = (*FIELDS, *fields_for(source.filter))
    whole = source.filter.cql2 is not None  # an expression may name any property
    return Catalog(source.api, source.collection, now=wall_clock, sleep=time.sleep, rng=rng, fields=fields, whole=whole)


def build_engine(config: Config, environ: Mapping[str, str]) -> Engine:
    """Returns the configured engine."""
    if isinstance(config.engine, ArgoEngine):
        return build_argo(config.engine, environ)
    return _local(config, config.engine, environ)


def build_argo(engine: ArgoEngine, environ: Mapping[str, str]) -> ArgoRuns:
    """Returns the engine on a cluster."""
    from stac_watch.engines.argo import ArgoEngine as ArgoRuns  # the kubernetes client takes 0.6 s that no other engine needs
    from stac_watch.engines.argo import connect

    return ArgoRuns(
        engine.webhook,
        engine.token,
        namespace=engine.namespace,
        max_in_flight=engine.limits.max_in_flight,
        confirm_after=engine.limits.confirm_after,
        api=connect(environ),
        now=wall_clock,
    )


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


def visible(config: Config, output: str) -> bool:
    """Tells whether an output's marker can be read from here: not where it is a path on a run's own volume."""
    return "://" in output or isinstance(config.engine, LocalEngine)


def read_range(start: str, end: str) -> tuple[datetime, datetime]:
    """Reads `--start` and `--end`, each a day or an RFC 3339 time; a day as the end is included.

    Raises:
        InputError: one is neither.
    """
    last = read_moment(end)
    return read_moment(start), last + timedelta(days=1) if _is_day(end) else last


def read_since(text: str, now: datetime) -> datetime:
    """Reads `--since`: a span before now (`10h`, `3d`), a day, or an RFC 3339 time.

    Raises:
        InputError: it is none of these.
    """
    try:
        return now - parse_duration(text)
    except ValueError:
        return read_moment(text)


def read_moment(text: str) -> datetime:
    """Reads a day (its start, UTC) or an RFC 3339 time.

    Raises:
        InputError: it is neither.
    """
    moment = parse_stamp(f"{text}T00:00:00Z" if _is_day(text) else text)
    if moment is None:
        raise InputError(f"{text!r} is neither a day nor a time", hint="write 2025-10-01 or 2025-10-01T12:00:00Z")
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
    yield f"engine {config.engine.kind}", lambda: f"room for {build_engine(config, environ).headroom()} runs"
    rng = random.Random()  # noqa: S311  # jitter only
    for source in config.sources:
        yield f"source {source.name}", partial(_checked_catalog, config, source, build_catalog(source, rng))


def _checked_output(config: Config) -> str:
    check_output(config)
    return config.recipe.output


def _checked_ledger(config: Config) -> str:
    open_ledger(config).close()
    return config.ledger


def _checked_catalog(config: Config, source: Source, catalog: Catalog) -> str:
    """Probes the catalogue anew, keeps what was found for the watcher, and tells it."""
    server_now = catalog.clock()
    found = probe(catalog, source.poll.page)
    ledger = open_ledger(config)
    try:
        ledger.note_abilities(source.name, asdict(found), wall_clock())
        overlap = overlap_of(source, found.stamp, ledger.lateness(source.name))
    finally:
        ledger.close()
    skew = (server_now - wall_clock()).total_seconds()
    told = [*words(found), f"overlap {overlap.total_seconds() / 60:.0f} min, its clock is {skew:+.0f} s from ours"]
    return "\n      ".join([f"{catalog.collection} at {catalog.api}", *told])
