"""A run's volume, read from outside the cluster: a helper pod mounts it read-only, programs in it write to our connection.

Nothing is written to the volume, and the pod has neither a shell's command nor a token. It is deleted in the end, ends by itself
after some hours, and goes with its run.

Programs instead of a server in the pod: what goes through the kubelet works where NetworkPolicies deny everything.
Source: Kubernetes Pod Security Standards, profile "restricted".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from stac_watch.cluster.logs import waiting
from stac_watch.cluster.runs import NAME_LABEL, PART_LABEL, SYSTEM, is_ours, template_spec
from stac_watch.model.errors import InputError, StacWatchError, Temporary
from stac_watch.model.outcome import DATA
from stac_watch.runs.kubernetes_api import Cluster, Document
from stac_watch.runs.workflow import API_VERSION, CONVERT, ON_SCRATCH, TEMPLATE

FETCH = "stac-watch-fetch"
FETCH_SELECTOR = f"{NAME_LABEL}={FETCH},{PART_LABEL}={SYSTEM}"
LIFE = 4 * 3600  #: seconds after which the pod ends whatever happens to us
READY_WITHIN = 180  #: seconds; the image is on the node that made the volume, unless that is gone
PAUSE = 0.5
_CONTAINER = "main"
_HOPELESS = ("ErrImageNeverPull", "InvalidImageName", "ImagePullBackOff", "CreateContainerConfigError", "CreateContainerError")
_INHERITED = ("imagePullSecrets", "nodeSelector", "tolerations")  # what the run's pods needed to be scheduled

_MARKERS = """
import json, os, sys
found = []
for folder, folders, files in os.walk(sys.argv[1]):
    folders[:] = [f for f in folders if not f.startswith(".")]
    if sys.argv[2] in files:
        folders.clear()
        with open(os.path.join(folder, sys.argv[2])) as file:
            found.append(file.read())
print(json.dumps(found))
"""
_SUMS = """
import hashlib, json, os, sys
found = {}
for path in sys.argv[1:]:
    if os.path.isfile(path):
        with open(path, "rb") as file:
            found[path] = [os.path.getsize(path), hashlib.file_digest(file, "sha256").hexdigest()]
print(json.dumps(found))
"""
_SEND = """
import shutil, sys
with open(sys.argv[1], "rb") as file:
    file.seek(int(sys.argv[2]))
    shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
"""
_MEASURE = """
import json, sys
from pathlib import Path
from geozarr_runner.publish import checksums, package
from stac_watch.model.checksums import digest_of
store = Path(sys.argv[1])
print(json.dumps([*package.measured(store), digest_of(checksums.read(store, {}))]))
"""
_PACK = """
import sys
from pathlib import Path
from geozarr_runner.publish.package import send
send(Path(sys.argv[1]), sys.stdout.buffer, start=int(sys.argv[2]))
"""


@dataclass(frozen=True)
class Archive:
    """What an output's archive would be, and what the output is."""

    size: int  # bytes
    sha256: str
    content: str  # see `model.checksums.digest_of`


@dataclass(frozen=True)
class Volume:
    """A volume that can be read for as long as its helper pod runs."""

    cluster: Cluster
    pod: str

    def markers(self, name: str) -> list[str]:
        """Returns the content of every file of that name that lies in no other output and in no hidden folder."""
        found = json.loads(self._said(_MARKERS, DATA, name))
        return [str(text) for text in found]

    def sums(self, paths: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Returns bytes and SHA-256 of those files that are there."""
        found = json.loads(self._said(_SUMS, *paths)) if paths else {}
        return {path: (int(size), str(digest)) for path, (size, digest) in found.items()}

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        """Yields a file's bytes from an offset on.

        Raises:
            Temporary: the connection broke; what was yielded is good.
            InputError: the file cannot be read.
        """
        return self._run(_SEND, path, str(offset))

    def archive(self, output: str) -> Archive:
        """Returns what the archive of an output would be, which lies nowhere: all of it is read.

        Raises:
            InputError: the output cannot be read.
        """
        size, sha256, content = json.loads(self._said(_MEASURE, output))
        return Archive(int(size), str(sha256), str(content))

    def pack(self, output: str, offset: int) -> Iterator[bytes]:
        """Yields an output's archive from an offset on, packed on its way: the same bytes each time.

        Raises:
            Temporary | InputError: see `read`.
        """
        return self._run(_PACK, output, str(offset))

    def _said(self, program: str, *arguments: str) -> bytes:
        return b"".join(self._run(program, *arguments))

    def _run(self, program: str, *arguments: str) -> Iterator[bytes]:
        return self.cluster.output(self.pod, _CONTAINER, ["python3", "-c", program, *arguments])


@contextmanager
def opened(cluster: Cluster, run: str, workflow: Document | None, *, pod: str, wait: Callable[[float], bool]) -> Iterator[Volume]:
    """Yields a run's volume; the pod is removed however the block ends.

    Args:
        cluster: where it is.
        run: the run's name, which is its claim's.
        workflow: the run's Workflow, when it is still there.
        pod: the helper's name: chosen before it is made, so that it can be removed even if the answer is never read.
        wait: sleeps; True ends it.

    Raises:
        InputError: there is no claim of ours with that name, or the pod cannot be made.
        Temporary: the pod does not start.
    """
    claim = cluster.get(cluster.core("persistentvolumeclaims", run))
    if claim is None:
        raise InputError(f"run {run} has no volume (any more)", hint="`stac-watch cluster runs RUN` says where its output is")
    if not is_ours(claim):
        raise InputError(f"claim {run} is not one of {SYSTEM}", hint="it lacks the labels of a run's volume; nothing was touched")
    path = cluster.core("pods", pod)
    try:
        cluster.create(cluster.core("pods"), helper(pod, claim, workflow, _template(cluster, workflow)))
        _await(cluster, path, wait)
        yield Volume(cluster, pod)
    finally:
        with suppress(StacWatchError):  # the cluster is out of reach: the pod ends by itself, and goes with its run
            cluster.delete(path, grace=1)


def helper(name: str, claim: Document, workflow: Document | None, spec: Mapping[str, Any]) -> Document:
    """Returns the helper pod: as the run's own pods were, but read-only, small, and without a token."""
    owner = workflow or claim
    kind = {"apiVersion": API_VERSION, "kind": "Workflow"} if workflow else {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    restricted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {
        "name": _CONTAINER,
        "image": image_of(spec),
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", str(LIFE)],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "data", "mountPath": DATA, "readOnly": True}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {NAME_LABEL: FETCH, PART_LABEL: SYSTEM},
            "ownerReferences": [{**kind, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}],
        },
        "spec": {
            "activeDeadlineSeconds": LIFE,
            "automountServiceAccountToken": False,
            "containers": [container],
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "securityContext": {**restricted, **(spec.get("securityContext") or {})},
            "terminationGracePeriodSeconds": 1,
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"], "readOnly": True}},
            ],
            **{key: spec[key] for key in _INHERITED if spec.get(key)},
        },
    }


def image_of(spec: Mapping[str, Any]) -> str:
    """Returns the runner's image as a template names it.

    Raises:
        InputError: it has no such step.
    """
    for template in spec.get("templates") or []:
        if template.get("name") in (CONVERT, ON_SCRATCH) and (template.get("container") or {}).get("image"):
            return str(template["container"]["image"])
    raise InputError(f"the template {TEMPLATE} has no step {CONVERT!r}", hint="`kubectl apply -k workflows` installs ours")


def _template(cluster: Cluster, workflow: Document | None) -> Document:
    """Returns the template that the run was made of, else the one that is installed now."""
    stored = template_spec(workflow) if workflow else {}
    if stored:
        return stored
    template = cluster.get(cluster.argo("workflowtemplates", TEMPLATE))
    if template is None:
        raise InputError(f"the cluster has no WorkflowTemplate {TEMPLATE}", hint="`kubectl apply -k workflows` installs it")
    spec: Document = template["spec"]
    return spec


def _await(cluster: Cluster, path: str, wait: Callable[[float], bool]) -> None:
    why = ""
    for _ in range(int(READY_WITHIN / PAUSE)):
        pod = cluster.get(path)
        if pod is None:
            raise Temporary("the helper pod was removed before it started", hint="try again")
        phase = (pod.get("status") or {}).get("phase", "")
        if phase == "Running":
            return
        why = waiting(pod) or why
        if phase in ("Failed", "Succeeded") or why.startswith(_HOPELESS):
            break
        if wait(PAUSE):
            break
    raise Temporary(
        f"the helper pod does not start: {why or 'Kubernetes does not say why'}",
        hint="the image must be on the node, and the volume free to be mounted there: `kubectl describe pod` of it says which",
    )
