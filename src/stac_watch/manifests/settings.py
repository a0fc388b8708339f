"""What the manifests are told, and what all of them share: names, labels, the restricted security context.

In: a configuration and its text. Out: plain values and dictionaries. Never: Argo's models; those are `workflow`'s.

Source: Kubernetes Pod Security Standards, profile "restricted".
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from stac_watch.config import ArgoEngine, Config
from stac_watch.errors import ConfigError

type Object = dict[str, Any]

BUS = "geozarr"
EVENT_SOURCE, EVENT, PORT, ENDPOINT = "stac", "items", 12000, "/items"
SENSOR, TRIGGER = "geozarr", "convert"  # renaming either deletes the Sensor's consumer, and what waits in the bus for it
POLLER, AUDIT, RUN, SENSOR_ACCOUNT = "stac-watch", "stac-watch-audit", "geozarr-run", "geozarr-sensor"
TOKEN_SECRET, S3_SECRET, LEDGER_SECRET = "stac-watch-webhook", "geozarr-s3", "stac-watch-ledger"  # names, no secrets
CONFIG_FILE = "stac-watch.yaml"
CONFIG_FOLDER = "/etc/stac-watch"
STATE_FOLDER = "/var/lib/stac-watch"
S3_FOLDER = "/etc/geozarr/s3"
TMP = "/tmp"  # noqa: S108  # an emptyDir of the pod; root file systems are read-only, and libraries want a HOME
WEB_PORT = 8080
UID = 10001  # of both images; nobody's on the node


@dataclass(frozen=True)
class Settings:
    """What differs between installations."""

    config: str  # the poller's configuration file, as text
    namespace: str
    sources: tuple[str, ...]  # names, for the audit
    allowed_hosts: tuple[str, ...]  # of all sources; the runs get them, too
    runner_image: str
    poller_image: str


def settings_of(config: Config, text: str, *, runner_image: str = "", poller_image: str = "") -> Settings:
    """Returns the settings for a configuration; `text` is its file, which becomes the poller's ConfigMap.

    Raises:
        ConfigError: the configuration is not for a cluster.
    """
    if not isinstance(config.engine, ArgoEngine):
        raise ConfigError(
            f"engine.kind is {config.engine.kind}, and manifests are for argo",
            hint="set `engine: {kind: argo, webhook: …}`; deploy/base/stac-watch.yaml is an example",
        )
    release = version("stac-watch")
    return Settings(
        config=text,
        namespace=config.engine.namespace,
        sources=tuple(source.name for source in config.sources),
        allowed_hosts=tuple(sorted({host for source in config.sources for host in source.hosts()})),
        runner_image=runner_image or f"geozarr-runner:{release}",
        poller_image=poller_image or f"stac-watch:{release}",
    )


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
