"""Removes everything that a cluster leaves on the machine, whether it was stopped, killed or cut off half way.

It follows no mount when it removes files; a mount that stays is an error, not a deleted disk.
"""

import shutil
import time
from contextlib import suppress
from pathlib import Path

from harness.commands import HarnessError, attempt
from harness.daemons import end_all
from harness.machine import cgroup_roots
from harness.node import BRIDGE
from harness.places import NAME, Places
from harness.progress import Steps

POLICY_CHAINS = ("KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-")
POLICY_SETS = ("KUBE-SRC-", "KUBE-DST-")


def present(places: Places) -> bool:
    """Whether there is anything to remove."""
    return places.state.exists() or places.run.exists()


def remove(places: Places, steps: Steps) -> None:
    """Processes first, then what they held."""
    was_there = present(places)
    with steps.step("end processes and containers") as detail:
        detail(f"{end_all()} ended")
    with steps.step("remove mounts, network, cgroups, files"):
        _unmount(places)
        attempt(["ip", "link", "delete", BRIDGE])
        if was_there:  # these two tables are named by kube-proxy, so only a machine that ran ours gives them up
            for family in ("ip", "ip6"):
                attempt(["nft", "delete", "table", family, "kube-proxy"])
            _remove_policies()
        _remove_cgroups()
        for folder in (places.run, places.state):
            _remove_tree(folder)
        with suppress(OSError):  # the kubelet puts its socket for device plugins here whatever its root folder is
            Path("/var/lib/kubelet/device-plugins/kubelet.sock").unlink(missing_ok=True)
            Path("/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint").unlink(missing_ok=True)
            Path("/var/lib/kubelet/device-plugins").rmdir()
            Path("/var/lib/kubelet").rmdir()


def mounts(places: Places) -> list[str]:
    """Mount points below our folders, deepest first."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    own = (f"{places.state}/", f"{places.run}/")
    return sorted((p for p in points if p.startswith(own)), reverse=True)


def _unmount(places: Places) -> None:
    for _ in range(5):  # a mount point can be mounted over several times
        for point in mounts(places):
            attempt(["umount", "--lazy", point])
    if left := mounts(places):
        raise HarnessError(f"Still mounted: {', '.join(left[:5])}.", hint="Look who uses it: fuser -vm PATH; then: umount PATH")


def _remove_policies() -> None:
    """Chains and sets of kube-router, by the names that it gives them."""
    saved = attempt(["iptables-save", "-t", "filter"]).stdout.splitlines(keepends=True)
    kept = [line for line in saved if not any(chain in line for chain in POLICY_CHAINS)]
    if kept != saved:
        attempt(["iptables-restore", "--table=filter"], stdin="".join(kept))
    for name in attempt(["ipset", "list", "-name"]).stdout.split():
        if name.startswith(POLICY_SETS):
            attempt(["ipset", "destroy", name])


def _remove_cgroups() -> None:
    for root in cgroup_roots():
        ours = root / NAME
        deadline = time.monotonic() + 5
        while ours.exists() and time.monotonic() < deadline:
            for folder in sorted((p for p in (*ours.rglob("*"), ours) if p.is_dir()), reverse=True):
                with suppress(OSError):  # busy for a moment after its last process ended
                    folder.rmdir()
            if ours.exists():
                time.sleep(0.1)


def _remove_tree(folder: Path) -> None:
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise HarnessError(f"{folder} cannot be removed: {error}", hint=f"Look who uses it: fuser -vm {folder}") from None
