"""The nightly audit, in Hera: catalog x ledger x runs x outputs, one step per source, in the Argo UI like every other run.

The CronWorkflow refers to a WorkflowTemplate, because nothing else is run in our namespace. An audit repairs
nothing: a step with gaps fails, and its log says what closes them.
"""

from __future__ import annotations

from hera.workflows import DAG, Container, CronWorkflow, Parameter, Resources, Task, WorkflowTemplate
from hera.workflows import models as m

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
    pod_security,
)
from stac_watch.runs.workflow import INSTANCE_LABEL

START, END = "30d", "1d"  # before now; the last day is still on its way


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
        volumes=[
            m.Volume(name="config", config_map=m.ConfigMapVolumeSource(name=POLLER)),
            m.Volume(name="state", persistent_volume_claim=m.PersistentVolumeClaimVolumeSource(claim_name=POLLER)),
            m.Volume(name="tmp", empty_dir=m.EmptyDirVolumeSource()),
        ],
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
    document: Object = template.to_dict()
    return document


def _look(settings: Settings) -> Container:
    environment = {"HOME": TMP, "STAC_WATCH__ENGINE__NAMESPACE": "{{workflow.namespace}}"}
    return Container(
        name="audit",
        image=settings.poller_image,
        image_pull_policy="IfNotPresent",
        command=["stac-watch"],
        args=[
            "audit", "{{inputs.parameters.source}}", f"--start={START}", f"--end={END}", f"--config={CONFIG_FOLDER}/{CONFIG_FILE}",
        ],
        env=[m.EnvVar(name=name, value=value) for name, value in environment.items()],
        inputs=[Parameter(name="source")],
        resources=Resources(cpu_request="50m", memory_request="128Mi", memory_limit="512Mi"),
        security_context=m.SecurityContext.model_validate(container_security()),
        volume_mounts=[
            m.VolumeMount(name="config", mount_path=CONFIG_FOLDER, read_only=True),
            m.VolumeMount(name="state", mount_path=STATE_FOLDER),
            m.VolumeMount(name="tmp", mount_path=TMP),
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
