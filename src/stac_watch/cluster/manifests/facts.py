"""What follows from a configuration and the values: `Settings`. The chart has the same in `_facts.tpl`; a test compares both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import SplitResult, urlsplit

import yaml
from pydantic import ValidationError

from stac_watch.cluster.manifests.network import block
from stac_watch.cluster.manifests.pod_values import NOTHING, ValuesPart
from stac_watch.cluster.manifests.quantity import quantity
from stac_watch.cluster.manifests.settings import BUS, CONFIG_FILE, ENDPOINT, PORT, PRIVATE, STATE_FOLDER, Object, Settings
from stac_watch.cluster.manifests.values import ImageValues, SiteValues
from stac_watch.config.model import ArgoSettings, Config
from stac_watch.config.wording import explain
from stac_watch.model.errors import ConfigError
from stac_watch.model.hosts import is_inside

BESIDE = 4  # Workflows beside the poller's own limit: runs by hand, the audit
RUN_VOLUME = 12  # GiB that one run asks for at most
AROUND = ("$(KUBERNETES_SERVICE_HOST)", "localhost", "127.0.0.1", "::1", ".svc", ".cluster.local")
GIBIBYTE = 2**30


def values_of(raw: Mapping[str, Any], text: str, place: str) -> SiteValues:
    """Returns the values of a file.

    Raises:
        ConfigError: a key is unknown, or a value cannot be meant so.
    """
    try:
        return SiteValues.model_validate(raw)
    except ValidationError as error:
        known = sorted({to for part in _parts(ValuesPart) for to in _keys(part)})
        raise ConfigError(
            f"{place}: {explain(error, raw, text, known)}",
            hint="keys are written as in Helm, `podAnnotations`; those of the configuration are below `config`",
        ) from None


def _parts(part: type[ValuesPart]) -> list[type[ValuesPart]]:
    return [found for model in part.__subclasses__() for found in (model, *_parts(model))]


def _keys(part: type[ValuesPart]) -> list[str]:
    return [str(field.alias or name) for name, field in part.model_fields.items()]


def completed(config: Mapping[str, Any], values: SiteValues) -> Object:
    """Returns a configuration of the values with what every cluster needs: engine, ledger, page."""
    scheme = "https" if values.webhook.tls_secret else "http"
    webhook = f"{scheme}://stac-eventsource-svc:{PORT}{ENDPOINT}"
    engine = {"kind": "argo", "webhook": webhook}
    web = {"host": "0.0.0.0", "port": 8080}  # noqa: S104  # of its pod
    ledger = f"sqlite:///{STATE_FOLDER}/stac-watch.db"
    return {"ledger": ledger, **config, "engine": _over(engine, config.get("engine")), "web": _over(web, config.get("web"))}


def _over(ours: Object, given: object) -> object:
    """Returns keys and values with those that were given before them; what is none of that is for `load` to name."""
    return {**ours, **given} if isinstance(given, Mapping) else ours if given is None else given


def settings_of(config: Config, text: str, values: SiteValues | None = None) -> Settings:
    """Returns the settings for a configuration; `text` is its file, which becomes the poller's ConfigMap.

    Raises:
        ConfigError: the configuration is not for a cluster, or does not suit the values.
    """
    values = values or SiteValues()
    if not isinstance(config.engine, ArgoSettings):
        raise ConfigError(
            f"engine.kind is {config.engine.kind}, and manifests are for argo",
            hint='set `engine: {kind: argo, webhook: "http://stac-eventsource-svc:12000/items"}`',
        )
    _check(config, config.engine, values)
    hosts = sorted({host for source in config.sources for host in source.hosts()})
    asked = [urlsplit(url) for url in addresses(config)]
    named = [host for host in hosts if "/" not in host] + [api.hostname or "" for api in asked]
    inside = PRIVATE if any(map(is_inside, named)) else ()
    networks = sorted({*(h for h in hosts if "/" in h), *values.network_policy.networks, *inside})
    files = {CONFIG_FILE: text, **values.config_files}
    classes, fallback = values.storage_classes, values.storage_classes.default
    runs = config.engine.limits.max_in_flight + BESIDE
    proxied = values.proxy.http or values.proxy.https
    own = [part for part in values.proxy.no_proxy.split(",") if part]
    return Settings(
        values=values,
        files=files,
        digest=hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16],
        namespace=config.engine.namespace,
        sources=tuple(source.name for source in config.sources),
        allowed_hosts=",".join(hosts),
        output=config.recipe.output,
        parallelism=str(runs),
        keep=round(config.engine.keep.total_seconds()),
        runner_image=_image(values.images.registry, values.images.runner),
        poller_image=_image(values.images.registry, values.images.poller),
        ports=tuple(sorted({80, 443, *values.network_policy.ports, *(_port(url) for url in asked if _port(url))})),
        blocks=tuple(block(network) for network in networks),
        hard=hard(runs, values),
        bus=values.event_bus.existing or BUS,
        apart=values.event_bus.spread == "required",
        instance_id=config.engine.instance_id,
        runs_class=classes.runs or fallback,
        ledger_class=classes.ledger or fallback,
        bus_class=classes.bus or fallback,
        backup_class=classes.backup or fallback,
        copied=bool(values.backup.size) and not values.ledger.existing_secret,
        copies=f"--keep={values.backup.keep}",
        no_proxy=",".join([*AROUND, *own]) if proxied else "",
        host='"::"' if values.ip_family == "ipv6" else "0.0.0.0",  # noqa: S104  # of its pod; the first is YAML, and `::` alone none
        cilium=values.network_policy.flavour == "cilium",
        scheme="http" if all(urlsplit(source.api).scheme == "http" for source in config.sources) else "https",
    )


def _port(url: SplitResult) -> int:
    return url.port or 0


def addresses(config: Config) -> list[str]:
    """Returns what the poller speaks to: catalogs, the target catalog, sinks, and where tokens come from."""
    register = config.registration
    auths = [source.auth for source in config.sources] + ([register.auth] if register is not None else [])
    tokens = [auth.oidc.token_url for auth in auths if auth is not None and auth.oidc is not None]
    urls = [source.api for source in config.sources] + ([register.api] if register is not None else [])
    return urls + tokens + [sink.url for sink in config.sinks]


def hard(runs: int, values: SiteValues) -> Object:
    """Returns a quota's figures.

    Each run has one volume, where it does not work on its node's disk. It goes soon after a success; once more as many are for
    those on their way out, and for runs that failed: their volumes stay until their Workflows go.
    """
    asked = values.runs.convert.get("requests") or NOTHING
    cores = round(quantity(str(asked.get("cpu"))) * 1000) + 100  # thousandths; Argo's containers included
    memory = _up(round(quantity(str(asked.get("memory")))), GIBIBYTE) + 1
    bus = 0 if values.event_bus.existing else values.event_bus.replicas
    claims = 0 if values.runs.volume == "scratch" else 2 * runs
    storage = claims * RUN_VOLUME + _up(bus * round(quantity(values.event_bus.size)), GIBIBYTE)
    figures = {
        "persistentvolumeclaims": str(claims + bus),
        "requests.cpu": str(_up(runs * cores, 1000) + 2),
        "requests.memory": f"{runs * memory + 4}Gi",
        "requests.storage": f"{storage}Gi",
    }
    return {**figures, **values.quota.hard}


def _up(number: int, unit: int) -> int:
    return -(-number // unit)


def _image(registry: str, image: ImageValues) -> str:
    name = f"{registry}/{image.repository}" if registry else image.repository
    return f"{name}@{image.digest}" if image.digest else f"{name}:{image.tag or version('stac-watch')}"


def _check(config: Config, engine: ArgoSettings, values: SiteValues) -> None:
    """Raises for values that do not suit the configuration."""
    if values.webhook.tls_secret and not engine.webhook.startswith("https://"):
        raise ConfigError(
            f"engine.webhook is {engine.webhook}, and the EventSource would speak TLS",
            hint="write it as https://, with the name that the certificate is for",
        )
    if values.ledger.existing_secret and "://" not in config.recipe.output:
        raise ConfigError(
            f"recipe.output is {config.recipe.output!r}: outputs on the volumes of runs go with their Workflows (engine.keep), and"
            " a ledger in PostgreSQL is for an installation that stays",
            hint="set `recipe: {output: s3://BUCKET/{collection}/{item_id}.zarr}`",
        )
    if values.runs.volume == "scratch" and "://" not in config.recipe.output:
        raise ConfigError(
            f"recipe.output is {config.recipe.output!r}: with `runs.volume: scratch` there is no volume that it could stay on",
            hint="set `recipe: {output: s3://BUCKET/{collection}/{item_id}.zarr}`, or `runs: {volume: claim}`",
        )


def text_of(config: Mapping[str, Any]) -> str:
    """Returns a configuration of the values as YAML."""
    return yaml.safe_dump(dict(config), sort_keys=True, allow_unicode=True, width=120)
