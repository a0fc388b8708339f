"""What may be removed of what ended: Workflows with their pods, or volumes. A plan first, then one deletion after the other.

What stays, always: an object without the labels of a run, a run that is not over, a volume that something still reads, and, when a
Workflow goes, the volume that it owns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from stac_watch.cluster.runs import SELECTOR, age, is_ours, is_over, parameters
from stac_watch.cluster.volume import FETCH_SELECTOR
from stac_watch.model.outcome import DATA
from stac_watch.runs.cleaning import Cleaning, Leftover, LeftoverKind, spelled
from stac_watch.runs.kubernetes_api import Cluster, Document


def plan_runs(cluster: Cluster, now: datetime, older_than: timedelta) -> Cleaning:
    """Returns which Workflows may go. The poller must have read how they ended before: it takes a vanished run for a failed one."""
    remove, keep = [], []
    for workflow in cluster.items(cluster.argo("workflows"), SELECTOR):
        if not is_over(workflow):
            keep.append(_item(LeftoverKind.WORKFLOW, workflow, "it is not over"))
        elif age(workflow, now) < older_than.total_seconds():
            keep.append(
                _item(
                    LeftoverKind.WORKFLOW,
                    workflow,
                    f"it ended less than {spelled(older_than)} ago; the poller may not have seen it",
                )
            )
        else:
            remove.append(_item(LeftoverKind.WORKFLOW, workflow, str(workflow["status"]["phase"])))
    helpers = cluster.items(cluster.core("pods"), FETCH_SELECTOR)
    ended = [pod for pod in helpers if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")]
    remove += [_item(LeftoverKind.POD, pod, "a helper of `fetch` that was left behind") for pod in ended]
    return Cleaning(tuple(remove), tuple(keep))


def plan_volumes(cluster: Cluster) -> Cleaning:
    """Returns which volumes may go: of runs that are over, and of runs that are gone."""
    # Claims first: a run that starts in between is then among the Workflows, and its claim is not taken for an orphan.
    claims = cluster.items(cluster.core("persistentvolumeclaims"), SELECTOR)
    workflows = {w["metadata"]["name"]: w for w in cluster.items(cluster.argo("workflows"))}
    pods = cluster.items(cluster.core("pods"))
    remove: list[Leftover] = []
    keep: list[Leftover] = []
    for claim in claims:
        if claim["metadata"].get("deletionTimestamp"):
            continue  # on its way out
        workflow = workflows.get(claim["metadata"]["name"])
        reason = stays(claim, workflow, pods)
        why = reason or ("its run is over" if workflow else "its run is gone")
        (keep if reason else remove).append(_item(LeftoverKind.VOLUME, claim, why, holds(claim, workflow)))
    return Cleaning(tuple(remove), tuple(keep))


def stays(claim: Mapping[str, Any], workflow: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]]) -> str:
    """Returns why a claim must stay; empty when it may go. Pure."""
    if not is_ours(claim):
        return "it has not the labels of a run's volume"
    if workflow is not None and not is_over(workflow):
        return "its run is not over"
    name = claim["metadata"]["name"]
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            continue  # a helper of `fetch` on its way out; Kubernetes holds the claim until it is gone
        volumes = (pod.get("spec") or {}).get("volumes") or []
        uses = any((v.get("persistentVolumeClaim") or {}).get("claimName") == name for v in volumes)
        if uses and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            return f"pod {pod['metadata']['name']} uses it"
    return ""


def may_hold_output(workflow: Mapping[str, Any]) -> bool:
    """Tells whether a run that is over may have left its output on its volume: it was to go there, and did not fail by itself.

    A run in `Error` may have been whole when its pod was lost.
    """
    failed = (workflow.get("status") or {}).get("phase") == "Failed"
    return not failed and parameters(workflow).get("output_zarr", "").startswith(DATA)


def holds(claim: Mapping[str, Any], workflow: Mapping[str, Any] | None) -> str:
    """Returns what is on a volume, as far as its run says."""
    size = str(((claim.get("spec") or {}).get("resources") or {}).get("requests", {}).get("storage", ""))
    if workflow is None:
        return f"{size}, perhaps an output"
    output = parameters(workflow).get("output_zarr", "")
    if output.startswith(DATA) and not may_hold_output(workflow) and is_over(workflow):
        return f"{size}, no output: its run failed"
    return f"{size}, the output {output}" if output.startswith(DATA) else f"{size}, no output: that is {output or 'elsewhere'}"


def carry_out(cluster: Cluster, cleaning: Cleaning) -> Iterator[tuple[Leftover, bool]]:
    """Removes what the plan says, and yields each with whether it was removed: who changed meanwhile stays."""
    for item in cleaning.remove:
        if item.kind is LeftoverKind.WORKFLOW:
            yield item, _remove_workflow(cluster, item)
        elif item.kind is LeftoverKind.VOLUME:
            yield item, _remove_volume(cluster, item)
        else:
            yield item, cluster.delete(cluster.core("pods", item.name), uid=item.uid)


def _remove_workflow(cluster: Cluster, item: Leftover) -> bool:
    path = cluster.argo("workflows", item.name)
    workflow = cluster.get(path)
    if workflow is None or not is_over(workflow):  # somebody retried it
        return False
    return _release(cluster, workflow) and cluster.delete(path, uid=item.uid)


def _release(cluster: Cluster, workflow: Document) -> bool:
    """Takes a volume from its Workflow: Kubernetes deletes with an owner what it owns, and here that may be the only copy.

    One that holds no output goes with its Workflow; without an owner it would stay for ever.
    """
    if not may_hold_output(workflow):
        return True
    path = cluster.core("persistentvolumeclaims", workflow["metadata"]["name"])
    claim = cluster.get(path)
    if claim is None:
        return True
    owners = claim["metadata"].get("ownerReferences") or []
    others = [owner for owner in owners if owner.get("uid") != workflow["metadata"]["uid"]]
    if len(others) == len(owners):
        return True
    changes = {"resourceVersion": claim["metadata"]["resourceVersion"], "ownerReferences": others or None}
    return cluster.patch(path, {"metadata": changes})


def _remove_volume(cluster: Cluster, item: Leftover) -> bool:
    workflow = cluster.get(cluster.argo("workflows", item.name))
    if workflow is not None and not is_over(workflow):
        return False
    return cluster.delete(cluster.core("persistentvolumeclaims", item.name), uid=item.uid)


def _item(kind: LeftoverKind, thing: Mapping[str, Any], why: str, lost: str = "") -> Leftover:
    return Leftover(kind, str(thing["metadata"]["name"]), str(thing["metadata"]["uid"]), why, lost)
