"""The values that pods have: where they go, what they carry, what they ask for. See `values`."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from stac_watch.cluster.manifests.quantity import is_quantity, quantity

type Fragment = dict[str, Any]
NOTHING: Fragment = {}  # a default; each object gets a copy of it
MOST_SENSORS = 4
NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
OPTIONAL_NAME = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$"


def _size(value: str) -> str:
    if value and not quantity(value):
        raise ValueError(f"{value!r} is no size; write it as Kubernetes does: 10Gi")
    return value


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError as error:
        raise ValueError(f"not a network: {error}; write it as 10.0.0.0/8 or 192.0.2.7/32") from None


def _resources(value: Fragment) -> Fragment:
    for kind in ("limits", "requests"):
        figures = NOTHING if value.get(kind) is None else value[kind]  # with Helm, null takes a default away
        if not isinstance(figures, dict):
            raise ValueError(f"{kind} must hold keys and values, as {{cpu: '1', memory: 2Gi}}")  # noqa: TRY004  # pydantic's
        for name, figure in figures.items():
            if figure is not None and not is_quantity(str(figure)):
                raise ValueError(f"{kind}.{name} is {figure!r}; write it as Kubernetes does: 500m, 2, 4Gi")
    return value


Resources = Annotated[Fragment, AfterValidator(_resources)]
VolumeSize = Annotated[str, AfterValidator(_size)]
Network = Annotated[str, AfterValidator(_network)]
Name = Annotated[str, Field(pattern=NAME)]
OptionalName = Annotated[str, Field(pattern=OPTIONAL_NAME)]


class ValuesPart(BaseModel):
    """Base of every part of the values: frozen, and an unknown key is an error."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class PlaceValues(ValuesPart):
    """Where pods go, and what they carry."""

    node_selector: dict[str, str] = NOTHING
    """Labels of the nodes."""
    tolerations: tuple[Fragment, ...] = ()
    """Taints that do not matter."""
    affinity: Fragment = NOTHING
    """In place of ours, where we have one."""
    priority_class_name: str = ""
    """A PriorityClass."""
    pod_annotations: dict[str, str] = NOTHING
    """As `karpenter.sh/do-not-disrupt`, or what keeps a mesh's sidecar away."""
    pod_labels: dict[str, str] = NOTHING
    """Beside ours."""


class ProgramValues(PlaceValues):
    """Where pods of our own programs go, and what is in them."""

    topology_spread_constraints: tuple[Fragment, ...] = ()
    """How pods are spread over nodes and zones."""
    extra_env: tuple[Fragment, ...] = ()
    """More variables of its containers."""
    extra_volumes: tuple[Fragment, ...] = ()
    """More volumes of its pods."""
    extra_volume_mounts: tuple[Fragment, ...] = ()
    """Where its containers mount them."""


SMALL: Fragment = {"limits": {"memory": "512Mi"}, "requests": {"cpu": "50m", "memory": "128Mi"}}
EVENTS: Fragment = {"limits": {"memory": "256Mi"}, "requests": {"cpu": "20m", "memory": "64Mi"}}


class PollerValues(ProgramValues):
    """The watcher."""

    resources: Resources = SMALL
    """Of its container."""


class RunsValues(ProgramValues):
    """The pods of runs."""

    volume: Literal["claim", "auto", "scratch"] = "claim"
    """Where a run works. claim: on a volume of its own, as large as the product needs; a step that is tried again goes on from what
    lies there. scratch: in one pod, on its node's disk; outputs must go to an object store, and a step that is tried again begins
    anew. auto: scratch where the output goes to an object store, else a claim. See [volumes](../deploy.md#volumes)."""
    scratch: VolumeSize = Field(default="12Gi", min_length=1)
    """Room on a node's disk for a run without a claim: so much is asked of the node, and what needs more is refused with 73."""
    describe_failures: bool = True
    """Whether the watcher writes into a failed run's description why it failed: the Argo UI's list shows it. It takes the right to
    change Workflows, of which the policy (`admission`) leaves nothing but that; without the policy the right is not given."""
    preflight: Resources = {"limits": {"memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "256Mi"}}
    """Resources of the step that looks at a product."""
    convert: Resources = {"limits": {"memory": "4Gi"}, "requests": {"cpu": "1", "memory": "2Gi"}}
    """Resources of the step that converts."""
    executor: Resources = {"limits": {"cpu": "1", "memory": "256Mi"}, "requests": {"cpu": "10m", "memory": "64Mi"}}
    """Resources of Argo's own containers in them; a quota refuses pods without."""


class AuditValues(ProgramValues):
    """The nightly audit."""

    enabled: bool = True
    """Whether there is one."""
    schedule: str = "17 3 * * *"
    """When, in UTC; not on the hour, when everybody asks."""
    report: str = Field(default="", pattern=r"^(s3://[^\s{}]*[^\s{}/])?$")
    """Where the [report on freshness](../monitoring.md#freshness) is published: `s3://BUCKET/freshness`; empty = nowhere."""
    resources: Resources = SMALL
    """Of its container."""


class BackupValues(ProgramValues):
    """Nightly copies of a SQLite ledger. PostgreSQL has the backups of its server."""

    size: VolumeSize = ""
    """Of the volume for them, three times as large as the ledger may become; empty = none are made."""
    schedule: str = "41 1 * * *"
    """When, in UTC."""
    keep: int = Field(default=3, ge=1)
    """How many."""
    resources: Resources = SMALL
    """Of its container."""


class CleanupValues(ProgramValues):
    """Removes Workflows that are over before Argo does."""

    schedule: str = ""
    """When, in UTC; empty = Argo's own time to live alone."""
    older_than: str = Field(default="24h", pattern=r"^[0-9]+[smhd]$")
    """Those that ended so long ago."""
    resources: Resources = SMALL
    """Of its container."""


class EventsValues(PlaceValues):
    """EventSource or Sensor."""

    resources: Resources = EVENTS
    """Of its container."""


class BusValues(PlaceValues):
    """The event bus."""

    existing: OptionalName = ""
    """An EventBus (JetStream) of this namespace that is there already; empty = one of ours."""
    replicas: int = Field(default=3, ge=1)
    """Servers, and copies of an event: an odd number; one outlives no node. It counts when the stream is made."""
    size: VolumeSize = Field(default="10Gi", min_length=1)
    """Volume of each server."""
    spread: Literal["preferred", "required"] = "preferred"
    """Whether two of its servers may share a node where there is no other."""
    sensors: int = Field(default=1, ge=1, le=MOST_SENSORS)
    """How many Sensors share its events, by their keys: each makes 2.5 Workflows a second. What waits in the bus while the number
    changes may go out again, after `engine.limits.confirm_after`."""
