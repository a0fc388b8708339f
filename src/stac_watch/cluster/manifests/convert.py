"""The WorkflowTemplate `geozarr-convert`, in Hera: one conversion as preflight -> volume -> convert, and at its end -> release.

No step runs a shell, and a value of an event stands nowhere but in an argument of a container.

Few steps, because each costs about 10 s on a default controller. No `volumeClaimTemplates`: their size cannot be a parameter, and
Argo deletes them when the run succeeds. No `containerSet`: it turns every exit code into 64, and the retry rule never sees 75.
Sources: Argo Workflows 4.0.5, docs/{retries,fields,workflow-pod-security-context}.md; Hera 7.1.0 (models of that version).
"""

from __future__ import annotations

import yaml
from hera.workflows import (
    DAG,
    Container,
    Parameter,
    Resource,
    RetryStrategy,
    Task,
    WorkflowTemplate,
)
from hera.workflows import models as m

from stac_watch.cluster.manifests import pods
from stac_watch.cluster.manifests.settings import (
    RUN,
    TMP,
    Object,
    Settings,
    annotated,
    container_security,
    labels,
    meta,
    pod_security,
)
from stac_watch.cluster.manifests.tree import as_text, given, merged
from stac_watch.model.errors import Exit
from stac_watch.model.outcome import DATA
from stac_watch.runs.workflow import CONVERT, OUTCOME, PARAMETERS, PREFLIGHT, RELEASE, SIZE, TEMPLATE, VOLUME
from stac_watch.runs.workflow import Parameter as Wanted

RETRY_EXIT_CODES = (int(Exit.TEMPORARY), 137, int(Exit.TERMINATED))
"""Temporary; killed (memory, node); terminated (eviction). Everything else would fail the same way again."""
DEADLINE = 6 * 3600  # seconds; a full tile takes minutes, a throttled source hours
KEEP_FAILURE = 14 * 86400  # seconds; the reconciler reads outcomes for as long as a run exists
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105  # where client-go looks, and no secret
LAST_WORDS = "/dev/termination-log"  # Kubernetes' own: what is in it at the end, Argo shows behind the exit code
SIZE_FILE, OUTCOME_FILE = f"{TMP}/size", f"{TMP}/outcome.json"
_P = "{{{{workflow.parameters.{}}}}}".format
_DONE_WITH = "{{=workflow.status == 'Succeeded' && workflow.parameters.output_zarr contains '://'}}"


def convert_template(settings: Settings) -> Object:
    """Returns the WorkflowTemplate `geozarr-convert`."""
    with WorkflowTemplate(
        name=TEMPLATE,
        entrypoint="main",
        on_exit="end",
        service_account_name=RUN,
        arguments=[_argument(p, settings) for p in PARAMETERS],
        active_deadline_seconds=DEADLINE,
        pod_gc=m.PodGC(strategy="OnWorkflowSuccess", delete_delay_duration="120s"),
        # two attempts for one object store name must not meet; a name on a volume is the run's own
        synchronization=m.Synchronization(
            mutexes=[m.Mutex(name=_either("workflow.parameters.output_zarr contains '://'", "workflow.parameters.output_zarr"))]
        ),
        workflow_metadata=m.WorkflowMetadata(
            labels=labels(TEMPLATE),
            annotations={
                "workflows.argoproj.io/title": _either("workflow.parameters.title != ''", "workflow.parameters.title"),
                "workflows.argoproj.io/description": (
                    f"{_P('reason')} · {_P('lane')} · attempt {_P('attempt')} · {_P('item_id')} to {_P('output_zarr')}"
                ),
                "stac-watch/item": _P("item_href"),
                "stac-watch/item-address": _address("item_href"),
                "stac-watch/product": _P("stac_url"),
                "stac-watch/product-address": _address("stac_url"),
                "stac-watch/output": _P("output_zarr"),
            },
        ),
    ) as template:
        preflight = _preflight()
        volume = _volume()
        convert = _convert()
        size = {SIZE: f"{{{{tasks.{PREFLIGHT}.outputs.parameters.{SIZE}}}}}"}
        with DAG(name="main"):
            Task(name=PREFLIGHT, template=preflight)
            Task(name=VOLUME, template=volume, arguments=size, depends=PREFLIGHT)
            Task(name=CONVERT, template=convert, depends=VOLUME)
        release = _release()
        with DAG(name="end"):
            Task(name=RELEASE, template=release, when=_DONE_WITH, continue_on=m.ContinueOn(error=True, failed=True))
    document: Object = template.to_dict()
    return _told(document, settings)


def _told(document: Object, settings: Settings) -> Object:
    """Returns the template with what differs between installations, which Hera's models know no holes for."""
    values = settings.values
    about = {
        "workflows.argoproj.io/title": "Sentinel-2 Zarr to GeoZarr",
        "workflows.argoproj.io/description": "Converts one product on a volume of its own: preflight, volume, convert.",
    }
    document["metadata"] = annotated(meta(TEMPLATE, settings), merged(about, values.annotations))
    spec = document["spec"]
    spec |= {
        "podMetadata": pods.carried(labels(TEMPLATE), values.runs),
        "securityContext": pod_security(settings),
        "ttlStrategy": {"secondsAfterSuccess": settings.keep, "secondsAfterFailure": KEEP_FAILURE},
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
            *pods.store_volume(settings),
            *pods.volumes(settings, values.runs),
        ],
        **pods.place(settings, values.runs, priority="podPriorityClassName"),
        **pods.spread_patch(values.runs),
    }
    steps = {entry["name"]: entry for entry in spec["templates"]}
    for name, resources in ((PREFLIGHT, values.runs.preflight), (CONVERT, values.runs.convert)):
        steps[name]["container"] |= _container(settings, resources, data=name == CONVERT)
        steps[name]["podSpecPatch"] = restrict(settings, "init", "wait", without_token=True)
    for name in (VOLUME, RELEASE):
        steps[name]["podSpecPatch"] = restrict(settings, "init", "main")
    steps[VOLUME]["resource"]["manifest"] = claim(settings.runs_class)
    return document


def _container(settings: Settings, resources: Object, *, data: bool) -> Object:
    """Returns what a container of the runner has beside its arguments."""
    return {
        "image": settings.runner_image,
        "imagePullPolicy": settings.values.images.pull_policy,
        "env": [
            {"name": "HOME", "value": TMP},
            *pods.store_environment(settings),
            *pods.environment(settings, settings.values.runs),
        ],
        "resources": resources,
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": TMP},
            *pods.store_mount(settings),
            *([{"name": "data", "mountPath": DATA}] if data else []),
            *pods.mounts(settings, settings.values.runs),
        ],
    }


def claim(storage_class: str = "") -> str:
    """Returns the manifest of a run's volume: named like the run, as large as preflight says, gone with the Workflow."""
    chosen = given({"storageClassName": storage_class})
    manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "{{workflow.name}}", "labels": labels(TEMPLATE)},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            **chosen,
            "resources": {"requests": {"storage": f"{{{{inputs.parameters.{SIZE}}}}}"}},
        },
    }
    text: str = as_text(manifest, width=200)
    return text


def _argument(parameter: Wanted, settings: Settings) -> Parameter:
    value = settings.allowed_hosts if parameter.name == "allowed_hosts" else parameter.default
    argument = Parameter(name=parameter.name, description=parameter.description, enum=list(parameter.enum) or None)
    if value is not None:  # None would be taken for the text "null"
        argument.value = value
    return argument


def _address(parameter: str) -> str:
    """Returns an expression: a URL without its scheme, `//host/path`, for the links; see `poller.controller_config`."""
    return f"{{{{=trimPrefix(trimPrefix(workflow.parameters.{parameter}, 'https:'), 'http:')}}}}"


def _either(condition: str, value: str) -> str:
    """Returns an expression: the value where the condition holds, else the run's name."""
    return f"{{{{={condition} ? {value} : workflow.name}}}}"


def _flags(*more: str) -> list[str]:
    """Returns the runner's options; each value is one argument, so nothing of an event is ever parsed as an option."""
    given = [f"--{p.flag}={_P(p.name)}" for p in PARAMETERS if p.flag]
    return [*given, "--run={{workflow.name}}", f"--message-file={LAST_WORDS}", *more]


def _preflight() -> Container:
    return _runner(
        PREFLIGHT,
        args=[PREFLIGHT, *_flags(f"--outcome={OUTCOME_FILE}", f"--size-file={SIZE_FILE}")],
        outputs=[_outcome(), Parameter(name=SIZE, value_from=m.ValueFrom(path=SIZE_FILE))],
    )


def _convert() -> Container:
    args = [CONVERT, *_flags(f"--outcome={OUTCOME_FILE}", f"--work={DATA}/.geozarr-runner")]
    return _runner(CONVERT, args=args, outputs=[_outcome()], data=True)


def _runner(name: str, *, args: list[str], outputs: list[Parameter], data: bool = False) -> Container:
    volumes = []
    if data:
        source = m.PersistentVolumeClaimVolumeSource(claim_name="{{workflow.name}}")
        volumes.append(m.Volume(name="data", persistent_volume_claim=source))
    return Container(
        name=name,
        command=["geozarr-runner"],  # always given: without it the controller asks the image's registry
        args=args,
        outputs=outputs,
        retry_strategy=RetryStrategy(
            limit="3",
            expression=retry_expression(),
            backoff=m.Backoff(duration="10s", factor=3, cap="10m"),  # the first is waited before a permanent failure ends, too
        ),
        volumes=volumes or None,
        working_dir=DATA if data else TMP,
    )


def retry_expression() -> str:
    """Returns when an attempt is followed by another: its exit code says so, or Kubernetes took the pod away (status Error)."""
    codes = ",".join(f"'{code}'" for code in RETRY_EXIT_CODES)
    return f"lastRetry.exitCode in [{codes}] || lastRetry.status == 'Error'"


def _volume() -> Resource:
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


def _release() -> Resource:
    """Returns the step that gives the volume of a run back when the run has succeeded and its output is in an object store.

    Nothing of worth is on it then. Kept for the three days that the Workflow is kept, 11 GiB each, volumes were what ended first:
    62 runs a day in a quota of 2 TiB. Kubernetes takes a claim away only when the pods that mounted it are gone, too: two minutes
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


def _outcome() -> Parameter:
    return Parameter(name=OUTCOME, value_from=m.ValueFrom(path=OUTCOME_FILE, default=""))


def restrict(settings: Settings, *names: str, without_token: bool = False) -> str:
    """Returns the patch that bounds Argo's own containers and puts them under the restricted profile; `wait` tells progress sooner.

    A patch must name only containers that the pod has: a resource step has no `wait`. `without_token` leaves the account's token to
    Argo's containers, short-lived as ever, and takes it from `main`, which reads what strangers wrote. Argo's own way to that end
    (`executor.serviceAccountName`) needs a Secret with a token that never expires (4.0.5, workflow/controller/workflowpod.go).
    """
    token = {"volumeMounts": [{"name": "argo-token", "mountPath": TOKEN_FOLDER, "readOnly": True}]} if without_token else {}
    containers: list[Object] = []
    for name in names:
        bounds = {"resources": settings.values.runs.executor, "securityContext": container_security(read_only=False)}
        patch: Object = {"name": name, **bounds, **token}
        if name == "wait":
            patch["env"] = [{"name": "ARGO_PROGRESS_PATCH_TICK_DURATION", "value": "10s"}]
        containers.append(patch)
    init = [c for c in containers if c["name"] == "init"]
    pod: Object = {"initContainers": init, "containers": [c for c in containers if c not in init]}
    if without_token:
        pod |= {"automountServiceAccountToken": False, "volumes": [{"name": "argo-token", "projected": _token()}]}
    text: str = as_text(pod)
    return text


def _token() -> Object:
    """Returns what the API server's admission would mount into every container: token, CA and namespace."""
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    return {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ]
    }
