"""EventBus, EventSource and Sensor as plain objects: from an accepted event to a Workflow.

There is no transform, and one filter (`guard`): what it rejects is acknowledged and gone, so it takes whatever a watcher sends.
There is no default for what every event has: a renamed field would silently become it. Only the converter's options have defaults,
for an event by hand may leave them out. The poller decides everything, and a test holds the mapping against a real event.

Sources: Argo Events 1.9.11: pkg/sensors/triggers/params.go (mapping), pkg/sensors/listener.go (what is retried),
pkg/reconciler/eventbus/installer/jetstream.go (pods), pkg/eventbus/jetstream/base (stream limits, only read at creation).
"""

from __future__ import annotations

from stac_watch.cluster.manifests.guard import event_filter
from stac_watch.cluster.manifests.settings import (
    BUS,
    ENDPOINT,
    EVENT,
    EVENT_SOURCE,
    NO_API,
    PORT,
    SENSOR,
    SENSOR_ACCOUNT,
    SENSOR_POD,
    TOKEN_SECRET,
    TRIGGER,
    Object,
    Settings,
    container_security,
    labels,
    meta,
    pod_security,
)
from stac_watch.model.event import LATER, MAX_EVENT_BYTES
from stac_watch.runs.workflow import API_VERSION, INSTANCE_LABEL, LABELS, TEMPLATE, mapped

NATS = "2.10.29"
NATS_UID, ARGO_EVENTS_UID = 1000, 9731
MAX_MESSAGES = 5_000_000  # the default of 50,000 evicts unprocessed events of a large backfill
MAX_AGE = "336h"  # the default of 7 days is shorter than a holiday
DEPENDENCY = "item"
OPTIONS = "options."  # below an event's data; each has the template's default


def event_bus(settings: Settings) -> Object:
    """Returns a JetStream bus that keeps what it accepted: on volumes, for 14 days; 3 replicas survive the loss of a node."""
    replicas = settings.bus_replicas
    container = {"securityContext": container_security(read_only=False)}
    chosen = {"storageClassName": settings.storage_class} if settings.storage_class else {}
    spread = {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 100,
                "podAffinityTerm": {
                    "labelSelector": {"matchLabels": {"controller": "eventbus-controller", "eventbus-name": BUS}},
                    "topologyKey": "kubernetes.io/hostname",
                },
            }
        ]
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "EventBus",
        "metadata": meta(BUS, settings),
        "spec": {
            "jetstream": {
                "version": NATS,
                "replicas": replicas,
                "persistence": {"accessMode": "ReadWriteOnce", "volumeSize": settings.bus_size, **chosen},
                "streamConfig": stream(replicas),
                "affinity": {"podAntiAffinity": spread},
                "serviceAccountName": NO_API,
                "securityContext": pod_security(NATS_UID),
                "containerTemplate": {**container, "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}},
                "reloaderContainerTemplate": {**container, "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}}},
                "metricsContainerTemplate": {**container, "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}}},
            }
        },
    }


def stream(replicas: int) -> str:
    """Returns the stream's settings; they count when the stream is made, later edits do nothing."""
    return f"maxMsgs: {MAX_MESSAGES}\nmaxAge: {MAX_AGE}\nreplicas: {replicas}\n"


def event_source(settings: Settings) -> Object:
    """Returns the webhook: bearer token from a Secret, an answer of 200 only when the bus has the event; TLS where asked for."""
    parts = {"serverCertSecret": "tls.crt", "serverKeySecret": "tls.key"} if settings.webhook_tls else {}
    certificate = {field: {"name": settings.webhook_tls, "key": key} for field, key in parts.items()}
    return {
        "apiVersion": API_VERSION,
        "kind": "EventSource",
        "metadata": meta(EVENT_SOURCE, settings),
        "spec": {
            "eventBusName": BUS,
            "replicas": 1,
            "service": {"ports": [{"name": "http", "port": PORT, "targetPort": PORT}]},
            "template": {**_pod("eventsource"), "serviceAccountName": NO_API},
            "webhook": {
                EVENT: {
                    "authSecret": {"name": TOKEN_SECRET, "key": "token"},
                    "endpoint": ENDPOINT,
                    "maxPayloadSize": MAX_EVENT_BYTES,  # whoever posts
                    "method": "POST",
                    "port": str(PORT),
                    **certificate,
                }
            },
        },
    }


def sensor(settings: Settings) -> Object:
    """Returns the Sensor: each event becomes the one Workflow that it names.

    `patch` with a fixed name is an idempotent create. 60 attempts of 10 s outlast a restart of the API server; what still fails
    goes to the log, and the poller, which sees no Workflow, sends the event again.
    """
    return {
        "apiVersion": API_VERSION,
        "kind": "Sensor",
        "metadata": meta(SENSOR, settings),
        "spec": {
            "dependencies": [{"name": DEPENDENCY, "eventName": EVENT, "eventSourceName": EVENT_SOURCE, "filters": event_filter()}],
            "eventBusName": BUS,
            "replicas": 1,
            "template": {**_pod(SENSOR_POD), "serviceAccountName": SENSOR_ACCOUNT},
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
                        "k8s": {"operation": "patch", "parameters": _mapping(), "source": {"resource": _workflow(settings)}},
                    },
                }
            ],
        },
    }


def quiet_account(settings: Settings) -> Object:
    """Returns the account of bus and EventSource, which speak to no API: no role, and no token in their pods."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(NO_API, settings), "automountServiceAccountToken": False}


def sensor_account(settings: Settings) -> list[Object]:
    """Returns the Sensor's ServiceAccount, which may make Workflows and nothing else."""
    return account(SENSOR_ACCOUNT, settings, [([API_VERSION.split("/", 1)[0]], ["workflows"], ["create", "get", "patch"])])


def account(name: str, settings: Settings, rules: list[tuple[list[str], list[str], list[str]]]) -> list[Object]:
    """Returns ServiceAccount, Role and RoleBinding for rules of (API groups, resources, verbs)."""
    rbac = "rbac.authorization.k8s.io"
    allowed = [{"apiGroups": groups, "resources": resources, "verbs": verbs} for groups, resources, verbs in rules]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(name, settings)},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta(name, settings), "rules": allowed},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": meta(name, settings),
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": settings.namespace}],
        },
    ]


def _workflow(settings: Settings) -> Object:
    """Returns the Workflow before an event's values are in it; no namespace: the Sensor's own is taken."""
    instance = {INSTANCE_LABEL: settings.instance_id} if settings.instance_id else {}
    flow = {"events.argoproj.io/sensor": SENSOR, "events.argoproj.io/trigger": TRIGGER}  # what the UI's event flow page looks for
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
    defaults = {**LATER, **options}  # without a value an event that lacks one would be tried for minutes, and dropped

    def entry(key: str, dest: str, **more: bool) -> Object:
        absent = {"value": defaults[key]} if key in defaults else {}
        return {"src": {"dependencyName": DEPENDENCY, "dataKey": f"body.data.{key}", **more, **absent}, "dest": dest}

    return [
        entry("run", "metadata.name"),
        *(entry(key, f"metadata.labels.{label}") for label, key in LABELS.items()),
        entry("priority", "spec.priority", useRawData=True),
        *(entry(p.data_key, f"spec.arguments.parameters.{index}.value") for index, p in enumerate(mapped())),
    ]


def _pod(name: str) -> Object:
    return {
        "container": {
            "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "20m", "memory": "64Mi"}},
            "securityContext": container_security(),
        },
        "metadata": {"labels": labels(name)},
        "securityContext": pod_security(ARGO_EVENTS_UID),
    }
