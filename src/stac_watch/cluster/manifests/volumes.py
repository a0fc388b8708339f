"""Where a run works: on a claim of its own, which a step makes and another gives back, or on its node's disk.

`RunsValues.volume` says which.

No `volumeClaimTemplates`: their size cannot be a parameter, and Argo deletes them when the run succeeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from hera.workflows import Parameter, Resource, RetryStrategy
from hera.workflows import models as m

from stac_watch.cluster.manifests.settings import Object, Settings, labels
from stac_watch.cluster.manifests.tree import as_text, given, is_one, when
from stac_watch.runs.workflow import CONVERT, ON_SCRATCH, PREFLIGHT, RELEASE, SIZE, TEMPLATE, VOLUME

TO_STORE = "workflow.parameters.output_zarr contains '://' && not (workflow.parameters.output_zarr startsWith 'file:')"
DONE_WITH = f"{{{{=workflow.status == 'Succeeded' && {TO_STORE}}}}}"
_BY_PLACE = {PREFLIGHT: f"{{{{=not ({TO_STORE})}}}}", ON_SCRATCH: f"{{{{={TO_STORE}}}}}"}
MAIN, END = "main", "end"


def has_claims(settings: Settings) -> Any:  # noqa: ANN401  # a condition: real, or a hole
    """Returns whether any run of this installation has a claim."""
    return is_one(settings.values.runs.volume, "claim", "auto")


def chosen(steps: Mapping[str, Object], settings: Settings) -> list[Any]:
    """Returns the templates that the runs of this installation need, of all that there are.

    With `auto` the output's place decides, which only a run knows: then both ways are there, and each run has one of them. What
    is in an object store has no claim then, and so nothing is released.
    """
    asked = settings.values.runs.volume
    claims, scratch, by_place = has_claims(settings), is_one(asked, "scratch", "auto"), is_one(asked, "auto")
    tasks = {task["name"]: task for task in steps[MAIN]["dag"]["tasks"]}
    conditional = {name: {**tasks[name], **given({"when": test}, by_place)} for name, test in _BY_PLACE.items()}
    with_claim = [conditional[PREFLIGHT], tasks[VOLUME], tasks[CONVERT]]
    dag = {"tasks": [*when(claims, *with_claim), *when(scratch, conditional[ON_SCRATCH])]}
    return [
        *when(claims, steps[PREFLIGHT], steps[VOLUME], steps[CONVERT]),
        *when(scratch, steps[ON_SCRATCH]),
        {**steps[MAIN], "dag": dag},
        *when(releases(settings), steps[RELEASE], steps[END]),
    ]


def releases(settings: Settings) -> Any:  # noqa: ANN401  # a condition: real, or a hole
    """Returns whether a run may have a claim that nobody needs when it is over."""
    return is_one(settings.values.runs.volume, "claim")


def on_node(settings: Settings) -> Object:
    """Returns the volume of a run without a claim: its pod's, and gone with it."""
    return {"name": "data", "emptyDir": {"sizeLimit": settings.values.runs.scratch}}


def claim(storage_class: str = "") -> str:
    """Returns the manifest of a run's volume: named like the run, as large as preflight says, gone with the Workflow."""
    manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "{{workflow.name}}", "labels": labels(TEMPLATE)},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            **given({"storageClassName": storage_class}),
            "resources": {"requests": {"storage": f"{{{{inputs.parameters.{SIZE}}}}}"}},
        },
    }
    text: str = as_text(manifest, width=200)
    return text


def volume_step() -> Resource:
    """`apply`, not `create`: a step that was killed after it made the claim must not fail on it the next time."""
    return Resource(
        name=VOLUME,
        action="apply",
        set_owner_reference=True,
        manifest=claim(),
        inputs=[Parameter(name=SIZE)],
        retry_strategy=RetryStrategy(  # an exhausted quota is waited for, about half an hour
            limit="10", retry_policy="Always", backoff=m.Backoff(duration="15s", factor=2, cap="5m")
        ),
    )


def release_step() -> Resource:
    """Returns the step that gives the volume of a run back when the run has succeeded and its output is in an object store.

    Nothing of worth is on it then. Kept for the three days that the Workflow is kept, 11 GiB each, volumes were what ended first:
    62 runs a day in a quota of 2 TiB. Kubernetes takes a claim away only when the pods that mounted it are gone, too: seconds
    after success. Those of a failed run stay to be looked at, and so its claim is left alone.
    """
    gone = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "{{workflow.name}}"}}
    return Resource(
        name=RELEASE,
        action="delete",
        flags=["--wait=false"],
        manifest=yaml.safe_dump(gone, sort_keys=True),
        retry_strategy=RetryStrategy(limit="3", retry_policy="Always", backoff=m.Backoff(duration="10s", factor=3, cap="2m")),
    )
