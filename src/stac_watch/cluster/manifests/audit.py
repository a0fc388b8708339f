"""The nightly audit, in Hera: catalog x ledger x runs x outputs, one step per source, in the Argo UI like every other run.

Where a place is named for it, the report on freshness is one step more.

The CronWorkflow refers to a WorkflowTemplate, because nothing else is run in our namespace. An audit repairs
nothing: a step with gaps fails, and its log says what closes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from hera.workflows import DAG, Container, CronWorkflow, Parameter, Resources, Task, WorkflowTemplate
from hera.workflows import models as m

from stac_watch.cluster.manifests.convert import DEADLINE, KEEP_FAILURE, restrict
from stac_watch.cluster.manifests.settings import (
    AUDIT,
    CONFIG_FILE,
    CONFIG_FOLDER,
    POLLER,
    S3_MOUNT,
    S3_VOLUME,
    STATE_FOLDER,
    TMP,
    Object,
    Settings,
    container_security,
    labels,
    pod_security,
    s3_environment,
)
from stac_watch.runs.workflow import INSTANCE_LABEL

START, END = "30d", "1d"  # before now; the last day is still on its way
DAYS = 30  # of the report
AUDIT_STEP, REPORT_STEP = "audit", "report"  # the verbs that they run


def audit_template(settings: Settings) -> Object:
    """Returns the WorkflowTemplate."""
    with WorkflowTemplate(
        name=AUDIT,
        namespace=settings.namespace,
        labels=labels(AUDIT),
        entrypoint="main",
        service_account_name=AUDIT,
        active_deadline_seconds=DEADLINE,
        pod_gc=m.PodGC(strategy="OnWorkflowSuccess"),
        pod_metadata=m.Metadata(labels=labels(AUDIT)),
        security_context=m.PodSecurityContext.model_validate(pod_security()),
        ttl_strategy=m.TTLStrategy(seconds_after_completion=KEEP_FAILURE),
        affinity=m.Affinity.model_validate({"podAffinity": beside_poller()}),
        volumes=_volumes(settings),
        workflow_metadata=m.WorkflowMetadata(
            annotations={
                "workflows.argoproj.io/title": "Nightly audit",
                "workflows.argoproj.io/description": "A failed step has gaps: its log lists them, and what closes them.",
            },
        ),
    ) as template:
        look = _look(settings)
        with DAG(name="main", fail_fast=False):
            for source in settings.sources:
                Task(name=source, template=look, arguments={"source": source})
            if settings.report:
                Task(name="freshness_report", template=_publish(settings))
    document: Object = template.to_dict()
    return document


def _volumes(settings: Settings) -> list[m.Volume]:
    volumes = [
        m.Volume(name="config", config_map=m.ConfigMapVolumeSource(name=POLLER)),
        m.Volume(name="state", persistent_volume_claim=m.PersistentVolumeClaimVolumeSource(claim_name=POLLER)),
        m.Volume(name="tmp", empty_dir=m.EmptyDirVolumeSource()),
    ]
    return [*volumes, m.Volume.model_validate(S3_VOLUME)] if settings.report else volumes


def _look(settings: Settings) -> Container:
    source = Parameter(name="source")
    return _container(settings, AUDIT_STEP, ["{{inputs.parameters.source}}", f"--start={START}", f"--end={END}"], inputs=[source])


def _publish(settings: Settings) -> Container:
    """Returns the step that publishes what was announced, what was available when, and what is missing."""
    env = [m.EnvVar.model_validate(each) for each in s3_environment()]
    return _container(
        settings, REPORT_STEP, [f"--days={DAYS}", f"--out={settings.report}"], [m.VolumeMount.model_validate(S3_MOUNT)], env
    )


def _container(
    settings: Settings,
    verb: str,
    args: list[str],
    mounts: Sequence[m.VolumeMount] = (),
    env: Sequence[m.EnvVar] = (),
    inputs: list[Parameter] | None = None,
) -> Container:
    environment = {"HOME": TMP, "STAC_WATCH__ENGINE__NAMESPACE": "{{workflow.namespace}}"}
    return Container(
        name=verb,
        image=settings.poller_image,
        image_pull_policy="IfNotPresent",
        command=["stac-watch"],
        args=[verb, *args, f"--config={CONFIG_FOLDER}/{CONFIG_FILE}"],
        env=[*(m.EnvVar(name=name, value=value) for name, value in environment.items()), *env],
        inputs=inputs,
        resources=Resources(cpu_request="50m", memory_request="128Mi", memory_limit="512Mi"),
        security_context=m.SecurityContext.model_validate(container_security()),
        volume_mounts=[
            m.VolumeMount(name="config", mount_path=CONFIG_FOLDER, read_only=True),
            m.VolumeMount(name="state", mount_path=STATE_FOLDER),
            m.VolumeMount(name="tmp", mount_path=TMP),
            *mounts,
        ],
        pod_spec_patch=restrict("init", "wait"),
    )  # fmt: skip


def audit_schedule(settings: Settings) -> Object:
    """Returns the CronWorkflow that runs the audit at night."""
    document: Object = CronWorkflow(
        name=AUDIT,
        namespace=settings.namespace,
        labels=labels(AUDIT) | ({INSTANCE_LABEL: settings.instance_id} if settings.instance_id else {}),
        schedules=["17 3 * * *"],  # not on the hour, when everybody asks
        timezone="Etc/UTC",
        concurrency_policy="Forbid",
        starting_deadline_seconds=3600,
        successful_jobs_history_limit=3,
        failed_jobs_history_limit=7,
        workflow_template_ref=m.WorkflowTemplateRef(name=AUDIT),
    ).to_dict()
    return document


def beside_poller() -> Object:
    """Returns the affinity to the poller's node, where its SQLite volume is; production has neither."""
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app.kubernetes.io/name": POLLER}}, "topologyKey": "kubernetes.io/hostname"}
        ]
    }
