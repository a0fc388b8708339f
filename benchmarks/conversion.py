"""One tile, converted in every way in one run, against a floor, and over a slow network: `make bench-conversion`.

In: a product, made here or kept from an earlier run. Out: tables, and JSON with every figure; exit 1 when more than metadata was
fetched twice, or an output differs. Never: compares with a figure of another day or machine; ratios within this run count.

    floor     decode + float32 + compress + write of the same arrays, by as many threads as there are CPUs: see `floor`
    packed    geozarr_runner.convert, engine fast, in a fresh process, its import included: the source's integers, in shards
    decoded   the same as float32, in shards
    as stock  the same as float32, in chunks of 1024 and the converter's own codec: byte for byte what `stock` writes
    stock     engine stock: eopf-geozarr's own write path, chunk 1024
    cli       `eopf-geozarr convert`, as a user would type it
    cli s2    `eopf-geozarr convert-s2-optimized`, chunk 256
    cli dask  `eopf-geozarr convert --dask-cluster`
    verify    geozarr_runner.verify on the output of `packed`, as share of its conversion
    http      `geozarr-runner run` from a server that lets each request wait and gives each connection so much: preflight, staging,
              conversion, verification, report; packed, in shards, to a folder
    http s3   the same to an S3 server on this machine, objects uploaded meanwhile: the whole run, as an installation has it
    http cli  `eopf-geozarr convert` on the same URL to a folder, which verifies nothing
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fsspec
from floor import CHUNK, floor
from measured import measured
from result import Goal, Result
from s3_server import S3Server
from slow_http import REQUESTS
from tile import write_tile

ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
FORMS: dict[str, dict[str, Any]] = {
    "packed": {"engine": "fast", "encoding": "packed", "sharding": True},
    "decoded": {"engine": "fast", "encoding": "decoded", "sharding": True},
    "as stock": {"engine": "fast", "encoding": "stock"},
    "stock": {"engine": "stock", "encoding": "stock"},
}
CLI = {"cli": ("convert",), "cli s2": ("convert-s2-optimized",), "cli dask": ("convert", "--dask-cluster")}
LATENCY, RATE = 0.04, 20_000_000  # seconds per request; bytes per second and connection
BUCKET = "bench"
LOOKS = 1  #: requests by which the benchmark itself sees what lies there
NOTE = (
    "`floor`: decode, compress (zstd 3) and write the same arrays as float32. `packed`, `decoded`: our fast engine, one object "
    "for each array. `as stock`, `stock`: both engines, byte for byte the converter's own form. `cli`: `eopf-geozarr convert`; "
    "`cli s2`: `convert-s2-optimized`; `cli dask`: `convert --dask-cluster`. `verify`: of what `packed` wrote, by us. `http`: a"
    " whole run of ours from a slow server, packed and sharded, verification and report included; `http s3`: the same into an "
    "S3 server on this machine, whose own processor seconds are in the wall time only; `http cli`: `eopf-geozarr convert` from "
    "there to a folder, which verifies nothing."
)
PACKAGES = ("eopf-geozarr", "zarr", "dask", "xarray", "numcodecs")


def main() -> int:
    """Runs everything, prints the table, writes the JSON."""
    arguments = _arguments()
    if arguments.only:
        return _one(arguments.only, arguments.source, arguments.output)
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        product = _product(arguments.keep or Path(scratch), arguments.size)
        runs = _locally(product, Path(scratch), arguments)
        fetched = _over_http(product, Path(scratch), arguments, runs) if arguments.http else {}
    document = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"), "size": arguments.size, "cpus": os.cpu_count(),
        "load_after": os.getloadavg(), "versions": {name: version(name) for name in PACKAGES},
        "runs": runs, "fetched": fetched, "judged": list(_judged(runs, fetched)),
    }  # fmt: skip
    (folder / "conversion.json").write_text(json.dumps(document, indent=1) + "\n")
    for result in _results(document):
        result.keep()
    return int(any(one["must"] and not one["reached"] for one in document["judged"]))


def _locally(product: Path, scratch: Path, arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    ways = ["floor", *FORMS, *(CLI if arguments.cli else [])]
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in [*ways, "verify"]}
    for turn in range(arguments.runs):
        for way in ways:
            output = scratch / f"{way}-{turn}"
            runs[way].append(measured(way, _way(way, str(product), output), output))
            if way == "packed":
                runs["verify"].append(measured("verify", _way("verify", str(product), output), output))
            if way == "stock":
                fast = scratch / f"as stock-{turn}"
                runs[way][-1]["differing"] = _differing(fast, output)
                shutil.rmtree(fast)
            if way != "as stock":
                shutil.rmtree(output)
    return runs


def _over_http(
    product: Path, scratch: Path, arguments: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]
) -> dict[str, dict[str, float]]:
    """Runs all ways over HTTP and returns what each of them fetched."""
    fetched = {}
    for way in ["http", "http s3", *(["http cli"] if arguments.cli else [])]:
        runs[way] = []
        for turn in range(arguments.runs):
            folder = scratch / f"{way.replace(' ', '-')}-{turn}"
            folder.mkdir()
            with _served(product.parent) as url:
                source = f"{url}/{product.name}"
                if way == "http s3":
                    run = _to_s3(way, source, folder)
                else:
                    run = measured(way, _way(way, source, folder / "out.zarr"), folder / "out.zarr")
                fetched[way] = _fetched(url)
            runs[way].append(run)
            shutil.rmtree(folder)
    return fetched


def _to_s3(way: str, source: str, folder: Path) -> dict[str, Any]:
    """Runs a whole conversion into an S3 server; returns besides what it asked of it, and what lies there then."""
    output, outcome = f"{BUCKET}/scenes/out.zarr", folder / "outcome.json"
    command = [*_run(source, f"s3://{output}"), f"--work={folder / 'work'}", f"--outcome={outcome}"]
    with S3Server() as server:
        os.environ |= server.environment
        store = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
        store.mkdir(BUCKET)
        run: dict[str, Any] = measured(way, command, folder / "nothing")
        there = store.find(output, detail=True)
        run["files"], run["mb"] = len(there), round(sum(found["size"] for found in there.values()) / 1e6)
    asked = [(method, unquote(path)) for method, path in server.requests if Path(output).name in path]
    sent = [path.partition("?")[0].lstrip("/") for method, path in asked if method == "PUT"]
    run["stages"], run["requests"] = json.loads(outcome.read_text())["seconds"], len(asked) - LOOKS
    run["sent"] = sum(path in there for path in sent) / len(there)
    return run


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serves a folder from a process of its own, and yields its URL."""
    command = [sys.executable, str(Path(__file__).with_name("slow_http.py")), str(folder), str(LATENCY), str(RATE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603  # a script beside this one
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"  # type: ignore[union-attr]  # a pipe was asked for
        finally:
            server.kill()


def _fetched(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url + REQUESTS) as answer:  # noqa: S310  # the server that was just started
        sent = json.load(answer).values()
    return {
        "requests": sum(times for times, _, _ in sent), "mb": round(sum(n for _, n, _ in sent) / 1e6, 1),
        "ratio": round(sum(n for _, n, _ in sent) / max(1, sum(size for _, _, size in sent)), 4),
    }  # fmt: skip


def _differing(mine: Path, theirs: Path) -> int:
    """Returns how many files two stores do not have alike, metadata included: every byte is compared."""
    names = {p.relative_to(root) for root in (mine, theirs) for p in root.rglob("*") if p.is_file()}
    _, differ, missing = filecmp.cmpfiles(mine, theirs, sorted(map(str, names)), shallow=False)
    return len(differ) + len(missing)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("var/bench"), help="scratch and conversion.json; 10 GB for a full tile")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the product there, and use the one that is there already")
    parser.add_argument("--size", type=int, default=10980, help="edge in pixels of 10 m, a multiple of 6; 10980 is a full tile")
    parser.add_argument("--runs", type=int, default=1, help="turns; all ways in each")
    parser.add_argument("--no-cli", dest="cli", action="store_false", help="leave out eopf-geozarr's command line")
    parser.add_argument("--no-http", dest="http", action="store_false", help="leave out the conversions over HTTP")
    parser.add_argument("--only", choices=["floor", *FORMS, "verify"], help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _product(folder: Path, size: int) -> Path:
    path = folder / str(size) / f"{ITEM_ID}.zarr"
    if not path.exists():
        print(f"writing a product of {size} x {size} into {path.parent} …", flush=True)
        started = time.perf_counter()
        write_tile(path.parent, ITEM_ID, size)
        print(f"written in {time.perf_counter() - started:.0f} s", flush=True)
    return path


def _way(way: str, source: str, output: Path) -> list[str]:
    """Returns the command of one way."""
    if (asked := CLI.get(way.removeprefix("http "))) is not None:
        return [str(Path(sys.executable).with_name("eopf-geozarr")), *asked, source, str(output)]
    if way == "http":
        return [*_run(source, str(output)), "--package=none", "--sharding=true"]
    return [sys.executable, __file__, "--only", way, "--source", source, "--output", str(output)]


def _run(source: str, output: str) -> list[str]:
    return [str(Path(sys.executable).with_name("geozarr-runner")), "run", f"--stac-url={source}", f"--output-zarr={output}"]


def _one(way: str, source: Path, output: Path) -> int:
    if way == "floor":
        floor(source, output)
        return 0
    from geozarr_runner.convert import engine
    from geozarr_runner.convert import stock as convert
    from geozarr_runner.process import limits, memory
    from geozarr_runner.source.metadata import parse
    from geozarr_runner.source.product import select
    from geozarr_runner.verify import verify

    from stac_watch.model.forms import Encoding

    memory.keep_freed()  # as the runner does
    product = parse(json.loads((source / ".zmetadata").read_text())["metadata"], str(source))
    selection = select(product, "")
    workers = limits.workers(selection, "")
    kept = output.with_name(f"{output.name}.frames.json")  # of the process that converted
    if way == "verify":
        frames = json.loads(kept.read_text())
        found = verify.verify(source, selection, output, level=product.level, workers=workers, seed="bench", frames=frames)
        return len(found.failed)
    form = {**FORMS[way], "encoding": Encoding(FORMS[way]["encoding"])}
    options = engine.Options(CHUNK, workers=workers, **form)
    done = convert.convert(source, selection, output, options, level=product.level)
    kept.write_text(json.dumps(dict(done.frames)))
    return 0 if done.engine.startswith(options.engine) else 1


def _median(runs: dict[str, list[dict[str, Any]]], way: str, key: str) -> float:
    values = sorted(run[key] for run in runs[way])
    return values[len(values) // 2]


def _judged(runs: dict[str, list[dict[str, Any]]], fetched: dict[str, dict[str, float]]) -> Iterator[dict[str, Any]]:
    """Yields what was to be reached: a ratio within this run, or a size. What must hold on any machine and at any size, must."""

    def one(what: str, value: float, limit: float, *, must: bool = False, unit: str = "") -> dict[str, Any]:
        return {"what": what, "value": round(value, 3), "limit": limit, "unit": unit, "reached": value <= limit, "must": must}

    def ratio(way: str, other: str, key: str = "wall_s") -> float:
        return _median(runs, way, key) / _median(runs, other, key)

    yield one("packed / floor, CPU", ratio("packed", "floor", "cpu_s"), 0.45)
    yield one("decoded / floor, CPU", ratio("decoded", "floor", "cpu_s"), 0.70)
    yield one("objects of packed", _median(runs, "packed", "files"), 400)
    yield one("bytes of packed", _median(runs, "packed", "mb"), 1050, unit="MB")
    yield one("packed / stock, wall", ratio("packed", "stock"), 1.0)
    yield one("verify / packed, CPU", ratio("verify", "packed", "cpu_s"), 0.25)
    yield one("files in which as stock and stock differ", runs["stock"][-1]["differing"], 0, must=True)
    if "http s3" in fetched:
        upload = _median(runs, "http s3", "cpu_s") - _median(runs, "http", "cpu_s")
        yield one("bytes fetched / unique bytes", fetched["http s3"]["ratio"], 1.01, must=True)
        yield one("peak memory of a whole run", _median(runs, "http s3", "peak_mb"), 1000, unit="MB")
        yield one("upload: http s3 less http, CPU s", upload, 4.0)
        yield one("requests to send an object", _median(runs, "http s3", "sent"), 1.0)
    if "http cli" in fetched:
        yield one("http s3, all of it / http cli to a folder, wall", ratio("http s3", "http cli"), 0.12)


def _results(document: dict[str, Any]) -> Iterator[Result]:
    """Yields the tables: what each way cost, what was fetched, and how long each stage of our run over HTTP took."""
    runs, command = document["runs"], "make bench-conversion"
    rows = []
    for way, some in runs.items():
        for run in some:
            times = [value for key in ("wall_s", "cpu_s") for value in (run[key], run[key] / _median(runs, "floor", key))]
            rows.append([way, *times, *(run[key] for key in ("peak_mb", "files", "mb", "load"))])
    columns = ["way", "wall, s", "x floor", "CPU, s", "x floor", "peak, MB", "files", "MB", "load"]
    goals = [Goal(f"{found['what']} {found['unit']}".strip(), found["value"], found["limit"]) for found in document["judged"]]
    yield Result("conversion", f"One tile of {document['size']} x {document['size']} pixels", command, columns, rows, [NOTE], goals)
    if not document["fetched"]:
        return
    title = f"Over HTTP: {LATENCY * 1e3:.0f} ms a request, {RATE / 1e6:.0f} MB/s a connection"
    fetched = [[way, *(found[key] for key in ("requests", "mb", "ratio"))] for way, found in document["fetched"].items()]
    yield Result("conversion-fetched", title, command, ["way", "requests", "MB fetched", "/ unique bytes"], fetched)
    last = runs["http s3"][-1]
    stages = [[stage, seconds] for stage, seconds in last["stages"].items()]
    said = [f"{last['requests']} requests of the store for {last['files']} objects, report and checksums beside them."]
    yield Result("conversion-stages", "The stages of our run from HTTP to S3", command, ["stage", "seconds"], stages, said)


if __name__ == "__main__":
    sys.exit(main())
