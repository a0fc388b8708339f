"""A finished GeoZarr over a slow network: our mirror, every chunk verified, beside a plain parallel download: `make bench-mirror`.

In: an edge in pixels. Out: a table, and JSON; exit 1 when an object was fetched twice. Never: compares with a figure of another
day or machine; what counts is the ratio within this run. The start of a process weighs in a small one.

    download   every object of the store, by sixteen connections, to files: what a user would take instead; verifies nothing
    mirror     `geozarr-runner run --native mirror`, in a fresh process, its import, report and item included; no archive
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from result import Goal, Result
from slow_http import REQUESTS

from stac_watch.demo.native import write_native

ITEM_ID = "S2C_MSIL2A_20260927T133931_N0513_R067_T32TQM_20260927T170511"
LATENCY, RATE = 0.04, 20_000_000  # seconds per request; bytes per second and connection
FULL = 10_980  # pixels; the goals are for a whole tile
CONNECTIONS = 16


def main() -> int:
    """Runs both, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=FULL, help="edge of r10m in pixels")
    parser.add_argument("--product", type=Path, help="a store of that size that is there already: making one takes four minutes")
    asked = parser.parse_args()
    size = asked.size
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store = asked.product or write_native(folder / "published", ITEM_ID, size=size, chunk=1024)
        keys = [p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file()]
        unique = sum((store / key).stat().st_size for key in keys)
        plain, taken, _ = _served(store, lambda url: _download(url, keys, folder / "plain"))
        peaks: list[float] = []
        mirror, used, sent = _served(store, lambda url: peaks.append(_mirror(url, folder / "mirror" / store.name)))
    memory = peaks[0]
    fetched = sum(n for _, n, _ in sent.values())
    twice = [path for path, (times, _, _) in sent.items() if times > 1 and "/c/" in path]
    goals = [Goal("memory of the mirror, GB", memory, 1.0), Goal("bytes fetched / unique bytes", fetched / unique, 1.01)]
    if size == FULL:
        goals.append(Goal("mirror / plain parallel download", mirror / plain, 1.25))
    Result(
        "mirror", f"A finished GeoZarr of {size} px, {unique / 1e6:.0f} MB in {len(keys)} objects", "make bench-mirror",
        ("way", "seconds", "of the download", "CPU, s", "peak, MB", "verified"),
        [("download", plain, 1.0, taken, "", "no"), ("mirror", mirror, mirror / plain, used, memory * 1000, "every chunk")],
        notes=[f"{LATENCY * 1000:.0f} ms a request, {RATE / 1e6:.0f} MB/s a connection, {CONNECTIONS} connections"], goals=goals,
    ).keep()  # fmt: skip
    return int(bool(twice))


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


def _mirror(url: str, output: Path) -> float:
    """Mirrors, and returns the most memory that the process had, in GB.

    Linux's count for ended children has in it what the parent had when it started them: this one has just made a whole product.
    """
    command = [sys.executable, "-m", "geozarr_runner.cli", "run", "--stac-url", url, "--output-zarr", str(output), "--package=none"]
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603  # idem
        while process.poll() is None:
            peak = max(peak, _peak(process.pid))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the mirror ended with {process.returncode}")
    return peak


def _peak(pid: int) -> float:
    """Returns the most memory that a process has had so far, in GB; 0 where it is just ending."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM:")), 0.0)


if __name__ == "__main__":
    sys.exit(main())
