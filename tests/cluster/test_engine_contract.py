"""The contract that every engine keeps, on the real thing: EventSource, bus, Sensor and Workflows of an installation.

Only the container's program is another one: it asks a pod beside it how to end.
"""

import json
import os
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from engine_contract import data_of, hold
from pydantic import SecretStr
from stack import Stack

from stac_watch.model.event import Conversion, build_event
from stac_watch.runs.argo import ArgoEngine
from stac_watch.runs.kubernetes_api import Cluster, connect

pytestmark = pytest.mark.cluster
NOW = datetime(2025, 9, 1, tzinfo=UTC)
PROGRAM = """
import json, pathlib, sys, time, urllib.error, urllib.request
verb, *rest = sys.argv[1:]
given = dict(a.removeprefix("--").split("=", 1) for a in rest)
code = 0
if verb == "preflight":
    pathlib.Path(given["size-file"]).write_text("64Mi")
else:
    while True:
        try:
            code = int(urllib.request.urlopen(f"http://orders:8000/{given['run']}", timeout=5).read())
            break
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
outcome = {"code": code, "key": given["key"], "reason": "told so", "stage": verb}
pathlib.Path(given["outcome"]).write_text(json.dumps(outcome))
sys.exit(code)
"""
ORDERS = """
import http.server
orders = {}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        order = orders.get(self.path)
        self.send_response(200 if order else 404)
        self.end_headers()
        self.wfile.write(order or b"")
    def do_PUT(self):
        orders[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def place(kubectl, release, port_forward, tmp_path_factory):
    """An installation without poller and catalog, whose runs end as they are told."""
    stack = Stack(kubectl, "stac-watch-contract", tmp_path_factory.mktemp("contract"), release, port_forward)
    stack.up_without_poller()
    stack.kubectl.apply(_orders(release), "-n", stack.namespace)
    template = stack.kubectl.get("workflowtemplate", "geozarr-convert", "-n", stack.namespace)
    patch = []
    for index, step in enumerate(template["spec"]["templates"]):
        if "container" in step:
            patch.append(
                {"op": "replace", "path": f"/spec/templates/{index}/container/command", "value": ["python", "-c", PROGRAM]}
            )
            patch.append({"op": "remove", "path": f"/spec/templates/{index}/retryStrategy"})
    stack.do("patch", "workflowtemplate", "geozarr-convert", "--type=json", "-p", json.dumps(patch))
    stack.do("rollout", "status", "deploy/orders", "--timeout=60s")
    stack.await_chain()
    yield stack
    stack.down()


def test_the_contract_of_an_engine_on_a_real_cluster(place):
    with (
        place.forward(place.namespace, "svc/stac-eventsource-svc", 12000) as webhook,
        place.forward(place.namespace, "svc/orders", 8000) as orders,
    ):
        engine = ArgoEngine(
            f"http://127.0.0.1:{webhook}/items",
            [SecretStr(place.token)],
            cluster=Cluster(connect(os.environ, str(place.kubectl.kubeconfig)), place.namespace),
            max_in_flight=3,
            confirm_after=timedelta(minutes=15),
            now=lambda: datetime.now(UTC),
        )

        def end(event, code):
            url = f"http://127.0.0.1:{orders}/{data_of(event)['run']}"
            with urllib.request.urlopen(urllib.request.Request(url, str(code).encode(), method="PUT"), timeout=10):
                pass

        try:
            hold(engine, end, [_event(n) for n in (1, 2, 3)], patience=150)
        finally:
            engine.close(stop_runs=False)


def _event(number):
    return build_event(
        Conversion(
            catalog="https://stac.example", collection="c", item_id=f"item-{number}", revision="r", recipe="x", kind="create",
            reason="new", lane="live", time=NOW, datetime=NOW, item_href="https://stac.example/i",
            product_href="https://objects.example/p.zarr", output_zarr="/data/o.zarr",
            options={"spatial_chunk": "1024", "sharding": "false", "package": "tar", "overwrite": "false", "dask_perf_html": ""},
        ),
        1,
    )  # fmt: skip


def _orders(release):
    container = {
        "name": "orders",
        "image": f"stac-watch:{release}",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", ORDERS],
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
    }
    user = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"automountServiceAccountToken": False, "securityContext": user, "containers": [container]}
    labels = {"app": "orders"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "orders"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
    ports = [{"port": 8000, "targetPort": 8000}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders"}, "spec": {"selector": labels, "ports": ports}}
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "orders"},
        "spec": {"podSelector": {"matchLabels": labels}, "ingress": [{"ports": [{"port": 8000}]}], "policyTypes": ["Ingress"]},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [deployment, service, policy]})
