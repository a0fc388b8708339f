"""A server that answers like a Kubernetes API: objects as values, label selectors, owners, exec over a WebSocket.

It holds what the verbs rely on: what a DELETE takes with it, what a precondition refuses, that an `exec` really runs its program
(here, in the folder that stands for the volume), that its bytes arrive on channel 1 and its end on channel 3. Faults are fields.
"""

import base64
import contextlib
import copy
import hashlib
import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

ROOT = Path(__file__).parents[2]
NAMESPACE = "geozarr"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
ARGO = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}"
LABELS = {"app.kubernetes.io/name": "geozarr-convert", "app.kubernetes.io/part-of": "stac-watch"}
ITEM = "S2A_MSIL2A_20250831T103701_N0511_R008_T32TQM_20250831T140000"
STDOUT, STDERR, STATUS = 1, 2, 3
BLOCK = 32 * 1024  # what a kubelet sends in one frame


@dataclass
class Api:
    """What the server holds, and how it misbehaves."""

    objects: dict = field(default_factory=dict)  # path -> object
    volume: Path | None = None  # stands for every claim's content
    logs: dict = field(default_factory=dict)  # pod -> text
    refused: set = field(default_factory=set)  # (verb, resource with /subresource) that a review says no to
    forbidden: tuple = ()  # ends of paths that are answered with 403
    pod_waits: dict | None = None  # state.waiting of every new pod
    cuts: list = field(default_factory=list)  # bytes after which the next transfers break off
    pace: threading.Event | None = None  # with it, a transfer stops after its first block until it is set
    sent: list = field(default_factory=list)  # (program's arguments, bytes of stdout)
    asked: list = field(default_factory=list)  # (path, Accept) of each GET
    deleted: list = field(default_factory=list)
    created: list = field(default_factory=list)
    number: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

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
            self.objects[f"{path}/{metadata['name']}"] = document
            return document

    def remove(self, path):
        with self.lock:
            document = self.objects.pop(path)
            self.deleted.append(path.removeprefix(CORE).removeprefix(ARGO))
            uid = document["metadata"]["uid"]
            for other, owned in list(self.objects.items()):
                if other in self.objects and any(o["uid"] == uid for o in owned["metadata"].get("ownerReferences") or []):
                    self.remove(other)

    def select(self, path, selector):
        def holds(document):
            labels = document["metadata"].get("labels") or {}
            return all(labels.get(k) == v for k, _, v in (t.partition("=") for t in selector.split(",") if t))

        return [d for p, d in sorted(self.objects.items()) if p.rpartition("/")[0] == path and holds(d)]

    # -- what the tests put there ----------------------------------------------------------------------------------------------

    def run(self, name, *, phase="Succeeded", output="/data/o.zarr", outcome=None, finished="2025-09-01T01:00:00Z", **parameters):
        """A Workflow of ours as Argo leaves it."""
        nodes, labels = {}, dict(LABELS)
        if phase in ("Succeeded", "Failed", "Error"):
            labels["workflows.argoproj.io/completed"] = "true"
        status = {"phase": phase, "startedAt": "2025-09-01T00:59:00Z", "storedWorkflowTemplateSpec": template()["spec"]}
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
        given = {"stac_url": f"https://stac.example/items/{ITEM}", "output_zarr": output, "item_id": ITEM, **parameters}
        spec = {"arguments": {"parameters": [{"name": k, "value": v} for k, v in given.items()]}}
        return self.add(
            f"{ARGO}/workflows", {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {**status, "nodes": nodes}}
        )

    def claim(self, name, owner=None, labels=None):
        """A run's volume."""
        metadata = {"name": name, "labels": LABELS if labels is None else labels}
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


def template():
    return yaml.safe_load((ROOT / "workflows" / "geozarr-convert.yaml").read_text())


class Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qsl(url.query)
        self.api.asked.append((path, self.headers["Accept"]))
        if self.denied(path):
            return None
        if path.endswith("/exec"):
            return self.exec(path, query)
        if path.endswith("/log"):
            name = path.split("/")[-2]
            return self.answer(200, self.api.logs[name]) if name in self.api.logs else self.answer(400, {"message": "no log"})
        if path in self.api.objects:
            return self.answer(200, self.api.objects[path])
        if path.rpartition("/")[2] in KINDS:
            items = self.api.select(path, dict(query).get("labelSelector", ""))
            return self.answer(200, {"items": items or None, "metadata": {}})
        return self.answer(404, {"message": f"{path} not found"})

    def do_POST(self):
        document = self.body()
        path = self.path
        if self.denied(path):
            return None
        if path.endswith("selfsubjectaccessreviews"):
            asked = document["spec"]["resourceAttributes"]
            what = f"{asked['resource']}/{asked['subresource']}" if asked["subresource"] else asked["resource"]
            return self.answer(201, {"status": {"allowed": (asked["verb"], what) not in self.api.refused}})
        if f"{path}/{document['metadata'].get('name')}" in self.api.objects:
            return self.answer(409, {"message": "it exists"})
        if path.endswith("/pods"):
            waits = self.api.pod_waits
            state = {"waiting": waits} if waits else {"running": {}}
            phase = "Pending" if waits else "Running"
            document["status"] = {"phase": phase, "containerStatuses": [{"name": "main", "state": state}]}
        made = self.api.add(path, document)
        self.api.created.append(made)
        return self.answer(201, made)

    def do_PATCH(self):
        changes = self.body()
        with self.api.lock:
            document = self.api.objects.get(self.path)
            if document is None:
                return self.answer(404, {"message": "not found"})
            wanted = changes.get("metadata", {}).pop("resourceVersion", None)
            if wanted is not None and wanted != document["metadata"]["resourceVersion"]:
                return self.answer(409, {"message": "it changed"})
            merge(document, changes)
            return self.answer(200, document)

    def do_DELETE(self):
        options = self.body()
        with self.api.lock:
            if self.path not in self.api.objects:
                return self.answer(404, {"message": "not found"})
            uid = (options.get("preconditions") or {}).get("uid")
            if uid not in (None, self.api.objects[self.path]["metadata"]["uid"]):
                return self.answer(409, {"message": "another uid"})
            self.api.remove(self.path)
        return self.answer(200, {"status": "Success"})

    def exec(self, path, query):
        """Runs the program in the volume's folder and sends what it writes, as a kubelet does."""
        name = path.split("/")[-2]
        if f"{CORE}/pods/{name}" not in self.api.objects:
            return self.answer(404, {"message": f'pods "{name}" not found'})
        argv = [value for key, value in query if key == "command"]
        here = str(self.api.volume)
        argv = [
            sys.executable if word == "python3" else word.replace("/data", here, 1) if word.startswith("/data") else word
            for word in argv
        ]
        accept = base64.b64encode(
            hashlib.sha1(f"{self.headers['Sec-WebSocket-Key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        )
        self.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.close_connection = True
        left = self.api.cuts.pop(0) if is_transfer(argv) and self.api.cuts else None
        record = [argv[3:], 0]
        self.api.sent.append(record)
        with contextlib.suppress(OSError):  # the client has gone
            self.stream(argv, here.encode(), left, record)
        return None

    def stream(self, argv, here, left, record):
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                while block := process.stdout.read(BLOCK):
                    if left is not None and record[1] + len(block) > left:
                        return
                    self.frame(STDOUT, block if is_transfer(argv) else block.replace(here, b"/data"))
                    record[1] += len(block)
                    if self.api.pace is not None and is_transfer(argv):
                        self.api.pace.wait(30)
                said = process.stderr.read()
            finally:
                process.kill()
        if said:
            self.frame(STDERR, said)
        status = {"status": "Success"}
        if process.returncode:
            cause = {"reason": "ExitCode", "message": str(process.returncode)}
            status = {"status": "Failure", "message": "command terminated", "details": {"causes": [cause]}}
        self.frame(STATUS, json.dumps(status).encode())
        self.wfile.write(b"\x88\x02\x03\xe8")  # close, 1000

    def frame(self, channel, content):
        size = len(content) + 1
        length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)
        self.wfile.write(b"\x82" + length + bytes([channel]) + content)

    def denied(self, path):
        if any(path.endswith(end) for end in self.api.forbidden):
            self.answer(403, {"message": f"forbidden: {path}"})
            return True
        return False

    def body(self):
        size = int(self.headers["Content-Length"] or 0)
        return json.loads(self.rfile.read(size)) if size else {}

    def answer(self, status, content):
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self._headers_buffer.append(b"\r\n" + body)  # one packet: two wait for each other
        self.flush_headers()

    def log_message(self, *_):
        pass


KINDS = {
    "pods",
    "persistentvolumeclaims",
    "events",
    "resourcequotas",
    "nodes",
    "deployments",
    "storageclasses",
    "workflows",
}  # listed


def is_transfer(argv):
    """Whether a program sends a file: it is given a path and an offset."""
    return len(argv) == 5 and argv[4].isdigit()


def merge(document, changes):
    for key, value in changes.items():
        if value is None:
            document.pop(key, None)
        elif isinstance(value, dict):
            merge(document.setdefault(key, {}), value)
        else:
            document[key] = value
