"""How fast a collection is read: our sweep beside pystac-client and rustac, on the same real pgstac, in one run; an idle poll.

In: how many items (100,000 by default, each as large as a real one). Out: a table; build/bench/sweep-….json. Never: part of the
tests; touches a running PostgreSQL (it starts its own, see tests/services).

Each client runs in a process of its own, one after the other, and reports items, seconds and resident memory. `items()` reads only
a part: it keeps 63 KB of every item until the process ends, so that 100,000 would need 6 GB; its rate does not depend on how many.
It is written as its documentation has it, without a limit (the server's own is 10 items a page), and with two larger ones; with
the first of these it is read before and after us, because the machine may not be as idle at the end as at the start.

Client, API and database share the machine. What limits us is the database's processor: of 0.9 ms for an item 0.8 are pgstac's, and
0.3 of them are its `merge_jsonb`, which is planned again for each nested path of `fields`. The CPU column does not depend on what
else the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests
from result import Goal, Result

from stac_watch.catalog.client import SWEEP_PAGE, Catalog
from stac_watch.catalog.http import CatalogHttp
from stac_watch.catalog.probe import probe
from stac_watch.catalog.reader import sweep_leaves
from stac_watch.catalog.windows import Window, days
from stac_watch.demo.items import COLLECTION, make_collection, make_item

START = datetime(2026, 1, 1, tzinfo=UTC)
PER_DAY = 1_400  # what the real catalog gets
WORKERS = (1, 2, 4)  # windows asked at once; 2 is what a watcher does
LIMITS = (0, 250, 1_000)  # of items(); 0 = none given
PART = 5_000  # items that it reads
IDLE = "a poll that finds nothing new"


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


def cpu_seconds() -> float:
    """Returns the processor time of this process and of all that it started: clients, API, database."""
    parents, spent = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            values = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended; its parent counts it from then on
        parents[int(folder.name)], spent[int(folder.name)] = int(values[1]), sum(map(int, values[11:15]))
    mine = {os.getpid()}
    while found := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= found
    return sum(spent.get(pid, 0) for pid in mine) / os.sysconf("SC_CLK_TCK")


def ours(url: str, count: int, workers: int) -> dict[str, float]:
    """Sweeps everything; memory is measured from the first tenth on, when every buffer is there."""
    rng = random.Random(1)  # noqa: S311  # jitter
    catalog = Catalog(CatalogHttp(url, now=lambda: datetime.now(UTC), sleep=time.sleep, rng=rng), COLLECTION)
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

    search = Client.open(url).search(collections=[COLLECTION], limit=limit or None, max_items=count)
    return _read(search.items())


def pages(url: str, count: int, limit: int) -> dict[str, float]:
    """What a careful user would write: dictionaries instead of objects."""
    from pystac_client import Client

    search = Client.open(url).search(collections=[COLLECTION], limit=limit or None, max_items=count)
    return _read(item for page in search.pages_as_dicts() for item in page["features"])


def rust(url: str, count: int, limit: int) -> dict[str, float]:
    """The client in Rust, which returns everything at once."""
    import rustac

    def items() -> Iterator[object]:  # begun when the clock runs
        yield from rustac.search_sync(url, collections=[COLLECTION], limit=limit or None, max_items=count)

    return _read(items())


def idle(url: str, count: int, times: int) -> dict[str, float]:  # noqa: ARG001  # as the others
    """Polls that find nothing new; `items` is how many."""
    rng = random.Random(1)  # noqa: S311  # jitter
    catalog = Catalog(CatalogHttp(url, now=lambda: datetime.now(UTC), sleep=time.sleep, rng=rng), COLLECTION)
    probe(catalog, 1000)
    first, started = resident(), time.monotonic()
    for _ in range(times):
        now = datetime.now(UTC).replace(microsecond=0)
        catalog.search(Window(catalog.abilities.stamp, now - timedelta(minutes=15), now), limit=1000)
    return {"items": times, "seconds": time.monotonic() - started, "grown": resident() - first, "resident": resident()}


def _read(items: Iterator[object]) -> dict[str, float]:
    started, read, memory = time.monotonic(), 0, [(0, resident())]
    for _ in items:
        read += 1
        if read % 250 == 0:
            memory.append((read, resident()))
    seconds = time.monotonic() - started
    settled = [mb for n, mb in memory if n >= read / 10]
    return {"items": read, "seconds": seconds, "grown": settled[-1] - settled[0], "resident": max(mb for _, mb in memory)}


def child(kind: str, url: str, count: int, argument: int) -> dict[str, float]:
    """Runs a client in a process of its own."""
    command = [sys.executable, __file__, "--child", kind, "--url", url, "--items", str(count), "--argument", str(argument)]
    before = cpu_seconds()
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  # this very file
    found: dict[str, float] = json.loads(said)
    return found | {"cpu": cpu_seconds() - before}


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
        part, rows = min(count, PART), dict[str, dict[str, float]]()
        for limit in LIMITS:
            shown = f"limit {limit}" if limit else "no limit given"
            rows[f"pystac-client items(), {shown}"] = child("theirs", api.url, part, limit)
        for workers in WORKERS:
            rows[f"stac-watch, {workers} at once"] = child("ours", api.url, count, workers)
        rows[f"pystac-client pages_as_dicts(), limit {LIMITS[1]}"] = child("pages", api.url, part, LIMITS[1])
        rows[f"rustac search(), limit {LIMITS[1]}"] = child("rust", api.url, part, LIMITS[1])
        rows[f"pystac-client items(), limit {LIMITS[1]}, again"] = child("theirs", api.url, part, LIMITS[1])
        rows[IDLE] = child("idle", api.url, part, 100)
        return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--generation", default="0.9.11", help="of pgstac: 0.9.11 (as EOPF's catalog) or 0.10.0")
    for name in ("--child", "--url"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--argument", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        client = {"ours": ours, "theirs": theirs, "pages": pages, "rust": rust, "idle": idle}[given.child]
        sys.stdout.write(json.dumps(client(given.url, given.items, given.argument)))
        return
    rows = measure(given.generation, given.items)
    keep(given.generation, given.items, rows)


def keep(generation: str, items: int, rows: dict[str, dict[str, float]]) -> None:
    """Prints the table, and keeps it."""
    poll = rows.pop(IDLE)
    rates = {name: row["items"] / row["seconds"] for name, row in rows.items()}
    usual, *tuned = [rate for name, rate in rates.items() if "items()" in name]
    table = [
        [
            name, int(row["items"]), row["seconds"], rates[name], rates[name] / usual, rates[name] / max(tuned),
            row["cpu"] * 1000 / row["items"], row["grown"], row["resident"],
        ]
        for name, row in rows.items()
    ]  # fmt: skip
    best = max(rate for name, rate in rates.items() if "stac-watch" in name)
    cost, processor = (poll[what] * 1000 / poll["items"] for what in ("seconds", "cpu"))
    columns = ["client", "items", "seconds", "items/s", "x no limit", "x best limit", "CPU, ms/item", "grown, MB", "resident, MB"]
    Result(
        f"sweep-{generation}", f"Reading {items:,} items of pgstac {generation}",
        f'make bench-sweep BENCH="--generation {generation}"', columns, table,
        notes=[f"A poll that finds nothing new takes {cost:.1f} ms, {processor:.1f} ms of processor, database included."],
        goals=[
            Goal("7 x items() / ours, items/s", 7 * usual / best, 1.0),
            Goal("memory grown while sweeping, MB", rows["stac-watch, 2 at once"]["grown"], 20.0),
        ],
    ).keep()  # fmt: skip


if __name__ == "__main__":
    main()
