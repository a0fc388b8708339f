"""The composition root: the only place that knows concrete classes, the wall clock and randomness.

In: a configuration and an environment. Out: the parts that the verbs work with. Never: prints, or does work before it is asked.
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from stac_watch.catalog import Catalog
from stac_watch.config import ENV_PREFIX, ArgoEngine, Config, LocalEngine
from stac_watch.database import open_engine
from stac_watch.engines import Engine
from stac_watch.engines.local import LOG
from stac_watch.engines.local import LocalEngine as LocalRuns
from stac_watch.errors import CannotWrite, ConfigError, Unavailable, cannot_write
from stac_watch.ledger import Ledger
from stac_watch.markers import read_marker
from stac_watch.states import IN_FLIGHT
from stac_watch.views import Line, line
from stac_watch.watch import Parts


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
    catalogs = {s.name: Catalog(s.api, s.collection, now=wall_clock, sleep=time.sleep, rng=rng) for s in config.sources}
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
    )


def build_engine(config: Config, environ: Mapping[str, str]) -> Engine:
    """Returns the configured engine."""
    if isinstance(config.engine, ArgoEngine):
        raise ConfigError("engine.kind argo is not part of this version", hint="use `engine: {kind: local}`")
    return _local(config, config.engine, environ)


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
    """Finds out before the first conversion whether local outputs can be written."""
    if "://" not in config.recipe.output:
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
    due = parts.ledger.waiting()
    return [line(row, parts.now(), run=runs.get((row.key, row.attempt)), due=due.get(row.key)) for row in shown]


def log_of(config: Config, run: str | None) -> Path | None:
    """Returns the log of a local run, where there is one."""
    if run is None or not isinstance(config.engine, LocalEngine):
        return None
    path = config.engine.folder / run / LOG
    return path if path.exists() else None


def checks(config: Config, environ: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields what can be checked, each a call that returns what was found or raises what is wrong."""
    yield "outputs", lambda: _checked_output(config)
    yield "ledger", lambda: _checked_ledger(config)
    yield f"engine {config.engine.kind}", lambda: f"room for {build_engine(config, environ).headroom()} runs"
    rng = random.Random()  # noqa: S311  # jitter only
    for source in config.sources:
        catalog = Catalog(source.api, source.collection, now=wall_clock, sleep=time.sleep, rng=rng)
        yield f"source {source.name}", partial(_checked_catalog, catalog)


def _checked_output(config: Config) -> str:
    check_output(config)
    return config.recipe.output


def _checked_ledger(config: Config) -> str:
    open_ledger(config).close()
    return config.ledger


def _checked_catalog(catalog: Catalog) -> str:
    return f"{catalog.collection} at {catalog.api}, its clock says {catalog.probe():%H:%M:%S} UTC"
