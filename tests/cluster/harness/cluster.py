"""Brings the cluster up, tells how it is, takes it down.

What an earlier call left is not trusted: a cluster that is not whole is removed and made anew.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from harness import credentials, daemons, layers, leftovers, machine, node
from harness.build import build
from harness.commands import HarnessError, attempt
from harness.kubectl import Kubectl
from harness.layers import Image
from harness.places import NAME, Binaries, Places, Recipe
from harness.progress import Steps


def kubectl(places: Places, recipe: Recipe) -> Kubectl:
    """For the cluster that is made here."""
    return Kubectl(Binaries(places, recipe)("kubectl"), places.state / "admin.conf")


def prepare(places: Places, recipe: Recipe, steps: Steps) -> None:
    """Checks the machine, installs packages, compiles what is missing."""
    machine.require(recipe)
    machine.install_packages(places, recipe, steps)
    build(places, recipe, steps)


def up(places: Places, recipe: Recipe, steps: Steps) -> None:
    """Makes sure that a healthy cluster of these versions runs."""
    prepare(places, recipe, steps)
    if is_whole(places, recipe):
        steps.say(f"the cluster is up already: KUBECONFIG={places.state / 'admin.conf'}")
        return
    if leftovers.present(places):
        steps.say("a cluster is there that is not whole, or of other versions; it is replaced")
    leftovers.remove(places, steps)
    machine.require_ports()
    address = machine.address()
    _control_plane(places, recipe, address, steps)
    _node(places, recipe, address, steps)
    _addons(places, recipe, steps)
    (places.state / "whole.json").write_text(json.dumps({"recipe": fingerprint(recipe)}))


def down(places: Places, steps: Steps) -> None:
    """Removes the cluster; what was built stays in the cache."""
    if os.geteuid() != 0:
        raise HarnessError("Removing the cluster needs root.", hint="Try: sudo -E make cluster-down")
    leftovers.remove(places, steps)


def is_whole(places: Places, recipe: Recipe) -> bool:
    """Whether it was brought up completely, from these versions, and every process still runs."""
    try:
        record = json.loads((places.state / "whole.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    if record.get("recipe") != fingerprint(recipe):
        return False
    return all(daemons.is_running(places, name) for name in daemons.names(places)) and kubectl(places, recipe).is_ready()


def fingerprint(recipe: Recipe) -> str:
    """Changes when any version or build option changes."""
    components = {name: asdict(component) for name, component in recipe.components.items()}
    return hashlib.sha256(json.dumps(components, sort_keys=True).encode()).hexdigest()[:16]


def _control_plane(places: Places, recipe: Recipe, address: str, steps: Steps) -> None:
    binary = Binaries(places, recipe)
    places.state.mkdir(parents=True)
    places.run.mkdir(parents=True)
    places.state.chmod(0o711)
    with steps.step("certificates and kubeconfigs"):
        credentials.make(places, address)
    with steps.step("etcd and API server"):
        server = node.api_server(places, binary, address)
        daemons.start(places, node.etcd(places, binary))
        daemons.start(places, server)
        _wait(places, server.name, kubectl(places, recipe).is_ready, 90)
    with steps.step("controllers, scheduler, provisioner"):
        for daemon in node.controllers(places, binary):
            daemons.start(places, daemon)


def _node(places: Places, recipe: Recipe, address: str, steps: Steps) -> None:
    binary = Binaries(places, recipe)
    with steps.step("containerd"):
        _kernel()
        daemons.start(places, node.containerd(places))
        ctr: list[str | Path] = ["ctr", "--address", node.socket(places), "version"]
        _wait(places, "containerd", lambda: attempt(ctr).returncode == 0, 30)
        layers.make(places, Image(node.PAUSE, ["/pause", "-P"], {"/pause": Path("/usr/bin/catatonit")}))
        layers.make(places, Image(coredns_image(recipe), ["/coredns"], {"/coredns": binary("coredns")}))
    with steps.step("kubelet, kube-proxy and network policies"):
        for root in machine.cgroup_roots():
            (root / NAME).mkdir(exist_ok=True)
            _inherit_cpuset(root)
        daemons.start(places, node.kubelet(places, binary, address))
        daemons.start(places, node.kube_proxy(places, binary))
        ask = kubectl(places, recipe)
        ready = ("wait", "--for=condition=Ready", f"node/{node.NODE}", "--timeout=1s")
        _wait(places, "kubelet", lambda: ask.answers(*ready), 90)
        daemons.start(places, node.network_policies(places, binary))


def _addons(places: Places, recipe: Recipe, steps: Steps) -> None:
    ask = kubectl(places, recipe)
    with steps.step("DNS and storage") as detail:
        values = {**node.substitutions(), "coredns": coredns_image(recipe)}
        ask.apply_addon("storage", values)
        ask.apply_addon("dns", values)
        ask.roll_out("kube-system", "coredns", log=places.logs / "dns.log", on_line=detail)
        ask.wait_for(30, "no service account in the namespace default", "get", "serviceaccount", "default")


def coredns_image(recipe: Recipe) -> str:
    """The name under which the DNS server's image is made."""
    return f"stac-watch.test/coredns:{recipe.version('coredns')}"


def _wait(places: Places, name: str, true: Callable[[], bool], seconds: float) -> None:
    log = places.logs / f"{name}.log"
    daemons.wait_until(true, seconds, f"{name} is not ready", log=log, alive=lambda: daemons.is_running(places, name))


def _kernel() -> None:
    """Forwarding, and bridged traffic through netfilter: without it an answer from a pod behind a service skips the way back."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    bridge = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not bridge.exists():
        attempt(["modprobe", "br_netfilter"])
    if bridge.exists():
        bridge.write_text("1")


def _inherit_cpuset(root: Path) -> None:
    """With cgroup v1 a new cpuset has no CPUs, and no process can enter it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        source, target = root / name, root / NAME / name
        if source.exists() and target.exists() and not target.read_text().strip():
            target.write_text(source.read_text())
