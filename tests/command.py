"""The command line, called in this process: one of its own costs a second, and only a signal, a terminal or a pipe needs it."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from typer.main import get_command

from stac_watch.cli.main import cli, main


@dataclass(frozen=True)
class Result:
    """How a command line ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Everything that it wrote."""
        return self.out + self.err


class Command(Protocol):
    """What the fixture `stac_watch` is."""

    def __call__(self, *argv: object, cwd: Path | None = None, **environ: str) -> Result: ...


def call(*argv: object, cwd: Path | None = None, **environ: str) -> Result:
    """Runs one command line; variables are given beside those of this process, as `STAC_WATCH__LEDGER="sqlite:///x.db"`."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))  # bytes below, as `event` writes
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(cwd or Path.cwd()):
        try:
            code = main([str(part) for part in argv], os.environ | environ)
        except SystemExit as end:  # by a signal
            code = int(end.code or 0)
    for stream in (out, err):
        stream.flush()
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return Result(int(code), *texts)


def verbs() -> dict[str, Any]:
    """Every verb as it is typed (`status`, `cluster submit`), with Typer's command for it."""

    def inside(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
        for name, inner in command.commands.items():
            yield from inside(inner, *path, name) if hasattr(inner, "commands") else [(" ".join((*path, name)), inner)]

    return dict(inside(get_command(cli)))


@pytest.fixture(scope="session")
def stac_watch() -> Command:
    """Calls `stac-watch`: `stac_watch("status", "--config", path, cwd=folder, STAC_WATCH__LEDGER=url)` -> code, out, err."""
    return call
