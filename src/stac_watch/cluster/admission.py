"""Whether the namespace would take the pods of a run, and nothing but runs: by dry run, under the real quota, limits and policies.

Nothing is stored by it (Kubernetes API, `dryRun=All`): admission judges, and the answer says what it does not take.
Source: Argo Workflows 4.0.5, workflow/controller/workflowpod.go (which containers a pod gets, and in which order patches apply).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from stac_watch.cluster.diagnosis import Finding, Verdict
from stac_watch.model.errors import Refused, StacWatchError
from stac_watch.runs.kubernetes_api import Cluster, Document, NotCreated
from stac_watch.runs.workflow import API_VERSION, PLURAL

EXECUTOR = "quay.io/argoproj/argoexec:latest"  # its image is the controller's to choose; nothing here is ever pulled
REFERENCES = "references only"
_HOLE = re.compile(r"\{\{.*?\}\}")


def examine(cluster: Cluster, template: Mapping[str, Any]) -> Finding:
    """Judges whether every pod of a run of this WorkflowTemplate spec would be admitted.

    Raises:
        Refused: this account may not create pods, so nobody knows.
    """
    refused = []
    there = list(pods_of(template))
    for step, pod in there:
        try:
            cluster.create(cluster.core("pods"), pod, dry_run=True)
        except Refused as error:
            if "cannot create resource" in error.message:  # our own permission; the others are admission's
                raise
            refused.append(f"{step}: {error.message.rpartition('is forbidden: ')[2]}")
        except NotCreated as error:
            refused.append(f"{step}: {error.message}")
        except StacWatchError as error:  # a webhook of admission that does not answer refuses every pod as well
            refused.append(f"{step}: {error.message}")
    if refused:
        return Finding(
            "admission", Verdict.FAIL, f"pods of runs would be refused: {'; '.join(refused)}",
            "the namespace's ResourceQuota, LimitRange and policies must take these pods, or the template be rendered again",
        )  # fmt: skip
    return Finding("admission", Verdict.OK, f"the pods of {', '.join(step for step, _ in there)} would be taken")


def references(cluster: Cluster, strict: Callable[[], bool]) -> Finding:
    """Judges whether a Workflow with a pod of its own would be refused; `strict` says whether the controller refuses to run it.

    Raises:
        Refused: this account may not create Workflows, so nobody knows.
    """
    step = {"name": "main", "container": {"image": EXECUTOR, "command": ["true"]}}
    workflow = {
        "apiVersion": API_VERSION,
        "kind": "Workflow",
        "metadata": {"generateName": "gz-dry-run-"},
        "spec": {"entrypoint": "main", "templates": [step]},
    }
    try:
        cluster.create(cluster.argo(PLURAL), workflow, dry_run=True)
    except (NotCreated, Refused) as error:
        if "cannot create resource" in error.message:
            raise
        return Finding(REFERENCES, Verdict.OK, "a Workflow that brings its own pod is refused")
    if strict():
        return Finding(REFERENCES, Verdict.OK, "the controller runs no Workflow that brings its own pod")
    return Finding(
        REFERENCES, Verdict.WARN, "whoever may create Workflows here chooses image, account and volumes",
        "apply admission.yaml, which `stac-watch cluster manifests` renders, or let the cluster's administrator do it",
    )  # fmt: skip


def pods_of(template: Mapping[str, Any]) -> Iterator[tuple[str, Document]]:
    """Yields each step of a WorkflowTemplate's spec with the pod that Argo makes of it."""
    for entry in template.get("templates") or []:
        if "container" in entry or "resource" in entry:
            yield str(entry["name"]), _pod(template, entry)


def _pod(template: Mapping[str, Any], entry: Mapping[str, Any]) -> Document:
    own = [dict(entry["container"], name="main")] if "container" in entry else [{"name": "main", "image": EXECUTOR}]
    beside = [{"name": "wait", "image": EXECUTOR}] if "container" in entry else []
    patch = yaml.safe_load(entry.get("podSpecPatch") or "{}") or {}
    run = {"name": "var-run-argo", "emptyDir": {}}
    spec = {
        "restartPolicy": "Never",
        "serviceAccountName": template.get("serviceAccountName", "default"),
        "securityContext": template.get("securityContext", {}),
        "initContainers": _patched([{"name": "init", "image": EXECUTOR}], patch.get("initContainers")),
        "containers": _patched([*own, *beside], patch.get("containers")),
        "volumes": [run, *(template.get("volumes") or []), *(entry.get("volumes") or []), *(patch.get("volumes") or [])],
        **{key: value for key, value in patch.items() if key not in ("containers", "initContainers", "volumes")},
    }
    labels = (template.get("podMetadata") or {}).get("labels", {})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": f"gz-dry-run-{entry['name']}-", "labels": labels},
        "spec": spec,
    }
    return dict(_filled(pod))


def _patched(containers: list[Document], changes: list[Document] | None) -> list[Document]:
    """Returns containers with what a strategic merge by name makes of them."""
    by_name = {change["name"]: change for change in changes or []}
    made = []
    for container in containers:
        change = by_name.get(container["name"], {})
        lists = {
            key: [*container.get(key, []), *value] for key, value in change.items() if isinstance(value, list) and key in container
        }
        made.append({**_merged(container, change), **lists})
    return made


def _merged(there: Document, change: Document) -> Document:
    """Returns an object with a change, whose mappings add to those that are there."""
    both = {key: _merged(there[key], value) for key, value in change.items() if isinstance(value, dict) and key in there}
    return {**there, **change, **both}


def _filled(node: Any) -> Any:  # noqa: ANN401  # any part of a document
    """Returns a document with a word where a run has a value of its own."""
    if isinstance(node, dict):
        return {key: _filled(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value) for value in node]
    return _HOLE.sub("dry-run", node) if isinstance(node, str) else node
