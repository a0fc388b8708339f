"""The engine for one machine: `geozarr-runner run` as a process per event, each in its own folder.

The folder is named like the run, and holds the event, the runner's log, status and outcome. A run outlives the watcher, as a
Workflow does. Liveness is a file lock that the runner's process inherits: the kernel drops it when the process ends, however it
ends, so a process id that was given to somebody else is never mistaken for a run.

A run has a deadline, as a Workflow has, and a share of the machine's memory: what a product makes it do must not cost its
neighbours theirs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from stac_watch.model.errors import Exit, InputError, StacWatchError, Temporary, cannot_write
from stac_watch.model.event import OLDER_OPTIONS, OPTIONS, parse_event
from stac_watch.model.files import replace_file
from stac_watch.model.identity import key_in_name
from stac_watch.model.outcome import Outcome, parse_outcome, read_document
from stac_watch.runs import processes
from stac_watch.runs.engine import Answer, Phase, Receipt, Run, name_taken

EVENT, LOCK, LOG, STATUS, OUTCOME, PID = "event.json", "run.lock", "runner.log", "status.json", "outcome.json", "pid"
LATE = "late"
"""Written into a run's folder when its deadline has passed, before it is told to end."""
WORK = ".work"
"""Where runs stage sources, under the folder: `stage/<key>` stays after a failure, for the next attempt."""

GRACE = 12.0  # seconds; the runner promises to end within 10 after SIGTERM
DEADLINE = timedelta(hours=6)
MOST = 4 << 20  # bytes of a file of a run that are read: an outcome has some kilobytes


class LocalEngine:
    """Runs of this machine, under `folder`."""

    def __init__(
        self,
        folder: Path,
        *,
        command: Sequence[str],
        max_in_flight: int,
        environ: Mapping[str, str],
        deadline: timedelta = DEADLINE,
        memory: int | None = None,  # bytes that a run may have; None = as many as there are
    ) -> None:
        self._deadline, self._memory = deadline, memory
        self._folder = folder
        self._command = list(command)
        self._max_in_flight = max_in_flight
        self._environ = dict(environ)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, event: bytes) -> Receipt:
        """Starts the run unless its folder exists; a folder whose process never started is started now."""
        try:
            data = parse_event(event)["data"]
        except InputError as error:
            return Receipt(Answer.REFUSED, error.message)
        run = self._folder / str(data["run"])
        try:
            run.mkdir(parents=True, exist_ok=True)
            with (run / LOCK).open("w") as lock:
                if not _try_lock(lock.fileno()):
                    if not (run / EVENT).exists():  # another process looks at the folder just now, or is about to start the run
                        return Receipt(Answer.UNKNOWN, "another process holds its folder")
                    return _met(run, data) or Receipt(Answer.ACCEPTED, "it runs already")
                if taken := _met(run, data):
                    return taken
                if (run / OUTCOME).exists():
                    return Receipt(Answer.ACCEPTED, "it ended already")
                replace_file(run / EVENT, event)
                self._start(run, data, lock.fileno())
        except OSError as error:
            refused: StacWatchError | None = cannot_write(error, run)
            if refused is not None:
                raise refused from error
            return Receipt(Answer.UNKNOWN, f"cannot start {self._command[0]}: {error}")
        return Receipt(Answer.ACCEPTED)

    def _start(self, run: Path, data: Mapping[str, Any], lock: int) -> None:
        argv = [*self._command, *arguments(data)]
        argv += ["--work", str(self._folder / WORK), "--outcome", str(run / OUTCOME), "--status", str(run / STATUS)]
        try:
            with (run / LOG).open("ab") as log:
                child = subprocess.Popen(  # noqa: S603  # an argument list, no shell; values were checked when the event was built
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environ,
                    pass_fds=(lock,),  # the lock lives as long as the process
                    start_new_session=True,  # Ctrl-C reaches the watcher, which ends its runs in order
                )
        except OSError:  # with its event but without a process the folder would be that of a run that was killed
            (run / EVENT).unlink()
            raise
        if self._memory is not None:
            processes.limit_memory(child.pid, self._memory)
        self._children[run.name] = child
        replace_file(run / PID, str(child.pid))

    def runs(self, keys: Sequence[str]) -> list[Run]:
        """Reads the folders of these keys, and tells runs whose deadline has passed to end.

        Raises:
            Temporary: this machine cannot look, as when descriptors are used up.
        """
        with _looking(self._folder):
            return self._runs(keys)

    def _runs(self, keys: Sequence[str]) -> list[Run]:
        wanted = {key_in_name(key) for key in keys}
        found = []
        for run in sorted(_folders(self._folder)):
            data = event_of(run) if run.name.split("-")[-2] in wanted else None
            if data is not None and data.get("key") in keys and data.get("run") == run.name:
                found.append(self._look(run, data))
        return found

    def _look(self, run: Path, data: Mapping[str, Any]) -> Run:
        child = self._children.get(run.name)
        if child is not None and child.poll() is not None:
            del self._children[run.name]  # reaped
        common: dict[str, Any] = {"name": run.name, "key": data["key"], "attempt": data["attempt"]}
        common["started"] = datetime.fromtimestamp((run / EVENT).stat().st_mtime, UTC)
        alive = is_alive(run)
        outcome = parse_outcome(_read(run / OUTCOME))
        if not alive and (run / LATE).exists() and (outcome is None or outcome.code == Exit.TERMINATED):
            reason = f"it took longer than it may: {self._deadline}"
            outcome = Outcome(code=int(Exit.TEMPORARY), reason=reason, hint="raise engine.deadline if that is normal here")
            return Run(**common, phase=Phase.FAILED, stage=outcome.stage, outcome=outcome)
        if outcome is not None and not alive:
            phase = Phase.SUCCEEDED if outcome.code == 0 else Phase.FAILED
            ended = datetime.fromtimestamp((run / OUTCOME).stat().st_mtime, UTC)
            return Run(**common, phase=phase, stage=outcome.stage, outcome=outcome, ended=ended)
        if alive:
            self._mind_the_deadline(run)
            stage, progress = _standing(read_document(_read(run / STATUS)) or {})
            return Run(**common, phase=Phase.RUNNING, stage=stage, progress=progress)
        # no lock and no outcome: the process was killed before it could say anything
        outcome = Outcome(code=137, reason="the run's process ended without an outcome", hint=f"see {run / LOG}")
        return Run(**common, phase=Phase.FAILED, outcome=outcome)

    def _mind_the_deadline(self, run: Path) -> None:
        """Tells a run to end that has lived too long; kills one that was told so and lives."""
        lived = processes.age(_leader(run) or 0, run / LOCK)
        if lived is None or lived < self._deadline.total_seconds():
            return
        told = (run / LATE).exists()
        if not told:
            replace_file(run / LATE, "")
        if not told or lived > self._deadline.total_seconds() + GRACE:
            self._signal(run, signal.SIGKILL if told else signal.SIGTERM)

    def headroom(self) -> int:
        """Counts the folders whose lock is held.

        Raises:
            Temporary: this machine cannot look, as when descriptors are used up.
        """
        with _looking(self._folder):
            alive = sum(is_alive(run) for run in _folders(self._folder))
        return max(0, self._max_in_flight - alive)

    def close(self, *, stop_runs: bool) -> None:
        """Ends every run of this folder in order (SIGTERM, SIGKILL after 12 s), or leaves them to end by themselves."""
        if stop_runs:
            alive = ended = [run for run in _folders(self._folder) if is_alive(run)]
            for number in (signal.SIGTERM, signal.SIGKILL):
                for run in alive:
                    self._signal(run, number)
                alive = self._await_end(alive, GRACE)
            for run in ended:
                if not (run / OUTCOME).exists() and not is_alive(run):  # it had not come so far that it could say so itself
                    stopped = Outcome(code=int(Exit.TERMINATED), reason="ended while it started")
                    replace_file(run / OUTCOME, json.dumps(stopped.document()))
        for name, child in list(self._children.items()):
            if not is_alive(self._folder / name):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(GRACE)  # the lock went first; the process itself is gone a moment later
                del self._children[name]

    def _signal(self, run: Path, number: signal.Signals) -> None:
        """Signals a run's processes: those of the group in which its lock is held, whoever has the number in `pid` by now."""
        child, leader = self._children.get(run.name), _leader(run)
        if processes.HANDLES and leader is not None:
            processes.signal_group(leader, run / LOCK, number)
        elif child is not None:
            child.send_signal(number)

    def _await_end(self, alive: list[Path], seconds: float) -> list[Path]:
        deadline = time.monotonic() + seconds
        while alive and time.monotonic() < deadline:
            for child in self._children.values():
                child.poll()  # a process that nobody waits for keeps its entry, though not its lock
            alive = [run for run in alive if is_alive(run)]
            time.sleep(0.05)
        return alive


def arguments(data: Mapping[str, Any]) -> list[str]:
    """Returns the runner's arguments for an event's data; the WorkflowTemplate passes the same ones.

    Options that the Sensor does not know are left out, as there: an event must not give the runner hosts, or another's name.
    """
    options = OLDER_OPTIONS | data.get("options", {})
    given = {
        "stac-url": data["stac_url"], "output-zarr": data["output_zarr"], "groups": data.get("groups", ""),
        "key": data["key"], "revision": data["revision"], "item-id": data["item_id"], "run": data["run"],
        "attempt": str(data["attempt"]), "fence": data.get("fence", ""), "installation": data.get("installation", ""),
        "source-hosts": data.get("allowed_hosts", ""),
        **{name.replace("_", "-"): str(options[name]) for name in OPTIONS if name in options},
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in given.items()]


def _met(run: Path, data: Mapping[str, Any]) -> Receipt | None:
    """Returns the refusal of an event whose run's name another conversion has; None where none has it."""
    other = event_of(run)
    taken = other is not None and other.get("key") not in (None, data["key"])
    return Receipt(Answer.REFUSED, name_taken(run.name, str(other["key"]))) if taken and other is not None else None


def _try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def event_of(run: Path) -> dict[str, Any] | None:
    """Returns the data of a run folder's event; None where there is none, or none that can be read."""
    data = (read_document(_read(run / EVENT)) or {}).get("data")
    return data if isinstance(data, dict) else None


def is_alive(run: Path) -> bool:
    """Tells whether a run folder's process lives. Who looks shares the lock: two that look do not take each other for a run."""
    try:
        with (run / LOCK).open("r") as lock:
            return not _try_lock(lock.fileno(), fcntl.LOCK_SH)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _folders(folder: Path) -> list[Path]:
    """Returns the run folders. `glob` takes a folder that cannot be opened for an empty one: every run would have vanished."""
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if entry.name.startswith("gz-")]
    except FileNotFoundError:  # nothing was started yet
        return []


def _leader(run: Path) -> int | None:
    """Returns the number that a run's process had; None where whoever started it was killed before it could note it."""
    try:
        return int((run / PID).read_text())
    except (FileNotFoundError, ValueError):
        return None


@contextlib.contextmanager
def _looking(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "it is tried again; `ulimit -n` and the disk below that folder are what usually lacks"
        raise Temporary(f"cannot look at the runs in {folder}: {error.strerror or error}", hint=hint) from error


def _standing(status: Mapping[str, Any]) -> tuple[str, tuple[int, int] | None]:
    """Returns where a run is, and how far, from its status file, which another program wrote."""
    stage, done, total = status.get("stage"), status.get("done"), status.get("total")
    progress = (done, total) if isinstance(done, int) and isinstance(total, int) else None
    return stage if isinstance(stage, str) else "start", progress


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST)
    except (FileNotFoundError, NotADirectoryError):
        return b""
