"""The poller and what surrounds it: Namespace, accounts, Deployment, quota, and the controller's configuration.

Secrets are only named here: they are made by hand or by a secret store.
"""

from __future__ import annotations

import math

import yaml

from stac_watch.cluster.manifests.events import account
from stac_watch.cluster.manifests.settings import (
    AUDIT,
    BUS,
    CONFIG_FILE,
    CONFIG_FOLDER,
    LEDGER_SECRET,
    POLLER,
    RUN,
    S3_MOUNT,
    S3_VOLUME,
    STATE_FOLDER,
    TMP,
    TOKEN_SECRET,
    WEB_PORT,
    WEBHOOK_FOLDER,
    Object,
    Settings,
    container_security,
    labels,
    meta,
    pod_security,
    quantity,
    s3_environment,
)
from stac_watch.runs.workflow import GROUP, TEMPLATE

STATE_SIZE = "5Gi"  # a million items take about 1 GB with their events
READ = ["get", "list", "watch"]
PARALLELISM = "workflows.argoproj.io/parallelism-limit"
"""Label of a Namespace. The controller's own `namespaceParallelism` is the same for every namespace: other tenants' ones, too."""
BESIDE = 4  # Workflows beside the poller's own limit: runs by hand, the audit
RUN_CPU, RUN_MEMORY, RUN_VOLUME = 1.1, 3, 12  # cores, GiB and GiB that one run asks for at most, Argo's containers included


def namespace(settings: Settings) -> Object:
    """Returns the Namespace; it refuses every pod that is not restricted, and says how many Workflows may run in it at once."""
    profile = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("audit", "enforce", "warn")}
    bound = {PARALLELISM: str(settings.slots + BESIDE)}  # thousands at once have taken clusters down (argo-workflows#10441, #12802)
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": settings.namespace, "labels": {**labels(POLLER), **profile, **bound}},
    }


def run_account(settings: Settings) -> list[Object]:
    """Returns the account of the runs: they report to Argo, make their volume, and give it back."""
    return account(
        RUN,
        settings,
        [([GROUP], ["workflowtaskresults"], ["create", "patch"]), ([""], ["persistentvolumeclaims"], ["create", "delete", "get"])],
    )


def poller_accounts(settings: Settings) -> list[Object]:
    """Returns the accounts of poller and audit: they look at Workflows, and which volumes are there; only the Sensor makes any."""
    look = [([GROUP], ["workflows"], READ), ([""], ["persistentvolumeclaims"], ["list"])]
    return [
        *account(POLLER, settings, look),
        *account(AUDIT, settings, [*look, ([GROUP], ["workflowtaskresults"], ["create", "patch"])]),
    ]


def poller(settings: Settings) -> list[Object]:
    """Returns the poller: one replica (two would ask and send everything twice), its ledger's volume, its Service."""
    authority = {"secretName": settings.webhook_tls, "items": [{"key": "ca.crt", "path": "ca.crt"}]}  # never the key
    selector = {"app.kubernetes.io/name": POLLER}
    pod = {
        "serviceAccountName": POLLER,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": 30,
        "containers": [_container(settings)],
        "volumes": [
            {"name": "config", "configMap": {"name": POLLER}},
            {"name": "state", "persistentVolumeClaim": {"claimName": POLLER}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
            *([{"name": "webhook", "secret": authority}] if settings.webhook_tls else []),
        ],
    }
    chosen = {"storageClassName": settings.storage_class} if settings.storage_class else {}
    claim = {"accessModes": ["ReadWriteOnce"], **chosen, "resources": {"requests": {"storage": STATE_SIZE}}}
    ports = [{"name": "web", "port": 80, "targetPort": "web"}]
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta(POLLER, settings), "spec": claim},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta(POLLER, settings),
            "spec": {
                "replicas": 1,
                "revisionHistoryLimit": 3,
                "selector": {"matchLabels": selector},
                "strategy": {"type": "Recreate"},  # the old one lets go of the ledger before the new one takes it
                "template": {"metadata": {"labels": labels(POLLER)}, "spec": pod},
            },
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": meta(POLLER, settings), "spec": {"selector": selector, "ports": ports}},
    ]


def _container(settings: Settings) -> Object:
    return {
        "name": "poller",
        "image": settings.poller_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["stac-watch"],
        "args": ["watch", f"--config={CONFIG_FOLDER}/{CONFIG_FILE}", "--log=json"],
        "env": [
            {"name": "HOME", "value": TMP},
            {"name": "STAC_WATCH__ENGINE__NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            # what the probes ask, whatever the configuration says of it
            {"name": "STAC_WATCH__WEB__HOST", "value": "0.0.0.0"},  # noqa: S104  # of its pod; a NetworkPolicy says who reaches it
            {"name": "STAC_WATCH__WEB__PORT", "value": str(WEB_PORT)},
            {"name": "STAC_WATCH__ENGINE__TOKEN", "valueFrom": {"secretKeyRef": {"name": TOKEN_SECRET, "key": "token"}}},
            {
                "name": "STAC_WATCH__ENGINE__NEXT_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": TOKEN_SECRET, "key": "next", "optional": True}},
            },
            *([{"name": "STAC_WATCH__ENGINE__CA_FILE", "value": f"{WEBHOOK_FOLDER}/ca.crt"}] if settings.webhook_tls else []),
        ],
        "ports": [{"name": "web", "containerPort": WEB_PORT}],
        "livenessProbe": _probe("/healthz", periodSeconds=30, timeoutSeconds=5, failureThreshold=4),
        "readinessProbe": _probe("/readyz", periodSeconds=10, timeoutSeconds=5),
        "startupProbe": _probe("/healthz", periodSeconds=2, failureThreshold=60),
        "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "50m", "memory": "128Mi"}},
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "state", "mountPath": STATE_FOLDER},
            {"name": "tmp", "mountPath": TMP},
            *([{"name": "webhook", "mountPath": WEBHOOK_FOLDER, "readOnly": True}] if settings.webhook_tls else []),
        ],
    }


def poller_in_production(settings: Settings) -> Object:
    """Returns the patch that takes the poller off its volume: ledger in PostgreSQL, outputs and their markers in S3."""
    container = {
        "name": "poller",
        "env": production_environment(),
        "volumeMounts": [
            {"mountPath": STATE_FOLDER, "$patch": "delete"},
            S3_MOUNT,
        ],
    }
    volumes = [{"name": "state", "$patch": "delete"}, S3_VOLUME]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": POLLER, "namespace": settings.namespace},
        "spec": {"template": {"spec": {"containers": [container], "volumes": volumes}}},
    }


def production_environment() -> list[Object]:
    """Returns what production says otherwise than the configuration file."""
    return [
        {"name": "STAC_WATCH__LEDGER", "valueFrom": {"secretKeyRef": {"name": LEDGER_SECRET, "key": "url"}}},
        *s3_environment(),
    ]


def quota(settings: Settings) -> Object:
    """Returns a quota that follows from how many runs there may be at once.

    Each has one volume, which goes soon after a success. Once more as many are for those on their way out, and for runs that
    failed: their volumes stay until their Workflows go.
    """
    runs = settings.slots + BESIDE
    storage = 2 * runs * RUN_VOLUME + math.ceil(settings.bus_replicas * quantity(settings.bus_size) / 2**30)
    hard = {
        "persistentvolumeclaims": str(2 * runs + settings.bus_replicas),
        "requests.cpu": str(math.ceil(runs * RUN_CPU) + 2),
        "requests.memory": f"{runs * RUN_MEMORY + 4}Gi",
        "requests.storage": f"{storage}Gi",
    }
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta("geozarr", settings), "spec": {"hard": hard}}


def bus_disruption_budget(settings: Settings) -> Object:
    """Returns the budget that keeps the bus's majority while nodes are drained."""
    selector = {"matchLabels": {"controller": "eventbus-controller", "eventbus-name": BUS}}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta("eventbus", settings),
        "spec": {"maxUnavailable": 1, "selector": selector},
    }


def bus_topology() -> Object:
    """Returns where production's replicas of the bus go: never two on a node, and to different zones where there are any."""
    selector = {"labelSelector": {"matchLabels": {"controller": "eventbus-controller", "eventbus-name": BUS}}}
    zone = {"weight": 100, "podAffinityTerm": {**selector, "topologyKey": "topology.kubernetes.io/zone"}}
    return {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{**selector, "topologyKey": "kubernetes.io/hostname"}],
            "preferredDuringSchedulingIgnoredDuringExecution": [zone],
        }
    }


def controller_rights(settings: Settings) -> list[Object]:
    """Returns the right to read namespaces, without which the controller does not see the bound that ours has.

    Upstream's role lacks it (Argo Workflows 4.0.7, docs/parallelism.md). It goes to the accounts of the controller's namespace,
    whatever they are called there.
    """
    rbac, name = "rbac.authorization.k8s.io", "stac-watch-parallelism"
    own = {"name": name, "labels": labels(TEMPLATE)}
    who = f"system:serviceaccounts:{settings.controller.partition('/')[0]}"
    return [
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": own,
            "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": READ}],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": own,
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "Group", "apiGroup": rbac, "name": who}],
        },
    ]


def controller_config(settings: Settings) -> Object:
    """Returns what the Argo UI shows of a run, as a part of the Workflow controller's ConfigMap. Nothing in it changes a Workflow.

    argo-server parses the links before it puts in what a variable stands for (Config.Sanitize of Argo Workflows 4.0.5), and ends at
    once when it finds no scheme, or a host that cannot be one: so the scheme is spelled out, and the variable brings the slashes.
    """

    def link(name: str, annotation: str) -> Object:
        url = f"{settings.scheme}:${{workflow.metadata.annotations.stac-watch/{annotation}-address}}"
        return {"name": name, "scope": "workflow", "target": "_blank", "url": url}

    shown = ("source", "reason")  # more wrap into a second line, under the wrong heads; the title has tile and time
    columns = [{"name": n.capitalize(), "type": "label", "key": f"stac-watch/{n}"} for n in shown]
    data = {
        "columns": columns,
        "links": [link("STAC item", "item"), link("Product", "product")],
    }
    namespace, _, name = settings.controller.partition("/")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {key: yaml.safe_dump(value, sort_keys=True) for key, value in data.items()},
    }


def _probe(path: str, **more: int) -> Object:
    return {"httpGet": {"path": path, "port": "web"}, **more}
