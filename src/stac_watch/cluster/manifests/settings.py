"""What the manifests are told, and what all of them share: names, labels, the restricted security context.

All of it is plain values and dictionaries: Argo's models are `convert`'s and `audit`'s.

Source: Kubernetes Pod Security Standards, profile "restricted".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from ipaddress import ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

from stac_watch.config.model import ArgoSettings, Config
from stac_watch.model.errors import ConfigError
from stac_watch.model.hosts import is_inside

type Object = dict[str, Any]

BUS = "geozarr"
EVENT_SOURCE, EVENT, PORT, ENDPOINT = "stac", "items", 12000, "/items"
SENSOR_POD = "sensor"  # the name that its pod is labelled with
SENSOR, TRIGGER = "geozarr", "convert"  # renaming either deletes the Sensor's consumer, and what waits in the bus for it
POLLER, AUDIT, RUN, SENSOR_ACCOUNT = "stac-watch", "stac-watch-audit", "geozarr-run", "geozarr-sensor"
NO_API = "geozarr-events"  # account of what needs none: EventSource and bus
TOKEN_SECRET, S3_SECRET, LEDGER_SECRET = "stac-watch-webhook", "geozarr-s3", "stac-watch-ledger"  # names, no secrets
CONTROLLER = "argo/workflow-controller-configmap"
CONFIG_FILE = "stac-watch.yaml"
CONFIG_FOLDER = "/etc/stac-watch"
WEBHOOK_FOLDER = "/etc/geozarr/webhook"
STATE_FOLDER = "/var/lib/stac-watch"
S3_FOLDER = "/etc/geozarr/s3"
S3_VOLUME: Object = {"name": "s3", "secret": {"secretName": S3_SECRET}}
S3_MOUNT: Object = {"name": "s3", "mountPath": S3_FOLDER, "readOnly": True}
TMP = "/tmp"  # noqa: S108  # an emptyDir of the pod; root file systems are read-only, and libraries want a HOME
WEB_PORT = 8080
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")  # RFC 1918, 6598, 4193
UID = 10001  # of both images; nobody's on the node


@dataclass(frozen=True)
class Settings:
    """What differs between installations."""

    config: str  # the poller's configuration file, as text
    namespace: str
    sources: tuple[str, ...]  # names, for the audit
    allowed_hosts: tuple[str, ...]  # of all sources; the runs get them, too
    output: str  # the recipe's, as the configuration has it
    slots: int  # runs at once
    runner_image: str
    poller_image: str
    keep: int = 3 * 86400  # seconds that a Workflow which succeeded is kept, and with it an output on its volume
    storage_class: str = ""  # of every volume; empty = the cluster's default
    ports: tuple[int, ...] = (80, 443)  # that catalogs, products and object stores are served at
    networks: tuple[str, ...] = ()  # private ones that poller and runs may reach; public ones they always may
    api_servers: tuple[str, ...] = ()  # networks of the Kubernetes API; empty = another policy says them
    bus_replicas: int = 3  # servers of the bus, and copies of an event: an odd number; one outlives no node
    bus_size: str = "10Gi"  # of each server's volume
    prometheus: str = ""  # namespace of the Prometheus that may look; empty = monitoring, and no objects of its operator
    scheme: str = "https"  # of the links in the Argo UI
    instance_id: str = ""  # of the Workflow controller; empty = one without
    backup: str = ""  # size of the volume for the ledger's copies; empty = none are made
    report: str = ""  # where the nightly report on freshness is published, s3://…; empty = nowhere
    webhook_tls: str = ""  # Secret with the EventSource's certificate; empty = plain HTTP
    controller: str = CONTROLLER  # namespace/name of the Workflow controller's ConfigMap


def settings_of(
    config: Config,
    text: str,
    *,
    runner_image: str = "",
    poller_image: str = "",
    storage_class: str = "",
    ports: Iterable[int] = (),
    networks: Iterable[str] = (),
    api_servers: Iterable[str] = (),
    prometheus: str = "",
    bus_replicas: int = 3,
    bus_size: str = "10Gi",
    controller: str = CONTROLLER,
    webhook_tls: str = "",
    backup: str = "",
    report: str = "",
) -> Settings:
    """Returns the settings for a configuration; `text` is its file, which becomes the poller's ConfigMap. The rest: see `Settings`.

    Raises:
        ConfigError: the configuration is not for a cluster, or a network is none.
    """
    if not isinstance(config.engine, ArgoSettings):
        raise ConfigError(
            f"engine.kind is {config.engine.kind}, and manifests are for argo",
            hint='set `engine: {kind: argo, webhook: "http://stac-eventsource-svc:12000/items"}`',
        )
    _check(config.engine.webhook, bus_size, controller, webhook_tls, backup)
    if report and not report.startswith("s3://"):
        raise ConfigError(f"--report {report!r} is no place in an object store", hint="write it as s3://BUCKET/freshness")
    release = version("stac-watch")
    hosts = sorted({host for source in config.sources for host in source.hosts()})
    apis = [urlsplit(source.api) for source in config.sources]
    asked = [*apis, *_asked_besides(config)]
    named = [host for host in hosts if "/" not in host] + [api.hostname or "" for api in asked]
    return Settings(
        config=text,
        namespace=config.engine.namespace,
        sources=tuple(source.name for source in config.sources),
        allowed_hosts=tuple(hosts),
        output=config.recipe.output,
        slots=config.engine.limits.max_in_flight,
        instance_id=config.engine.instance_id,
        keep=round(config.engine.keep.total_seconds()),
        runner_image=runner_image or f"geozarr-runner:{release}",
        poller_image=poller_image or f"stac-watch:{release}",
        storage_class=storage_class,
        ports=tuple(sorted({80, 443, *ports, *(api.port for api in asked if api.port)})),
        networks=_networks([h for h in hosts if "/" in h] + list(networks), anywhere=any(map(is_inside, named))),
        api_servers=_networks(api_servers),
        prometheus=prometheus,
        bus_replicas=bus_replicas,
        bus_size=bus_size,
        controller=controller,
        webhook_tls=webhook_tls,
        backup=backup,
        report=report.rstrip("/"),
        scheme="http" if all(api.scheme == "http" for api in apis) else "https",
    )


def _asked_besides(config: Config) -> list[SplitResult]:
    """Returns what the poller speaks to beside the sources' catalogs: target catalog, sinks, and where tokens come from."""
    register = config.registration
    auths = [source.auth for source in config.sources] + ([register.auth] if register is not None else [])
    tokens = [auth.oidc.token_url for auth in auths if auth is not None and auth.oidc is not None]
    urls = [register.api] if register is not None else []
    return [urlsplit(url) for url in urls + tokens + [sink.url for sink in config.sinks]]


def _check(webhook: str, bus_size: str, controller: str, webhook_tls: str, backup: str) -> None:
    """Raises for an option that cannot be meant so."""
    for option, size in (("--bus-size", bus_size), ("--backup", backup or "1Gi")):
        if not quantity(size):
            raise ConfigError(f"{option} {size!r} is no size", hint="write it as Kubernetes does: 10Gi")
    if webhook_tls and not webhook.startswith("https://"):
        raise ConfigError(
            f"engine.webhook is {webhook}, and the EventSource would speak TLS",
            hint="write it as https://, with the name that the certificate is for",
        )
    if not re.fullmatch(r"[a-z0-9-]+/[a-z0-9.-]+", controller):
        raise ConfigError(
            f"--controller {controller!r} is no ConfigMap", hint="write it as NAMESPACE/NAME, for example argo/argo-configmap"
        )


def _networks(given: Iterable[str], *, anywhere: bool = False) -> tuple[str, ...]:
    """Returns networks as Kubernetes wants them; `anywhere`: a name inside the cluster may lead to any private address."""
    try:
        return tuple(sorted({str(ip_network(network)) for network in given} | set(PRIVATE if anywhere else ())))
    except ValueError as error:
        raise ConfigError(f"not a network: {error}", hint="write it as 10.0.0.0/8 or 192.0.2.7/32") from None


def quantity(text: str) -> float:
    """Returns a Kubernetes quantity as a number."""
    match = re.fullmatch(r"([0-9.]+)([EPTGMk]i?|Ki|m)?", text)
    if match is None:
        return 0.0
    unit = match[2] or ""
    if unit == "m":
        return float(match[1]) / 1000
    power = " kMGTPE".index(unit[0].replace("K", "k")) if unit else 0
    return float(match[1]) * float((1024 if unit.endswith("i") else 1000) ** power)


def labels(name: str) -> dict[str, str]:
    """Returns the labels that every object of ours carries."""
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "stac-watch"}


def meta(name: str, settings: Settings, **more: Any) -> Object:  # noqa: ANN401  # any field of ObjectMeta
    """Returns an object's metadata."""
    return {"name": name, "namespace": settings.namespace, "labels": labels(name), **more}


def container_security(*, read_only: bool = True) -> Object:
    """Returns a container's part of the restricted profile."""
    root = {"readOnlyRootFilesystem": True} if read_only else {}
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, **root}


def pod_security(uid: int = UID) -> Object:
    """Returns a pod's part of the restricted profile; the group makes volumes writable for a user that is not root."""
    return {
        "fsGroup": uid,
        "fsGroupChangePolicy": "OnRootMismatch",
        "runAsGroup": uid,
        "runAsNonRoot": True,
        "runAsUser": uid,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def s3_environment() -> list[Object]:
    """Returns where boto looks for credentials and endpoint.

    Files, not variables: Kubernetes expands $(NAME) in arguments, so a URL could otherwise ask for a key by its name.
    """
    return [
        {"name": "AWS_CONFIG_FILE", "value": f"{S3_FOLDER}/config"},
        {"name": "AWS_SHARED_CREDENTIALS_FILE", "value": f"{S3_FOLDER}/credentials"},
    ]
