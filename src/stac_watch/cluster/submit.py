"""One run by hand, without poller, ledger or event: its Workflow, whether the cluster can make it, and how it ends.

A silent API is never taken for the run's end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hera.workflows import Workflow
from hera.workflows.models import WorkflowTemplateRef

from stac_watch.cluster.manifests.settings import Object, labels
from stac_watch.cluster.runs import is_over
from stac_watch.model.errors import ConfigError, InputError, Refused, Temporary
from stac_watch.model.outcome import Outcome
from stac_watch.runs.engine import Phase, Run
from stac_watch.runs.kubernetes_api import Cluster, NotCreated
from stac_watch.runs.workflow import INSTANCE_LABEL, PARAMETERS, PLURAL, TEMPLATE, page_of, run_of

BEAT = 2.0  # seconds between two looks at a run that takes minutes
PATIENCE = timedelta(minutes=5)  # with an API that does not answer: an upgrade of a control plane takes about that


@dataclass(frozen=True)
class Submission:
    """A run that was asked for by hand; how it ended is null until it did, or where nobody waited for it."""

    run: str
    namespace: str
    created: bool  # False: one of that name was there, and was left as it is
    link: str | None  # to its page in the Argo UI, where that is known
    follow: str  # the command that shows it
    phase: Phase | None = None
    code: int | None = None  # the runner's exit code
    reason: str | None = None
    hint: str | None = None
    seconds: float | None = None


def check_template(cluster: Cluster) -> None:
    """Makes sure that there is something to run: the API takes a Workflow whose template is missing, and it fails later.

    Raises:
        ConfigError: there is no such WorkflowTemplate.
        Temporary: the API does not answer.
    """
    try:
        found = cluster.get(cluster.argo("workflowtemplates", TEMPLATE))
    except Refused:
        return  # who may make runs need not be one who may read templates
    if found is None:
        raise ConfigError(
            f"namespace {cluster.namespace!r} has no WorkflowTemplate {TEMPLATE!r}",
            hint="apply workflows/ there (`kubectl apply -k`); `stac-watch cluster doctor` says what else is missing",
        )


def one_run(parameters: Mapping[str, str], *, namespace: str, name: str = "", instance_id: str = "") -> Object:
    """Returns one Workflow of the template.

    Args:
        parameters: of the template; an empty value is the template's default.
        namespace: where it runs.
        instance_id: of the Workflow controller; empty = one without.
        name: without one the API server chooses one that starts with `gz-`.

    Raises:
        InputError: a value that the template's enumeration has not, or no such parameter.
    """
    given = {key: value for key, value in parameters.items() if value}
    known = {p.name: p for p in PARAMETERS}
    for key, value in given.items():
        if key not in known:
            raise InputError(f"{TEMPLATE} has no parameter {key!r}", hint=f"it has {', '.join(known)}")
        if known[key].enum and value not in known[key].enum:
            raise InputError(f"{key} is {value!r}", hint=f"it is one of {', '.join(known[key].enum)}")
    workflow = Workflow(
        name=name or None,
        generate_name=None if name else "gz-",
        namespace=namespace,
        labels={**labels(TEMPLATE), "stac-watch/lane": "hand", **({INSTANCE_LABEL: instance_id} if instance_id else {})},
        arguments=given,
        workflow_template_ref=WorkflowTemplateRef(name=TEMPLATE),
    )
    document: Object = workflow.to_dict()
    return document


def create(cluster: Cluster, workflow: Mapping[str, Any]) -> tuple[str, bool]:
    """Creates one Workflow; returns its name, and False when one of that name was there: it is left as it is.

    Raises:
        InputError: the API says that it is no Workflow.
        Refused: we may not, or there is no Argo here.
        Temporary: the API does not answer.
    """
    name = str(workflow["metadata"].get("name", ""))
    try:
        document = cluster.create(cluster.argo(PLURAL), workflow)
    except Refused as error:
        raise Refused(error.message, hint=f"you need `create` of workflows in namespace {cluster.namespace!r}") from error
    except NotCreated as error:
        if error.status == 409 and name:
            return name, False
        if error.status == 404:
            raise Refused(
                f"namespace {cluster.namespace!r} knows no Workflows",
                hint="install Argo Workflows, then what `stac-watch cluster manifests` renders",
            ) from error
        raise InputError(f"the cluster refuses the Workflow: {error.said}") from error
    return str(document["metadata"]["name"]), True


def submission(run: str, namespace: str, *, created: bool, ui: str) -> Submission:
    """Returns what is known of a run that has just been asked for."""
    link = page_of(run, namespace, ui) if ui else None
    return Submission(run, namespace, created, link, f"stac-watch cluster logs --follow {run}")


def wait_for_end(
    cluster: Cluster,
    asked: Submission,
    *,
    wait: Callable[[float], bool],
    now: Callable[[], datetime],
    show: Callable[[str], None],
) -> Submission | None:
    """Returns the submission with its end, None when `wait` says stop; `show` gets each new sentence about where it is.

    Raises:
        InputError: the run is gone.
        Temporary: the API does not answer for five minutes.
    """
    silent_since: datetime | None = None
    said = ""
    while True:
        try:
            workflow = cluster.get(cluster.argo("workflows", asked.run))
            silent_since, sentence = None, "it is gone" if workflow is None else _sentence(run_of(workflow))
        except Temporary as error:
            silent_since, sentence, workflow = silent_since or now(), f"{error.message}; asked again", {}
            if now() - silent_since >= PATIENCE:
                raise
        if workflow is None:
            raise InputError(
                f"run {asked.run} was removed before its end was seen", hint="`stac-watch cluster runs` lists what is there"
            )
        if sentence != said:
            said = sentence
            show(sentence)
        if workflow and is_over(workflow):
            return _ended(asked, run_of(workflow))
        if wait(BEAT):
            return None


def _sentence(run: Run) -> str:
    progress = f" {run.progress[0]}/{run.progress[1]}" if run.progress else ""
    return f"{run.phase.value}: {run.stage}{progress}" if run.stage else run.phase.value


def _ended(asked: Submission, run: Run) -> Submission:
    outcome = run.outcome or Outcome()
    taken = (run.ended - run.started).total_seconds() if run.ended and run.started else None
    code = 0 if run.phase is Phase.SUCCEEDED else outcome.code or 1
    return replace(
        asked,
        phase=run.phase,
        code=code,
        reason=outcome.reason,
        hint=outcome.hint,
        seconds=taken,
    )
