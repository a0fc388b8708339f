"""How fast a collection is swept: our sweep beside pystac-client's `items()`, on the same real pgstac, in the same run.

In: how many items (100,000 by default, each as large as a real one). Out: a table, and with --json a file. Never: part of the
tests; touches a running PostgreSQL (it starts its own, see tests/services).

Each client runs in a process of its own, one after the other, and reports items, seconds and resident memory. `items()` reads only
a part: it keeps 63 KB of every item until the process ends, so that 100,000 would need 6 GB; its rate does not depend on how many.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

from stac_watch.catalog import SWEEP_PAGE, Catalog
from stac_watch.demo.items import COLLECTION, make_collection, make_item
from stac_watch.pages import sweep_leaves
from stac_watch.probe import probe
from stac_watch.windows import days

START = datetime(2026, 1, 1, tzinfo=UTC)
PER_DAY = 1_400  # what the real catalogue gets
WORKERS = 6


def documents(count: int) -> Iterator[str]:
    """Yields items as JSON lines, of the size and shape of real ones."""
    marks = ("S2A_MSIL2A_20260101T000000_N0511_R122_T32TQM_20260101T000000", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    item = make_item(
        marks[0], catalog_url="https://stac.example", product_href=f"https://data.example/{marks[0]}.zarr",
        updated=marks[2], datetime=START,
    )  # fmt: skip
    template = json.dumps(item)
    for n in range(count):
        sensed = START + timedelta(seconds=n * 86_400 / PER_DAY)
        updated = sensed + timedelta(hours=8, microseconds=n % 1_000_000)
        item_id = f"S2A_MSIL2A_{sensed:%Y%m%dT%H%M%S}_N0511_R122_T32TQM_{n:08d}T000000"
        spelled = (item_id, f"{sensed:%Y-%m-%dT%H:%M:%S.%fZ}", f"{updated:%Y-%m-%dT%H:%M:%S.%fZ}")
        line = template
        for mark, value in zip(marks, spelled, strict=True):
            line = line.replace(mark, value)
        yield line


def resident() -> float:
    """Returns this process's resident memory in MB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def ours(url: str, count: int, workers: int) -> dict[str, float]:
    """Sweeps everything; memory is measured from the first tenth on, when every buffer is there."""
    catalog = Catalog(url, COLLECTION, now=lambda: datetime.now(UTC), sleep=time.sleep, rng=random.Random(1))  # noqa: S311  # jitter
    probe(catalog, 1000)
    started, read, memory = time.monotonic(), 0, []
    end = START + timedelta(days=count / PER_DAY + 1)
    for leaf in sweep_leaves(catalog, days("datetime", START, end), SWEEP_PAGE, workers=workers):
        read += len(leaf.documents)
        memory.append((read, resident()))
    seconds = time.monotonic() - started
    settled = [mb for n, mb in memory if n >= read / 10]
    return {"items": read, "seconds": seconds, "grown": max(settled) - settled[0], "resident": max(mb for _, mb in memory)}


def theirs(url: str, count: int, limit: int) -> dict[str, float]:
    """What a user would write."""
    from pystac_client import Client

    started, read, memory = time.monotonic(), 0, []
    search = Client.open(url).search(collections=[COLLECTION], limit=limit, max_items=count)
    for _ in search.items():
        read += 1
        if read % 250 == 0:
            memory.append((read, resident()))
    seconds = time.monotonic() - started
    settled = [mb for n, mb in memory if n >= read / 10]
    return {"items": read, "seconds": seconds, "grown": settled[-1] - settled[0], "resident": max(mb for _, mb in memory)}


def child(kind: str, url: str, count: int, argument: int) -> dict[str, float]:
    """Runs a client in a process of its own."""
    command = [sys.executable, __file__, "--child", kind, "--url", url, "--items", str(count), "--argument", str(argument)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  # this very file
    found: dict[str, float] = json.loads(said)
    return found


def measure(generation: str, count: int) -> dict[str, dict[str, float]]:
    """Loads a pgstac and reads it by each client."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "services"))  # the harness that the tests use
    import pgstac_servers as servers
    from postgres import Postgres

    servers.require_postgis()
    with contextlib.closing(Postgres()) as postgres, servers.stac_api(postgres, generation) as api:
        requests.post(f"{api.url}/collections", json=make_collection(), timeout=30).raise_for_status()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "items.ndjson"
            with file.open("w") as lines:
                lines.writelines(f"{line}\n" for line in documents(count))
            api.load(file)
        part = min(count, 5_000)
        return {
            "pystac-client items(), limit 250": child("theirs", api.url, part, 250),
            "pystac-client items(), limit 1000": child("theirs", api.url, part, 1000),
            "stac-watch, 1 worker": child("ours", api.url, count, 1),
            f"stac-watch, {WORKERS} workers": child("ours", api.url, count, WORKERS),
        }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--generation", default="0.9.11", help="of pgstac: 0.9.11 (as EOPF's catalogue) or 0.10.0")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    for name in ("--child", "--url"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--argument", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        client = ours if given.child == "ours" else theirs
        sys.stdout.write(json.dumps(client(given.url, given.items, given.argument)))
        return
    rows = measure(given.generation, given.items)
    best = max(row["items"] / row["seconds"] for name, row in rows.items() if "pystac" in name)
    print(f"pgstac {given.generation}, {given.items:,} items\n")
    print("| client | items | seconds | items/s | ratio | memory grown, MB | resident, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        rate = row["items"] / row["seconds"]
        shown = f"{row['items']:,.0f} | {row['seconds']:.1f} | {rate:,.0f} | {rate / best:.1f}"
        print(f"| {name} | {shown} | {row['grown']:.1f} | {row['resident']:.0f} |")
    if given.json:
        given.json.write_text(json.dumps({"generation": given.generation, "items": given.items, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
