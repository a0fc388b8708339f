"""A Kubernetes API that holds Workflows, for journeys and benchmarks: metadata lists with selectors and pages, objects, creation.

It answers as the real one (1.34) does, objects as large as those that Argo 4.0.5 leaves, and counts what it was asked for. Labels
are indexed: what is measured against it is the client's work and the traffic, not a scan that the real one does from its cache.
"""

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

GROUP = "/apis/argoproj.io/v1alpha1/namespaces/geozarr"
KEY, COMPLETED = "stac-watch/key", "workflows.argoproj.io/completed"


@dataclass(frozen=True)
class Asked:
    """One request: its kind (list, get, create), and how many bytes the answer had."""

    kind: str
    bytes: int


@dataclass
class Api:
    """What it holds, what it was asked, and how it answers."""

    workflows: dict = field(default_factory=dict)  # name -> object
    templates: set = field(default_factory=lambda: {"geozarr-convert"})
    asked: list = field(default_factory=list)
    answers: dict = field(default_factory=dict)  # method -> (status, message) instead of doing it
    url: str = ""
    _version: int = 0
    _by_key: dict = field(default_factory=dict)
    _bytes: dict = field(default_factory=dict)  # name -> (metadata, object) as JSON

    def put(self, name: str, *, key: str = "", attempt: int = 1, status: dict | None = None, spec: dict | None = None) -> None:
        """Creates or replaces a Workflow; `status` as Argo would write it."""
        self._version += 1
        old = self.workflows.get(name, {"metadata": {"labels": {KEY: key, "stac-watch/attempt": str(attempt)} if key else {}}})
        labels = dict(old["metadata"]["labels"])
        if (status or {}).get("phase") in ("Succeeded", "Failed", "Error"):
            labels[COMPLETED] = "true"
        metadata = {
            "name": name, "namespace": "geozarr", "uid": f"uid-{name}", "resourceVersion": str(self._version),
            "creationTimestamp": "2025-09-01T00:00:00Z", "labels": labels, "managedFields": MANAGED,
        }  # fmt: skip
        workflow = {"metadata": metadata, "spec": spec or old.get("spec", {}), "status": status or {}}
        self.workflows[name] = workflow
        self._by_key.setdefault(labels.get(KEY, ""), set()).add(name)
        self._bytes[name] = (json.dumps({"metadata": metadata}).encode(), json.dumps(workflow).encode())

    def select(self, selector: str) -> list[str]:
        """Returns the names that a selector of ours finds, in one order."""
        if match := re.fullmatch(rf"{KEY} in \((.*)\)", selector):
            return sorted(name for key in match[1].split(",") for name in self._by_key.get(key, ()))
        assert selector == f"{KEY},{COMPLETED}!=true", selector
        labels = ((name, workflow["metadata"]["labels"]) for name, workflow in self.workflows.items())
        return sorted(name for name, have in labels if KEY in have and have.get(COMPLETED) != "true")

    def create(self, document: dict) -> tuple[int, bytes]:
        """Answers a POST."""
        metadata = document["metadata"]
        name = metadata.get("name") or f"{metadata['generateName']}x{len(self.workflows):04}"
        if name in self.workflows:
            return 409, json.dumps({"message": f'workflows.argoproj.io "{name}" already exists'}).encode()
        self.workflows[name] = {"metadata": {"labels": metadata.get("labels", {})}}
        self.put(name, spec=document["spec"])
        return 201, self._bytes[name][1]

    def count(self) -> dict[str, int]:
        """Returns requests by kind, and all bytes; and forgets them."""
        asked, self.asked = self.asked, []
        kinds = {kind: sum(a.kind == kind for a in asked) for kind in ("list", "get", "create")}
        return {**kinds, "bytes": sum(a.bytes for a in asked)}


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with one packet an answer."""

    api: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if "GET" in self.api.answers:
            return self.refuse(*self.api.answers["GET"])
        if url.path == f"{GROUP}/workflows":
            return self.list({name: values[0] for name, values in parse_qs(url.query).items()})
        name = url.path.rpartition("/")[2]
        if url.path.startswith(f"{GROUP}/workflowtemplates/"):
            return self.answer(200, b"{}", "get") if name in self.api.templates else self.refuse(404, f'"{name}" not found')
        if name not in self.api.workflows:
            return self.refuse(404, f'workflows.argoproj.io "{name}" not found')
        return self.answer(200, self.api._bytes[name][1], "get")

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "POST" in self.api.answers:
            return self.refuse(*self.api.answers["POST"])
        return self.answer(*self.api.create(document), "create")

    def list(self, query: dict[str, str]) -> None:
        assert "PartialObjectMetadataList" in self.headers["Accept"], "full objects are never listed"
        found, start = self.api.select(query["labelSelector"]), int(query.get("continue", 0))
        end = start + int(query["limit"])
        metadata = {"continue": str(end)} if end < len(found) else {}
        items = b",".join(self.api._bytes[name][0] for name in found[start:end])
        self.answer(200, b'{"metadata":%s,"items":[%s]}' % (json.dumps(metadata).encode(), items), "list")

    def refuse(self, status: int, message: str) -> None:
        self.answer(status, json.dumps({"message": message}).encode(), "get")

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.api.asked.append(Asked(kind, len(body)))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self._headers_buffer.append(b"\r\n" + body)  # two packets would wait for each other (Nagle, delayed ACK)
        self.flush_headers()

    def log_message(self, *_: object) -> None:
        return


class Server:
    """Serves an Api on loopback."""

    def __init__(self, api: Api) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"api": api}))
        api.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def pod(template: str, phase: str, **more: object) -> dict:
    """Returns a pod's node."""
    return {
        "type": "Pod", "templateName": template, "name": f"w.{template}", "phase": phase, "startedAt": "2025-09-01T00:00:02Z",
        "boundaryID": "w", "hostNodeName": "worker-1", "resourcesDuration": {"cpu": 31, "memory": 904}, **more,
    }  # fmt: skip


def ended(code: int, key: str = "", reason: str = "done", **more: object) -> dict:
    """Returns the status of a run that ended with an outcome."""
    outcome = json.dumps({"code": code, "key": key, "reason": reason, "stage": "convert", "attempt": 1, **more})
    outputs = {"exitCode": str(code), "parameters": [{"name": "outcome", "value": outcome}]}
    phase = "Failed" if code else "Succeeded"
    return status(phase, pod("convert", phase, outputs=outputs, finishedAt="2025-09-01T00:09:00Z"))


def status(phase: str, *nodes: dict, message: str = "") -> dict:
    """Returns a Workflow's status with the stored template that Argo keeps in it."""
    return {
        "phase": phase, "message": message, "startedAt": "2025-09-01T00:00:01Z", "storedWorkflowTemplateSpec": STORED,
        "nodes": {f"w-{number}": node for number, node in enumerate(nodes)},
        **({"finishedAt": "2025-09-01T00:09:00Z"} if phase in ("Succeeded", "Failed", "Error") else {}),
    }  # fmt: skip


STORED = {"templates": [{"name": "convert", "container": {"args": ["--option={{inputs.parameters.value}}"] * 260}}]}
"""About 11 kB, as the rendered WorkflowTemplate has."""
MANAGED = [
    {"manager": "workflow-controller", "operation": "Update", "fieldsV1": {"f:status": {f"f:field-{n}": {} for n in range(60)}}},
    {"manager": "argo-sensor", "operation": "Update", "fieldsV1": {"f:spec": {f"f:field-{n}": {} for n in range(40)}}},
]
"""About 2 kB of every object's metadata."""
