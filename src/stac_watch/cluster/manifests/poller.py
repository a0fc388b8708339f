"""The poller and what surrounds it: Namespace, accounts, Deployment, quota, and the controller's configuration.

Secrets are only named here: they are made by hand or by a secret store.
"""

from __future__ import annotations

import yaml

from stac_watch.cluster.manifests import pods, volumes
from stac_watch.cluster.manifests.events import account
from stac_watch.cluster.manifests.settings import (
    AUDIT,
    CONFIG_FILE,
    CONFIG_FOLDER,
    POLLER,
    RUN,
    STATE_FOLDER,
    TMP,
    WEB_PORT,
    WEBHOOK_FOLDER,
    Object,
    Settings,
    annotated,
    container_security,
    kept,
    labels,
    meta,
    meta_of_cluster,
    pod_security,
)
from stac_watch.cluster.manifests.tree import absent, both, given, merged, when
from stac_watch.runs.workflow import GROUP, TEMPLATE

READ = ["get", "list", "watch"]
PARALLELISM = "workflows.argoproj.io/parallelism-limit"
"""Label of a Namespace. The controller's own `namespaceParallelism` is the same for every namespace: other tenants' ones, too."""


def namespace(settings: Settings) -> Object:
    """Returns the Namespace; it refuses every pod that is not restricted, and says how many Workflows may run in it at once."""
    profile = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("audit", "enforce", "warn")}
    bound = {PARALLELISM: settings.parallelism}  # thousands at once have taken clusters down (argo-workflows#10441, #12802)
    metadata = {**meta_of_cluster(POLLER, settings), "name": settings.namespace}
    own = merged({**metadata["labels"], **profile, **bound}, settings.values.namespace.labels)
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {**metadata, "labels": own}}


def run_account(settings: Settings) -> list[Object]:
    """Returns the account of the runs: they report to Argo, and where they have a volume, make it and give it back."""
    report = ([GROUP], ["workflowtaskresults"], ["create", "patch"])
    volume = {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["create", "delete", "get"]}
    more = when(volumes.has_claims(settings), volume)
    return account(RUN, settings, settings.values.service_accounts.run, [report], more)


def poller_accounts(settings: Settings) -> list[Object]:
    """Returns the accounts of poller and audit: they look at Workflows, and which volumes are there; only the Sensor makes any.

    The poller may change Workflows where the admission policy leaves it nothing but their descriptions. Without the policy the same
    right would be one to any image, under the account of runs.
    """
    look = [([GROUP], ["workflows"], READ), ([""], ["persistentvolumeclaims"], ["list"])]
    values, who = settings.values, settings.values.service_accounts
    describe = {"apiGroups": [GROUP], "resources": ["workflows"], "verbs": ["patch"]}
    return [
        *account(POLLER, settings, who.poller, look, when(both(values.admission.enabled, values.runs.describe_failures), describe)),
        *account(AUDIT, settings, who.audit, [*look, ([GROUP], ["workflowtaskresults"], ["create", "patch"])]),
    ]


def configuration(settings: Settings) -> Object:
    """Returns the ConfigMap with the configuration."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(POLLER, settings), "data": settings.files}


def poller(settings: Settings) -> list[Object]:
    """Returns the poller: one replica (two would ask and send everything twice), its ledger's volume, its Service."""
    values = settings.values
    selector, serving = {"app.kubernetes.io/name": POLLER}, {"app.kubernetes.io/component": "watcher"}
    metadata = pods.carried({**labels(POLLER), **serving}, values.poller)
    annotations = merged({"stac-watch/configuration": settings.digest}, values.poller.pod_annotations)
    chosen = given({"storageClassName": settings.ledger_class})
    claim = {"accessModes": ["ReadWriteOnce"], **chosen, "resources": {"requests": {"storage": values.ledger.size}}}
    volume = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": kept(POLLER, settings), "spec": claim}
    ports = {"selector": {**selector, **serving}, "ports": [{"name": "web", "port": 80, "targetPort": "web"}]}
    pod = {**_pod(settings), "terminationGracePeriodSeconds": 30, **pods.place(settings, values.poller)}
    return [
        *when(absent(values.ledger.existing_secret), volume),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta(POLLER, settings),
            "spec": {
                "replicas": 1,
                "revisionHistoryLimit": 3,
                "selector": {"matchLabels": selector},
                "strategy": {"type": "Recreate"},  # the old one lets go of the ledger before the new one takes it
                "template": {"metadata": {"labels": metadata["labels"], "annotations": annotations}, "spec": pod},
            },
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": meta(POLLER, settings), "spec": ports},
    ]


def check(settings: Settings) -> Object:
    """Returns the pod that `helm test` runs: `stac-watch check`, with all that the poller has, beside it where its volume is."""
    hook = {"helm.sh/hook": "test", "helm.sh/hook-delete-policy": "before-hook-creation"}
    on_disk = absent(settings.values.ledger.existing_secret)
    near = pods.place(settings, settings.values.poller, {"podAffinity": pods.beside_poller()}, on_disk)
    pod = {**_pod(settings), "restartPolicy": "Never", **near}
    left = ("livenessProbe", "readinessProbe", "startupProbe", "ports")
    [container] = pod["containers"]
    asking = {key: value for key, value in container.items() if key not in left}
    arguments = ["check", f"--config={CONFIG_FOLDER}/{CONFIG_FILE}", "--wait=1m"]  # policies let a new pod out seconds late
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        # the poller's name: the network's policies let it reach the same; no component: the Service does not lead to it
        "metadata": {**annotated(meta("stac-watch-check", settings), hook), "labels": labels(POLLER)},
        "spec": {**pod, "containers": [{**asking, "args": arguments}]},
    }


def _pod(settings: Settings) -> Object:
    values = settings.values
    secret = values.webhook.tls_secret
    authority = {"secretName": secret, "items": [{"key": "ca.crt", "path": "ca.crt"}]}  # never the key
    return {
        "serviceAccountName": POLLER,
        "securityContext": pod_security(settings),
        "containers": [_container(settings)],
        "volumes": [
            {"name": "config", "configMap": {"name": POLLER}},
            *when(absent(values.ledger.existing_secret), {"name": "state", "persistentVolumeClaim": {"claimName": POLLER}}),
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
            *when(secret, {"name": "webhook", "secret": authority}),
            *pods.store_volume(settings),
            *pods.ledger_volume(settings),
            *pods.volumes(settings, values.poller),
        ],
        **pods.spread(values.poller),
    }


def _container(settings: Settings) -> Object:
    values = settings.values
    token, tls = values.webhook.existing_secret, values.webhook.tls_secret
    return {
        "name": "poller",
        "image": settings.poller_image,
        "imagePullPolicy": values.images.pull_policy,
        "command": ["stac-watch"],
        "args": ["watch", f"--config={CONFIG_FOLDER}/{CONFIG_FILE}", "--log=json"],
        "env": [
            {"name": "HOME", "value": TMP},
            {"name": "STAC_WATCH__ENGINE__NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            # what the probes ask, whatever the configuration says of it; a NetworkPolicy says who reaches it
            {"name": "STAC_WATCH__WEB__HOST", "value": settings.host},
            {"name": "STAC_WATCH__WEB__PORT", "value": str(WEB_PORT)},
            {"name": "STAC_WATCH__ENGINE__TOKEN", "valueFrom": {"secretKeyRef": {"name": token, "key": values.webhook.key}}},
            {
                "name": "STAC_WATCH__ENGINE__NEXT_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": token, "key": "next", "optional": True}},
            },
            {  # without that key hints are not taken
                "name": "STAC_WATCH__WEB__HINTS__VALUE",
                "valueFrom": {"secretKeyRef": {"name": token, "key": "hints", "optional": True}},
            },
            *when(tls, {"name": "STAC_WATCH__ENGINE__CA_FILE", "value": f"{WEBHOOK_FOLDER}/ca.crt"}),
            *pods.ledger_environment(settings),
            *pods.store_environment(settings),
            *pods.environment(settings, values.poller),
        ],
        "ports": [{"name": "web", "containerPort": WEB_PORT}],
        "livenessProbe": _probe("/healthz", periodSeconds=30, timeoutSeconds=5, failureThreshold=4),
        "readinessProbe": _probe("/readyz", periodSeconds=10, timeoutSeconds=5),
        "startupProbe": _probe("/healthz", periodSeconds=2, failureThreshold=60),
        "resources": values.poller.resources,
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            *when(absent(values.ledger.existing_secret), {"name": "state", "mountPath": STATE_FOLDER}),
            {"name": "tmp", "mountPath": TMP},
            *when(tls, {"name": "webhook", "mountPath": WEBHOOK_FOLDER, "readOnly": True}),
            *pods.store_mount(settings),
            *pods.ledger_mount(settings),
            *pods.mounts(settings, values.poller),
        ],
    }


def quota(settings: Settings) -> Object:
    """Returns a quota that follows from how many runs there may be at once, and what each asks for; see `facts`."""
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta("geozarr", settings), "spec": {"hard": settings.hard}}


def controller_rights(settings: Settings) -> list[Object]:
    """Returns the right to read namespaces, without which the controller does not see the bound that ours has.

    Upstream's role lacks it (Argo Workflows 4.0.7, docs/parallelism.md). It goes to the accounts of the controller's namespace,
    whatever they are called there.
    """
    rbac, name = "rbac.authorization.k8s.io", "stac-watch-parallelism"
    own = {"name": name, "labels": labels(TEMPLATE)}
    who = f"system:serviceaccounts:{settings.values.argo.controller.partition('/')[0]}"
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
    namespace, _, name = settings.values.argo.controller.partition("/")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {key: yaml.safe_dump(value, sort_keys=True) for key, value in data.items()},
    }


def _probe(path: str, **more: int) -> Object:
    return {"httpGet": {"path": path, "port": "web"}, **more}
