"""How many threads this container can afford: its CPU limit, and what its memory limit leaves room for.

In: what was asked for, and the kernel's word about this container. Out: a number of workers, at least one. Never: fails because
memory is short; one worker is tried whatever the limit, and the log says so.

Source: cgroup v2, `memory.max`; v1, `memory.limit_in_bytes` (Linux, Documentation/admin-guide).
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from geozarr_runner.product import Selection
from stac_watch.errors import InputError

log = logging.getLogger(__name__)

CGROUP_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
BASE = 700_000_000
"""Bytes resident before a pixel is read: the runner with its libraries, and the metadata pass beside it."""
PER_ARRAY = 1.9
"""Bytes that one worker holds for each of the largest array, packed: array, one chunk, strips of means (measured)."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|k|M|G|T|Ki|Mi|Gi|Ti)B?")
_UNITS = {"": 1, **{u: 1000**n for n, u in enumerate("kMGT", 1)}, **{f"{u}i": 1024**n for n, u in enumerate("KMGT", 1)}}


def parse_size(text: str) -> int:
    """Returns bytes for `2Gi`, `1800M`, `2000000000`: the quantities of Kubernetes.

    Raises:
        InputError: not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"memory limit {text!r} is not a size", hint="write it as Kubernetes does, e.g. 2Gi or 1800M")
    return int(float(match[1]) * _UNITS[match[2]])


def memory_limit(asked: str, files: tuple[Path, ...] = CGROUP_FILES) -> int | None:
    """Returns the bytes that may be used: what was asked for, else the container's limit, else None.

    Raises:
        InputError: what was asked for is not a size.
    """
    if asked:
        return parse_size(asked)
    for file in files:
        try:
            value = int(file.read_text())
        except (OSError, ValueError):  # another cgroup version, or `max`
            continue
        return value if value < 2**60 else None  # v1 writes a number beyond any machine for "no limit"
    return None


def workers(selection: Selection, limit: int | None) -> int:
    """Returns how many arrays to work on at a time: one per CPU of the container, fewer when memory would not do."""
    from dask.system import cpu_count  # knows cgroups v1 and v2, and CPU affinity

    return affordable(max(1, cpu_count()), selection, limit)


def affordable(cpus: int, selection: Selection, limit: int | None) -> int:
    """Returns `cpus`, or what fits into `limit` bytes, but at least 1. Pure but for its warning."""
    if limit is None:
        return cpus
    each = PER_ARRAY * max((a.pixels * a.itemsize for a in selection.arrays), default=0)
    fit = int((limit - BASE) // each) if each else cpus
    if fit < 1:
        log.warning("%.1f GB of memory may not be enough: one worker needs about %.1f GB", limit / 1e9, (BASE + each) / 1e9)
    return max(1, min(cpus, fit))
