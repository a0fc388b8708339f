"""Runs other programs: streams to a log, or captures; a failure becomes one error that shows the end of the right log.

There is no shell, and no silent failure.
"""

import os
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

type Argv = Sequence[str | Path]

#: compiling must not starve what else runs on the machine; the lowest priority costs nothing on an idle one
NICE = ("nice", "-n", "19")

TAIL = 25  #: lines of a log that an error shows


class HarnessError(Exception):
    """Something that a person has to see: what failed, what to do, and where the log is."""

    def __init__(self, message: str, *, hint: str = "", log: Path | None = None) -> None:
        super().__init__(message)
        self.message, self.hint, self.log = message, hint, log

    def __str__(self) -> str:
        lines = [self.message]
        if self.log and self.log.exists():
            with self.log.open(errors="replace") as file:
                lines += [f"--- end of {self.log}", *(line.rstrip() for line in deque(file, TAIL)), "---"]
        if self.hint:
            lines.append(self.hint)
        return "\n".join(lines)


def stream(
    argv: Argv,
    *,
    log: Path,
    on_line: Callable[[str], None] = lambda _line: None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    hint: str = "",
) -> None:
    """Runs a long command; its output goes to `log` line by line, and each line to `on_line`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write("$ " + " ".join(map(str, argv)) + "\n")
        file.flush()
        with subprocess.Popen(
            [str(a) for a in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            cwd=cwd,
        ) as process:
            assert process.stdout is not None  # a pipe was asked for
            for line in process.stdout:
                file.write(line)
                file.flush()
                on_line(line.rstrip())
    if process.returncode:
        program = next(a for a in map(str, argv) if a not in NICE)
        raise HarnessError(f"{Path(program).name} ended with {process.returncode}", hint=hint, log=log)


def capture(argv: Argv, *, stdin: str | None = None, env: Mapping[str, str] | None = None, hint: str = "") -> str:
    """Runs a short command and returns what it printed on standard output."""
    done = attempt(argv, stdin=stdin, env=env)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise HarnessError(f"{' '.join(map(str, argv))[:300]} ended with {done.returncode}: {said[-2000:]}", hint=hint)
    return done.stdout


def attempt(argv: Argv, *, stdin: str | None = None, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a short command whose failure is an answer, not an error."""
    return subprocess.run(
        [str(a) for a in argv],
        input=stdin or "",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
