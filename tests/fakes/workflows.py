"""Workflows as Argo 4.0.5 leaves them: status, nodes, the template that it stores; as large as the real ones."""

import json
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
ITEM = "S2A_MSIL2A_20250831T103701_N0511_R008_T32TQM_20250831T140000"
LABELS = {"app.kubernetes.io/name": "geozarr-convert", "app.kubernetes.io/part-of": "stac-watch"}
KEY, ATTEMPT, COMPLETED = "stac-watch/key", "stac-watch/attempt", "workflows.argoproj.io/completed"
OVER = ("Succeeded", "Failed", "Error")


def template() -> dict:
    """The WorkflowTemplate that is committed, a fresh copy."""
    return yaml.load(_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@cache
def _text() -> str:
    return (ROOT / "workflows" / "geozarr-convert.yaml").read_text()


def step(name: str, phase: str, *, exit_code: str = "", outcome: dict | str | None = None, **more: object) -> dict:
    """A pod's node; `outcome` is what its runner left."""
    outputs: dict = {}
    if exit_code:
        outputs["exitCode"] = exit_code
    if outcome is not None:
        outputs["parameters"] = [{"name": "outcome", "value": outcome if isinstance(outcome, str) else json.dumps(outcome)}]
    return {
        "type": "Pod", "templateName": name, "name": f"w.{name}", "phase": phase, "startedAt": "2025-09-01T00:00:02Z",
        "boundaryID": "w", "hostNodeName": "worker-1", "resourcesDuration": {"cpu": 31, "memory": 904}, "outputs": outputs, **more,
    }  # fmt: skip


def status(phase: str, *nodes: dict, message: str = "") -> dict:
    """A Workflow's status with the stored template that Argo keeps in it."""
    return {
        "phase": phase, "message": message, "startedAt": "2025-09-01T00:00:01Z", "storedWorkflowTemplateSpec": STORED,
        "nodes": {f"w-{number}": node for number, node in enumerate(nodes)},
        **({"finishedAt": "2025-09-01T00:09:00Z"} if phase in OVER else {}),
    }  # fmt: skip


def ended(code: int, key: str = "", reason: str = "done", **more: object) -> dict:
    """The status of a run that ended with an outcome."""
    outcome = {"code": code, "key": key, "reason": reason, "stage": "convert", "attempt": 1, **more}
    phase = "Failed" if code else "Succeeded"
    return status(phase, step("convert", phase, exit_code=str(code), outcome=outcome, finishedAt="2025-09-01T00:09:00Z"))


STORED = {"templates": [{"name": "convert", "container": {"args": ["--option={{inputs.parameters.value}}"] * 260}}]}
"""About 11 kB, as the rendered WorkflowTemplate has."""
MANAGED = [
    {"manager": "workflow-controller", "operation": "Update", "fieldsV1": {"f:status": {f"f:field-{n}": {} for n in range(60)}}},
    {"manager": "argo-sensor", "operation": "Update", "fieldsV1": {"f:spec": {f"f:field-{n}": {} for n in range(40)}}},
]
"""About 2 kB of every object's metadata."""
