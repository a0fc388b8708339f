"""The composition root: the only place that knows concrete classes, the wall clock and randomness.

A configuration and an environment become the parts that the verbs work with. What takes long to import is imported where it is
made.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stac_watch.model.errors import ConfigError, Unavailable
from stac_watch.model.files import make_folder
from stac_watch.model.states import IN_FLIGHT, State

if TYPE_CHECKING:
    from stac_watch.catalog.client import Catalog
    from stac_watch.catalog.credentials import Credentials
    from stac_watch.catalog.stores import Stores
    from stac_watch.catalog.writing import TargetCollection
    from stac_watch.config.auth import Auth
    from stac_watch.config.model import ArgoSettings, Config, LocalSettings, Source
    from stac_watch.config.register import Register
    from stac_watch.config.sinks import EventSink
    from stac_watch.ledger.copying import Copied
    from stac_watch.ledger.ledger import Ledger
    from stac_watch.model.outcome import Outcome
    from stac_watch.register.registrar import Registrar
    from stac_watch.register.sinks import Mailbox
    from stac_watch.report.lines import Line
    from stac_watch.runs.argo import ArgoEngine
    from stac_watch.runs.engine import Engine
    from stac_watch.runs.kubernetes_api import Cluster
    from stac_watch.runs.local import LocalEngine
    from stac_watch.watch.loop import Parts, Tick


def wall_clock() -> datetime:
    """Returns the time, aware, UTC."""
    return datetime.now(UTC)


def jitter() -> random.Random:
    """Returns what pauses are spread with; identities never use it."""
    return random.Random()  # noqa: S311  # no secret hangs on it


def open_ledger(config: Config, *, asks: bool = False) -> Ledger:
    """Opens the ledger, makes it where there is none, and brings older ones up to date; who only `asks` changes nothing."""
    from stac_watch.ledger.database import open_engine
    from stac_watch.ledger.ledger import Ledger

    ledger = Ledger(open_engine(config.ledger, asks=asks))
    ledger.prepare(upgrade=not asks)
    return ledger


def copy_ledger(source: str, target: str, *, wait: Callable[[float], bool], show: Callable[[str, int, int], None]) -> Copied:
    """Copies a ledger from one database URL to another; see `ledger.copying`."""
    from stac_watch.ledger.copying import copy
    from stac_watch.ledger.database import open_engine

    engines = open_engine(source), open_engine(target)
    try:
        return copy(*engines, wall_clock(), wait=wait, show=show)
    finally:
        for engine in engines:
            engine.dispose()


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
    from stac_watch.ledger.records import Rivals
    from stac_watch.register.causes import Causes, audience_of
    from stac_watch.register.sinks import Announcer
    from stac_watch.watch.loop import Parts

    check_output(config)
    rng = jitter()
    catalogs = {source.name: build_catalog(source, rng) for source in config.sources}
    ledger = open_ledger(config)
    registrar = build_registrar(config, ledger, catalogs, rng) if config.registration is not None else None
    if registrar is not None:
        ledger.publications.enrol_done()
    if (audience := audience_of(config)) is not None:
        ledger.deliveries.enrol(audience)
    argo = build_argo(config.engine, environ) if config.engine.kind == "argo" else None
    return Parts(
        sources=config.sources,
        recipe=config.recipe,
        installation=config.installation,
        limits=config.engine.limits,
        engine=argo or build_engine(config, environ),
        volumes=argo.volumes if argo is not None else None,
        describe=argo.describe if argo is not None else None,
        keep=config.engine.keep if config.engine.kind == "argo" else timedelta(0),
        ledger=ledger,
        registrar=registrar,
        announcers=tuple(Announcer(ledger, sink, build_mailbox(sink), wall_clock, rng) for sink in config.sinks),
        causes=Causes(ledger, audience, wall_clock) if audience is not None else None,
        catalogs=catalogs,
        rivals={source.name: Rivals(*config.rivals(source.name)) for source in config.sources},
        stores={source.name: build_stores(source) for source in config.sources},
        read_marker=partial(look, config),
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
    from importlib.metadata import version

    from stac_watch.report.links import links_of
    from stac_watch.report.web import answers
    from stac_watch.report.web.hints import desk_of
    from stac_watch.report.web.site import Site
    from stac_watch.watch.pulse import Recorder

    pulse = Recorder(parts.now)
    parts.ledger.listen(pulse.hear)
    links = links_of(config)
    told = (version("stac-watch"), links, config.installation, config.objective, desk_of(config.web, parts.sources, parts.hints))
    site = Site(parts.ledger, parts.sources, parts.limits, pulse.read, parts.now, *told)
    with answers.serving(site, config.web.host, config.web.port, config.web.hosts) as url:
        yield url, pulse.note


def build_catalog(source: Source, rng: random.Random) -> Catalog:
    """Returns a source's catalog, which reads of an item what the source's rules need."""
    from stac_watch.catalog.client import FIELDS, Catalog
    from stac_watch.catalog.http import CatalogHttp
    from stac_watch.discover.policy import fields_for

    fields = (*FIELDS, *fields_for(source.filter))
    whole = source.filter.cql2 is not None  # an expression may name any property
    agent = _agent(source)
    http = CatalogHttp(
        source.api,
        now=wall_clock,
        sleep=time.sleep,
        rng=rng,
        hosts=source.hosts(),
        credentials=credentials(source.auth, agent),
        agent=agent,
    )
    return Catalog(http, source.collection, fields=fields, whole=whole)


def build_stores(source: Source) -> Stores:
    """Returns the way to the product stores of a source."""
    from stac_watch.catalog.stores import Stores

    return Stores(source.hosts(), rate=source.poll.looks, sleep=time.sleep, agent=_agent(source))


def _agent(source: Source) -> str:
    from importlib.metadata import version

    return source.user_agent or f"stac-watch/{version('stac-watch')}"


def credentials(auth: Auth | None, agent: str) -> Credentials:
    """Returns what lets us into a catalog."""
    from stac_watch.catalog.credentials import ANONYMOUS, ClientCredentials, Credentials, basic, bearer

    if auth is None:
        return ANONYMOUS
    headers: dict[str, Callable[[], str]] = {}
    if auth.header is not None:
        headers[auth.header.name] = auth.header.read
    if auth.bearer is not None:
        headers["Authorization"] = bearer(auth.bearer.read)
    if auth.basic is not None:
        headers["Authorization"] = basic(auth.basic.user, auth.basic.read)
    if (oidc := auth.oidc) is not None:
        extra = {name: value for name, value in (("scope", oidc.scope), ("audience", oidc.audience)) if value}
        headers["Authorization"] = ClientCredentials(
            oidc.token_url, oidc.client_id, oidc.read, now=wall_clock, agent=agent, extra=extra
        )
    return Credentials(auth.kind(), headers)


def require_register(config: Config) -> Register:
    """Returns the section `register` of a configuration.

    Raises:
        ConfigError: it has none.
    """
    if config.registration is None:
        raise ConfigError(
            "the configuration has no section `register`",
            hint="add `register: {api: https://…, collection: …}`, the catalog and collection of outputs",
        )
    return config.registration


def build_target(register: Register, rng: random.Random) -> TargetCollection:
    """Returns the collection in which outputs are registered."""
    from importlib.metadata import version

    from stac_watch.catalog.writing import TargetCollection, WritingHttp

    agent = f"stac-watch/{version('stac-watch')}"
    http = WritingHttp(
        register.api, now=wall_clock, sleep=time.sleep, rng=rng, credentials=credentials(register.auth, agent), agent=agent
    )
    return TargetCollection(http, register.collection)


def build_registrar(config: Config, ledger: Ledger, catalogs: Mapping[str, Catalog], rng: random.Random) -> Registrar:
    """Returns what registers the outputs of a configuration.

    Raises:
        ConfigError: it has no section `register`.
    """
    from stac_watch.register.item import outputs_of
    from stac_watch.register.registrar import Made, Registrar

    register = require_register(config)
    made = Made(
        marker=partial(look, config),
        item=partial(described, config),
        source_item=lambda source, item_id: catalogs[source].item(item_id) if source in catalogs else None,
    )
    outputs = outputs_of(config.recipe.output, register.href_base)
    return Registrar(ledger, build_target(register, rng), register, outputs, made, wall_clock, rng)


def build_mailbox(sink: EventSink) -> Mailbox:
    """Returns the way to a sink."""
    from importlib.metadata import version

    from stac_watch.register.sinks import Mailbox

    return Mailbox(sink, now=wall_clock, agent=f"stac-watch/{version('stac-watch')}")


def build_engine(config: Config, environ: Mapping[str, str]) -> Engine:
    """Returns the configured engine."""
    if config.engine.kind == "argo":
        return build_argo(config.engine, environ)
    return _local(config, config.engine, environ)


def _existing(ca_file: Path | None) -> Path | None:
    if ca_file is not None and not ca_file.is_file():
        raise ConfigError(f"engine.ca_file: there is no file {ca_file}", hint="is the Secret with the key ca.crt mounted there?")
    return ca_file


def build_argo(engine: ArgoSettings, environ: Mapping[str, str]) -> ArgoEngine:
    """Returns the engine on a cluster."""
    from stac_watch.runs.argo import ArgoEngine

    return ArgoEngine(
        engine.webhook,
        [token for token in (engine.token, engine.next_token) if token is not None],
        ca_file=_existing(engine.ca_file),
        cluster=build_cluster(engine, environ),
        max_in_flight=engine.limits.max_in_flight,
        confirm_after=engine.limits.confirm_after,
        now=wall_clock,
    )


@contextmanager
def opened_argo(engine: ArgoSettings, environ: Mapping[str, str]) -> Iterator[ArgoEngine]:
    """Opens the engine on a cluster, and closes its connections; runs live on."""
    argo = build_argo(engine, environ)
    try:
        yield argo
    finally:
        argo.close(stop_runs=False)


def build_cluster(engine: ArgoSettings, environ: Mapping[str, str], namespace: str = "") -> Cluster:
    """Returns a way to the cluster; a namespace takes the place of the configured one."""
    from stac_watch.runs.kubernetes_api import Cluster, connect

    return Cluster(connect(environ), namespace or engine.namespace)


def helper_name(run: str) -> str:
    """Returns a fresh name for a helper pod of a run: two may fetch the same one."""
    return f"fetch-{run[:48].rstrip('-.')}-{uuid.uuid4().hex[:6]}"


def _local(config: Config, engine: LocalSettings, environ: Mapping[str, str]) -> LocalEngine:
    from stac_watch.config.load import ENV_PREFIX
    from stac_watch.runs.local import LocalEngine

    beside = Path(sys.executable).parent / "geozarr-runner"
    runner = str(beside) if beside.exists() else shutil.which("geozarr-runner", path=environ.get("PATH"))
    if runner is None:
        raise Unavailable("geozarr-runner is not installed", hint="install it beside stac-watch: pip install geozarr-runner")
    make_folder(engine.folder)
    hosts = sorted({host for source in config.sources for host in source.hosts()})
    return LocalEngine(
        engine.folder.resolve(),
        command=[runner, "run", f"--allowed-hosts={','.join(hosts)}"],
        max_in_flight=engine.limits.max_in_flight,
        deadline=engine.deadline,
        memory=engine.memory or _share_of_memory(engine.limits.max_in_flight),
        environ={name: value for name, value in environ.items() if not name.startswith(ENV_PREFIX) and name not in config.secret},
    )


def _share_of_memory(runs: int) -> int:
    """Returns the bytes that each of so many runs may have: they leave a fifth of the machine to others; a full tile needs 2 GB."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(4 << 30, whole * 4 // 5 // runs)


def check_output(config: Config) -> None:
    """Finds out before the first conversion whether local outputs can be written; on a cluster a path is the run's volume's."""
    if config.engine.kind == "local" and "://" not in config.recipe.output:
        make_folder(Path(config.recipe.output.split("{", 1)[0]).absolute())


def lines(parts: Parts, limit: int = 15) -> list[Line]:
    """Returns the conversions that a person wants to see now: what is in flight and what changed last; skipped ones are counted."""
    from stac_watch.report.lines import line
    from stac_watch.runs.engine import Runs

    last = [row for state in State if state is not State.SKIPPED for row in parts.ledger.conversions.find(state=state, limit=limit)]
    rows = {row.key: row for row in [*parts.ledger.conversions.unfinished(), *last]}
    shown = sorted(rows.values(), key=lambda row: row.created_at)[-limit:]
    runs = Runs(parts.engine.runs([row.key for row in shown if row.state in IN_FLIGHT]))
    waits = parts.ledger.outbox.of([row.key for row in shown if row.state is State.QUEUED])
    return [line(row, parts.now(), run=runs.of(row), due=waits[row.key].due if row.key in waits else None) for row in shown]


def look(config: Config, output: str) -> Outcome | None:
    """Returns the marker of an output, None where there is none.

    Raises:
        Unavailable: it cannot be looked at from here.
    """
    from stac_watch.runs.markers import find_marker

    if not visible(config, output):
        raise Unavailable(f"{output} lies on its run's own volume", hint="`stac-watch cluster fetch RUN` copies its package")
    return find_marker(output)


def described(config: Config, output: str) -> dict[str, Any] | None:
    """Returns the item that a run wrote beside an output, None where there is none.

    Raises:
        Unavailable: it cannot be looked at from here.
    """
    from stac_watch.runs.markers import find_item

    if not visible(config, output):
        raise Unavailable(f"{output} lies on its run's own volume", hint="what is registered lies where readers reach it: s3://")
    return find_item(output)


def visible(config: Config, output: str) -> bool:
    """Tells whether an output's marker can be read from here: not where it is a path on a run's own volume."""
    return "://" in output or config.engine.kind == "local"
