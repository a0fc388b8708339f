"""Runs as the cluster has them: which one is meant, whether it is over, what its steps did.

A run is not a conversion: one by hand has no state in any ledger.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stac_watch.model.errors import InputError
from stac_watch.model.outcome import Outcome
from stac_watch.model.stamps import parse_stamp
from stac_watch.runs.engine import Phase
from stac_watch.runs.kubernetes_api import Cluster, Document
from stac_watch.runs.workflow import COMPLETED_LABEL, TEMPLATE, page_of, run_of

LATEST = "@latest"
UI = "https://localhost:2746"  #: where `kubectl port-forward service/argo-server 2746` puts the Argo UI
NAME_LABEL, PART_LABEL, SYSTEM = "app.kubernetes.io/name", "app.kubernetes.io/part-of", "stac-watch"
SELECTOR = f"{NAME_LABEL}={TEMPLATE},{PART_LABEL}={SYSTEM}"
"""Of Workflows, their pods and their claims; the ledger's own claim has another name."""
WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
NODE_NAME = "workflows.argoproj.io/node-name"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_OVER = frozenset({"Succeeded", "Failed", "Error"})


@dataclass(frozen=True)
class Step:
    """One attempt of one step."""

    name: str
    phase: str  # of Argo: Pending, Running, Succeeded, Failed, Error, Omitted
    started: datetime | None
    seconds: float | None
    progress: str  # "3/10" where the runner says it
    message: str


@dataclass(frozen=True)
class RunView:
    """One run, for people and machines."""

    run: str
    link: str  # to its page in the Argo UI
    phase: Phase
    item: str
    source: str
    output: str
    lane: str
    started: datetime | None
    seconds: float | None
    steps: tuple[Step, ...]
    reason: str  # of the end; empty while there is none
    hint: str


def check_name(name: str) -> str:
    """Returns the name when it can be one of a run.

    Raises:
        InputError: it cannot; it would become part of a URL and of a folder's name.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no run's name", hint=f"`stac-watch cluster runs` lists them; {LATEST} is the newest one")
    return name


def newest_first(workflows: Sequence[Document]) -> list[Document]:
    """Returns Workflows by the time they were made; names break ties, stamps have whole seconds."""
    return sorted(workflows, key=lambda w: (w["metadata"].get("creationTimestamp", ""), w["metadata"]["name"]), reverse=True)


def find(cluster: Cluster, name: str) -> Document | None:
    """Returns the Workflow of that name, or the newest of ours; None when there is none.

    Raises:
        InputError: it is no run's name, or not a run of ours.
    """
    if name == LATEST:
        found = newest_first(cluster.items(cluster.argo("workflows"), SELECTOR))
        return found[0] if found else None
    workflow = cluster.get(cluster.argo("workflows", check_name(name)))
    if workflow is not None and not is_ours(workflow):
        raise InputError(f"Workflow {name} is not one of {SYSTEM}", hint="`stac-watch cluster runs` lists ours")
    return workflow


def found(cluster: Cluster, name: str) -> Document:
    """Returns the Workflow that is meant.

    Raises:
        InputError: there is none.
    """
    workflow = find(cluster, name)
    if workflow is None:
        what = "no run yet" if name == LATEST else f"no run {name}"
        raise InputError(
            f"there is {what} in namespace {cluster.namespace}",
            hint="`stac-watch cluster runs` lists them; a finished one is removed by Argo after 3 days, a failed one after 14",
        )
    return workflow


def is_ours(thing: Mapping[str, Any]) -> bool:
    """Tells whether an object carries both labels of a run."""
    labels = thing["metadata"].get("labels") or {}
    return labels.get(NAME_LABEL) == TEMPLATE and labels.get(PART_LABEL) == SYSTEM


def is_over(workflow: Mapping[str, Any]) -> bool:
    """Tells whether a Workflow has ended; a retried one is not over although its label may still say so."""
    phase = (workflow.get("status") or {}).get("phase", "")
    labels = workflow["metadata"].get("labels") or {}
    return phase in _OVER and labels.get(COMPLETED_LABEL) == "true"


def ended(workflow: Mapping[str, Any]) -> datetime | None:
    """Returns when it ended."""
    return parse_stamp((workflow.get("status") or {}).get("finishedAt"))


def template_spec(workflow: Mapping[str, Any]) -> Document:
    """Returns the template as it was when the run began; the run's pods are made from it."""
    spec: Document = (workflow.get("status") or {}).get("storedWorkflowTemplateSpec") or {}
    return spec


def parameters(workflow: Mapping[str, Any]) -> dict[str, str]:
    """Returns a run's parameters: those given, else the template's."""
    given: dict[str, str] = {}
    for spec in (template_spec(workflow), workflow.get("spec") or {}):
        for parameter in (spec.get("arguments") or {}).get("parameters") or []:
            if parameter.get("value") is not None:
                given[str(parameter["name"])] = str(parameter["value"])
    return given


def outcome(workflow: Mapping[str, Any]) -> Outcome | None:
    """Returns what the runner left, or what Argo says of a failed run; None while there is neither."""
    return run_of(workflow).outcome


def view(workflow: Mapping[str, Any], now: datetime, ui: str = UI) -> RunView:
    """Returns a run as it is shown; `ui` is where the Argo UI is reached."""
    run, given = run_of(workflow), parameters(workflow)
    end = run.outcome or Outcome()
    over = is_over(workflow)
    waits = "" if over or run.phase is Phase.RUNNING else run.stage
    return RunView(
        run=run.name,
        link=page_of(run.name, workflow["metadata"]["namespace"], ui),
        phase=run.phase,
        item=given.get("item_id") or end.item_id,
        source=given.get("stac_url", ""),
        output=given.get("output_zarr", ""),
        lane=given.get("lane", ""),
        started=run.started,
        seconds=_seconds(run.started, run.ended if over else now),
        steps=tuple(_steps(workflow, now)),
        reason=end.reason or waits,
        hint=end.hint,
    )


def _steps(workflow: Mapping[str, Any], now: datetime) -> list[Step]:
    nodes = [n for n in ((workflow.get("status") or {}).get("nodes") or {}).values() if n.get("type") == "Pod"]
    shown = []
    for node in sorted(nodes, key=lambda n: (n.get("startedAt") or "", n.get("name", ""))):
        start, end = parse_stamp(node.get("startedAt")), parse_stamp(node.get("finishedAt"))
        progress = str(node.get("progress", ""))
        shown.append(
            Step(
                name=step_name(str(node.get("name", ""))),
                phase=str(node.get("phase", "")),
                started=start,
                seconds=_seconds(start, end or now),
                progress="" if progress in ("0/1", "1/1") else progress,  # what Argo counts where nobody tells it more
                message=str(node.get("message", "")),
            )
        )
    return shown


def step_name(node: str) -> str:
    """Returns a step's name from a node's: `gz-x.convert(0)` is `convert`, `gz-x.convert(1)` its second attempt, `convert(1)`."""
    return node.rpartition(".")[2].removesuffix("(0)")


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else max(0.0, (end - start).total_seconds())


def age(workflow: Mapping[str, Any], now: datetime) -> float:
    """Returns the seconds since a Workflow ended."""
    return (now - (ended(workflow) or datetime.min.replace(tzinfo=UTC))).total_seconds()
