"""What breaks in an installation while it works: one way each, put right by the time it returns where it does not mend by itself.

None of them waits for what follows, or judges it.
"""

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from stack import Stack, slowly

type Hand = Callable[[str, str], object]
"""`hand("kill", "kubelet")`, `hand("start", "kubelet")`."""
type Fault = Callable[[Stack, Hand, random.Random], object]


def kill_eventsource(stack: Stack, *_: object) -> None:
    """Events that are posted now are refused."""
    stack.kill("eventsource-name=stac")


def kill_sensor(stack: Stack, *_: object) -> None:
    """Events that are on the bus wait, and those that it was working on come again."""
    stack.kill("sensor-name=geozarr")


def kill_bus(stack: Stack, *_: object) -> None:
    """EventSource and Sensor lose their connection."""
    stack.kill("eventbus-name=geozarr")


def kill_poller(stack: Stack, *_: object) -> None:
    """As SIGKILL, at whatever it was doing."""
    stack.kill("app.kubernetes.io/name=stac-watch")


def kill_controller(stack: Stack, *_: object) -> None:
    """Nobody moves Workflows on."""
    stack.kubectl("-n", "argo", "delete", "pod", "-l", "app=workflow-controller", "--grace-period=0", "--force")


def kill_step(stack: Stack, _hand: Hand, rng: random.Random) -> None:
    """The pod that some run works in now, if there is one."""
    pods = [pod for workflow in stack.workflows() if (pod := working_pod(workflow))]
    if pods:
        kill_pod(stack, rng.choice(pods))


def delete_workflow(stack: Stack, _hand: Hand, rng: random.Random) -> None:
    """Somebody removes a run that works, if there is one."""
    names = [workflow["metadata"]["name"] for workflow in stack.workflows() if working_pod(workflow)]
    if names:
        stack.do("delete", "workflow", rng.choice(names))


def restart_kubelet(_stack: Stack, hand: Hand, *_: object) -> None:
    """The node's agent is killed and comes back."""
    hand("kill", "kubelet")
    hand("start", "kubelet")


def api_server_down(stack: Stack, hand: Hand, _rng: random.Random | None, seconds: float = 15) -> None:
    """Nobody can ask or tell the cluster anything for a while."""
    hand("kill", "kube-apiserver")
    try:
        time.sleep(seconds)  # the fault's length
    finally:
        hand("start", "kube-apiserver")
    slowly(stack.kubectl.is_ready, 90)


def catalog_answers_503(stack: Stack, *_: object) -> None:
    """The next answers of the catalog's search."""
    stack.ask_catalog("faults", {"wire": ["503"] * 5, "wire_paths": ["/search"], "retry_after": None})


def source_answers_503(stack: Stack, *_: object) -> None:
    """The next answers of the object store that the products lie in."""
    stack.ask_catalog("faults", {"wire": ["503"] * 14, "wire_paths": ["/products"], "retry_after": None})


def target_answers_503(stack: Stack, *_: object) -> None:
    """The next answers of the catalog that outputs are registered in."""
    stack.ask_catalog("faults", {"wire": ["503"] * 4, "wire_paths": ["/collections"], "retry_after": None})


def target_loses_its_answers(stack: Stack, *_: object) -> None:
    """What is written there is written, but nobody hears of it."""
    stack.ask_catalog("faults", {"wire": ["truncate"] * 2, "wire_paths": ["/collections"], "retry_after": None})


ALL: Mapping[str, Fault] = {
    "EventSource killed": kill_eventsource,
    "Sensor killed": kill_sensor,
    "bus killed": kill_bus,
    "poller killed": kill_poller,
    "controller killed": kill_controller,
    "pod of a run killed": kill_step,
    "Workflow deleted": delete_workflow,
    "kubelet restarted": restart_kubelet,
    "API server down": api_server_down,
    "catalog answers 503": catalog_answers_503,
    "source answers 503": source_answers_503,
}
OF_THE_TARGET: Mapping[str, Fault] = {
    "catalog of outputs answers 503": target_answers_503,
    "catalog of outputs loses its answers": target_loses_its_answers,
}


def kill_pod(stack: Stack, name: str) -> None:
    """One pod, without grace."""
    stack.do("delete", "pod", name, "--grace-period=0", "--force", "--ignore-not-found")


def working_pod(workflow: Mapping[str, Any], step: str = "") -> str:
    """The name of the pod that works now, in a step or in any; empty when there is none. Argo puts a hash into the name."""
    for node in workflow.get("status", {}).get("nodes", {}).values():
        if node["type"] == "Pod" and node["templateName"].startswith(step) and node["phase"] in ("Pending", "Running"):
            return f"{workflow['metadata']['name']}-{node['templateName']}-{node['id'].rpartition('-')[2]}"
    return ""
