"""Looks at an installation from outside and says what is wrong: one finding for each question, with its remedy.

Findings come in the order in which they depend on each other. It changes nothing (pods are created by dry run only) and reads no
Secret's value; what cannot be asked is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stac_watch.cluster import admission, api_server, clocks, controllers, diagnosis
from stac_watch.cluster.diagnosis import Finding, Verdict
from stac_watch.cluster.manifests.jobs import BACKUP
from stac_watch.cluster.manifests.poller import PARALLELISM
from stac_watch.cluster.runs import NAME_LABEL, SELECTOR
from stac_watch.cluster.volume import image_of
from stac_watch.model.errors import InputError, Refused, StacWatchError
from stac_watch.runs.kubernetes_api import ARGO, Cluster, Document
from stac_watch.runs.workflow import GROUP, TEMPLATE

APPS = "/apis/apps/v1"
_RUN_LABELS = {NAME_LABEL: TEMPLATE, "workflows.argoproj.io/workflow": "gz"}  # of a run's pods
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
KINDS = ("workflows", "workflowtemplates", "eventbus", "eventsources", "sensors")
PERMISSIONS = (  # what for, API group, resource, verbs
    ("submit", GROUP, "workflows", "create"),
    ("logs", GROUP, "workflows", "get list"),
    ("logs", "", "pods", "get list"),
    ("logs", "", "pods/log", "get"),
    ("fetch", GROUP, "workflowtemplates", "get"),
    ("fetch", "", "persistentvolumeclaims", "get list"),
    ("fetch", "", "pods", "create delete"),
    ("fetch", "", "pods/exec", "get create"),  # a WebSocket is a GET, and from Kubernetes 1.35 on `create` is asked for it
    ("clean", GROUP, "workflows", "delete"),
    ("clean", "", "persistentvolumeclaims", "delete patch"),
)


@dataclass(frozen=True)
class Expected:
    """What this release installs, by name."""

    template: Document  # as rendered
    bus: str
    event_source: str
    sensors: tuple[str, ...]
    poller: str
    accounts: tuple[str, ...]
    instance_id: str  # of the Workflow controller; empty = one without
    slots: int  # runs at once


def tools(which: Callable[[str], str | None]) -> Iterator[Finding]:
    """Yields whether the programs are there that people call."""
    path = which("kubectl")
    if path:
        yield Finding("kubectl", Verdict.OK, path)
    else:
        yield Finding(
            "kubectl", Verdict.FAIL, "is not on PATH", "install it: what `stac-watch cluster manifests` renders is applied with it"
        )
    path = which("argo")
    yield Finding("argo", Verdict.OK, path or "is not on PATH, and is not needed")


def examine(connect: Callable[[], Cluster], expected: Expected) -> Iterator[Finding]:
    """Yields a finding for each question; after the first only when the cluster answers."""
    try:
        cluster = connect()
        version = cluster.get("/version") or {}
    except StacWatchError as error:
        yield Finding("cluster", Verdict.FAIL, error.message, error.hint)
        return
    yield Finding("cluster", Verdict.OK, f"answers, namespace {cluster.namespace}")
    yield diagnosis.kubernetes_version(version)
    for name, question in _questions(cluster, expected):
        try:
            yield from question()
        except Refused as error:
            yield Finding(name, Verdict.UNKNOWN, error.message, "ask whoever administers the cluster")
        except StacWatchError as error:
            yield Finding(name, Verdict.FAIL, error.message, error.hint)


type _Question = Callable[[], Iterator[Finding]]


def _questions(c: Cluster, expected: Expected) -> Iterator[tuple[str, _Question]]:
    yield "Argo's kinds", lambda: _kinds(c)
    yield "Argo's controllers", lambda: _controllers(c)
    yield controllers.CHECK, lambda: iter([_controller(c, expected)])
    yield "namespace", lambda: _namespace(c)
    yield "permissions", lambda: _permissions(c)
    yield "accounts", lambda: _accounts(c, expected)
    yield "template", lambda: _template(c, expected)
    yield "secrets", lambda: _secrets(c, expected)
    yield "events", lambda: _events(c, expected)
    yield api_server.CHECK, lambda: iter([api_server.examine(c, _RUN_LABELS)])
    yield "images", lambda: _images(c, expected)
    yield "storage", lambda: _storage(c, expected)
    yield "volumes", lambda: _volumes(c)
    yield "clocks", lambda: _clocks(c)
    yield "quota", lambda: iter([diagnosis.quota(c.items(c.core("resourcequotas")))])
    yield "admission", lambda: _admission(c)
    yield admission.REFERENCES, lambda: iter([admission.references(c, lambda: _is_strict(c))])


def _kinds(c: Cluster) -> Iterator[Finding]:
    document = c.get(ARGO) or {}
    there = {entry["name"] for entry in document.get("resources") or []}
    missing = [kind for kind in KINDS if kind not in there]
    if missing:
        said = f"the cluster does not know {', '.join(missing)}"
        yield Finding(
            "Argo's kinds", Verdict.FAIL, said, "install Argo Workflows and Argo Events from the manifests of their releases"
        )
    else:
        yield Finding("Argo's kinds", Verdict.OK, ", ".join(KINDS))


def _controllers(c: Cluster) -> Iterator[Finding]:
    deployments = c.items(f"{APPS}/deployments")
    yield diagnosis.controller("Argo Workflows", "workflow-controller", diagnosis.WORKFLOWS, deployments, diagnosis.ADVISED)
    yield diagnosis.controller("Argo Events", "argo-events", diagnosis.EVENTS, deployments)


def _controller(c: Cluster, expected: Expected) -> Finding:
    own = c.get(f"/api/v1/namespaces/{c.namespace}") or {"metadata": {}}
    label = str((own["metadata"].get("labels") or {}).get(PARALLELISM, ""))
    return controllers.judge(controllers.Ours(c.namespace, expected.instance_id, expected.slots, label), _told(c))


def _told(c: Cluster) -> list[tuple[controllers.Controller, dict[str, Any]]]:
    """Returns the Workflow controllers of the cluster, each with what its ConfigMap says."""
    there = controllers.found(c.items(f"{APPS}/deployments"))
    return [(one, controllers.told(c.get(f"/api/v1/namespaces/{one.namespace}/configmaps/{one.config_map}"))) for one in there]


def _is_strict(c: Cluster) -> bool:
    return any(controllers.references_only(said) for one, said in _told(c) if one.watches in ("", c.namespace))


def _namespace(c: Cluster) -> Iterator[Finding]:
    yield diagnosis.namespace(c.namespace, c.get(f"/api/v1/namespaces/{c.namespace}"))


def _permissions(c: Cluster) -> Iterator[Finding]:
    asked, missing = 0, []
    for purpose, group, resource, verbs in PERMISSIONS:
        for verb in verbs.split():
            asked += 1
            if not c.may(verb, group, resource):
                missing.append(f"{verb} {resource} ({purpose})")
    if missing:
        yield Finding(
            "permissions",
            Verdict.FAIL,
            f"we may not {', '.join(missing)}",
            "ask for a Role with these; who only looks needs no more than `get` and `list`",
        )
    else:
        yield Finding("permissions", Verdict.OK, f"all {asked}")


def _accounts(c: Cluster, expected: Expected) -> Iterator[Finding]:
    missing = [name for name in expected.accounts if c.get(c.core("serviceaccounts", name)) is None]
    if missing:
        yield Finding(
            "accounts",
            Verdict.FAIL,
            f"missing: {', '.join(missing)}",
            f"{diagnosis.APPLY} (or {diagnosis.APPLY_RUNS} for runs alone)",
        )
    else:
        yield Finding("accounts", Verdict.OK, ", ".join(expected.accounts))


def _template(c: Cluster, expected: Expected) -> Iterator[Finding]:
    yield diagnosis.template(expected.template, c.get(c.argo("workflowtemplates", TEMPLATE)))


def _secrets(c: Cluster, expected: Expected) -> Iterator[Finding]:
    pods = [spec for spec in (_poller_pod(c, expected), _run_pod(c)) if spec is not None]
    source = c.get(c.argo("eventsources", expected.event_source))
    needed = diagnosis.named_secrets(pods, source)
    there = {name for name in needed if c.get(c.core("secrets", name), metadata_only=True) is not None}
    missing = sorted(name for name, must in needed.items() if must and name not in there)
    optional = sorted(name for name, must in needed.items() if not must and name not in there)
    if missing:
        yield Finding(
            "secrets",
            Verdict.FAIL,
            f"missing: {', '.join(missing)}",
            "`kubectl create secret generic NAME …`: stac-watch-webhook has token, geozarr-s3 config and credentials,"
            " stac-watch-ledger url",
        )
    else:
        note = f"; not there and not needed: {', '.join(optional)}" if optional else ""
        yield Finding("secrets", Verdict.OK, (", ".join(sorted(there)) or "none is named") + note)


def _events(c: Cluster, expected: Expected) -> Iterator[Finding]:
    wanted = (  # what it is called here, plural, object, label of its pods
        ("EventBus", "eventbus", expected.bus, "eventbus-name"),
        ("EventSource", "eventsources", expected.event_source, "eventsource-name"),
        *(("Sensor", "sensors", name, "sensor-name") for name in expected.sensors),
    )
    found = [c.get(c.argo(plural, name)) for _, plural, name, _ in wanted]
    deployment = c.get(c.path(APPS, "deployments", expected.poller))
    if not any([*found, deployment]):
        said = "neither bus, EventSource, Sensor nor poller: only runs by hand work here"
        yield Finding("events", Verdict.WARN, said, f"{diagnosis.APPLY} installs them")
        return
    for (kind, plural, name, label), document in zip(wanted, found, strict=True):
        pods = c.items(c.core("pods"), f"{label}={name}")
        command = f"kubectl -n {c.namespace} describe {plural} {name}"
        yield diagnosis.conditions(f"{kind} {name}", document, pods, command)
    pods = c.items(c.core("pods"), f"{NAME_LABEL}={expected.poller}")
    yield diagnosis.poller(deployment, pods, f"kubectl -n {c.namespace} logs deployment/{expected.poller}")


def _images(c: Cluster, expected: Expected) -> Iterator[Finding]:
    specs = [spec for spec in (_poller_pod(c, expected), _run_pod(c)) if spec is not None]
    names = {image for spec in specs for image in _named_images(spec)}
    pods = c.items(c.core("pods"))
    try:
        nodes = c.items("/api/v1/nodes")
    except Refused:
        nodes = None
    for name in sorted(names):
        yield diagnosis.image(name, nodes, pods)


def _named_images(spec: Mapping[str, Any]) -> list[str]:
    if "templates" in spec:
        try:
            return [image_of(spec)]
        except InputError:  # the template is another one, which its own line says
            return []
    return [str(container["image"]) for container in spec.get("containers") or []]


def _storage(c: Cluster, expected: Expected) -> Iterator[Finding]:
    """Every volume has a class: that of runs, of the bus, and of the claims that are there."""
    bus = c.get(c.argo("eventbus", expected.bus)) or {}
    claims = {str(claim["metadata"]["name"]): claim["spec"] for claim in c.items(c.core("persistentvolumeclaims"))}
    runs = diagnosis.storage_class(_run_pod(c) or {})
    wanted = {
        **({} if runs is None else {"runs": runs}),
        "bus": str(((bus.get("spec") or {}).get("jetstream") or {}).get("persistence", {}).get("storageClassName") or ""),
        **{name: str(claims[name].get("storageClassName") or "") for name in (expected.poller, BACKUP) if name in claims},
    }
    yield diagnosis.storage(wanted, c.items(CLASSES))


def _clocks(c: Cluster) -> Iterator[Finding]:
    yield clocks.judge(c.items("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"))


def _volumes(c: Cluster) -> Iterator[Finding]:
    claims = c.items(c.core("persistentvolumeclaims"), SELECTOR)
    yield diagnosis.pending(claims, c.items(c.core("events")))


def _admission(c: Cluster) -> Iterator[Finding]:
    spec = _run_pod(c)
    if spec is not None:  # that it is missing its own line says
        yield admission.examine(c, spec)


def _poller_pod(c: Cluster, expected: Expected) -> Document | None:
    deployment = c.get(c.path(APPS, "deployments", expected.poller))
    return None if deployment is None else dict(deployment["spec"]["template"]["spec"])


def _run_pod(c: Cluster) -> Document | None:
    """Returns the installed template's spec: its volumes are its pods'."""
    document = c.get(c.argo("workflowtemplates", TEMPLATE))
    return None if document is None else dict(document["spec"])
