"""What the manifests are told, and what all of them share: names, labels, the restricted security context.

All of it is plain values and dictionaries: Argo's models are `convert`'s and `audit`'s.

Source: Kubernetes Pod Security Standards, profile "restricted".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stac_watch.cluster.manifests.tree import Hole, expression_of, given, merged
from stac_watch.cluster.manifests.values import SiteValues

type Object = dict[str, Any]

BUS = "geozarr"
EVENT_SOURCE, EVENT, PORT, ENDPOINT = "stac", "items", 12000, "/items"
SENSOR_POD = "sensor"  # the name that its pod is labelled with
SENSOR, TRIGGER = "geozarr", "convert"  # renaming either deletes the Sensor's consumer, and what waits in the bus for it
POLLER, AUDIT, RUN, SENSOR_ACCOUNT = "stac-watch", "stac-watch-audit", "geozarr-run", "geozarr-sensor"
CLEANUP = "stac-watch-cleanup"
NO_API = "geozarr-events"  # account of what needs none: EventSource and bus
CONFIG_FILE = "stac-watch.yaml"
CONFIG_FOLDER = "/etc/stac-watch"
WEBHOOK_FOLDER = "/etc/geozarr/webhook"
STATE_FOLDER = "/var/lib/stac-watch"
S3_FOLDER = "/etc/geozarr/s3"
TMP = "/tmp"  # noqa: S108  # an emptyDir of the pod; root file systems are read-only, and libraries want a HOME
WEB_PORT = 8080
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")  # RFC 1918, 6598, 4193
UID = 10001  # of both images; nobody's on the node


@dataclass(frozen=True)
class Settings:
    """What differs between installations: the values, and what follows from them and the configuration."""

    values: SiteValues
    files: Object  # the configuration's ConfigMap: name -> text
    digest: str  # of these: the poller restarts when it changes
    namespace: str
    sources: tuple[str, ...]  # names, for the audit
    allowed_hosts: str  # of all sources, comma-separated; the runs get them, too
    output: str  # the recipe's, as the configuration has it
    parallelism: str  # Workflows at once
    keep: int  # seconds that a Workflow which succeeded is kept, and with it an output on its volume
    runner_image: str
    poller_image: str
    ports: tuple[int, ...]  # that catalogs, products and object stores are served at
    blocks: tuple[Object, ...]  # private networks that poller and runs may reach; public ones they always may
    hard: Object  # of the quota
    bus: str  # the EventBus
    apart: bool  # whether no two of its servers may share a node
    instance_id: str  # of the Workflow controller; empty = one without
    runs_class: str  # storage classes; empty = the cluster's default
    ledger_class: str
    bus_class: str
    backup_class: str
    copied: bool  # whether a SQLite ledger is copied every night
    copies: str  # the option that says how many are kept
    no_proxy: str  # what goes around a proxy; empty = there is no proxy
    host: str  # that the poller's page listens on
    cilium: bool  # whether the cluster has its policies
    scheme: str = "https"  # of the links in the Argo UI


def sensor_name(number: int) -> str:
    """Returns what the Sensor of a number is called; the first keeps its name, whatever number there is."""
    if (test := expression_of(number)) is not None:
        return Hole(f'ternary "{SENSOR}" (printf "{SENSOR}-%d" (add1 {test})) (eq (int {test}) 0)')
    return f"{SENSOR}-{number + 1}" if number else SENSOR


def labels(name: str) -> dict[str, str]:
    """Returns the labels that every object of ours carries."""
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "stac-watch"}


def meta(name: str, settings: Settings, **more: Any) -> Object:  # noqa: ANN401  # any field of ObjectMeta
    """Returns an object's metadata."""
    return {"namespace": settings.namespace, **meta_of_cluster(name, settings, **more)}


def kept(name: str, settings: Settings) -> Object:
    """Returns the metadata of what outlives `helm uninstall`: there is no other copy of what is in it."""
    policy = {"helm.sh/resource-policy": "keep"}
    return annotated(meta(name, settings), merged(policy, settings.values.annotations))


def annotated(metadata: Object, annotations: Object) -> Object:
    """Returns metadata with these annotations in place of its own, where there are any."""
    return {**{key: value for key, value in metadata.items() if key != "annotations"}, **given({"annotations": annotations})}


def meta_of_cluster(name: str, settings: Settings, **more: Any) -> Object:  # noqa: ANN401  # any field of ObjectMeta
    """Returns the metadata of an object that belongs to no namespace."""
    said = {"labels": merged(labels(name), settings.values.labels), **given({"annotations": settings.values.annotations})}
    return {"name": name, **said, **more}


def container_security(*, read_only: bool = True) -> Object:
    """Returns a container's part of the restricted profile."""
    root = {"readOnlyRootFilesystem": True} if read_only else {}
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, **root}


def pod_security(settings: Settings, uid: int = UID) -> Object:
    """Returns a pod's part of the restricted profile; the group makes volumes writable for a user that is not root."""
    user = {"fsGroup": uid, "fsGroupChangePolicy": "OnRootMismatch", "runAsGroup": uid, "runAsUser": uid}
    return {**given(user, settings.values.fixed_user), "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
