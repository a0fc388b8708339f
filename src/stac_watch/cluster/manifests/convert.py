"""The WorkflowTemplate `geozarr-convert`, in Hera: one conversion as preflight -> volume -> convert, or in one pod.

No step runs a shell, and a value of an event stands nowhere but in an argument of a container.

Few steps, because each costs about 10 s on a default controller. No `containerSet`: it turns every exit code into 64, and the retry
rule never sees 75.
Sources: Argo Workflows 4.0.5, docs/{retries,fields,workflow-pod-security-context}.md; Hera 7.1.0 (models of that version).
"""

from __future__ import annotations

from hera.workflows import DAG, Container, Parameter, RetryStrategy, Task, WorkflowTemplate
from hera.workflows import models as m

from stac_watch.cluster.manifests import pods, volumes
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
from stac_watch.runs.workflow import CONVERT, ON_SCRATCH, OUTCOME, PARAMETERS, PREFLIGHT, RELEASE, SIZE, TEMPLATE, VOLUME
from stac_watch.runs.workflow import Parameter as Wanted

RETRY_EXIT_CODES = (int(Exit.TEMPORARY), 137, int(Exit.TERMINATED))
"""Temporary; killed (memory, node); terminated (eviction). Everything else would fail the same way again."""
DEADLINE = 6 * 3600  # seconds; a full tile takes minutes, a throttled source hours
KEEP_FAILURE = 14 * 86400  # seconds; the reconciler reads outcomes for as long as a run exists
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105  # where client-go looks, and no secret
LAST_WORDS = "/dev/termination-log"  # Kubernetes' own: what is in it at the end, Argo shows behind the exit code
SIZE_FILE, OUTCOME_FILE = f"{TMP}/size", f"{TMP}/outcome.json"
_P = "{{{{workflow.parameters.{}}}}}".format


def convert_template(settings: Settings) -> Object:
    """Returns the WorkflowTemplate `geozarr-convert`."""
    with WorkflowTemplate(
        name=TEMPLATE,
        entrypoint=volumes.MAIN,
        service_account_name=RUN,
        arguments=[_argument(p, settings) for p in PARAMETERS],
        active_deadline_seconds=DEADLINE,
        # the controller keeps the delay in memory: pods that wait for it when it is restarted are never removed, and hold their
        # claims. With two minutes, claims of ended runs filled the quota in an hour of faults
        pod_gc=m.PodGC(strategy="OnWorkflowSuccess", delete_delay_duration="5s"),
        # two attempts for one object store name must not meet; a name on a volume is the run's own
        synchronization=m.Synchronization(mutexes=[m.Mutex(name=_either(volumes.TO_STORE, "workflow.parameters.output_zarr"))]),
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
        volume = volumes.volume_step()
        convert = _convert(CONVERT)
        on_scratch = _convert(ON_SCRATCH, f"--scratch={settings.values.runs.scratch}")
        size = {SIZE: f"{{{{tasks.{PREFLIGHT}.outputs.parameters.{SIZE}}}}}"}
        with DAG(name=volumes.MAIN):
            Task(name=PREFLIGHT, template=preflight)
            # what was skipped has no size: nothing follows from it
            Task(name=VOLUME, template=volume, arguments=size, depends=f"{PREFLIGHT}.Succeeded")
            Task(name=CONVERT, template=convert, depends=VOLUME)
            Task(name=ON_SCRATCH, template=on_scratch)
        release = volumes.release_step()
        with DAG(name=volumes.END):
            Task(name=RELEASE, template=release, when=volumes.DONE_WITH, continue_on=m.ContinueOn(error=True, failed=True))
    document: Object = template.to_dict()
    return _told(document, settings)


def _told(document: Object, settings: Settings) -> Object:
    """Returns the template with what differs between installations, which Hera's models know no holes for."""
    values = settings.values
    about = {
        "workflows.argoproj.io/title": "Sentinel-2 Zarr to GeoZarr",
        "workflows.argoproj.io/description": "Converts one product, on a volume of its own or in one pod.",
        # not beside each parameter: Argo copies the template's spec into every Workflow, and etcd keeps those for days
        "stac-watch/parameters": "".join(f"{parameter.name}: {parameter.description}\n" for parameter in PARAMETERS),
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
    for name, resources in ((PREFLIGHT, values.runs.preflight), (CONVERT, values.runs.convert), (ON_SCRATCH, values.runs.convert)):
        steps[name]["container"] |= _container(settings, resources, data=name != PREFLIGHT)
        room = values.runs.scratch if name == ON_SCRATCH else ""
        steps[name]["podSpecPatch"] = restrict(settings, "init", "wait", without_token=True, room=room)
    for name in (VOLUME, RELEASE):
        steps[name]["podSpecPatch"] = restrict(settings, "init", "main")
    steps[VOLUME]["resource"]["manifest"] = volumes.claim(settings.runs_class)
    steps[ON_SCRATCH]["volumes"] = [volumes.on_node(settings)]
    spec["templates"] = volumes.chosen(steps, settings)
    document["spec"] = {**spec, **given({"onExit": volumes.END}, volumes.releases(settings))}
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


def _argument(parameter: Wanted, settings: Settings) -> Parameter:
    value = settings.allowed_hosts if parameter.name == "allowed_hosts" else parameter.default
    argument = Parameter(name=parameter.name, enum=list(parameter.enum) or None)
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


def _convert(name: str, *more: str) -> Container:
    args = [CONVERT, *_flags(f"--outcome={OUTCOME_FILE}", f"--work={DATA}/.geozarr-runner", *more)]
    return _runner(name, args=args, outputs=[_outcome()], data=True)


def _runner(name: str, *, args: list[str], outputs: list[Parameter], data: bool = False) -> Container:
    claimed = m.PersistentVolumeClaimVolumeSource(claim_name="{{workflow.name}}")
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
        volumes=[m.Volume(name="data", persistent_volume_claim=claimed)] if name == CONVERT else None,
        working_dir=DATA if data else TMP,
    )


def retry_expression() -> str:
    """Returns when an attempt is followed by another: its exit code says so, or Kubernetes took the pod away (status Error)."""
    codes = ",".join(f"'{code}'" for code in RETRY_EXIT_CODES)
    return f"lastRetry.exitCode in [{codes}] || lastRetry.status == 'Error'"


def _outcome() -> Parameter:
    return Parameter(name=OUTCOME, value_from=m.ValueFrom(path=OUTCOME_FILE, default=""))


def restrict(settings: Settings, *names: str, without_token: bool = False, room: str = "") -> str:
    """Returns the patch that bounds Argo's own containers and puts them under the restricted profile; `wait` tells progress sooner.

    A patch must name only containers that the pod has: a resource step has no `wait`. `without_token` leaves the account's token to
    Argo's containers, short-lived as ever, and takes it from `main`, which reads what strangers wrote. Argo's own way to that end
    (`executor.serviceAccountName`) needs a Secret with a token that never expires (4.0.5, workflow/controller/workflowpod.go).
    `room` is asked of the node's disk for `main`: without it a node would take more pods than fit, and evict them later.
    """
    token = {"volumeMounts": [{"name": "argo-token", "mountPath": TOKEN_FOLDER, "readOnly": True}]} if without_token else {}
    containers: list[Object] = []
    for name in names:
        bounds = {"resources": settings.values.runs.executor, "securityContext": container_security(read_only=False)}
        patch: Object = {"name": name, **bounds, **token}
        if name == "wait":
            patch["env"] = [{"name": "ARGO_PROGRESS_PATCH_TICK_DURATION", "value": "10s"}]
        containers.append(patch)
    if room:
        containers.append({"name": "main", "resources": {"requests": {"ephemeral-storage": room}}})
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
