"""geozarr-runner: one command, from its values to its end. Values come from arguments and the environment only, never a shell.

Every end leaves an exit code (`stac_watch.model.errors`), an outcome file, and one line of what, where and what next on standard
error. The geospatial stack is not loaded to print help.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from geozarr_runner.options import parser, request_of
from geozarr_runner.process import memory
from geozarr_runner.process.progress import Bar, Lines, Progress, log_to
from geozarr_runner.process.stall import Watchdog
from geozarr_runner.publish import marker
from geozarr_runner.request import Request
from geozarr_runner.run import run, standing
from stac_watch.model.errors import EXHAUSTED, Defect, Exit, StacWatchError, exhausted
from stac_watch.model.forms import Native
from stac_watch.model.outcome import Counts, Outcome
from stac_watch.model.signatures import masked, unsigned
from stac_watch.model.stamps import stamp
from stac_watch.model.texts import visible

WORDS = 1000  #: characters of a run's last words: people read them in a column
_GRACE = 8  #: seconds after a signal until the process ends by force; Kubernetes kills after 30, we promise 10


class Stopped(BaseException):
    """A signal ends the run. No Exception: the converter catches those broadly."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit = Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = parser().parse_args(argv)
    try:
        request = request_of(arguments)
    except StacWatchError as error:
        _complain(error, None)
        return int(error.exit_code)
    argo = os.environ.get("ARGO_PROGRESS_FILE", "")
    progress = Progress(
        status=Path(arguments.status) if arguments.status else None,
        argo=Path(argo) if argo else None,
        bar=_bar() if sys.stderr.isatty() else None,
        monotonic=time.monotonic,
    )
    name = request.identity.item_id or unsigned(request.stac_url).rstrip("/").rpartition("/")[2]
    lines = Lines(item=name, run=request.identity.run, progress=progress, as_json=not sys.stderr.isatty())
    command = _preflight if arguments.command == "preflight" else _convert
    memory.keep_freed()
    with log_to(sys.stderr, lines):
        return _guarded(command, arguments, request, progress)


def _convert(arguments: argparse.Namespace, request: Request, progress: Progress, called_off: threading.Event) -> Outcome:  # noqa: ARG001  # one signature for both commands
    outcome = run(request, progress=progress, now=lambda: datetime.now(UTC), called_off=called_off)
    if sys.stdout.isatty():
        seconds = sum(outcome.seconds.values())
        print(f"{outcome.reason}: {outcome.output_zarr} ({outcome.counts.bytes_written / 1e6:.1f} MB, {seconds:.0f} s)")
    else:
        sys.stdout.write(outcome.as_json())
    return outcome


def _preflight(arguments: argparse.Namespace, request: Request, progress: Progress, called_off: threading.Event) -> Outcome:
    if request.output_zarr and (done := standing(request)) is not None:  # whatever has become of its source
        if arguments.size_file:
            marker.write(Path(arguments.size_file), "1Gi")  # of a run that has nothing to do
        print(f"{done.reason}: {done.output_zarr}")
        return done
    from geozarr_runner.source import preflight
    from geozarr_runner.source.product import tree
    from geozarr_runner.source.store import Patience

    with progress.during("preflight"):
        plan = preflight.plan(
            request.stac_url, request.recipe.groups, allowed_hosts=request.allowed_hosts,
            patience=Patience(attempts=request.attempts, timeout=request.timeout), wait=called_off.wait,
            item_id=request.identity.item_id, package=request.recipe.package, asked=Native(request.recipe.native),
            compact=request.recipe.compact,
        )  # fmt: skip
    found = {
        "form": str(plan.form), "native": str(plan.native), "size": plan.estimate.quantity, "remarks": list(plan.product.remarks),
        "item_id": plan.item_id, "product": masked(plan.source.url), "level": plan.product.level, "seen": plan.seen,
        "groups": list(plan.selection.groups), "overviews": list(plan.selection.overviews),
        "arrays": len(plan.selection.arrays), "objects": len(plan.selection.keys), "raw_bytes": plan.selection.raw_bytes,
        "estimate": {"staged": plan.estimate.staged, "output": plan.estimate.output, "package": plan.estimate.package},
    }  # fmt: skip
    if arguments.size_file:
        marker.write(Path(arguments.size_file), plan.estimate.quantity)
    if sys.stdout.isatty():
        print(f"{plan.product.level} {plan.item_id} at {masked(plan.source.url)}: {plan.form}, {plan.native} ({plan.seen})")
        print(tree(plan.product, plan.selection.groups))
        print(f"* = will be converted; {found['objects']} objects, a volume of {found['size']} is enough")
    else:
        print(json.dumps(found))
    return _outcome(request, progress, Exit.OK, "can be converted", "", plan.source.url)


type _Command = Callable[[argparse.Namespace, Request, Progress, threading.Event], Outcome]


def _guarded(command: _Command, arguments: argparse.Namespace, request: Request, progress: Progress) -> int:
    """Runs a command so that every end leaves an outcome: success, our errors, foreign errors, signals."""
    called_off = threading.Event()

    def leave(code: Exit, reason: str, hint: str) -> None:
        _write_outcome(arguments, _outcome(request, progress, code, reason, hint))

    def hung() -> None:
        reason = f"nothing got on for {arguments.stall:g} s"
        hint = "the log has the stacks of its threads; the same command again continues with what is staged"
        sys.stderr.write(f"geozarr-runner: {progress.stage}: {reason}; {hint}\n")
        leave(Exit.TEMPORARY, reason, hint)
        _end_at_once(Exit.TEMPORARY)

    signals = _Signals(called_off, lambda stop: leave(stop.exit, *_stopped(stop)))
    with signals, Watchdog(lambda: progress.steps, arguments.stall, hung, sys.stderr):
        try:
            outcome = command(arguments, request, progress, called_off)
        except StacWatchError as error:
            _complain(error, progress.stage, debug=arguments.debug)
            leave(error.exit_code, error.message, error.hint)
            return int(error.exit_code)
        except Stopped as stop:
            reason, hint = _stopped(stop)
            sys.stderr.write(f"geozarr-runner: {progress.stage}: {reason}; {hint}\n")
            leave(stop.exit, reason, hint)
            _end_at_once(stop.exit)
        except Exception as error:  # noqa: BLE001  # the last line of defence; it ends in a fact, the outcome
            known = _unforeseen(error)
            _complain(known, progress.stage, debug=arguments.debug)
            leave(known.exit_code, known.message, known.hint)
            return int(known.exit_code)
        _write_outcome(arguments, outcome)
        return int(Exit.OK)


def _unforeseen(error: Exception) -> StacWatchError:
    """Returns the error for what nobody turned into one: a machine that is short of something, or a defect."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in EXHAUSTED):
        return exhausted(error if isinstance(error, OSError) else OSError(0, "out of memory"), "cannot go on")
    return Defect(f"{type(error).__name__}: {error}", hint="run again with --debug and report the traceback")


@dataclass
class _Signals:
    """SIGTERM and SIGINT end the run by an exception; when that does not get through within the grace, by force."""

    called_off: threading.Event
    last_words: Callable[[Stopped], None]
    _stop: Stopped = field(default_factory=lambda: Stopped(signal.SIGTERM))

    def __enter__(self) -> None:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
        self._before = {number: signal.signal(number, self._on_signal) for number in numbers}

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            self.last_words(self._stop)
            _end_at_once(self._stop.exit)
        if self.called_off.is_set():
            return  # said once already
        self._stop = Stopped(number)
        self.called_off.set()
        signal.alarm(_GRACE)
        raise self._stop


def _stopped(stop: Stopped) -> tuple[str, str]:
    word = "interrupted" if stop.exit == Exit.INTERRUPTED else "terminated"
    return word, "the same command again continues with what is staged"


def _end_at_once(code: Exit) -> NoReturn:
    """Ends without waiting for worker threads, which may be in the middle of a chunk; what they write has no final name."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code))


def _outcome(request: Request, progress: Progress, code: Exit, reason: str, hint: str, source: str = "") -> Outcome:
    identity = request.identity
    return Outcome(
        code=int(code), reason=reason, hint=hint, stage=progress.stage, key=identity.key, revision=identity.revision,
        run=identity.run, attempt=identity.attempt, item_id=identity.item_id, source=source or unsigned(request.stac_url),
        fence=identity.fence, installation=identity.installation,
        output_zarr=request.output_zarr, package=None, versions=marker.versions(), seconds=dict(progress.seconds),
        counts=Counts(), finished=stamp(datetime.now(UTC).replace(microsecond=0)),
    )  # fmt: skip


def _write_outcome(arguments: argparse.Namespace, outcome: Outcome) -> None:
    try:
        if arguments.outcome:
            marker.write(Path(arguments.outcome), outcome.as_line())
        if arguments.message_file and outcome.code:
            # written in place: Kubernetes mounts the file itself, and takes 4,096 bytes of it
            Path(arguments.message_file).write_text(_last_words(outcome), encoding="utf-8")
    except StacWatchError as error:  # the run's own end counts more than where it is written down
        _complain(error, "outcome")
    except OSError as error:
        sys.stderr.write(f"geozarr-runner: cannot write {arguments.message_file}: {error.strerror}\n")


def _last_words(outcome: Outcome) -> str:
    """Returns where and why it failed, and what is next, in one line."""
    where = f"{outcome.stage}: " if outcome.stage else ""
    words = f"{where}{outcome.reason}" + (f" → {outcome.hint}" if outcome.hint else "")
    return visible(words)[:WORDS]


def _complain(error: StacWatchError, stage: str | None, *, debug: bool = False) -> None:
    if debug:
        traceback.print_exception(error)
    where = f"{stage}: " if stage else ""
    hint = f"; {error.hint}" if error.hint else ""
    sys.stderr.write(f"geozarr-runner: {where}{error.message}{hint}\n")


def _bar() -> Bar:
    from geozarr_runner.process.terminal import TerminalBar

    return TerminalBar(sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
