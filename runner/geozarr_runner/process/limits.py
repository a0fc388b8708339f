"""How many threads this container can afford: its CPU limit, and what its memory limit leaves room for.

One worker is tried however short memory is, and the log says so. Not `dask.system` and `distributed.system`: they see no limit
above the own group, and take `memory.low`, which is a promise and no limit, for one.

A limit may lie on the process's own group or on any above it: a pod's on the pod, a session's on its slice. Within a container the
group is the root of what can be seen. Sources: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/; cgroups(7).
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geozarr_runner.source.product import Selection
from stac_watch.model.errors import InputError

log = logging.getLogger(__name__)

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
BASE = 700_000_000
"""Bytes resident before a pixel is read: the runner with its libraries, and the metadata pass beside it."""
PER_ARRAY = 1.9
"""Bytes that one worker holds for each of the largest array, packed: array, one chunk, strips of means (measured)."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|k|M|G|T|Ki|Mi|Gi|Ti)B?")
_UNITS = {"": 1, **{u: 1000**n for n, u in enumerate("kMGT", 1)}, **{f"{u}i": 1024**n for n, u in enumerate("KMGT", 1)}}


@dataclass(frozen=True)
class Granted:
    """What the kernel grants this process; None = no limit."""

    memory: int | None  # bytes
    cpus: float | None


def parse_size(text: str, what: str = "memory limit") -> int:
    """Returns bytes for `2Gi`, `1800M`, `2000000000`: the quantities of Kubernetes.

    Raises:
        InputError: not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{what} {text!r} is not a size", hint="write it as Kubernetes does, e.g. 2Gi or 1800M")
    return int(float(match[1]) * _UNITS[match[2]])


def granted(membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> Granted:
    """Returns the tightest limits on this process's control groups, of whichever version."""
    memory: list[int] = []
    cpus: list[float] = []
    for folder in _groups(membership, mount):
        memory += [n for name in ("memory.max", "memory.limit_in_bytes") for n in _numbers(folder / name)[:1]]
        quotas = [_numbers(folder / "cpu.max"), _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us")]
        cpus += [found[0] / found[1] for found in quotas if len(found) == 2 and found[0] > 0]  # quota and period; -1 is v1's "none"
    known = [n for n in memory if n < 2**60]  # v1 writes a number beyond any machine for "no limit"
    return Granted(min(known, default=None), min(cpus, default=None))


def memory_limit(asked: str, found: Granted) -> int | None:
    """Returns the bytes that may be used: what was asked for, at most the container's limit; None = as much as there is.

    Raises:
        InputError: what was asked for is not a size.
    """
    known = [n for n in (parse_size(asked) if asked else None, found.memory) if n is not None]
    return min(known, default=None)


def workers(selection: Selection, asked: str) -> int:
    """Returns how many arrays to work on at a time: one per CPU of the container, fewer when memory would not do.

    Raises:
        InputError: `asked` is not a size.
    """
    found = granted()
    cpus = min(len(os.sched_getaffinity(0)), math.ceil(found.cpus) if found.cpus else 2**31)
    return affordable(max(1, cpus), selection, memory_limit(asked, found))


def affordable(cpus: int, selection: Selection, limit: int | None) -> int:
    """Returns `cpus`, or what fits into `limit` bytes, but at least 1. Pure but for its warning."""
    if limit is None:
        return cpus
    each = PER_ARRAY * max((a.pixels * a.itemsize for a in selection.arrays), default=0)
    fit = int((limit - BASE) // each) if each else cpus
    if fit < 1:
        log.warning("%.1f GB of memory may not be enough: one worker needs about %.1f GB", limit / 1e9, (BASE + each) / 1e9)
    return max(1, min(cpus, fit))


def _groups(membership: Path, mount: Path) -> Iterator[Path]:
    """Yields the folders of this process's groups and of all above them. Where a path cannot be seen, only what can."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no /proc, no control groups
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = [mount / name for name in (controllers.removeprefix("name="), *controllers.split(","))] if controllers else [mount]
        for root in dict.fromkeys(names):  # v1 mounts `cpu,cpuacct` under that name or under its parts
            group = root / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root) and folder.is_dir())


def _numbers(file: Path) -> list[int]:
    """Returns the numbers that a file of the kernel holds; none for `max`, or when there is no such file."""
    try:
        return [int(word) for word in file.read_text().split()]
    except (OSError, ValueError):  # ValueError: `max`
        return []
