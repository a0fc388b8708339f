"""One tile, converted four ways in one run, against the physical floor: `make bench-conversion`.

In: a product (generated once, kept in --folder). Out: a table, and JSON with every figure. Never: compares with a figure of another
day or machine; what counts is the ratio within this run.

    floor   decode + float32 + compress + write of the same arrays, by as many threads as there are CPUs; no pyramid, no metadata
    fast    geozarr_runner.convert, engine fast, in a fresh process, its import included
    stock   the same with engine stock: eopf-geozarr's own write path, chunk 1024
    cli     `eopf-geozarr convert`, as a user would type it
    verify  geozarr_runner.verify on the output of `fast`, as share of its conversion
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
CHUNK = 1024
PACKAGES = ("eopf-geozarr", "zarr", "dask", "xarray", "numcodecs")


def main() -> int:
    """Runs everything, prints the table, writes the JSON."""
    arguments = _arguments()
    if arguments.only:
        return _one(arguments.only, arguments.source, arguments.output)
    folder = arguments.folder
    product = _product(folder, arguments.size)
    ways = ["floor", "fast", "stock", "cli"] if arguments.cli else ["floor", "fast", "stock"]
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in [*ways, "verify"]}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for turn in range(arguments.runs):
            for way in ways:
                output = Path(scratch) / f"{way}-{turn}"
                runs[way].append(_measured(way, product, output))
                if way == "fast":
                    runs["verify"].append(_measured("verify", product, output))
                shutil.rmtree(output, ignore_errors=True)
    document = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"), "size": arguments.size, "cpus": os.cpu_count(),
        "load_before": os.getloadavg(), "versions": {name: version(name) for name in PACKAGES},
        "runs": runs, "ratios": _ratios(runs),
    }  # fmt: skip
    (folder / "conversion.json").write_text(json.dumps(document, indent=1) + "\n")
    _show(document)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("var/bench"), help="product, scratch and result; needs 12 GB")
    parser.add_argument(
        "--size", type=int, default=10980, help="edge in pixels of 10 m; making 10980 takes minutes and 13 GB of memory"
    )
    parser.add_argument("--runs", type=int, default=1, help="turns; all ways in each")
    parser.add_argument("--no-cli", dest="cli", action="store_false", help="leave out eopf-geozarr's command line")
    parser.add_argument("--only", choices=["floor", "fast", "stock", "verify"], help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _product(folder: Path, size: int) -> Path:
    from stac_watch.demo.product import write_product

    path = folder / str(size) / f"{ITEM_ID}.zarr"
    if not path.exists():
        print(f"writing a product of {size} x {size} into {path.parent} …", flush=True)
        write_product(path.parent, ITEM_ID, size=size)
    return path


def _measured(way: str, product: Path, output: Path) -> dict[str, float]:
    """Runs one way in a process of its own and returns wall and CPU seconds and the peak of the whole process tree's memory."""
    command = [sys.executable, __file__, "--only", way, "--source", str(product), "--output", str(output)]
    if way == "cli":
        command = [str(Path(sys.executable).with_name("eopf-geozarr")), "convert", str(product), str(output)]
    print(f"{way} …", flush=True)
    os.sync()
    before, started = os.times(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603  # this script, or the converter
    peak, over = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, over))
    watcher.start()
    code = process.wait()
    wall, after = time.perf_counter() - started, os.times()
    over.set()
    watcher.join()
    if code:
        raise SystemExit(f"{way} ended with {code}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    files = [p.stat().st_size for p in output.rglob("*") if p.is_file()]
    return {
        "wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "peak_mb": round(peak[0] / 1e6), "files": len(files),
        "mb": round(sum(files) / 1e6), "load": os.getloadavg()[0],
    }  # fmt: skip


def _watch(pid: int, peak: list[int], over: threading.Event) -> None:
    """Keeps the highest sum of what the process and its children hold (proportional set size: shared pages count once)."""
    while not over.wait(0.1):
        peak[0] = max(peak[0], sum(_held(p) for p in _family(pid)))


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [p for child in task.read_text().split() for p in _family(int(child))]
        except OSError:  # it has ended
            continue
    return found


def _held(pid: int) -> int:
    try:
        line = next(line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    except (OSError, StopIteration):  # it has ended
        return 0
    return int(line.split()[1]) * 1024


def _one(way: str, source: Path, output: Path) -> int:
    if way == "floor":
        _floor(source, output)
        return 0
    from geozarr_runner import convert, limits, verify
    from geozarr_runner.product import parse, select

    product = parse(json.loads((source / ".zmetadata").read_text())["metadata"], str(source))
    selection = select(product, "")
    workers = limits.workers(selection, limits.memory_limit(""))
    if way == "verify":
        return len(verify.verify(source, selection, output, workers=workers, seed="bench").failed)
    options = convert.Options(CHUNK, engine=way, workers=workers)
    done = convert.convert(source, selection, output, options, level=product.level)
    return 0 if done.engine.startswith(way) else 1


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


def _ratios(runs: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Returns each way's median over the floor's, and verify's over the conversion's."""
    keys = ("wall_s", "cpu_s")
    best = {way: {key: sorted(r[key] for r in some)[len(some) // 2] for key in keys} for way, some in runs.items()}
    ways = [way for way in best if way not in ("floor", "verify")]
    found = {way: {key: round(best[way][key] / best["floor"][key], 2) for key in keys} for way in ways}
    found["verify / fast"] = {key: round(best["verify"][key] / best["fast"][key], 2) for key in best["fast"]}
    return found


def _show(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("way", "wall s", "x floor", "CPU s", "x floor", "peak MB", "files", "MB", "load", title=f"{document['size']} px")
    for way, some in document["runs"].items():
        ratio = document["ratios"].get(way, {})
        for run in some:
            times = [run["wall_s"], ratio.get("wall_s", ""), run["cpu_s"], ratio.get("cpu_s", "")]
            table.add_row(way, *map(str, [*times, run["peak_mb"], run["files"], run["mb"]]), f"{run['load']:.1f}")
    Console().print(table)
    share = document["ratios"]["verify / fast"]
    print(f"verify takes {share['wall_s']:.0%} of the fast conversion's wall time, {share['cpu_s']:.0%} of its CPU time")


if __name__ == "__main__":
    sys.exit(main())
