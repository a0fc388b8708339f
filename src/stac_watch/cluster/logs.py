"""A run's log: what the main containers of its steps write, one step after the other, while it runs if that is wanted.

Argo's own lines are left out, and no line comes twice when a connection breaks. A line may hold what a product wrote: what acts on
a terminal is spelled out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stac_watch.cluster.runs import NODE_NAME, WORKFLOW_LABEL, found, is_over, step_name
from stac_watch.model.errors import Temporary, printable
from stac_watch.runs.kubernetes_api import Cluster, Document

CONTAINER = "main"
PAUSE = 1.0  # seconds between two looks for the next step
LONGEST = 64 * 1024  # characters of a line that are shown
ATTEMPTS = 5  # for a log that breaks off
_ARGO = re.compile(
    r"^time=.* argo=true( |$)"
)  # what Argo's emissary says in the container's own log; `argo logs` leaves it out, too


@dataclass(frozen=True)
class LogLine:
    """One line; `ours` tells what Kubernetes says of a step that writes nothing yet."""

    step: str
    text: str
    ours: bool = False


def logs(cluster: Cluster, name: str, *, follow: bool, wait: Callable[[float], bool]) -> Iterator[LogLine]:
    """Yields a run's lines; with `follow` until it is over, or `wait` says stop.

    Raises:
        InputError: there is no such run.
        Temporary: a log breaks off again and again.
    """
    shown: set[str] = set()
    waits: dict[str, str] = {}
    while True:
        over = is_over(found(cluster, name))  # before its pods are listed: a last one is then among them
        for pod in _pods(cluster, name):
            who, step = pod["metadata"]["name"], step_name(pod["metadata"].get("annotations", {}).get(NODE_NAME, ""))
            if who in shown:
                continue
            if not _has_started(pod):
                why = waiting(pod)
                if why and waits.get(who) != why:
                    waits[who] = why
                    yield LogLine(step, printable(why), ours=True)
                continue
            shown.add(who)
            for text in _whole(cluster, who, follow=follow and not over, wait=wait):
                if not _ARGO.search(text):
                    yield LogLine(step, printable(text, LONGEST))
        if over or not follow or wait(PAUSE):
            return


def waiting(pod: Mapping[str, Any]) -> str:
    """Returns why a pod does not run yet, in Kubernetes' words; empty when it says nothing."""
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state = (container.get("state") or {}).get("waiting") or {}
        if state.get("reason") and state["reason"] not in ("PodInitializing", "ContainerCreating"):
            return f"{state['reason']}: {state.get('message', '')}".removesuffix(": ")
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return ""


def _pods(cluster: Cluster, name: str) -> list[Document]:
    pods = cluster.items(cluster.core("pods"), f"{WORKFLOW_LABEL}={name}")
    return sorted(pods, key=lambda p: (p["metadata"].get("creationTimestamp", ""), p["metadata"]["name"]))


def _has_started(pod: Document) -> bool:
    states: list[dict[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or []
    return any(s.get("name") == CONTAINER and {"running", "terminated"} & set(s.get("state") or {}) for s in states)


def _whole(cluster: Cluster, pod: str, *, follow: bool, wait: Callable[[float], bool]) -> Iterator[str]:
    """Yields one container's log; where it breaks off it is read again, and what was shown is left out."""
    count = 0
    for attempt in range(ATTEMPTS):
        try:
            for number, text in enumerate(cluster.lines(pod, CONTAINER, follow=follow)):
                if number >= count:
                    count += 1
                    yield text
        except Temporary:
            if attempt + 1 == ATTEMPTS or wait(PAUSE):
                raise
        else:
            return
