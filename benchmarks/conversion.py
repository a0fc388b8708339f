"""One tile, converted in every way in one run, against the physical floor and over a slow network: `make bench-conversion`.

In: a product, made here or kept from an earlier run. Out: tables, and JSON with every figure; exit 1 when a byte was fetched twice
or an output differs. Never: compares with a figure of another day or machine; what counts is the ratio within this run.

    floor     decode + float32 + compress + write of the same arrays, by as many threads as there are CPUs; no pyramid, no metadata
    fast      geozarr_runner.convert, engine fast, in a fresh process, its import included
    stock     the same with engine stock: eopf-geozarr's own write path, chunk 1024
    fast 256, stock 256   the same in the chunks of the converter's own S2 command
    cli       `eopf-geozarr convert`, as a user would type it
    cli s2    `eopf-geozarr convert-s2-optimized`, chunk 256
    cli dask  `eopf-geozarr convert --dask-cluster`
    verify    geozarr_runner.verify on the output of `fast`, as share of its conversion
    http      `geozarr-runner run` from a server that lets each request wait and gives each connection so much: preflight, staging,
              conversion, verification, report; no archive, since the next one makes none
    http cli  `eopf-geozarr convert` on the same URL, which verifies nothing
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from result import Goal, Result
from slow_http import REQUESTS
from tile import write_tile

ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
CHUNK = 1024
OURS = ("floor", "fast", "stock", "fast 256", "stock 256")  # a fast one's output is kept for the stock one after it
CLI = {"cli": ("convert",), "cli s2": ("convert-s2-optimized",), "cli dask": ("convert", "--dask-cluster")}
LATENCY, RATE = 0.04, 20_000_000  # seconds per request; bytes per second and connection
NOTE = (
    "`floor`: decode, compress and write the same arrays. `fast`, `stock`: our engines, chunks of 1024 or 256 pixels. `cli`: "
    "`eopf-geozarr convert`; `cli s2`: `convert-s2-optimized`; `cli dask`: `convert --dask-cluster`. `verify`: of what "
    "`fast` wrote, by us. `http`: a whole run of ours from a slow server, verification and report included; `http cli`: "
    "`eopf-geozarr convert` from there, which verifies nothing."
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
    ways = [*OURS, *(CLI if arguments.cli else [])]
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in [*ways, "verify"]}
    for turn in range(arguments.runs):
        for way in ways:
            output = scratch / f"{way}-{turn}"
            runs[way].append(_measured(way, _way(way, str(product), output), output))
            if way == "fast":
                runs["verify"].append(_measured("verify", _way("verify", str(product), output), output))
            if way.startswith("stock"):
                fast = scratch / f"{way.replace('stock', 'fast')}-{turn}"
                runs[way][-1]["differing"] = _differing(fast, output)
                shutil.rmtree(fast)
            if not way.startswith("fast"):
                shutil.rmtree(output)
    return runs


def _over_http(
    product: Path, scratch: Path, arguments: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]
) -> dict[str, dict[str, float]]:
    """Runs both ways over HTTP and returns what each of them fetched."""
    fetched = {}
    for way in ["http", *(["http cli"] if arguments.cli else [])]:
        runs[way] = []
        for turn in range(arguments.runs):
            output = scratch / f"{way.replace(' ', '-')}-{turn}" / "out.zarr"
            output.parent.mkdir()
            with _served(product.parent) as url:
                run = _measured(way, _way(way, f"{url}/{product.name}", output), output)
                fetched[way] = _fetched(url)
            if way == "http":
                took = json.loads((output / "stac-watch.json").read_text())["seconds"]
                run["judging_s"], run["stages"] = took["verify"] + took["report"], took
            runs[way].append(run)
            shutil.rmtree(output.parent)
    return fetched


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
    parser.add_argument("--only", choices=[*OURS, "verify"], help=argparse.SUPPRESS)
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
    binary = Path(sys.executable).with_name
    if (asked := CLI.get(way.removeprefix("http "))) is not None:
        return [str(binary("eopf-geozarr")), *asked, source, str(output)]
    if way == "http":
        return [str(binary("geozarr-runner")), "run", f"--stac-url={source}", f"--output-zarr={output}", "--package=none"]
    return [sys.executable, __file__, "--only", way, "--source", source, "--output", str(output)]


def _measured(way: str, command: list[str], output: Path) -> dict[str, float]:
    """Runs one way in a process of its own and returns wall and CPU seconds and the peak of the whole process tree's memory."""
    print(f"{way} …", flush=True)
    os.sync()
    before, started = os.times(), time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)  # noqa: S603  # this script, or the converter
        peak, over = [0], threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peak, over))
        watcher.start()
        code = process.wait()
        wall, after = time.perf_counter() - started, os.times()
        over.set()
        watcher.join()
        if code:
            said.seek(0)
            raise SystemExit(f"{way} ended with {code}: {said.read().decode(errors='replace')[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    files = [p.stat().st_size for p in output.rglob("*") if p.is_file()]
    return {
        "wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "peak_mb": round(peak[0] / 1e6), "files": len(files),
        "mb": round(sum(files) / 1e6), "load": os.getloadavg()[0],
    }  # fmt: skip


def _watch(pid: int, peak: list[int], over: threading.Event) -> None:
    """Keeps the most that the process and its children hold; the files that they map, libraries above all, counted once.

    From counters of the kernel: a proportional set size is walked page by page, and stops for that what is measured.
    """
    while not over.wait(0.05):
        held = [_held(p) for p in _family(pid)]
        peak[0] = max(peak[0], sum(own for own, _ in held) + max((mapped for _, mapped in held), default=0))


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [p for child in task.read_text().split() for p in _family(int(child))]
        except OSError:  # it has ended
            continue
    return found


def _held(pid: int) -> tuple[int, int]:
    """Returns the bytes of a process's own resident memory, and of the files that it maps."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        own, mapped = (
            sum(int(lines[name].split()[0]) for name in names) * 1024 for names in (("RssAnon", "RssShmem"), ("RssFile",))
        )
    except (OSError, KeyError):  # it has ended
        return 0, 0
    return own, mapped


def _one(way: str, source: Path, output: Path) -> int:
    if way == "floor":
        _floor(source, output)
        return 0
    from geozarr_runner.convert import engine
    from geozarr_runner.convert import stock as convert
    from geozarr_runner.process import limits
    from geozarr_runner.source.metadata import parse
    from geozarr_runner.source.product import select
    from geozarr_runner.verify import verify

    product = parse(json.loads((source / ".zmetadata").read_text())["metadata"], str(source))
    selection = select(product, "")
    workers = limits.workers(selection, "")
    kept = output.with_name(f"{output.name}.frames.json")  # of the process that converted
    if way == "verify":
        frames = json.loads(kept.read_text())
        found = verify.verify(source, selection, output, level=product.level, workers=workers, seed="bench", frames=frames)
        return len(found.failed)
    asked, _, chunk = way.partition(" ")
    options = engine.Options(int(chunk or CHUNK), engine=asked, workers=workers)
    done = convert.convert(source, selection, output, options, level=product.level)
    kept.write_text(json.dumps(dict(done.frames)))
    return 0 if done.engine.startswith(asked) else 1


def _floor(source: Path, output: Path) -> None:
    """The least that any converter has to do with these arrays and this codec."""
    import numcodecs
    import numpy as np
    from numcodecs import blosc

    blosc.use_threads = False
    documents = json.loads((source / ".zmetadata").read_text())["metadata"]
    arrays = {
        key.removesuffix("/.zarray"): d
        for key, d in documents.items()
        if key.endswith("/.zarray") and len(d["shape"]) == 2 and "quicklook" not in key and np.dtype(d["dtype"]).kind == "u"
    }

    def one(path: str, document: dict[str, Any]) -> None:
        codec, dtype = numcodecs.get_codec(document["compressor"]), np.dtype(document["dtype"])
        attributes = documents[f"{path}/.zattrs"]
        table = None
        if document["fill_value"] is not None:
            numbers = np.arange(np.iinfo(dtype).max + 1) * attributes.get("scale_factor", 1.0) + attributes.get("add_offset", 0.0)
            numbers[document["fill_value"]] = np.nan
            table = numbers.astype("f4")
        rows, columns = document["chunks"]
        (output / path).mkdir(parents=True)
        for i, j in itertools.product(*(range(-(-n // c)) for n, c in zip(document["shape"], document["chunks"], strict=True))):
            key = document.get("dimension_separator", ".").join((str(i), str(j)))
            whole = np.frombuffer(codec.decode((source / path / key).read_bytes()), dtype).reshape(rows, columns)
            for y, x in itertools.product(range(0, rows, CHUNK), range(0, columns, CHUNK)):
                block = whole[y : y + CHUNK, x : x + CHUNK]
                values = np.ascontiguousarray(block, "f4") if table is None else np.take(table, block, mode="wrap")
                (output / path / f"{i}.{j}.{y}.{x}").write_bytes(blosc.compress(values, b"zstd", 3, blosc.SHUFFLE, 0))

    largest = sorted(arrays.items(), key=lambda pair: -pair[1]["shape"][0])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for future in [pool.submit(one, path, document) for path, document in largest]:
            future.result()


def _median(runs: dict[str, list[dict[str, Any]]], way: str, key: str) -> float:
    values = sorted(run[key] for run in runs[way])
    return values[len(values) // 2]


def _judged(runs: dict[str, list[dict[str, Any]]], fetched: dict[str, dict[str, float]]) -> Iterator[dict[str, Any]]:
    """Yields what was to be reached: a ratio within this run, or a size. What must hold on any machine and at any size, must."""

    def one(what: str, value: float, limit: float, *, must: bool = False, unit: str = "") -> dict[str, Any]:
        return {"what": what, "value": round(value, 3), "limit": limit, "unit": unit, "reached": value <= limit, "must": must}

    def ratio(way: str, other: str, key: str = "wall_s") -> float:
        return _median(runs, way, key) / _median(runs, other, key)

    yield one("fast / floor, wall", ratio("fast", "floor"), 1.5)
    yield one("fast / stock, wall", ratio("fast", "stock"), 1.0)
    yield one("verify / fast, wall", ratio("verify", "fast"), 0.25)
    yield one("peak memory of fast", _median(runs, "fast", "peak_mb"), 1700, unit="MB")
    for way in ("stock", "stock 256"):
        yield one(f"files in which fast and {way} differ", runs[way][-1]["differing"], 0, must=True)
    if "http" in fetched:
        yield one("bytes fetched / unique bytes", fetched["http"]["ratio"], 1.0, must=True)
        yield one("peak memory of a whole run", _median(runs, "http", "peak_mb"), 1700, unit="MB")
    if "http cli" in fetched:
        judging = _median(runs, "http", "judging_s") / _median(runs, "http cli", "wall_s")
        yield one("http without verification and report / http cli, wall", ratio("http", "http cli") - judging, 0.2)
        yield one("http, all of it / http cli, wall", ratio("http", "http cli"), 0.2)


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
    stages = [[stage, seconds] for stage, seconds in runs["http"][-1]["stages"].items()]
    yield Result("conversion-stages", "The stages of our run over HTTP", command, ["stage", "seconds"], stages)


if __name__ == "__main__":
    sys.exit(main())
