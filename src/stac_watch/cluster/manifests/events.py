"""EventBus, EventSource and Sensor as plain objects: from an accepted event to a Workflow.

There is no transform, and one filter (`guard`): what it rejects is acknowledged and gone, so it takes whatever a watcher sends.
There is no default for what every event has: a renamed field would silently become it. Only the converter's options have defaults,
for an event by hand may leave them out. The poller decides everything, and a test holds the mapping against a real event.

Sources: Argo Events 1.9.11: pkg/sensors/triggers/params.go (mapping), pkg/sensors/listener.go (what is retried),
pkg/reconciler/eventbus/installer/jetstream.go (pods), pkg/eventbus/jetstream/base (stream limits, only read at creation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stac_watch.cluster.manifests import pods
from stac_watch.cluster.manifests.guard import event_filter
from stac_watch.cluster.manifests.pod_values import EventsValues
from stac_watch.cluster.manifests.settings import (
    BUS,
    ENDPOINT,
    EVENT,
    EVENT_SOURCE,
    NO_API,
    PORT,
    SENSOR_ACCOUNT,
    SENSOR_POD,
    TRIGGER,
    Object,
    Settings,
    annotated,
    container_security,
    labels,
    meta,
    pod_security,
    sensor_name,
)
from stac_watch.cluster.manifests.tree import absent, given, merged, numbered, when
from stac_watch.cluster.manifests.values import AccountValues
from stac_watch.model.event import LATER, MAX_EVENT_BYTES, OLDER_OPTIONS
from stac_watch.runs.workflow import API_VERSION, INSTANCE_LABEL, LABELS, TEMPLATE, mapped

NATS = "2.10.29"
NATS_UID, ARGO_EVENTS_UID = 1000, 9731
MAX_MESSAGES = 5_000_000  # the default of 50,000 evicts unprocessed events of a large backfill
MAX_AGE = "336h"  # the default of 7 days is shorter than a holiday
DEPENDENCY = "item"
OPTIONS = "options."  # below an event's data; each has the template's default


def event_bus(settings: Settings) -> Object:
    """Returns a JetStream bus that keeps what it accepted: on volumes, for 14 days; 3 replicas survive the loss of a node."""
    values = settings.values.event_bus
    container = {"securityContext": container_security(read_only=False)}
    selector = {"labelSelector": {"matchLabels": {"controller": "eventbus-controller", "eventbus-name": BUS}}}
    node = {**selector, "topologyKey": "kubernetes.io/hostname"}
    zone = {"weight": 50, "podAffinityTerm": {**selector, "topologyKey": "topology.kubernetes.io/zone"}}
    often = {"weight": 100, "podAffinityTerm": node}
    apart = {
        **given({"requiredDuringSchedulingIgnoredDuringExecution": [node]}, settings.apart),
        "preferredDuringSchedulingIgnoredDuringExecution": [*when(absent(settings.apart), often), zone],
    }
    chosen = given({"storageClassName": settings.bus_class})
    return {
        "apiVersion": API_VERSION,
        "kind": "EventBus",
        "metadata": meta(BUS, settings),
        "spec": {
            "jetstream": {
                "version": NATS,
                "replicas": values.replicas,
                "persistence": {"accessMode": "ReadWriteOnce", "volumeSize": values.size, **chosen},
                "streamConfig": stream(values.replicas),
                "serviceAccountName": NO_API,
                "securityContext": pod_security(settings, NATS_UID),
                "containerTemplate": {**container, "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}},
                "reloaderContainerTemplate": {**container, "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}}},
                "metricsContainerTemplate": {**container, "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}}},
                **given({"metadata": given({"labels": values.pod_labels, "annotations": values.pod_annotations})}),
                **pods.place(settings, values, {"podAntiAffinity": apart}),
            }
        },
    }


def disruption_budget(settings: Settings) -> Object:
    """Returns the budget that keeps the bus's majority while nodes are drained."""
    selector = {"matchLabels": {"controller": "eventbus-controller", "eventbus-name": BUS}}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta("eventbus", settings),
        "spec": {"maxUnavailable": 1, "selector": selector},
    }


def stream(replicas: object) -> str:
    """Returns the stream's settings; they count when the stream is made, later edits do nothing."""
    return f"maxMsgs: {MAX_MESSAGES}\nmaxAge: {MAX_AGE}\nreplicas: {replicas}\n"


def event_source(settings: Settings) -> Object:
    """Returns the webhook: bearer token from a Secret, an answer of 200 only when the bus has the event; TLS where asked for."""
    secret = settings.values.webhook.tls_secret
    parts = {"serverCertSecret": "tls.crt", "serverKeySecret": "tls.key"}
    certificate = given({field: {"name": secret, "key": key} for field, key in parts.items()}, secret)
    token = {"name": settings.values.webhook.existing_secret, "key": settings.values.webhook.key}
    return {
        "apiVersion": API_VERSION,
        "kind": "EventSource",
        "metadata": meta(EVENT_SOURCE, settings),
        "spec": {
            "eventBusName": settings.bus,
            "replicas": 1,
            "service": {"ports": [{"name": "http", "port": PORT, "targetPort": PORT}]},
            "template": {**_pod("eventsource", settings, settings.values.event_source), "serviceAccountName": NO_API},
            "webhook": {
                EVENT: {
                    "authSecret": token,
                    "endpoint": ENDPOINT,
                    "maxPayloadSize": MAX_EVENT_BYTES,  # whoever posts
                    "method": "POST",
                    "port": str(PORT),
                    **certificate,
                }
            },
        },
    }


def sensors(settings: Settings) -> list[Any]:
    """Returns the Sensors, each with its share of the events."""
    return numbered(settings.values.event_bus.sensors, lambda number: sensor(settings, number))


def sensor(settings: Settings, number: int = 0) -> Object:
    """Returns a Sensor: each event of its share becomes the one Workflow that it names.

    `patch` with a fixed name is an idempotent create. 60 attempts of 10 s outlast a restart of the API server; what still fails
    goes to the log, and the poller, which sees no Workflow, sends the event again.
    """
    filters = event_filter(settings.values.event_bus.sensors, number)
    return {
        "apiVersion": API_VERSION,
        "kind": "Sensor",
        "metadata": meta(sensor_name(number), settings),
        "spec": {
            "dependencies": [{"name": DEPENDENCY, "eventName": EVENT, "eventSourceName": EVENT_SOURCE, "filters": filters}],
            "eventBusName": settings.bus,
            "replicas": 1,
            "template": {**_pod(SENSOR_POD, settings, settings.values.sensor), "serviceAccountName": SENSOR_ACCOUNT},
            "triggers": [
                {
                    "atLeastOnce": True,
                    "dlqTrigger": {
                        "atLeastOnce": True,
                        "retryStrategy": {"duration": "5s", "steps": 5},
                        "template": {"name": "dead-letter", "log": {}},
                    },
                    "retryStrategy": {"duration": "10s", "factor": 1, "jitter": 0.2, "steps": 60},
                    "template": {
                        "name": TRIGGER,
                        "k8s": {
                            "operation": "patch",
                            "parameters": _mapping(),
                            "source": {"resource": _workflow(settings, sensor_name(number))},
                        },
                    },
                }
            ],
        },
    }


def quiet_account(settings: Settings) -> Object:
    """Returns the account of bus and EventSource, which speak to no API: no role, and no token in their pods."""
    metadata = _annotated(NO_API, settings, settings.values.service_accounts.events)
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False}


def _annotated(name: str, settings: Settings, values: AccountValues) -> Object:
    return annotated(meta(name, settings), merged(merged({}, settings.values.annotations), values.annotations))


def sensor_account(settings: Settings) -> list[Object]:
    """Returns the Sensor's ServiceAccount, which may make Workflows and nothing else."""
    who = settings.values.service_accounts.sensor
    return account(SENSOR_ACCOUNT, settings, who, [([API_VERSION.split("/", 1)[0]], ["workflows"], ["create", "get", "patch"])])


type Rule = tuple[list[str], list[str], list[str]]


def account(name: str, settings: Settings, values: AccountValues, rules: list[Rule], more: Sequence[object] = ()) -> list[Object]:
    """Returns ServiceAccount, Role and RoleBinding for rules of (API groups, resources, verbs), and `more` of them as they are."""
    rbac = "rbac.authorization.k8s.io"
    allowed = [*({"apiGroups": groups, "resources": resources, "verbs": verbs} for groups, resources, verbs in rules), *more]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _annotated(name, settings, values)},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta(name, settings), "rules": allowed},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": meta(name, settings),
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": settings.namespace}],
        },
    ]


def _workflow(settings: Settings, name: str) -> Object:
    """Returns the Workflow before an event's values are in it; no namespace: the Sensor's own is taken."""
    instance = given({INSTANCE_LABEL: settings.instance_id})
    flow = {"events.argoproj.io/sensor": name, "events.argoproj.io/trigger": TRIGGER}  # what the UI's event flow page looks for
    return {
        "apiVersion": API_VERSION,
        "kind": "Workflow",
        "metadata": {"name": "from-event", "labels": {**labels(TEMPLATE), **flow, **instance, **dict.fromkeys(LABELS, "")}},
        "spec": {
            "arguments": {"parameters": [{"name": parameter.name, "value": ""} for parameter in mapped()]},
            "priority": 0,
            "workflowTemplateRef": {"name": TEMPLATE},
        },
    }


def _mapping() -> list[Object]:
    """Returns one entry for each value that goes from the event into the Workflow."""
    options = {p.data_key: p.default for p in mapped() if p.data_key.startswith(OPTIONS)}
    older = {f"{OPTIONS}{name}": value for name, value in OLDER_OPTIONS.items()}
    defaults = {**LATER, **options, **older}  # without a value an event that lacks one would be tried for minutes, and dropped

    def entry(key: str, dest: str, **more: bool) -> Object:
        absent = {"value": defaults[key]} if key in defaults else {}
        return {"src": {"dependencyName": DEPENDENCY, "dataKey": f"body.data.{key}", **more, **absent}, "dest": dest}

    return [
        entry("run", "metadata.name"),
        *(entry(key, f"metadata.labels.{label}") for label, key in LABELS.items()),
        entry("priority", "spec.priority", useRawData=True),
        *(entry(p.data_key, f"spec.arguments.parameters.{index}.value") for index, p in enumerate(mapped())),
    ]


def _pod(name: str, settings: Settings, values: EventsValues) -> Object:
    return {
        "container": {"resources": values.resources, "securityContext": container_security()},
        "metadata": pods.carried(labels(name), values),
        "securityContext": pod_security(settings, ARGO_EVENTS_UID),
        **pods.place(settings, values),
    }
