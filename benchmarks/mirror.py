"""A finished GeoZarr over a slow network, mirrored beside a plain download, converted beside a v2 product: `make bench-mirror`.

In: an edge in pixels. Out: a table, and JSON; exit 1 when an object was fetched twice. Never: compares with a figure of another
day or machine; what counts is the ratio within this run. The start of a process weighs in a small one.

    download       every object of the store, by sixteen connections, to files: what a user would take instead; verifies nothing
    mirror         `geozarr-runner run --native mirror`, in a fresh process, its import, report and item included; no archive
    convert, v2    `geozarr-runner run` of a Zarr v2 product with the same pixels, likewise
    convert, v3    `geozarr-runner run --native convert` of the finished GeoZarr, likewise
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from result import Goal, Result
from slow_http import REQUESTS

from stac_watch.demo.native import write_native
from stac_watch.demo.product import write_product

ITEM_ID = "S2C_MSIL2A_20260927T133931_N0513_R067_T32TQM_20260927T170511"
LATENCY, RATE = 0.04, 20_000_000  # seconds per request; bytes per second and connection
FULL = 10_980  # pixels; the goals are for a whole tile
CONNECTIONS = 16


def main() -> int:
    """Runs both, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=FULL, help="edge of r10m in pixels")
    parser.add_argument("--product", type=Path, help="a store of that size that is there already: making one takes four minutes")
    parser.add_argument("--v2", type=Path, help="the same of the Zarr v2 product")
    asked = parser.parse_args()
    size = asked.size
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store = asked.product or write_native(folder / "published", ITEM_ID, size=size, chunk=1024)
        v2 = asked.v2 or write_product(folder / "v2", ITEM_ID, size=size)
        keys = [p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file()]
        unique = sum((store / key).stat().st_size for key in keys)
        plain, taken, _ = _served(store, lambda url: _download(url, keys, folder / "plain"))
        mirror = _run(store, folder / "mirror", "mirror")
        old = _run(v2, folder / "old", "convert")
        new = _run(store, folder / "new", "convert")
    goals = [
        Goal("memory of the mirror, GB", mirror.peak, 1.0),
        Goal("bytes fetched / unique bytes", mirror.fetched / unique, 1.01),
    ]
    goals.append(Goal("memory of a converted GeoZarr / of a v2 product", new.peak / old.peak, 1.1))
    if size == FULL:
        goals.append(Goal("mirror / plain parallel download", mirror.seconds / plain, 1.25))
        goals.append(Goal("conversion of a GeoZarr / of a v2 product", new.seconds / old.seconds, 1.0))
    rows = [
        ("download", plain, 1.0, taken, "", "no"),
        ("mirror", mirror.seconds, mirror.seconds / plain, mirror.used, mirror.peak * 1000, "every chunk"),
        ("convert, v2", old.seconds, old.seconds / plain, old.used, old.peak * 1000, "pixel by pixel"),
        ("convert, v3", new.seconds, new.seconds / plain, new.used, new.peak * 1000, "pixel by pixel"),
    ]
    Result(
        "mirror", f"A finished GeoZarr of {size} px, {unique / 1e6:.0f} MB in {len(keys)} objects", "make bench-mirror",
        ("way", "seconds", "of the download", "CPU, s", "peak, MB", "verified"), rows,
        notes=[f"{LATENCY * 1000:.0f} ms a request, {RATE / 1e6:.0f} MB/s a connection, {CONNECTIONS} connections"], goals=goals,
    ).keep()  # fmt: skip
    return int(mirror.twice)


@dataclass(frozen=True)
class Ran:
    """One run."""

    seconds: float
    used: float  # of processors, seconds
    peak: float  # memory of all its processes, GB
    fetched: int  # bytes
    twice: bool  # whether an object was fetched twice


def _run(store: Path, folder: Path, native: str) -> Ran:
    peaks: list[float] = []
    seconds, used, sent = _served(store, lambda url: peaks.append(_convert(url, folder / store.name, native)))
    shutil.rmtree(folder)
    twice = any(times > 1 for path, (times, _, _) in sent.items() if "/c/" in path)
    return Ran(seconds, used, peaks[0], sum(n for _, n, _ in sent.values()), twice)


def _served(store: Path, work: Callable[[str], None]) -> tuple[float, float, dict[str, list[int]]]:
    """Returns how long it took, the processor seconds of whoever fetched, and what a server of its own sent."""
    command = [sys.executable, str(Path(__file__).with_name("slow_http.py")), str(store.parent), str(LATENCY), str(RATE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603  # ourselves
        port = server.stdout.readline() if server.stdout else ""
        url = f"http://127.0.0.1:{int(port)}"
        try:
            started, before = time.monotonic(), _processor()
            work(f"{url}/{store.name}")
            seconds, used = time.monotonic() - started, _processor() - before  # the server, not ended yet, is in neither
            with urllib.request.urlopen(f"{url}{REQUESTS}") as answer:  # noqa: S310  # our own server
                return seconds, used, json.load(answer)
        finally:
            server.terminate()


def _processor() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _download(url: str, keys: list[str], folder: Path) -> None:
    def one(key: str) -> None:
        target = folder / key
        target.parent.mkdir(parents=True, exist_ok=True)
        urllib.request.urlretrieve(f"{url}/{key}", target)  # noqa: S310  # idem

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(one, keys))


def _convert(url: str, output: Path, native: str) -> float:
    """Runs the runner, and returns the most memory that its processes had, in GB; each at its own worst moment.

    Linux's count for ended children has in it what the parent had when it started them: this one has just made a whole product.
    """
    command = [sys.executable, "-m", "geozarr_runner.cli", "run", "--stac-url", url, "--output-zarr", str(output), "--package=none"]
    peaks: dict[int, float] = {}
    with subprocess.Popen(  # noqa: S603  # idem
        [*command, "--native", native], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            for pid in (process.pid, *_children(process.pid)):
                peaks[pid] = max(peaks.get(pid, 0.0), _peak(pid))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{native} ended with {process.returncode}")
    return sum(peaks.values())


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return []


def _peak(pid: int) -> float:
    """Returns the most memory that a process has had so far, in GB; 0 where it is just ending."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM:")), 0.0)


if __name__ == "__main__":
    sys.exit(main())
