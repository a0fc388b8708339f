"""Starts, stops and finds the processes of the cluster, also those that an earlier, killed call left behind.

Each has a log and a record, from which `start_again` can start it after a test stopped it. Every process carries a mark in its
environment, and every container lies in our cgroup: that is how leftovers are told from what is not ours. A process that has
neither is never ended.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.commands import Argv, HarnessError
from harness.places import NAME, Places

MARK = "STAC_WATCH_CLUSTER_PROCESS"


@dataclass(frozen=True)
class Daemon:
    """A process that stays."""

    name: str
    argv: Argv


def start(places: Places, daemon: Daemon) -> None:
    """Starts it in a session of its own; its output goes to logs/NAME.log."""
    folder = places.state / "daemons"
    folder.mkdir(parents=True, exist_ok=True)
    places.logs.mkdir(parents=True, exist_ok=True)
    argv = [str(a) for a in daemon.argv]
    with (places.logs / f"{daemon.name}.log").open("a") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=places.state,
            env={"PATH": os.environ["PATH"], "HOME": "/root", MARK: NAME},
            start_new_session=True,
        )
    (folder / f"{daemon.name}.json").write_text(json.dumps({"argv": argv, "pid": process.pid, "born": _born(process.pid)}))


def start_again(places: Places, name: str) -> None:
    """Starts a daemon that `stop` ended, with the same command line."""
    if not is_running(places, name):
        start(places, Daemon(name, _record(places, name)["argv"]))


def stop(places: Places, name: str, number: int = signal.SIGTERM, patience: float = 15) -> None:
    """Ends one daemon and waits until it is gone; raises HarnessError when it does not go."""
    record = _record(places, name)
    if not is_running(places, name):
        return
    os.kill(record["pid"], number)
    wait_until(lambda: not is_running(places, name), patience, f"{name} did not end", log=places.logs / f"{name}.log")


def act(places: Places, action: str, name: str) -> None:
    """What fault tests need: to stop, kill or start one process of the cluster."""
    match action:
        case "stop":
            stop(places, name)
        case "kill":
            stop(places, name, signal.SIGKILL)
        case "start":
            start_again(places, name)


def is_running(places: Places, name: str) -> bool:
    """Whether the process that was started under this name is the one that runs under its number."""
    try:
        record = _record(places, name)
    except HarnessError:
        return False
    return bool(record["born"]) and _born(record["pid"]) == record["born"]


def names(places: Places) -> list[str]:
    """All daemons that were started since the cluster came up."""
    return sorted(p.stem for p in (places.state / "daemons").glob("*.json"))


def wait_until(
    true: Callable[[], bool], seconds: float, otherwise: str, log: Path | None = None, alive: Callable[[], bool] = lambda: True
) -> None:
    """Polls until `true`; raises HarnessError after the deadline, or at once when `alive` no longer holds."""
    deadline = time.monotonic() + seconds
    while not true():
        if not alive():
            raise HarnessError(f"{otherwise}: its process ended.", log=log)
        if time.monotonic() > deadline:
            raise HarnessError(f"{otherwise} within {seconds:.0f} s.", log=log)
        time.sleep(0.1)


def end_all(patience: float = 30) -> int:
    """Kills every process and container of the cluster, however it was left; returns how many processes there were."""
    seen: set[int] = set()
    deadline = time.monotonic() + patience
    while found := set(ours()):
        seen |= found
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise HarnessError(
                f"These processes cannot be killed: {sorted(found)}.",
                hint="Uninterruptible I/O, most likely; look at: ps -o pid,stat,wchan,cmd",
            )
        time.sleep(0.05)
    return len(seen)


def ours() -> Iterator[int]:
    """Process numbers that carry our mark or run in our cgroup."""
    mark, cgroup = f"{MARK}={NAME}".encode(), f"/{NAME}/".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it ended while we looked
            if not _born(int(entry.name)):
                continue
            if mark in (entry / "environ").read_bytes().split(b"\0") or cgroup in (entry / "cgroup").read_bytes():
                yield int(entry.name)


def _record(places: Places, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads((places.state / "daemons" / f"{name}.json").read_text()))
    except (FileNotFoundError, ValueError):
        known = ", ".join(names(places)) or "none; the cluster is down"
        raise HarnessError(f"No daemon is called {name}.", hint=f"There are: {known}.") from None


def _born(pid: int) -> str:
    """The start time of a process in clock ticks since boot, which with its number makes it unique; empty when gone or a zombie.

    A process that was killed is one as soon as its first thread has ended. On a busy machine the others are at it for a while, and
    hold what it listened on: an API server that was started again meanwhile found its port in use.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ended = fields[0] in "ZX" and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except OSError:
        return ""
    return "" if ended else fields[19]
