"""NetworkPolicies where something enforces them. tests/manifests holds what they say, whatever the cluster does with it.

The cluster that is made here enforces them; one that exists may not, and there the test says so and is skipped.
"""

import json
from pathlib import Path

import pytest
from fakes.installation import files_of, told
from harness.commands import HarnessError
from harness.daemons import wait_until

from stac_watch.cluster.manifests.network import api_policy
from stac_watch.cluster.manifests.render import dump

CONFIG = Path(__file__).parents[2] / "deploy/base/stac-watch.yaml"
SOURCE = {"controller": "eventsource-controller", "eventsource-name": "stac"}
BUS = {"controller": "eventbus-controller", "eventbus-name": "geozarr"}
SENSOR = {"controller": "sensor-controller", "sensor-name": "geozarr", "app.kubernetes.io/name": "sensor"}
POLLER = {"app.kubernetes.io/name": "stac-watch"}
RUN = {"workflows.argoproj.io/workflow": "gz-x", "app.kubernetes.io/name": "geozarr-convert"}
SERVERS = {"source": (SOURCE, 12000), "bus": (BUS, 4222)}
CLIENTS = {"poller": POLLER, "run": RUN, "sensor": SENSOR, "other": {"app": "other"}, "source": SOURCE}
API, ELSEWHERE = "api", "elsewhere"
MAY = {("poller", "source"), ("sensor", "bus"), ("source", "bus"), ("poller", API), ("sensor", API), ("run", API)}
LISTEN = """
import socket, sys
server = socket.create_server(("", int(sys.argv[1])))
while True:
    server.accept()[0].close()
"""
ASK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 4).close()"

pytestmark = pytest.mark.cluster


def pod(name, labels, image, *argv):
    container = {
        "name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": list(argv),
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    spec = {
        "restartPolicy": "Never", "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def test_pods_reach_what_the_policies_say_and_nothing_else(kubectl, namespace, release, tmp_path, is_own_cluster):
    image = f"stac-watch:{release}"
    sleep = ("python", "-c", "import signal; signal.pause()")
    pods = [pod(f"server-{n}", labels, image, "python", "-c", LISTEN, str(port)) for n, (labels, port) in SERVERS.items()]
    pods += [pod(f"client-{n}", labels, image, *sleep) for n, labels in CLIENTS.items()]
    kubectl.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}), "-n", namespace)
    kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod", "--all", "--timeout=120s")
    places = {n: (kubectl.get("pod", f"server-{n}", "-n", namespace)["status"]["podIP"], port) for n, (_, port) in SERVERS.items()}
    places[API] = (kubectl.get("service", "kubernetes", "-n", "default")["spec"]["clusterIP"], 443)
    slices = kubectl.get("endpointslices", "-n", "default", "-l", "kubernetes.io/service-name=kubernetes")["items"]
    api = [f"{address}/32" for each in slices for endpoint in each["endpoints"] for address in endpoint["addresses"]]
    if is_own_cluster:  # a private address at a port that no configuration names: an object store of somebody else
        places[ELSEWHERE] = (kubectl.get("service", "s3", "-n", "s3")["spec"]["clusterIP"], 9000)

    def reaches(client, server):
        argv = ("python", "-c", ASK, places[server][0], str(places[server][1]))
        return kubectl.answers("exec", "-n", namespace, f"client-{client}", "--", *argv)

    wait_until(lambda: all(reaches("other", server) for server in places), 60, "pods do not reach each other without any policy")
    path = tmp_path / "stac-watch.yaml"
    path.write_text(CONFIG.read_text().replace("namespace: geozarr", f"namespace: {namespace}"))
    kubectl.apply(files_of(told(path))["network.yaml"])
    try:
        wait_until(lambda: not reaches("other", "source"), 20, "it is open")
    except HarnessError:
        assert not is_own_cluster, "the cluster that is made here enforces NetworkPolicies"
        pytest.skip("nothing on this cluster enforces NetworkPolicies; tests/manifests/test_network.py holds what they say")
    closed = {(client, server) for client, server in MAY if server == API}
    assert not {pair for pair in closed if reaches(*pair)}, "no private address at 443, the API's neither"
    kubectl.apply(dump(api_policy(namespace, [f"{places[API][0]}/32", *api], [443, 6443])))
    wait_until(lambda: all(reaches(*pair) for pair in MAY), 30, "what is allowed does not work")
    refused = {(c, s) for c in CLIENTS for s in places if (c, s) not in MAY and SERVERS.get(s, ("",))[0] != CLIENTS[c]}
    assert {pair for pair in refused if reaches(*pair)} == set()
