"""Which Workflow controller runs what is in our namespace, and what it was really told. Pure.

It is found by its image, wherever it is and whatever its ConfigMap is called: one that is shared was installed by others.
Sources: Argo Workflows 4.0.7, cmd/workflow-controller/main.go (arguments), config/config.go, util/instanceid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from stac_watch.cluster.diagnosis import Finding, Verdict

CHECK = "controller"
CONFIG_MAP = "workflow-controller-configmap"
_IMAGE = re.compile(r"(^|/)workflow-controller[:@]")


@dataclass(frozen=True)
class Controller:
    """One Workflow controller, as its Deployment has it."""

    namespace: str
    name: str
    config_map: str
    watches: str  # a namespace; empty = all


@dataclass(frozen=True)
class Ours:
    """What our Workflows ask of a controller."""

    namespace: str
    instance_id: str
    slots: int  # runs at once, by the configuration
    label: str = ""  # the namespace's own bound, as it is there


def found(deployments: Sequence[Mapping[str, Any]]) -> Iterator[Controller]:
    """Yields the Workflow controllers among a cluster's Deployments."""
    for deployment in deployments:
        metadata = deployment["metadata"]
        for container in deployment["spec"]["template"]["spec"].get("containers") or []:
            if _IMAGE.search(str(container.get("image", ""))):
                given = [str(a) for a in [*(container.get("command") or []), *(container.get("args") or [])]]
                own = "--namespaced" in given or "--namespaced=true" in given
                watches = (_option(given, "--managed-namespace") or metadata["namespace"]) if own else ""
                config_map = _option(given, "--configmap") or CONFIG_MAP
                yield Controller(metadata["namespace"], metadata["name"], config_map, watches)


def told(document: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns what a controller's ConfigMap says: one key for each setting, or all of them below `config`."""
    data = (document or {}).get("data") or {}
    whole = _yaml(data["config"]) if "config" in data else {key: _yaml(value) for key, value in data.items()}
    return whole if isinstance(whole, dict) else {}


def judge(ours: Ours, each: Sequence[tuple[Controller, Mapping[str, Any]]]) -> Finding:
    """Judges whether one of the controllers runs our Workflows, and as many as we send."""
    here = [(one, said) for one, said in each if one.watches in ("", ours.namespace)]
    if not here:
        elsewhere = ", ".join(f"{one.namespace}/{one.name} ({one.watches})" for one, _ in each) or "there is none"
        return Finding(
            CHECK, Verdict.FAIL, f"no Workflow controller looks at namespace {ours.namespace}: {elsewhere}",
            "let one look at it (--managed-namespace), or name a namespace that one looks at: engine.namespace",
        )  # fmt: skip
    mine = [(one, said) for one, said in here if str(said.get("instanceID") or "") == ours.instance_id]
    if not mine:
        theirs = " or ".join(sorted(repr(str(said.get("instanceID") or "")) for _, said in here))
        return Finding(
            CHECK, Verdict.FAIL, f"it runs those of instanceID {theirs}, and ours have {ours.instance_id!r}: nobody runs them",
            "set engine.instance_id to the controller's, render and apply",
        )  # fmt: skip
    one, said = mine[0]
    bound = _bound(said, ours.label)
    where = f"{one.namespace}/{one.name}, ConfigMap {one.config_map}"
    if bound and bound < ours.slots:
        return Finding(
            CHECK, Verdict.WARN, f"{where}: {bound} Workflows at once, and engine.limits.max_in_flight is {ours.slots}",
            "what is beyond waits as Pending: lower max_in_flight, or ask for more (parallelism, namespaceParallelism)",
        )  # fmt: skip
    rest = [f"instanceID {ours.instance_id}"] if ours.instance_id else []
    rest += [f"at most {bound} Workflows at once" if bound else "any number of Workflows at once"]
    return Finding(CHECK, Verdict.OK, ", ".join([where, *rest]))


def references_only(said: Mapping[str, Any]) -> bool:
    """Tells whether a controller runs only what refers to a template, whatever the namespace's own policy is."""
    restrictions = said.get("workflowRestrictions")
    return isinstance(restrictions, dict) and restrictions.get("templateReferencing") in ("Strict", "Secure")


def _bound(said: Mapping[str, Any], label: str) -> int:
    """Returns how many Workflows may run at once in our namespace; 0 = any number."""
    own = int(label) if label.isdigit() else _number(said.get("namespaceParallelism"))
    bounds = [bound for bound in (own, _number(said.get("parallelism"))) if bound > 0]
    return min(bounds, default=0)


def _number(value: object) -> int:
    return int(str(value)) if str(value).isdigit() else 0


def _option(given: Sequence[str], name: str) -> str:
    for at, argument in enumerate(given):
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
        if argument == name and at + 1 < len(given):
            return given[at + 1]
    return ""


def _yaml(text: object) -> object:
    try:
        return yaml.safe_load(str(text))
    except yaml.YAMLError:
        return str(text)
