"""Waiting for what a process, a thread or a server brings about: looked at again and again, with a deadline."""

import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any


def until[T](
    look: Callable[[], T], seconds: float = 120, *, by: subprocess.Popen[Any] | threading.Thread | None = None, every: float = 0.02
) -> T:
    """Returns what `look` finds once that is true; fails after so many seconds, or when `by` ends without it."""
    deadline = time.monotonic() + seconds
    while True:
        ended = by is not None and _ended(by)  # asked before the look: what it did last counts
        if found := look():
            return found
        assert not ended, f"{by} ended before it came to pass: {by.communicate() if isinstance(by, subprocess.Popen) else ''}"
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(every)


def _ended(by: subprocess.Popen[Any] | threading.Thread) -> bool:
    return by.poll() is not None if isinstance(by, subprocess.Popen) else not by.is_alive()
