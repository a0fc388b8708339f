"""Runs other programs: shows what they say, or captures it; what a person can mend becomes a `KitError` with the remedy.

There is no shell, no prompt of its own, and no silent failure.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

type Argv = Sequence[str | Path]


class KitError(Exception):
    """What failed, and what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


def need(program: str, hint: str) -> str:
    """The program's path.

    Raises:
        KitError: it is not on PATH.
    """
    found = shutil.which(program)
    if found is None:
        raise KitError(f"{program} is not on PATH.", hint=hint)
    return found


def run(argv: Argv, *, cwd: Path | None = None, hint: str = "") -> None:
    """Runs a program whose output people want to see.

    Raises:
        KitError: it failed; it has said why.
    """
    done = subprocess.run([str(a) for a in argv], cwd=cwd, check=False)
    if done.returncode:
        raise KitError(f"{_named(argv)} ended with {done.returncode}; it says above why.", hint=hint)


def capture(argv: Argv, *, hint: str = "") -> str:
    """What a short program printed on standard output.

    Raises:
        KitError: it failed; the message has the end of what it said.
    """
    done = attempt(argv)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise KitError(f"{_named(argv)} ended with {done.returncode}: {said[-2000:]}", hint=hint)
    return done.stdout


def attempt(argv: Argv) -> "subprocess.CompletedProcess[str]":
    """Runs a short program whose failure is an answer, not an error."""
    try:
        return subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise KitError(f"{argv[0]} is not on PATH.", hint=f"Install it: {missing.filename}") from None


def _named(argv: Argv) -> str:
    return " ".join([Path(argv[0]).name, *map(str, argv[1:3])])
