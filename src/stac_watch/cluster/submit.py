"""One run by hand: whether the cluster can make it, and how it ends.

In: a run's name. Out: a `Submission`, complete once the run is over. Never: starts a run (the engine's `create` does, once a name),
or takes a silent API for the run's end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stac_watch.cluster.runs import is_over
from stac_watch.model.errors import ConfigError, InputError, Refused, Temporary
from stac_watch.runs.engine import Phase, Run
from stac_watch.runs.kubernetes_api import Cluster
from stac_watch.runs.workflow import TEMPLATE, page_of, run_of

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
            hint="apply workflows/ there (`kubectl apply -k`); `stac-watch doctor` says what else is missing",
        )


def submission(run: str, namespace: str, *, created: bool, ui: str) -> Submission:
    """Returns what is known of a run that has just been asked for."""
    link = page_of(run, namespace, ui) if ui else None
    return Submission(run, namespace, created, link, f"stac-watch logs --follow {run}")


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
            raise InputError(f"run {asked.run} was removed before its end was seen", hint="`stac-watch runs` lists what is there")
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
    outcome = run.outcome or {}
    taken = (run.ended - run.started).total_seconds() if run.ended and run.started else None
    code = 0 if run.phase is Phase.SUCCEEDED else int(outcome.get("code") or 1)
    return replace(
        asked,
        phase=run.phase,
        code=code,
        reason=str(outcome.get("reason") or ""),
        hint=str(outcome.get("hint") or ""),
        seconds=taken,
    )
