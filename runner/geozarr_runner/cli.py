"""geozarr-runner: the command line. Values come from arguments and the environment only; nothing goes through a shell.

All arguments are strings, as Workflow parameters are; an empty one is the default. Every end leaves an exit code
(`stac_watch.model.errors`), an outcome file, and one line of what, where and what next on standard error. The geospatial stack is
not loaded to print help.
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
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import NoReturn

from geozarr_runner.process import memory
from geozarr_runner.process.progress import Bar, Lines, Progress, log_to
from geozarr_runner.process.stall import Watchdog
from geozarr_runner.publish import marker
from geozarr_runner.publish.package import AUTO, SUFFIXES, kind_of
from geozarr_runner.request import Identity, Request, RunRecipe
from geozarr_runner.run import run, standing
from stac_watch.model.errors import EXHAUSTED, Defect, Exit, InputError, StacWatchError, exhausted
from stac_watch.model.forms import ENCODING, SHARDING, Encoding, Native, sharded
from stac_watch.model.hosts import narrowed
from stac_watch.model.identity import check_item_id, conversion_key, parse_event_id
from stac_watch.model.outcome import Counts, Outcome
from stac_watch.model.signatures import masked, unsigned
from stac_watch.model.stamps import ordered_stamp, parse_stamp, stamp
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
        request = _request(arguments)
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
            marker.write(Path(arguments.outcome), outcome.as_json())
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


def _request(arguments: argparse.Namespace) -> Request:
    recipe = RunRecipe(
        groups=arguments.groups, spatial_chunk=arguments.spatial_chunk,
        sharding=sharded(arguments.sharding, arguments.output_zarr), encoding=Encoding(arguments.encoding),
        package=kind_of(arguments.package, arguments.output_zarr), dask_perf_html=arguments.dask_perf_html,
        engine=arguments.engine, native=arguments.native,
    )  # fmt: skip
    if arguments.item_id:
        check_item_id(arguments.item_id)
    key = arguments.key or _derived_key(arguments.stac_url, arguments.revision, recipe)
    parse_event_id(f"{key}-{arguments.attempt}")
    return Request(
        identity=Identity(
            key, arguments.revision, arguments.run, arguments.attempt, arguments.item_id,
            fence=_fence(arguments.fence), installation=arguments.installation,
        ),
        stac_url=arguments.stac_url, output_zarr=arguments.output_zarr, recipe=recipe, overwrite=arguments.overwrite,
        allow_empty=arguments.allow_empty,
        work=Path(arguments.work) if arguments.work else None,
        allowed_hosts=narrowed(_hosts(arguments.source_hosts), _hosts(arguments.allowed_hosts)),
        attempts=arguments.attempts, timeout=arguments.timeout,
        memory_limit=arguments.memory_limit,
    )  # fmt: skip


def _fence(text: str) -> str:
    """Returns the fence as it is compared, whatever spelling of the same time was given."""
    moment = parse_stamp(text)
    if text and moment is None:
        raise InputError(f"--fence {text[:80]!r} is not an RFC 3339 time", hint="give the item's `updated`, or nothing")
    return ordered_stamp(moment) if moment is not None else ""


def _hosts(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(host for value in values for host in value.replace(",", " ").split())


def _derived_key(stac_url: str, revision: str, recipe: RunRecipe) -> str:
    """Returns a key for use by hand: equal for the same source and recipe."""
    asked = json.dumps(
        [sorted(recipe.groups.split()), recipe.spatial_chunk, recipe.sharding, recipe.package, recipe.native, recipe.encoding]
    )
    return conversion_key("by-hand", "", unsigned(stac_url).rstrip("/"), revision, asked)


def parser() -> argparse.ArgumentParser:
    """Returns the command line; the documentation's reference is written from it."""
    parser = argparse.ArgumentParser(
        prog="geozarr-runner",
        description="Converts one Sentinel-2 Zarr product to a verified GeoZarr.",
        epilog="exit codes: 0 done, 65 bad input, 66 source not there yet, 70 defect, 73 cannot write, 75 temporary, 77 refused, "
        "79 a later revision is there, 130 and 143 stopped (the same command continues). Every value may be empty: the default.",
    )
    versions = f"%(prog)s {version('geozarr-runner')}, eopf-geozarr {version('eopf-geozarr')}"
    parser.add_argument("--version", action="version", version=versions)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("preflight", "is it done? else: resolve the item, check product and groups, estimate sizes; no pixels"),
        ("convert", "stage, convert, verify, package, publish; reads what it needs of the metadata itself"),
        ("run", "the same as convert: everything in one process"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        _add_options(command, with_output=name != "preflight")
    return parser


def _add_options(command: argparse.ArgumentParser, *, with_output: bool) -> None:
    add = command.add_argument
    add("--stac-url", required=True, type=_required, help="item URL, Zarr URL, local path, or s3://…")
    add("--output-zarr", required=with_output, default="", type=_required if with_output else str, help="where the GeoZarr goes")
    add("--groups", default="", help="space-separated groups, leading / optional; empty = the whole product")
    add("--spatial-chunk", default=1024, type=_or_default(_positive, 1024), help="chunk edge in pixels (default 1024)")
    add(
        "--sharding",
        default=SHARDING,
        type=_one_of(SHARDING, "true", "false", "auto"),
        help="one file per array; auto: in object stores",
    )
    add("--encoding", default=ENCODING, type=_one_of(ENCODING, *Encoding), help="packed (the source's integers), decoded or stock")
    add(
        "--package", default=AUTO, type=_one_of(AUTO, *SUFFIXES),
        help="auto (default: tar for an output below /data, else none), tar, tar.gz or none",
    )  # fmt: skip
    add("--overwrite", default=False, type=_or_default(_boolean, default=False), help="true: convert again, even when done")
    add("--allow-empty", default=False, type=_or_default(_boolean, default=False), help="true: take missing chunks for nodata")
    add("--dask-perf-html", default="", metavar="FILE", help="Dask's performance report; empty = off. Takes the stock engine")
    add("--engine", default="auto", type=_one_of("auto", "fast", "stock"), help="auto: fast where it can; same values")
    add("--native", default="mirror", type=_one_of(*Native), help="of finished GeoZarr: mirror, convert or reference")
    add("--memory-limit", default="", metavar="SIZE", help="e.g. 2Gi: fewer workers if needed; default: the container's limit")
    add("--key", default="", help="the conversion's key, 20 hex digits; default: derived from source and recipe")
    add("--revision", default="", help="the item's revision")
    add("--item-id", default="", help="default: what the item or the product says")
    add("--run", default="", help="the run's name")
    add("--attempt", default=1, type=_or_default(_positive, 1), help="default 1")
    add("--fence", default="", help="an RFC 3339 time that orders the item's revisions: an output with a later one is left alone")
    add("--installation", default="", help="whose run this is: another installation's output is left alone")
    add("--work", default="", metavar="DIR", help="where sources are staged; default: .geozarr-runner beside the output")
    add("--outcome", default="", metavar="FILE", help="the outcome as JSON, written whatever happens")
    add("--message-file", default="", metavar="FILE", help="where and why it failed, in one line; Kubernetes' termination message")
    add("--status", default="", metavar="FILE", help='{"stage", "done", "total"}, replaced as work goes on')
    add("--allowed-hosts", default=[], action="append", metavar="HOST", help="repeatable or comma-separated; none = any host")
    add("--source-hosts", default=[], action="append", metavar="HOST", help="of those, the ones of the item's source; none = all")
    add("--attempts", default=5, type=_or_default(_positive, 5), help="attempts per object (default 5)")
    add("--timeout", default=60.0, type=_or_default(float, 60.0), help="seconds of silence after which a connection is closed")
    add("--stall", default=1800.0, type=_or_default(float, 1800.0), help="seconds without a step until it ends with 75; 0 = never")
    add("--debug", action="store_true", help="show tracebacks")
    if not with_output:
        add("--size-file", default="", metavar="FILE", help="the volume's size as a Kubernetes quantity, e.g. 7Gi")


def _or_default[T](convert: Callable[[str], T], default: T) -> Callable[[str], T]:
    def read(text: str) -> T:
        return convert(text) if text.strip() else default

    read.__name__ = convert.__name__.strip("_")  # argparse puts it into its message
    return read


def _required(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text.strip()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.strip().lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return words[text.strip().lower()]


def _one_of(*known: str) -> Callable[[str], str]:
    """Returns what reads one of these words; nothing is the first."""

    def read(text: str) -> str:
        text = text or known[0]
        if text not in known:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(dict.fromkeys(known))}")
        return text

    return read


def _bar() -> Bar:
    from geozarr_runner.process.terminal import TerminalBar

    return TerminalBar(sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
