"""What a Workflow of ours looks like: its parameters and labels, and what can be read from it. Pure.

Manifests, Sensor, engine and verbs share these names. What follows from a run's end is `reconcile`'s.

Sources: Argo Workflows 4.0.5, workflow/controller/{operator,exec_control}.go (messages), workflow/common (labels).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stac_watch.model.errors import Exit
from stac_watch.model.forms import ENCODING, SHARDING
from stac_watch.model.identity import read_attempt
from stac_watch.model.outcome import Outcome, parse_outcome
from stac_watch.model.stamps import parse_stamp
from stac_watch.runs.engine import Phase, Run

GROUP, VERSION, PLURAL = "argoproj.io", "v1alpha1", "workflows"
API_VERSION = f"{GROUP}/{VERSION}"
TEMPLATE = "geozarr-convert"
PREFLIGHT, VOLUME, CONVERT, RELEASE = "preflight", "volume", "convert", "release"
ON_SCRATCH = "convert-on-scratch"  #: the one step of a run that has no volume
OUTCOME, SIZE = "outcome", "size"

LABELS = {
    "stac-watch/key": "key",
    "stac-watch/attempt": "attempt",
    "stac-watch/source": "source_name",
    "stac-watch/lane": "lane",
    "stac-watch/reason": "reason",
    "stac-watch/tile": "tile",
    "stac-watch/collection": "collection_label",
    "stac-watch/form": "form",
    "stac-watch/installation": "installation",
}
"""Label of a Workflow -> key of the event's data. The Sensor sets them, so they are there before the controller looks."""
KEY_LABEL, ATTEMPT_LABEL = "stac-watch/key", "stac-watch/attempt"
COMPLETED_LABEL = "workflows.argoproj.io/completed"
INSTANCE_LABEL = "workflows.argoproj.io/controller-instanceid"  # of what a controller with an `instanceID` runs

_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")


@dataclass(frozen=True)
class Parameter:
    """One parameter of the WorkflowTemplate: where an event has it, and which option of the runner takes it."""

    name: str
    description: str
    data_key: str = ""  # path below the event's data; empty = the deployment's own, no event sets it
    default: str | None = None  # None = whoever submits must give it
    flag: str = ""  # empty = for people only
    enum: tuple[str, ...] = ()


PARAMETERS = (
    Parameter("stac_url", "URL of a STAC item or of a Zarr product", "stac_url", None, "stac-url"),
    Parameter("output_zarr", "where the GeoZarr goes: a path below /data (the run's volume), or s3://…", "output_zarr", None,
              "output-zarr"),
    Parameter("groups", "space-separated Zarr groups, leading / optional; empty = the whole product", "groups", "", "groups"),
    Parameter("spatial_chunk", "pixels per chunk side", "options.spatial_chunk", "1024", "spatial-chunk"),
    Parameter("sharding", "one file per array; auto: in object stores", "options.sharding", SHARDING, "sharding",
              ("auto", "true", "false")),
    Parameter("encoding", "packed: the source's integers; decoded: float32; stock: what eopf-geozarr writes, byte for byte",
              "options.encoding", str(ENCODING), "encoding", ("packed", "decoded", "stock")),
    Parameter("native", "what is done with a product that is finished GeoZarr already", "options.native", "mirror", "native",
              ("mirror", "convert", "reference")),
    Parameter("package", "archive beside the output; auto: tar on the run's volume, none in an object store", "options.package",
              "auto", "package", ("auto", "tar", "tar.gz", "none")),
    Parameter("overwrite", "convert again, whatever lies there", "options.overwrite", "false", "overwrite", ("true", "false")),
    Parameter("allow_empty", "chunks that are missing are taken for nodata", "options.allow_empty", "false", "allow-empty",
              ("true", "false")),
    Parameter("dask_perf_html", "file for Dask's performance report, which lies beside the output, too; empty = off",
              "options.dask_perf_html", "", "dask-perf-html"),
    Parameter("key", "the conversion's key; empty = derived from URL and recipe", "key", "", "key"),
    Parameter("revision", "the item's revision", "revision", "", "revision"),
    Parameter("item_id", "the STAC item's id", "item_id", "", "item-id"),
    Parameter("attempt", "which attempt for this key", "attempt", "1", "attempt"),
    Parameter("fence", "orders an item's revisions: an output with a later one is left alone; empty = not known", "fence", "",
              "fence"),
    Parameter("installation", "whose conversion it is: another one's output is left alone; empty = nobody's", "installation", "",
              "installation"),
    Parameter("collection", "the STAC collection, for people", "collection", ""),
    Parameter("item_href", "the item's own URL, for people", "item_href", ""),
    Parameter("title", "tile, day and time of the item, for people", "title", ""),
    Parameter("lane", "live, backfill, replay or hand, for people", "lane", "hand"),
    Parameter("reason", "why it is converted, for people", "reason", "by hand"),
    Parameter("engine", "auto: fast where it can; fast or stock: that one. The values are the same", "", "auto", "engine",
              ("auto", "fast", "stock")),
    Parameter("memory_limit", "e.g. 2Gi: fewer workers beyond; empty = the container's limit", "", "", "memory-limit"),
    Parameter("source_hosts", "of the hosts below, those of the item's own source; empty = all of them", "allowed_hosts", "",
              "source-hosts"),
    Parameter("allowed_hosts", "hosts that runs may fetch from, comma-separated; empty = any. No event sets it", "", "",
              "allowed-hosts"),
)  # fmt: skip
"""The public contract of the WorkflowTemplate, in its order: the Sensor writes the event's values by index."""


def mapped() -> tuple[Parameter, ...]:
    """Returns the parameters that an event sets, in the order in which the Sensor's Workflow lists them."""
    return tuple(p for p in PARAMETERS if p.data_key)


def asked_of(workflow: Mapping[str, Any]) -> Outcome:
    """Returns what a Workflow was asked for, as the part of an outcome that its parameters and labels say."""
    given = {
        str(p.get("name")): str(p.get("value", "")) for p in (workflow.get("spec") or {}).get("arguments", {}).get("parameters", [])
    }
    return Outcome(
        key=given.get("key", ""), revision=given.get("revision", ""), run=str(workflow["metadata"]["name"]),
        attempt=int(number) if (number := given.get("attempt", "")).isdigit() else 0,
        item_id=given.get("item_id", ""), fence=given.get("fence", ""),
        installation=given.get("installation", ""), source=given.get("stac_url", ""), output_zarr=given.get("output_zarr", ""),
    )  # fmt: skip


def illegal_label(data: Mapping[str, Any]) -> str | None:
    """Returns a sentence about the first value that Kubernetes refuses as a label, or None.

    The Sensor would try such an event for minutes and then drop it; nothing but its log would say so.
    """
    for label, key in LABELS.items():
        value = str(data.get(key, ""))
        if not _LABEL_VALUE.fullmatch(value):
            return f"{key} {value!r} cannot be the Kubernetes label {label}"
    return None


def run_of(workflow: Mapping[str, Any]) -> Run:
    """Returns what a Workflow object says, in the words of `engine`."""
    metadata, status = workflow["metadata"], workflow.get("status") or {}
    labels = metadata.get("labels", {})
    nodes = list(_pods(status))
    run = Run(
        name=metadata["name"],
        key=labels.get(KEY_LABEL, ""),
        attempt=read_attempt(labels.get(ATTEMPT_LABEL, "")),
        phase=_phase(status.get("phase", "")),
        started=parse_stamp(status.get("startedAt") or metadata.get("creationTimestamp")),
        ended=parse_stamp(status.get("finishedAt")),
    )
    if run.phase is Phase.SUCCEEDED:
        return replace(run, stage=CONVERT, outcome=_reported(nodes))
    if run.phase is Phase.FAILED:
        outcome = _failure(workflow.get("spec") or {}, status, nodes)
        return replace(run, stage=outcome.stage, outcome=outcome)
    return replace(run, stage=_where(status, nodes), progress=_progress(nodes))


def distinct(runs: Iterable[Run]) -> list[Run]:
    """Returns one run per key and attempt: `argo resubmit` makes a second Workflow with the labels of the first.

    What succeeded counts before what may still, that before what failed; among equals the youngest.
    """
    best: dict[tuple[str, int], Run] = {}
    for run in runs:
        other = best.get((run.key, run.attempt))
        if other is None or _rank(run) > _rank(other):
            best[run.key, run.attempt] = run
    return list(best.values())


_ORDER = {Phase.FAILED: 0, Phase.PENDING: 1, Phase.RUNNING: 2, Phase.SUCCEEDED: 3}
_PHASES = {"Running": Phase.RUNNING, "Succeeded": Phase.SUCCEEDED, "Failed": Phase.FAILED, "Error": Phase.FAILED}


def _rank(run: Run) -> tuple[int, str]:
    return _ORDER[run.phase], run.started.isoformat() if run.started else ""


def _phase(text: str) -> Phase:
    return _PHASES.get(text, Phase.PENDING)  # "" is a Workflow that the controller has not seen yet


def _pods(status: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the pod nodes, oldest first; a retried step has one for each attempt. How the volume was given back says nothing."""
    nodes = [n for n in (status.get("nodes") or {}).values() if n.get("type") == "Pod" and n.get("templateName") != RELEASE]
    yield from sorted(nodes, key=lambda n: (n.get("startedAt") or "", n.get("finishedAt") or "~", n.get("name", "")))


def _reported(nodes: Sequence[Mapping[str, Any]]) -> Outcome | None:
    """Returns the outcome that the runner left, the last one."""
    for node in reversed(nodes):
        for parameter in (node.get("outputs") or {}).get("parameters", []):
            if parameter.get("name") == OUTCOME and (outcome := parse_outcome(parameter.get("value", ""))):
                return outcome
    return None


def _failure(spec: Mapping[str, Any], status: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> Outcome:
    """Returns code, reason, hint and stage of a failed Workflow: the runner's own words where it could say any."""
    failed = [n for n in nodes if n.get("phase") in ("Failed", "Error")]
    last = failed[-1] if failed else {}
    messages = [_own(str(m)) for m in (status.get("message"), *(n.get("message") for n in reversed(failed))) if m]
    outcome = _reported(failed[-1:]) or Outcome()
    outcome = replace(outcome, stage=outcome.stage or str(last.get("templateName", "")))
    reason = next((m for m in reversed(messages) if not m.startswith("child ")), "it gave no reason")
    if spec.get("shutdown"):
        return replace(
            outcome,
            code=int(Exit.NOT_ALL_WELL),
            reason=f"a person ended it in Argo ({spec['shutdown']})",
            hint="`stac-watch replay ITEM` asks for it again",
        )
    if any("deadline" in m for m in messages):  # the runner only saw a SIGTERM, and that would be tried again for ever
        return replace(
            outcome,
            code=int(Exit.TEMPORARY),
            reason=f"it took longer than it may: {next(m for m in messages if 'deadline' in m)}",
            hint="raise activeDeadlineSeconds of the WorkflowTemplate if that is normal here",
        )
    if outcome.code:  # 0 would be a run that did its work and whose pod was lost before Argo knew
        return outcome
    return replace(outcome, code=_code(last, status), reason=reason, hint=_hint(last))


def _own(message: str) -> str:
    """Returns Argo's own words: behind an exit code stand the runner's, which hold what strangers wrote ("deadline" among it)."""
    return re.sub(r"(\(exit code -?\d+\)): .*", r"\1", message, flags=re.DOTALL)


def _code(node: Mapping[str, Any], status: Mapping[str, Any]) -> int:
    if not node:  # the controller refused the Workflow ("invalid spec"), or could not work on it (Error)
        return int(Exit.TEMPORARY if status.get("phase") == "Error" else Exit.CONFIG)
    exit_code = (node.get("outputs") or {}).get("exitCode", "")
    if node.get("phase") == "Error" or node.get("templateName") == VOLUME or not exit_code.isdigit():
        return int(Exit.TEMPORARY)  # evicted, deleted, node lost, quota: not the conversion's doing
    return int(exit_code)


def _hint(node: Mapping[str, Any]) -> str:
    if (node.get("outputs") or {}).get("exitCode") == "137":
        return "killed, as by the kernel when memory runs out: see the memory limit of the WorkflowTemplate"
    if node.get("templateName") == VOLUME:
        return "see the namespace's quota and storage class"
    return "see the Workflow in the Argo UI"


def _where(status: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> str:
    """Returns the step it is at, and why it waits there, as Kubernetes or Argo say it."""
    if not status.get("phase"):
        return "waits for the Workflow controller"
    active = [n for n in nodes if n.get("phase") in ("Pending", "Running")]
    if active:
        node = active[-1]
        waits = node["phase"] == "Pending" and node.get("message")
        return f"{node.get('templateName', '')} waits: {node['message']}" if waits else str(node.get("templateName", ""))
    if status.get("phase") == "Pending":
        return f"waits: {status.get('message') or 'Pending'}"
    return str(nodes[-1].get("templateName", "")) if nodes else ""


def _progress(nodes: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """Returns what the runner wrote into Argo's progress file; a pod that writes none counts 0/1, which says nothing."""
    for node in reversed(nodes):
        match = re.fullmatch(r"(\d+)/(\d+)", str(node.get("progress", "")))
        if node.get("templateName") in (CONVERT, ON_SCRATCH) and match and int(match[2]) > 1:
            return int(match[1]), int(match[2])
    return None


def page_of(run: str, namespace: str, ui: str) -> str:
    """Returns a run's page in the Argo UI that is reached at `ui`."""
    return f"{ui.rstrip('/')}/workflows/{namespace}/{run}"
