"""The options of geozarr-runner, and the request that they make.

All arguments are strings, as Workflow parameters are; an empty one is the default.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geozarr_runner.publish.package import AUTO, SUFFIXES, kind_of
from geozarr_runner.request import Identity, Request, RunRecipe
from stac_watch.model.errors import InputError
from stac_watch.model.forms import ENCODING, SHARDING, Encoding, Native, sharded
from stac_watch.model.hosts import narrowed
from stac_watch.model.identity import check_item_id, conversion_key, parse_event_id
from stac_watch.model.signatures import unsigned
from stac_watch.model.stamps import ordered_stamp, parse_stamp

SHAPES = {
    "--stac-url": "URL", "--output-zarr": "PATH", "--spatial-chunk": "PIXELS", "--sharding": "true|false|auto",
    "--encoding": "packed|decoded|stock", "--package": "auto|tar|tar.gz|none", "--overwrite": "true|false",
    "--allow-empty": "true|false", "--engine": "auto|fast|stock", "--native": "mirror|convert|reference", "--item-id": "ID",
    "--run": "NAME", "--attempt": "N", "--fence": "TIME", "--installation": "NAME", "--attempts": "N", "--timeout": "SECONDS",
    "--stall": "SECONDS",
}  # fmt: skip
"""What a value looks like, where its option's name does not say it."""


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
        example = f"example: geozarr-runner {name} --stac-url https://stac.example/collections/c/items/ITEM --output-zarr ITEM.zarr"
        command = commands.add_parser(name, help=text, description=text, epilog=example)
        _add_options(command, with_output=name != "preflight")
    return parser


def _add_options(command: argparse.ArgumentParser, *, with_output: bool) -> None:
    def add(name: str, **given: Any) -> None:  # noqa: ANN401  # argparse's own
        command.add_argument(name, **({"metavar": SHAPES[name]} if name in SHAPES else {}) | given)

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
    add(
        "--scratch",
        default="",
        metavar="SIZE",
        help="e.g. 12Gi: room where its pod works; what needs more is refused",
    )
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


def request_of(arguments: argparse.Namespace) -> Request:
    """Returns what is asked for.

    Raises:
        InputError: a value is none of its kind.
    """
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
        memory_limit=arguments.memory_limit, scratch=_room(arguments.scratch),
    )  # fmt: skip


def _room(text: str) -> int:
    """Returns how much room a folder has that goes with its pod; 0 = it does not."""
    if not text:
        return 0
    from geozarr_runner.process.limits import parse_size  # it knows arrays

    return parse_size(text, "--scratch")


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
