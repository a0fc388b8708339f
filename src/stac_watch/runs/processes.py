"""The processes of a run on this machine: found by the lock that they hold, never by a number alone.

A process id is given to somebody else once its process is gone, so a number in a file says nothing. What is signalled is a process
handle (pidfd) of a group of which one holds the run's lock: it cannot come to mean another process. Where the system has neither
/proc nor such handles (macOS), only the run's own child is signalled, which cannot be another's before it is waited for.

Sources: Linux, proc(5), pidfd_open(2), pidfd_send_signal(2).
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
HANDLES = hasattr(os, "pidfd_open") and PROC.joinpath("self", "fd").is_dir()


def signal_group(leader: int, lock: Path, number: signal.Signals) -> bool:
    """Signals the processes of a group if one of them holds the lock; tells whether one does."""
    members = [pid for pid in _processes() if _group(pid) == leader]
    with contextlib.ExitStack() as opened:
        handles = {}
        for pid in members:
            with contextlib.suppress(OSError):  # it ended meanwhile
                handles[pid] = os.pidfd_open(pid)
                opened.callback(os.close, handles[pid])
        # only now: while a handle is open that was one of theirs, what /proc says under its number is said of it, or of nobody
        ours = [pid for pid in handles if _group(pid) == leader]
        if not any(_holds(pid, lock) for pid in ours):
            return False
        for pid in ours:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(handles[pid], number)
    return True


def age(leader: int, lock: Path) -> float | None:
    """Returns how long the process that holds a run's lock has lived, in seconds that no clock can be set by; None = not known."""
    if not HANDLES or not _holds(leader, lock):
        return None
    try:
        begun = int(_stat(leader)[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - begun


def limit_memory(pid: int, most: int) -> None:
    """Lets a process and all that it starts have so many bytes of memory of its own, and no more.

    RLIMIT_DATA and not RLIMIT_AS: what is mapped from files, as libraries are, costs nothing. Sources: Linux, getrlimit(2).
    """
    if hasattr(resource, "prlimit"):
        with contextlib.suppress(ProcessLookupError):  # it ended at once
            resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def _stat(pid: int) -> list[str]:
    """Returns the fields of a process's line from the third on: what stands before may hold anything, and ends with a bracket."""
    return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _group(pid: int) -> int | None:
    try:
        return int(_stat(pid)[2])
    except (OSError, IndexError, ValueError):
        return None


def _holds(pid: int, lock: Path) -> bool:
    """Tells whether a process has the lock's file open."""
    try:
        wanted = lock.stat()
        opened = list((PROC / str(pid) / "fd").iterdir())
    except OSError:
        return False
    for entry in opened:
        with contextlib.suppress(OSError):
            found = entry.stat()
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return False
