"""A server that answers like a Kubernetes API (1.34): objects as values, selectors, pages, owners, logs, exec, access reviews.

It holds what engine and verbs rely on: what a DELETE takes with it, what a precondition refuses, that metadata alone can be listed.
It writes down what it was asked for; faults are fields. One for all tests and benchmarks.
"""

import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import kubernetes
import loopback
import yaml

from fakes import workflows
from fakes.exec import Exec
from fakes.selectors import holds, parse

NAMESPACE = "geozarr"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
ARGO = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}"
WORKFLOWS = f"{ARGO}/workflows"
KINDS = {
    "pods",
    "persistentvolumeclaims",
    "events",
    "resourcequotas",
    "leases",
    "nodes",
    "deployments",
    "endpointslices",
    "networkpolicies",
    "storageclasses",
    "workflows",
}  # listed


@dataclass(frozen=True)
class Asked:
    """One request, and how many bytes its answer had."""

    kind: str  # list, get, create, patch, delete, exec
    path: str
    query: dict
    accept: str
    bytes: int = 0


@dataclass
class Api:
    """What the server holds, and how it misbehaves."""

    objects: dict = field(default_factory=dict)  # path -> object
    volume: Path | None = None  # stands for every claim's content
    logs: dict = field(default_factory=dict)  # pod -> text
    answers: dict = field(default_factory=dict)  # method -> (status, message) instead of doing it
    refused: set = field(default_factory=set)  # (verb, resource with /subresource) that a review says no to
    forbidden: tuple = ()  # ends of paths that are answered with 403
    page: int = 500  # objects of a list that come at once, at most
    pod_waits: dict | None = None  # state.waiting of every new pod
    policy: bool = True  # our admission policy holds: a Workflow brings no pod of its own
    requests_quota: bool = False  # a ResourceQuota counts requests, so every container must say what it asks for
    environ: dict | None = None  # of what runs in a container; None = of the tests themselves
    cuts: list = field(default_factory=list)  # bytes after which the next transfers break off
    pace: threading.Event | None = None  # with it, a transfer stops after its first block until it is set
    sent: list = field(default_factory=list)  # (program's arguments, bytes of stdout)
    asked: list = field(default_factory=list)  # one `Asked` for each request, once it was answered
    deleted: list = field(default_factory=list)
    created: list = field(default_factory=list)
    url: str = ""
    number: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    _by_key: dict = field(default_factory=dict)  # a conversion's key -> paths: a scan would be measured with the client
    _encoded: dict = field(default_factory=dict)  # path -> (metadata, object) as JSON, of what nobody changes in place

    def judged(self, pod):
        """What admission says of what it does not take, as the quota's evaluator and the policy of Kubernetes 1.34 say it."""
        if pod.get("kind") == "Workflow":
            forbidden = "workflows \"gz\" is forbidden: ValidatingAdmissionPolicy 'stac-watch-geozarr' denied request"
            return forbidden if self.policy and "templates" in pod["spec"] else ""
        containers = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
        silent = [c["name"] for c in containers if "cpu" not in c.get("resources", {}).get("requests", {})]
        if self.requests_quota and silent:
            return f'pods "gz" is forbidden: failed quota: geozarr: must specify requests.cpu for: {",".join(silent)}'
        return ""

    def add(self, path, document):
        with self.lock:
            self.number += 1
            document = copy.deepcopy(document)
            metadata = document["metadata"]
            metadata.setdefault("name", f"{metadata.get('generateName', '')}{self.number:05}")
            metadata.setdefault("namespace", NAMESPACE)
            metadata.setdefault("uid", f"uid-{self.number}")
            metadata.setdefault("creationTimestamp", f"2025-09-01T00:{self.number // 60:02}:{self.number % 60:02}Z")
            metadata["resourceVersion"] = str(self.number)
            return self._kept(f"{path}/{metadata['name']}", document)

    def _kept(self, path, document):
        self._encoded.pop(path, None)
        key = (document["metadata"].get("labels") or {}).get(workflows.KEY)
        if key is not None:
            self._by_key.setdefault(key, set()).add(path)
        self.objects[path] = document
        return document

    def remove(self, path):
        with self.lock:
            document = self.objects.pop(path)
            self._encoded.pop(path, None)
            self.deleted.append(path.removeprefix(CORE).removeprefix(ARGO))
            uid = document["metadata"]["uid"]
            for other, owned in list(self.objects.items()):
                if other in self.objects and any(o["uid"] == uid for o in owned["metadata"].get("ownerReferences") or []):
                    self.remove(other)

    def select(self, folder, selector):
        """Returns the paths of the objects of a folder that a label selector finds, in one order."""
        terms = parse(selector)
        keys = next((values for label, says, values in terms if (label, says) == (workflows.KEY, "in")), None)
        paths = self.objects if keys is None else {path for key in keys for path in self._by_key.get(key, ())}
        return sorted(p for p in paths if p.rpartition("/")[0] == folder and p in self.objects and holds(terms, self.objects[p]))

    def encoded(self, path, *, metadata_only=False):
        if path in self._encoded:
            return self._encoded[path][0 if metadata_only else 1]
        document = self.objects[path]
        return json.dumps({"metadata": document["metadata"]} if metadata_only else document).encode()

    def count(self):
        """Returns requests by kind, and all bytes; and forgets them."""
        asked, self.asked = self.asked, []
        return {kind: sum(a.kind == kind for a in asked) for kind in ("list", "get", "create")} | {
            "bytes": sum(a.bytes for a in asked)
        }

    def refuse_all(self, status, message="as the test wants it"):
        self.answers = dict.fromkeys(("GET", "POST", "PATCH", "DELETE"), (status, message))

    # -- what the tests put there ----------------------------------------------------------------------------------------------

    @property
    def workflows(self):
        """Every Workflow, by name."""
        return {path.rpartition("/")[2]: found for path, found in self.objects.items() if path.startswith(f"{WORKFLOWS}/")}

    def put(self, name, *, key="", attempt=1, status=None, spec=None):
        """Creates or replaces a Workflow; `status` as Argo would write it. It is never changed in place."""
        path = f"{WORKFLOWS}/{name}"
        with self.lock:
            self.number += 1
            old = self.objects.get(path)
            labels = dict(old["metadata"]["labels"]) if old else {}
            if key:
                labels |= {workflows.KEY: key, workflows.ATTEMPT: str(attempt)}
            if (status or {}).get("phase") in workflows.OVER:
                labels[workflows.COMPLETED] = "true"
            metadata = {
                "name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "resourceVersion": str(self.number),
                "creationTimestamp": "2025-09-01T00:00:00Z", "labels": labels, "managedFields": workflows.MANAGED,
            }  # fmt: skip
            if old and "annotations" in old["metadata"]:
                metadata["annotations"] = dict(old["metadata"]["annotations"])
            workflow = {"metadata": metadata, "spec": spec or (old or {}).get("spec", {}), "status": status or {}}
            self._kept(path, workflow)
            self._encoded[path] = (json.dumps({"metadata": metadata}).encode(), json.dumps(workflow).encode())

    def run(self, name, *, phase="Succeeded", output="/data/o.zarr", outcome=None, finished="2025-09-01T01:00:00Z", **parameters):
        """A Workflow of ours as Argo leaves it."""
        nodes, labels = {}, dict(workflows.LABELS)
        if phase in workflows.OVER:
            labels[workflows.COMPLETED] = "true"
        status = {"phase": phase, "startedAt": "2025-09-01T00:59:00Z", "storedWorkflowTemplateSpec": workflows.template()["spec"]}
        if phase not in ("Running", "Pending"):
            status["finishedAt"] = finished
        for second, step in enumerate(("preflight", "convert")):
            nodes[f"{name}-{step}"] = {
                "type": "Pod", "templateName": step, "name": f"{name}.{step}(0)", "startedAt": f"2025-09-01T00:59:0{second}Z",
                "phase": phase if step == "convert" else "Succeeded",
                "finishedAt": status.get("finishedAt"), "progress": "0/1",
            }  # fmt: skip
        if outcome is not None:
            nodes[f"{name}-convert"]["outputs"] = {
                "exitCode": str(outcome["code"]), "parameters": [{"name": "outcome", "value": json.dumps(outcome)}],
            }  # fmt: skip
        given = {
            "stac_url": f"https://stac.example/items/{workflows.ITEM}",
            "output_zarr": output,
            "item_id": workflows.ITEM,
            **parameters,
        }
        spec = {"arguments": {"parameters": [{"name": k, "value": v} for k, v in given.items()]}}
        return self.add(
            f"{ARGO}/workflows", {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {**status, "nodes": nodes}}
        )

    def claim(self, name, owner=None, labels=None):
        """A run's volume."""
        metadata = {"name": name, "labels": workflows.LABELS if labels is None else labels}
        if owner is not None:
            metadata["ownerReferences"] = [{"kind": "Workflow", "name": name, "uid": owner["metadata"]["uid"]}]
        spec = {"resources": {"requests": {"storage": "1Gi"}}}
        return self.add(f"{CORE}/persistentvolumeclaims", {"metadata": metadata, "spec": spec, "status": {"phase": "Bound"}})

    def pod(self, name, *, labels=None, phase="Running", annotations=None, claim=None, state=None):
        """A pod, ready when it runs."""
        spec = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]} if claim else {}
        states = {
            "Running": {"running": {}},
            "Succeeded": {"terminated": {}},
            "Failed": {"terminated": {}},
            "Pending": {"waiting": {}},
        }
        status = {
            "phase": phase, "conditions": [{"type": "Ready", "status": str(phase == "Running")}],
            "containerStatuses": [{"name": "main", "image": "geozarr-runner:0.1.0", "state": state or states[phase]}],
        }  # fmt: skip
        metadata = {"name": name, "labels": labels or {}, "annotations": annotations or {}}
        return self.add(f"{CORE}/pods", {"metadata": metadata, "spec": spec, "status": status})

    def names(self, kind):
        return sorted(path.rpartition("/")[2] for path in self.objects if path.rpartition("/")[0].endswith(f"/{kind}"))


class Handler(Exec, BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.begin("get")
        if path is None:
            return None
        if path.endswith("/exec"):
            return self.exec(path, self.pairs)
        if path.endswith("/log"):
            name = path.split("/")[-2]
            return self.answer(200, self.api.logs[name]) if name in self.api.logs else self.answer(400, {"message": "no log"})
        if path in self.api.objects:
            return self.answer(200, self.api.encoded(path))
        if path.rpartition("/")[2] in KINDS:
            return self.list(path)
        kind, name = path.split("/")[-2:]
        return self.answer(404, {"message": f'{kind} "{name}" not found'})

    def list(self, path):
        self.kind, query = "list", dict(self.pairs)
        metadata_only = "PartialObjectMetadataList" in self.headers["Accept"]
        with self.api.lock:
            found, start = self.api.select(path, query.get("labelSelector", "")), int(query.get("continue", 0))
            end = start + min(self.api.page, int(query.get("limit", 500)))
            items = b",".join(self.api.encoded(one, metadata_only=metadata_only) for one in found[start:end])
        metadata = {"continue": str(end)} if end < len(found) else {}
        entries = b"[%s]" % items if items else b"null"  # null, as the real one says it
        return self.answer(200, b'{"metadata":%s,"items":%s}' % (json.dumps(metadata).encode(), entries))

    def do_POST(self):
        document = self.body()
        path = self.begin("create")
        if path is None:
            return None
        if path.endswith("selfsubjectaccessreviews"):
            about = document["spec"]["resourceAttributes"]
            what = f"{about['resource']}/{about['subresource']}" if about["subresource"] else about["resource"]
            return self.answer(201, {"status": {"allowed": (about["verb"], what) not in self.api.refused}})
        name, kind = document["metadata"].get("name"), path.rpartition("/")[2]
        if dict(self.pairs).get("dryRun") == "All":
            said = self.api.judged(document)
            return self.answer(403, {"message": said}) if said else self.answer(201, document)
        if f"{path}/{name}" in self.api.objects:
            return self.answer(409, {"message": f'{kind} "{name}" already exists'})
        if kind == "pods":
            waits = self.api.pod_waits
            state = {"waiting": waits} if waits else {"running": {}}
            phase = "Pending" if waits else "Running"
            document["status"] = {"phase": phase, "containerStatuses": [{"name": "main", "state": state}]}
        made = self.api.add(path, document)
        self.api.created.append(made)
        return self.answer(201, made)

    def do_PATCH(self):
        changes = self.body()
        path = self.begin("patch")
        if path is None:
            return None
        with self.api.lock:
            document = self.api.objects.get(path)
            if document is None:
                return self.answer(404, {"message": "not found"})
            wanted = changes.get("metadata", {}).pop("resourceVersion", None)
            if wanted is not None and wanted != document["metadata"]["resourceVersion"]:
                return self.answer(409, {"message": "it changed"})
            merge(document, changes)
            self.api.number += 1
            document["metadata"]["resourceVersion"] = str(self.api.number)
            self.api._kept(path, document)
            return self.answer(200, document)

    def do_DELETE(self):
        options = self.body()
        path = self.begin("delete")
        if path is None:
            return None
        with self.api.lock:
            if path not in self.api.objects:
                return self.answer(404, {"message": "not found"})
            uid = (options.get("preconditions") or {}).get("uid")
            if uid not in (None, self.api.objects[path]["metadata"]["uid"]):
                return self.answer(409, {"message": "another uid"})
            self.api.remove(path)
        return self.answer(200, {"status": "Success"})

    def begin(self, kind):
        """Returns the path that is asked for, None when it was answered: with the fault that the test wants, or a 403."""
        url = urlsplit(self.path)
        path, self.pairs, self.kind = unquote(url.path), parse_qsl(url.query), kind
        if self.command in self.api.answers:
            status, message = self.api.answers[self.command]
            return self.answer(status, {"message": message})
        if any(path.endswith(end) for end in self.api.forbidden):
            return self.answer(403, {"message": f"forbidden: {path}"})
        return path

    def body(self):
        size = int(self.headers["Content-Length"] or 0)
        return json.loads(self.rfile.read(size)) if size else {}

    def answer(self, status, content):
        body = (
            content
            if isinstance(content, bytes)
            else content.encode()
            if isinstance(content, str)
            else json.dumps(content).encode()
        )
        url = urlsplit(self.path)
        self.api.asked.append(Asked(self.kind, unquote(url.path), dict(self.pairs), self.headers["Accept"], len(body)))
        reply(self, status, body)

    def log_message(self, *_):
        pass


def reply(handler, status, body, **headers):
    """Sends an answer in one packet: two would wait for each other (Nagle, delayed ACK), 40 ms each time."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler._headers_buffer.append(b"\r\n" + body)
    handler.flush_headers()


def merge(document, changes):
    for key, value in changes.items():
        if value is None:
            document.pop(key, None)
        elif isinstance(value, dict):
            merge(document.setdefault(key, {}), value)
        else:
            document[key] = value


@contextmanager
def serving(api: Api) -> Iterator[str]:
    """Serves it on loopback, and yields the URL."""
    with loopback.serving(type("Bound", (Handler,), {"api": api})) as api.url:
        yield api.url


def client(url: str) -> kubernetes.client.ApiClient:
    """The client library, as it asks nothing twice."""
    made = kubernetes.client.ApiClient(kubernetes.client.Configuration(host=url))
    made.configuration.retries = False
    return made


def write_kubeconfig(path: Path, url: str) -> Path:
    """Writes what a person's shell has: a kubeconfig that names the server."""
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": url}}], "users": [{"name": "u", "user": {"token": "t"}}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    return path
