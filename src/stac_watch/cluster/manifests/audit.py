"""The nightly audit, in Hera: catalog x ledger x runs x outputs, one step per source, in the Argo UI like every other run.

Where a place is named for it, the report on freshness is one step more.

The CronWorkflow refers to a WorkflowTemplate, because nothing else is run in our namespace. An audit repairs
nothing: a step with gaps fails, and its log says what closes them.
"""

from __future__ import annotations

from hera.workflows import DAG, CronWorkflow, WorkflowTemplate
from hera.workflows import models as m

from stac_watch.cluster.manifests import pods
from stac_watch.cluster.manifests.convert import DEADLINE, KEEP_FAILURE, restrict
from stac_watch.cluster.manifests.settings import (
    AUDIT,
    CONFIG_FILE,
    CONFIG_FOLDER,
    POLLER,
    STATE_FOLDER,
    TMP,
    Object,
    Settings,
    container_security,
    labels,
    meta,
    pod_security,
)
from stac_watch.cluster.manifests.tree import absent, each, given, when
from stac_watch.runs.workflow import INSTANCE_LABEL

START, END = "30d", "1d"  # before now; the last day is still on its way
DAYS = 30  # of the report
AUDIT_STEP, REPORT_STEP = "audit", "report"  # the verbs that they run


def audit_template(settings: Settings) -> Object:
    """Returns the WorkflowTemplate."""
    values = settings.values
    with WorkflowTemplate(
        name=AUDIT,
        entrypoint="main",
        service_account_name=AUDIT,
        active_deadline_seconds=DEADLINE,
        pod_gc=m.PodGC(strategy="OnWorkflowSuccess"),
        ttl_strategy=m.TTLStrategy(seconds_after_completion=KEEP_FAILURE),
        workflow_metadata=m.WorkflowMetadata(
            annotations={
                "workflows.argoproj.io/title": "Nightly audit",
                "workflows.argoproj.io/description": "A failed step has gaps: its log lists them, and what closes them.",
            },
        ),
    ) as template:
        DAG(name="main", fail_fast=False)
    document: Object = template.to_dict()
    document["metadata"] = meta(AUDIT, settings)
    on_disk = absent(values.ledger.existing_secret)
    document["spec"] |= {
        "podMetadata": pods.carried(labels(AUDIT), values.audit),
        "securityContext": pod_security(settings),
        "volumes": [
            {"name": "config", "configMap": {"name": POLLER}},
            *when(on_disk, {"name": "state", "persistentVolumeClaim": {"claimName": POLLER}}),
            {"name": "tmp", "emptyDir": {}},
            *pods.store_volume(settings),
            *pods.ledger_volume(settings),
            *pods.volumes(settings, values.audit),
        ],
        **pods.place(settings, values.audit, {"podAffinity": pods.beside_poller()}, on_disk, priority="podPriorityClassName"),
        **pods.spread_patch(values.audit),
    }
    place = values.audit.report
    [main] = document["spec"]["templates"]
    report = {"name": "freshness-report", "template": REPORT_STEP}
    main["dag"]["tasks"] = [*each(settings.sources, _task), *when(place, report)]
    look = _step(settings, AUDIT_STEP, ["{{inputs.parameters.source}}", f"--start={START}", f"--end={END}"])
    look["inputs"] = {"parameters": [{"name": "source"}]}
    document["spec"]["templates"] = [
        look, *when(place, _step(settings, REPORT_STEP, [f"--days={DAYS}", f"--out={place}"])), main,
    ]  # fmt: skip
    return document


def _task(source: str) -> Object:
    return {"name": source, "template": AUDIT_STEP, "arguments": {"parameters": [{"name": "source", "value": source}]}}


def _step(settings: Settings, verb: str, arguments: list[str]) -> Object:
    """Returns a step that runs one verb. The report says what was announced, what was available when, and what is missing."""
    command = {"command": ["stac-watch"], "args": [verb, *arguments, f"--config={CONFIG_FOLDER}/{CONFIG_FILE}"]}
    container = {**command, **_container(settings)}
    return {"name": verb, "container": container, "podSpecPatch": restrict(settings, "init", "wait")}


def _container(settings: Settings) -> Object:
    values = settings.values
    on_disk = absent(values.ledger.existing_secret)
    return {
        "image": settings.poller_image,
        "imagePullPolicy": values.images.pull_policy,
        "env": [
            {"name": "HOME", "value": TMP},
            {"name": "STAC_WATCH__ENGINE__NAMESPACE", "value": "{{workflow.namespace}}"},
            *pods.ledger_environment(settings),
            *pods.store_environment(settings),
            *pods.environment(settings, values.audit),
        ],
        "resources": values.audit.resources,
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            *when(on_disk, {"name": "state", "mountPath": STATE_FOLDER}),
            {"name": "tmp", "mountPath": TMP},
            *pods.store_mount(settings),
            *pods.ledger_mount(settings),
            *pods.mounts(settings, values.audit),
        ],
    }


def audit_schedule(settings: Settings) -> Object:
    """Returns the CronWorkflow that runs the audit at night."""
    document: Object = CronWorkflow(
        name=AUDIT,
        schedules=["@daily"],
        timezone="Etc/UTC",
        concurrency_policy="Forbid",
        starting_deadline_seconds=3600,
        successful_jobs_history_limit=3,
        failed_jobs_history_limit=7,
        workflow_template_ref=m.WorkflowTemplateRef(name=AUDIT),
    ).to_dict()
    metadata = meta(AUDIT, settings)
    document["metadata"] = {**metadata, "labels": {**metadata["labels"], **given({INSTANCE_LABEL: settings.instance_id})}}
    document["spec"]["schedules"] = [settings.values.audit.schedule]
    return document
