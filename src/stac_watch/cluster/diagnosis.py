"""What is right and wrong with an installation, judged from objects that were read. Pure.

`doctor` asks the cluster; here objects become findings, each with its remedy.

Sources: Argo Events 1.9.11, api/{eventbus,eventsource,sensor}_types (conditions); argo-events#3448 (200 for what is dropped, until
1.9.6); Kubernetes: ValidatingAdmissionPolicy is stable since 1.30, kubelet reports at most 50 images of a node.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from stac_watch.cluster.logs import waiting
from stac_watch.cluster.manifests.quantity import quantity
from stac_watch.runs.workflow import TEMPLATE, VOLUME

KUBERNETES = (1, 30)
WORKFLOWS, EVENTS = (4, 0), (1, 9, 6)
"""The oldest that are good enough: Workflows whose models our template is made of; Events that say no 200 to what they drop."""
ADVISED = (4, 0, 10)
"""Of Workflows. Before 4.0.6 two may hold one mutex after a restart of the controller; before 4.0.10 a Workflow that is ended while
it waits for one says Succeeded, and a lock's passing error fails a run. Ours survives each, with a run more than needed."""
OVERLAYS = frozenset(
    {
        "activeDeadlineSeconds", "affinity", "image", "imagePullPolicy", "imagePullSecrets", "nodeSelector", "parallelism",
        "priorityClassName", "resources", "storageClassName", "tolerations", "ttlStrategy",
    }
)  # fmt: skip
"""Fields of the template that are an installation's own: overlays set them."""
APPLY = "`kubectl apply -k deploy/overlays/production`"
APPLY_RUNS = "`kubectl apply -k workflows`"
"""What is missing comes with one of these; `stac-watch cluster manifests` writes both folders."""
_IMAGE_TROUBLE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")


class Verdict(StrEnum):
    """How one question was answered."""

    OK = "ok"
    WARN = "warn"  #: works, and will not always
    FAIL = "FAIL"
    UNKNOWN = "?"  #: could not be asked


@dataclass(frozen=True)
class Finding:
    """One answer, and what to do about it."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def kubernetes_version(document: Mapping[str, Any]) -> Finding:
    """Judges the API server's version."""
    text = str(document.get("gitVersion", ""))
    if (version := numbers(text)) and version < KUBERNETES:
        return Finding(
            "Kubernetes", Verdict.FAIL, text, f"upgrade to {_dotted(KUBERNETES)} or later: our admission policy needs it"
        )
    return Finding("Kubernetes", Verdict.OK, text)


def controller(
    check: str, program: str, oldest: tuple[int, ...], deployments: Sequence[Mapping[str, Any]], advised: tuple[int, ...] = ()
) -> Finding:
    """Judges one of Argo's controllers, found by its image."""
    for deployment in deployments:
        for container in deployment["spec"]["template"]["spec"].get("containers") or []:
            image = str(container.get("image", ""))
            if re.search(rf"(^|/){program}[:@]", image):
                return _running(check, image, oldest, deployment, advised)
    return Finding(check, Verdict.FAIL, f"no Deployment runs {program}", "install Argo from the manifests of its release")


def _running(check: str, image: str, oldest: tuple[int, ...], deployment: Mapping[str, Any], advised: tuple[int, ...]) -> Finding:
    metadata = deployment["metadata"]
    where = f"{image.rpartition('/')[2]} in {metadata['namespace']}"
    version = numbers(image.rpartition(":")[2])
    if version and version < oldest:
        return Finding(check, Verdict.FAIL, f"{where} is too old", f"upgrade to {_dotted(oldest)} or later")
    if not (deployment.get("status") or {}).get("availableReplicas"):
        command = f"kubectl -n {metadata['namespace']} describe deployment {metadata['name']}"
        return Finding(check, Verdict.FAIL, f"{where} does not run", f"`{command}` says why")
    if version and version < advised:
        return Finding(check, Verdict.WARN, f"{where} has faults of mutexes", f"upgrade to {_dotted(advised)} or later")
    return Finding(check, Verdict.OK, where)


def namespace(name: str, document: Mapping[str, Any] | None) -> Finding:
    """Judges the namespace and its Pod Security level."""
    if document is None:
        return Finding(
            "namespace",
            Verdict.FAIL,
            f"{name} does not exist",
            f"{APPLY} makes it, or name another: engine.namespace",
        )
    level = (document["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce", "")
    if level != "restricted":
        said = f"{name} enforces {level or 'no Pod Security level'}"
        command = f"kubectl label namespace {name} pod-security.kubernetes.io/enforce=restricted"
        return Finding("namespace", Verdict.WARN, said, f"ours runs under the strictest: `{command}`")
    return Finding("namespace", Verdict.OK, f"{name}, Pod Security restricted")


def template(ours: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> Finding:
    """Compares the installed WorkflowTemplate with the one that this release renders."""
    check = f"template {TEMPLATE}"
    if theirs is None:
        return Finding(check, Verdict.FAIL, "is not installed", APPLY_RUNS)
    found = list(differences(_comparable(ours["spec"]), _comparable(theirs["spec"])))
    own = sorted({path.rpartition(".")[2] for path in found if _is_own(path)})
    other = [path for path in found if not _is_own(path)]
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        said = f"is not this release's: differs at {', '.join(other[:3])}{more}"
        return Finding(check, Verdict.FAIL, said, f"{APPLY_RUNS}, and put what is yours into an overlay")
    return Finding(check, Verdict.OK, "is this release's" + (f", with its own {', '.join(own)}" if own else ""))


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401  # YAML trees
    """Yields the paths at which two documents differ; entries of lists that have names are compared by these and their order."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            yield from differences(ours.get(key), theirs.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(ours, list) and isinstance(theirs, list):
        names, others = _names(ours), _names(theirs)
        if None in (*names, *others):
            if ours != theirs:
                yield path
            return
        if names != others:
            yield f"{path} (names or order)"
        by_name = dict(zip(others, theirs, strict=True))
        for name, entry in zip(names, ours, strict=True):
            if name in by_name:
                yield from differences(entry, by_name[name], f"{path}[{name}]")
    elif ours != theirs:
        yield path


def _comparable(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a spec with the volume's manifest, a text, as the document that it is."""
    templates = []
    for entry in spec.get("templates") or []:
        text = (entry.get("resource") or {}).get("manifest")
        known = {**entry, "resource": {**entry["resource"], "manifest": _yaml(text)}} if text else entry
        templates.append(known)
    return {**spec, "templates": templates}


def _is_own(path: str) -> bool:
    return any(re.sub(r"\[.*", "", part) in OVERLAYS for part in re.split(r"\.(?![^\[]*\])", path))


def _names(entries: Sequence[Any]) -> list[str | None]:
    return [entry.get("name") if isinstance(entry, dict) else None for entry in entries]


def storage_class(spec: Mapping[str, Any]) -> str | None:
    """Returns the class that a template's volumes ask for; empty = the cluster's default, None = its runs have none."""
    for entry in spec.get("templates") or []:
        if entry.get("name") == VOLUME:
            manifest = _yaml((entry.get("resource") or {}).get("manifest", ""))
            return str((manifest.get("spec") or {}).get("storageClassName") or "")
    return None


def storage(wanted: Mapping[str, str], classes: Sequence[Mapping[str, Any]]) -> Finding:
    """Judges whether volumes can be made; `wanted` is what each asks for, empty = the cluster's default."""
    names = sorted(str(c["metadata"]["name"]) for c in classes)
    missing = sorted(f"{name} in {who}" for who, name in wanted.items() if name and name not in names)
    if missing:
        return Finding("storage", Verdict.FAIL, f"no class is called {', '.join(missing)}; there are: {', '.join(names) or 'none'}",
                       "name one of these: `storageClasses` in the values")  # fmt: skip
    key = "storageclass.kubernetes.io/is-default-class"
    default = [c["metadata"]["name"] for c in classes if (c["metadata"].get("annotations") or {}).get(key) == "true"]
    if not default and not all(wanted.values()):
        return Finding("storage", Verdict.FAIL, "no storage class is the default, and not every volume names one",
                       f"annotate one with {key}=true, or set `storageClasses` in the values")  # fmt: skip
    named = sorted({name for name in wanted.values() if name})
    return Finding(
        "storage", Verdict.OK, ", ".join([*named, *([f"{default[0]}, the default"] if not all(wanted.values()) else [])])
    )


def named_secrets(pods: Sequence[Mapping[str, Any]], event_source: Mapping[str, Any] | None) -> dict[str, bool]:
    """Returns the Secrets that installed objects name -> whether they must be there.

    Args:
        pods: pod specs: the poller's, the template's.
        event_source: the EventSource, when it is installed.
    """
    found: dict[str, bool] = {}

    def note(name: str | None, *, optional: bool) -> None:
        if name:
            found[name] = found.get(name, False) or not optional

    for spec in pods:
        for volume in spec.get("volumes") or []:
            secret = volume.get("secret") or {}
            note(secret.get("secretName"), optional=bool(secret.get("optional")))
        for container in spec.get("containers") or []:
            for variable in container.get("env") or []:
                reference = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
                note(reference.get("name"), optional=bool(reference.get("optional")))
        for entry in spec.get("imagePullSecrets") or []:
            note(entry.get("name"), optional=False)
    for hook in ((event_source or {}).get("spec", {}).get("webhook") or {}).values():
        note((hook.get("authSecret") or {}).get("name"), optional=False)
    return found


def conditions(check: str, document: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]], command: str) -> Finding:
    """Judges an EventBus, EventSource or Sensor by its conditions and its pods."""
    if document is None:
        return Finding(check, Verdict.FAIL, "is not installed", APPLY)
    known = (document.get("status") or {}).get("conditions") or []
    bad = [f"{c['type']}: {c.get('message') or c.get('reason') or c['status']}" for c in known if c.get("status") != "True"]
    if bad:
        return Finding(check, Verdict.FAIL, "; ".join(bad), f"`{command}` shows more")
    if not known:
        return Finding(check, Verdict.FAIL, "the controller of Argo Events has not looked at it", "see the line of Argo Events")
    ready = sum(is_ready(pod) for pod in pods)
    if not ready:
        why = next((w for w in map(waiting, pods) if w), "no pod is ready")
        return Finding(check, Verdict.FAIL, why, f"`{command}` shows more")
    return Finding(check, Verdict.OK, f"ready, {ready} of {len(pods)} pods")


def poller(deployment: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]], command: str) -> Finding:
    """Judges the poller's Deployment."""
    if deployment is None:
        return Finding("poller", Verdict.FAIL, "is not installed", APPLY)
    if (deployment.get("status") or {}).get("availableReplicas"):
        return Finding("poller", Verdict.OK, "ready")
    if (deployment.get("spec") or {}).get("replicas") == 0:
        return Finding("poller", Verdict.FAIL, "is scaled to 0", "`kubectl scale deployment stac-watch --replicas=1`")
    why = next((w for w in map(waiting, pods) if w), "not ready; /readyz says why")
    return Finding("poller", Verdict.FAIL, why, f"`{command}` shows more")


def image(name: str, nodes: Sequence[Mapping[str, Any]] | None, pods: Sequence[Mapping[str, Any]]) -> Finding:
    """Judges whether an image is on a node or can be pulled."""
    check = f"image {name}"
    for pod in pods:
        why = waiting(pod)
        status = pod.get("status") or {}
        containers = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
        if why.startswith(_IMAGE_TROUBLE) and any(same_image(name, str(c.get("image", ""))) for c in containers):
            return Finding(check, Verdict.FAIL, f"pod {pod['metadata']['name']}: {why}", _load_or_push(name))
    if nodes is None:
        return Finding(
            check, Verdict.UNKNOWN, "we may not list nodes", "a first run shows it: `stac-watch cluster submit STAC_URL`"
        )
    having = sum(any(same_image(name, n) for i in _images(node) for n in i.get("names") or []) for node in nodes)
    if having:
        return Finding(check, Verdict.OK, f"on {having} of {len(nodes)} nodes")
    if not registry(name):
        return Finding(check, Verdict.FAIL, "on no node, and its name has no registry to pull it from", _load_or_push(name))
    return Finding(check, Verdict.UNKNOWN, "seen on no node yet; it is pulled at first use", "a first run shows it")


def registry(name: str) -> str:
    """Returns the registry in an image's name; empty = none, which is Docker Hub's `library`."""
    first, slash, _ = name.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""


def same_image(wanted: str, known: str) -> bool:
    """Tells whether a node's name for an image is the wanted one; nodes add the default registry."""
    return known in (wanted, f"docker.io/{wanted}", f"docker.io/library/{wanted}", f"localhost/{wanted}")


def pending(claims: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> Finding:
    """Judges claims that wait for their volume; one that waits for its first pod is not late."""
    late = [str(c["metadata"]["name"]) for c in claims if (c.get("status") or {}).get("phase") == "Pending"]
    for event in events:
        about = event.get("involvedObject") or {}
        if about.get("kind") == "PersistentVolumeClaim" and about.get("name") in late and event.get("type") == "Warning":
            return Finding("volumes", Verdict.FAIL, f"{about['name']} waits: {event.get('message', '')}",
                           "`kubectl get storageclass`: is there a default, and has it room? "
                           "`storageClasses` in the values names another")  # fmt: skip
    return Finding("volumes", Verdict.OK, f"{len(claims)} of runs" + (f", {len(late)} just asked for" if late else ""))


def quota(documents: Sequence[Mapping[str, Any]]) -> Finding:
    """Judges quotas: what is used up stops the next run."""
    full = []
    for document in documents:
        status = document.get("status") or {}
        for name, hard in (status.get("hard") or {}).items():
            used = quantity(str((status.get("used") or {}).get(name, "0")))
            if used >= quantity(str(hard)) > 0:
                full.append(f"{name} ({hard})")
    if full:
        return Finding(
            "quota",
            Verdict.WARN,
            f"used up: {', '.join(sorted(full))}",
            "`stac-watch cluster clean --volumes`, or raise the ResourceQuota",
        )
    return Finding("quota", Verdict.OK, "none" if not documents else "not used up")


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Tells whether a pod is ready."""
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in (pod.get("status") or {}).get("conditions") or [])


def numbers(version: str) -> tuple[int, ...]:
    """Returns the numbers of `v1.34.4-gke.1` as (1, 34, 4); empty when it is no version."""
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(n) for n in match.groups() if n is not None) if match else ()


def _images(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((node.get("status") or {}).get("images") or [])


def _load_or_push(name: str) -> str:
    if registry(name):
        return "push it there; for a private registry name a pull secret: `images.pullSecrets` in the values"
    return "load it into the nodes, or push it to a registry and name it there: `images` in the values"


def _yaml(text: str) -> dict[str, Any]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        return {"text": text}
    return document if isinstance(document, dict) else {"text": text}


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
