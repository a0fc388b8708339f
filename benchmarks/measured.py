"""What a process costs with all that it starts: wall and processor seconds, and the most memory that they held together.

In: a command. Out: figures, and what it left in a folder. Never: a process whose failure goes unsaid.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path


def measured(way: str, command: list[str], output: Path) -> dict[str, float]:
    """Runs one way in a process of its own and returns wall and CPU seconds and the peak of the whole process tree's memory."""
    print(f"{way} …", flush=True)
    os.sync()
    before, started = os.times(), time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)  # noqa: S603  # a benchmark's own
        peak, over = [0], threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peak, over))
        watcher.start()
        code = process.wait()
        wall, after = time.perf_counter() - started, os.times()
        over.set()
        watcher.join()
        if code:
            said.seek(0)
            raise SystemExit(f"{way} ended with {code}: {said.read().decode(errors='replace')[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    files = [p.stat().st_size for p in output.rglob("*") if p.is_file()]
    return {
        "wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "peak_mb": round(peak[0] / 1e6), "files": len(files),
        "mb": round(sum(files) / 1e6), "load": os.getloadavg()[0],
    }  # fmt: skip


def _watch(pid: int, peak: list[int], over: threading.Event) -> None:
    """Keeps the most that the process and its children hold; the files that they map, libraries above all, counted once.

    From counters of the kernel: a proportional set size is walked page by page, and stops for that what is measured.
    """
    while not over.wait(0.05):
        held = [_held(p) for p in _family(pid)]
        peak[0] = max(peak[0], sum(own for own, _ in held) + max((mapped for _, mapped in held), default=0))


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [p for child in task.read_text().split() for p in _family(int(child))]
        except OSError:  # it has ended
            continue
    return found


def _held(pid: int) -> tuple[int, int]:
    """Returns the bytes of a process's own resident memory, and of the files that it maps."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        own, mapped = (
            sum(int(lines[name].split()[0]) for name in names) * 1024 for names in (("RssAnon", "RssShmem"), ("RssFile",))
        )
    except (OSError, KeyError):  # it has ended
        return 0, 0
    return own, mapped
