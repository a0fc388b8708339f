"""What the machine must be and have: Linux on x86-64, root, cgroups that may be written, Debian packages, free ports.

What is missing is said in a `HarnessError`. Nothing is changed but that packages are installed.
"""

import os
import platform
import re
import shutil
import socket
from pathlib import Path

from harness.commands import NICE, HarnessError, attempt, stream
from harness.places import Places, Recipe
from harness.progress import Steps

CGROUPS = Path("/sys/fs/cgroup")
PORTS = {2379: "etcd", 2380: "etcd", 6443: "kube-apiserver", 10248: "kubelet", 10249: "kube-proxy", 10250: "kubelet",
         10256: "kube-proxy", 10257: "kube-controller-manager", 10259: "kube-scheduler"}  # fmt: skip
ELSEWHERE = "A cluster that exists works as well: set KUBECONFIG, and nothing is built here (CONTRIBUTING.md)."


def require(recipe: Recipe) -> None:
    """Raises HarnessError where a cluster cannot run."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise HarnessError(
            f"The cluster is built for Linux on x86-64; this is {platform.system()} on {platform.machine()}.", hint=ELSEWHERE
        )
    if os.geteuid() != 0:
        raise HarnessError(
            "The cluster needs root: it mounts, makes network devices and cgroups.",
            hint=f"Try: sudo -E make cluster-up. {ELSEWHERE}",
        )
    for controller in cgroup_roots():
        probe = controller / "stac-watch-probe"
        try:
            probe.mkdir(exist_ok=True)
            probe.rmdir()
        except OSError as error:
            hint = f"In a container, it must be privileged, with a writable /sys/fs/cgroup. {ELSEWHERE}"
            raise HarnessError(f"No permission to make cgroups below {controller}: {error.strerror}.", hint=hint) from None
    if shutil.which("apt-get") is None and not _installed(recipe):
        raise HarnessError(f"Not a Debian system, and not all of this is installed: {' '.join(recipe.debian)}.", hint=ELSEWHERE)


def cgroup_roots() -> list[Path]:
    """The roots of every hierarchy: one with cgroup v2, one per controller with v1, both on a hybrid system."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return sorted({Path(os.path.realpath(p)) for p in CGROUPS.iterdir() if p.is_dir()})


def install_packages(places: Places, recipe: Recipe, steps: Steps) -> None:
    """Installs the Debian packages that are missing."""
    if _installed(recipe):
        return
    log = places.build_logs / "debian.log"
    with steps.step("install Debian packages") as detail:
        apt = [*NICE, "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
        stream([*apt, "update"], log=log, on_line=detail)
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        stream([*apt, "install", "-y", "--no-install-recommends", *recipe.debian], log=log, on_line=detail, env=env)


def _installed(recipe: Recipe) -> bool:
    if shutil.which("dpkg-query") is None:
        return all(shutil.which(command) for command in ("containerd", "runc", "nft", "ip", "openssl", "buildah", "debootstrap"))
    done = attempt(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *recipe.debian])
    return done.stdout.count(" installed\n") >= len(recipe.debian)


def require_ports() -> None:
    """Raises HarnessError when a port that the cluster needs is taken; to be asked when none of ours runs."""
    for port, component in PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))  # the components bind to all addresses as well
            except OSError:
                holder = attempt(["ss", "-Hltnp", f"sport = :{port}"]).stdout.strip()
                names = " ".join(re.findall(r'"([^"]+)",pid=(\d+)', holder)[0]) if "pid=" in holder else "another process"
                raise HarnessError(
                    f"Port {port}, which {component} needs, is taken by {names}.", hint="End it, or use that cluster by KUBECONFIG."
                ) from None


def address() -> str:
    """The machine's address towards the default route, else its first global one: what the node is known by."""
    route = attempt(["ip", "-4", "route", "get", "192.0.2.1"]).stdout
    if found := re.search(r"\bsrc (\S+)", route):
        return found[1]
    listed = attempt(["ip", "-4", "-o", "addr", "show", "scope", "global"]).stdout
    if found := re.search(r"\binet ([\d.]+)/", listed):
        return found[1]
    raise HarnessError(
        "The machine has no IPv4 address besides loopback.", hint="Give it one, for example: ip link add swc-dummy type dummy"
    )
