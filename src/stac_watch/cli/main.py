"""The command line: parse, one call, render, exit code.

`main` is the entry of the program and of tests: it is given argv and the environment, and returns the exit code. This package is
the only one with argv, print, environ and exit; `geozarr_runner.cli` is its counterpart in the runner.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from stac_watch.cli import (
    ask,
    cluster,
    deploy,
    init,
    jobs,
    ledger,
    lifetimes,
    logs,
    manifests,
    recovery,
    register,
    report,
    setup,
    watch,
)  # fmt: skip
from stac_watch.cli.terminal import Call, alone, cli
from stac_watch.model.errors import FULL, NO_SPACE, WRITE_ERRNOS, Exit, StacWatchError, room

# importing one registers its verbs
VERBS = (init, watch, setup, ask, logs, report, jobs, lifetimes, register, ledger, recovery, cluster, manifests, deploy)


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Runs one command line and returns its exit code; every error of ours becomes one line on stderr.

    The process's own arguments where none are given. A verb that is ended by a signal may raise SystemExit with its code.
    """
    call = Call(environ)
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if odd := next((arg for arg in args if arg.encode(errors="replace").decode() != arg), ""):  # nobody could store or print it
        print(f"error: an argument is not UTF-8: {odd[:80]!a}\n  → write it in the encoding of this terminal", file=sys.stderr)
        return Exit.USAGE
    try:
        code = alone(cli, args[0])(
            args=args,
            prog_name="stac-watch",
            standalone_mode=False,
            obj=call,
        )
    except Exception as error:  # noqa: BLE001  # the top of the program: whatever it is, people get one line
        if call.debug:
            import traceback

            traceback.print_exc()
        text, hint, code = _said(error)
        if text:
            print(f"error: {text}", file=sys.stderr)
        if hint:
            print(f"  → {hint}", file=sys.stderr)
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    if code == Exit.INTERRUPTED:  # typer turns Ctrl-C into this code by itself where it can
        print("interrupted; repeat the command to continue", file=sys.stderr)
    return code or Exit.OK


def _said(error: Exception) -> tuple[str, str, Exit]:
    """Returns what is said of an error: its line, the hint and the exit code."""
    if isinstance(error, StacWatchError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, typer.Abort):
        return "", "", Exit.INTERRUPTED
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        verb = context.command_path if context is not None else "stac-watch"
        return _misused(error), f"`{verb} --help` says what it takes", Exit.USAGE
    if isinstance(error, OSError) and error.errno in WRITE_ERRNOS:
        return _unusable(error)
    text = f"a bug in stac-watch: {type(error).__name__}: {error}"
    return text, "run it again as `stac-watch --debug …` and report the traceback", Exit.DEFECT


def _misused(error: typer.TyperException) -> str:
    """Returns what is wrong with the command line: of a value its option, the value and what it must be."""
    parameter = getattr(error, "param", None)
    if parameter is None or error.__cause__ is None:
        return error.format_message()
    from pydantic import ValidationError

    from stac_watch.config.wording import words

    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return error.format_message()
    [problem, *_] = cause.errors()
    said, given = words(problem), repr(problem["input"])
    return f"{parameter.opts[-1]}{said}" + (f" (given: {given})" if given not in said else "")


def _unusable(error: OSError) -> tuple[str, str, Exit]:
    """Returns what is said where a disk is full or a place is not ours; whoever knew more said it before."""
    path = Path(str(error.filename)) if error.filename else Path.cwd()
    if error.errno in FULL:
        return f"{NO_SPACE} while writing {path}", f"{room(str(path), error.errno)}: free space", Exit.CANNOT_WRITE
    hint = "check the owner and the mount, or choose another place"
    return f"cannot use {path}: {error.strerror}", hint, Exit.CANNOT_WRITE
