"""Where what an answer links to lies: a run's log, a file beside an output, the run's page in the Argo UI."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stac_watch.config.model import ArgoSettings, Config, LocalSettings
from stac_watch.ledger.records import ConversionRow
from stac_watch.runs.local import LOG
from stac_watch.runs.workflow import page_of


def log_of(config: Config, run: str | None) -> Path | None:
    """Returns the log of a local run, where there is one."""
    if run is None or not isinstance(config.engine, LocalSettings):
        return None
    path = config.engine.folder / run / LOG
    return path if path.exists() else None


def last_log(config: Config, row: ConversionRow) -> Path | None:
    """Returns the log of the last of a conversion's local runs that wrote one: the next attempt may only be waiting."""
    names = [re.sub(r"-\d+$", f"-{attempt}", row.run or "") for attempt in range(row.attempt, 0, -1)]
    return next((log for name in names if (log := log_of(config, name)) is not None), None)


def file_of(config: Config, output: str, href: str) -> Path | None:
    """Returns a file that an outcome names, where it lies beside the output and on this machine."""
    path = Path(href)
    if not isinstance(config.engine, LocalSettings) or "://" in href or path.parent != Path(output).parent:
        return None
    return path if path.is_file() and not path.is_symlink() else None


def run_page(config: Config, run: str) -> str | None:
    """Returns a run's page in the Argo UI, where the configuration says where that is."""
    if not isinstance(config.engine, ArgoSettings) or config.engine.ui is None:
        return None
    return page_of(run, config.engine.namespace, config.engine.ui)


@dataclass(frozen=True)
class Links:
    """What lies outside of the ledger, and how a page leads there."""

    log_of: Callable[[str | None], Path | None] = lambda _: None  # the log of a run
    file_of: Callable[[str, str], Path | None] = lambda _, __: None  # what lies beside an output, where it can be read
    run_page: Callable[[str], str | None] = lambda _: None  # a run's page in the Argo UI
    cluster: bool = False  # whether runs are on one: `stac-watch cluster` has their logs and outputs


def links_of(config: Config) -> Links:
    """Returns where a configuration's runs, logs and files are."""
    argo = isinstance(config.engine, ArgoSettings)
    return Links(partial(log_of, config), partial(file_of, config), partial(run_page, config), argo)
