"""What `check` looks at: each part of a configuration, one line each, with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stac_watch.app import (
    build_catalog,
    build_engine,
    build_mailbox,
    build_target,
    check_output,
    jitter,
    ledger_file,
    open_ledger,
    opened_argo,
    wall_clock,
)
from stac_watch.catalog.abilities import Abilities, words
from stac_watch.catalog.client import Catalog
from stac_watch.catalog.probe import probe
from stac_watch.config.model import ArgoSettings, Config, Source
from stac_watch.discover.outlook import outlook
from stac_watch.discover.overlap import overlap_of
from stac_watch.ledger.database import shown_url
from stac_watch.model.errors import CannotWrite, Refused, Temporary
from stac_watch.model.identity import source_of
from stac_watch.register.collection import read

if TYPE_CHECKING:
    from stac_watch.catalog.writing import TargetCollection
    from stac_watch.config.register import Register
    from stac_watch.config.sinks import EventSink
    from stac_watch.ledger.ledger import Ledger
    from stac_watch.runs.argo import ArgoEngine


AGREES = 2  # seconds between two clocks, which a `Date` in whole seconds and a slow answer make of none
PAUSE = 2.0  # seconds until what did not answer is asked again
SHORT = 120  # minutes; what is longer is told in hours


def checks(config: Config, environ: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields what can be checked, each a call that returns what was found or raises what is wrong."""
    yield "outputs", lambda: _checked_output(config)
    yield "ledger", lambda: _checked_ledger(config)
    if isinstance(config.engine, ArgoSettings):
        yield "webhook", partial(_with_argo, config.engine, environ, lambda argo: argo.ping())
        yield "permissions", partial(_with_argo, config.engine, environ, _checked_rights)
        yield "engine argo", partial(_with_argo, config.engine, environ, lambda argo: f"room for {argo.headroom()} runs")
    else:
        yield "engine local", lambda: f"room for {build_engine(config, environ).headroom()} runs"
    rng = jitter()
    for source in config.sources:
        yield f"source {source.name}", partial(_checked_catalog, config, source, build_catalog(source, rng))
    if config.registration is not None:
        yield "register", partial(_checked_target, config.registration, build_target(config.registration, rng))
    for sink in config.sinks:
        yield "sinks", partial(_checked_sink, sink)


def patiently(probe: Callable[[], str], may_wait: Callable[[], bool], pause: Callable[[float], None]) -> str:
    """Asks again what does not answer, as long as it may wait. A refusal is an answer.

    A new pod needs it: its network policies may be in force before those that let it out
    (https://kubernetes.io/docs/concepts/services-networking/network-policies/, "Pod lifecycle").

    Raises:
        StacWatchError: what was wrong the last time.
    """
    while True:
        try:
            return probe()
        except Temporary:
            if not may_wait():
                raise
        pause(PAUSE)


def _checked_sink(sink: EventSink) -> str:
    """Finds out whether somebody is there, without an event."""
    return f"{sink.name} answers (HTTP {build_mailbox(sink).knock()} to OPTIONS)"


def _checked_target(register: Register, target: TargetCollection) -> str:
    """Finds out whether items may be written, which changes nothing, and whether the collection is there, or can be made."""
    if register.collection_file is not None:
        read(register.collection_file, register.collection)
    target.knock()
    there = "the collection is there" if target.described() is not None else "the collection is made with its first item"
    return f"{target.url} takes items; {there}"


def _checked_output(config: Config) -> str:
    check_output(config)
    return config.recipe.output


def _with_argo(engine: ArgoSettings, environ: Mapping[str, str], ask: Callable[[ArgoEngine], str]) -> str:
    with opened_argo(engine, environ) as argo:
        return ask(argo)


def _checked_rights(argo: ArgoEngine) -> str:
    if missing := argo.missing_rights():
        raise Refused(
            f"this account may not {', '.join(missing)} in namespace {argo.namespace!r}",
            hint="the poller's Role needs get, list and watch of workflows.argoproj.io, and to list persistentvolumeclaims:"
            " `stac-watch cluster manifests` renders it, in rbac.yaml",
        )
    return f"may look at workflows in namespace {argo.namespace!r}"


def _checked_ledger(config: Config) -> str:
    if not _has_ledger(config):
        return f"{shown_url(config.ledger)}: not there yet, `stac-watch watch` makes it"
    open_ledger(config, asks=True).close()
    return shown_url(config.ledger)


def _has_ledger(config: Config) -> bool:
    file = ledger_file(config)
    return file is None or Path(file).exists()


def _checked_catalog(config: Config, source: Source, catalog: Catalog) -> str:
    """Probes the catalog anew, keeps what was found for the watcher where there is a ledger, and tells it."""
    skew = (catalog.clock() - wall_clock()).total_seconds()
    found = probe(catalog, source.poll.page)
    lateness, unreadable = _remembered(config, source, found) if _has_ledger(config) else ({}, [])
    overlap = overlap_of(source, found.stamp, lateness)
    clock = "agrees with ours" if abs(skew) <= AGREES else f"is {skew:+.0f} s from ours"
    minutes = overlap.total_seconds() / 60
    span = f"{minutes:.0f} min" if minutes <= SHORT else f"{minutes / 60:.0f} h"
    told = [*words(found), f"overlap {span}, its clock {clock}"]
    told += shares(config, source)
    told += [*outlook(source, catalog, wall_clock()).words(source.filter), *unreadable]
    return "\n      ".join([f"{catalog.collection} at {catalog.api}", *told])


def _remembered(config: Config, source: Source, found: Abilities) -> tuple[Mapping[int, int], list[str]]:
    """Keeps what was found, and returns how late items were and what is said of those that cannot be read."""
    with closing(open_ledger(config, asks=True)) as ledger:
        with suppress(CannotWrite):  # who may only read learns the same
            ledger.sources.note_abilities(source.name, asdict(found), wall_clock())
        return ledger.sources.lateness(source.name), _unreadable(ledger, source)


def shares(config: Config, source: Source) -> list[str]:
    """Returns who converts what several sources have."""
    ahead, behind = config.rivals(source.name)
    here = source_of(source.api, source.collection)
    same = [s.name for s in config.sources if s.name != source.name and source_of(s.api, s.collection) == here]
    once = "an item that both want is converted once, for the one that finds it first"
    told = [f"{name} reads the same collection: {once}" for name in same]
    told += [f"what {', '.join(sorted(ahead))} has under the same id is converted there (`prefer`)"] if ahead else []
    return told + ([f"what {', '.join(sorted(behind))} has under the same id is converted here (`prefer`)"] if behind else [])


def _unreadable(ledger: Ledger, source: Source) -> list[str]:
    """Returns what the watcher could not act on, with the first reason."""
    found = [why for name, _, why in ledger.absences.unreadable() if name == source.name]
    return (
        [f"warning: {len(found)} items cannot be acted on, the first: {found[0]} → stac-watch items --unreadable"] if found else []
    )
