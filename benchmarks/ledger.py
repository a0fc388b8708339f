"""How fast the ledger is when it is large: one million items, an idle tick, `status`, and a backfill of 10,000 items.

In: a folder for the database (a temporary one by default). Out: a table, and with --json a file. Never: part of the tests; those
ask the database for its plans instead of a clock.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from sqlalchemy import create_engine

from stac_watch import asking
from stac_watch.changes import Item
from stac_watch.config import Limits, Source
from stac_watch.database import open_engine
from stac_watch.dispatch import TokenBucket, dispatch
from stac_watch.engines import Receipt, Run
from stac_watch.events import Conversion
from stac_watch.ledger import Ledger
from stac_watch.reconcile import reconcile
from stac_watch.records import Queue, Sighting

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CONVERSIONS = """
INSERT INTO conversion (key, source, item_id, revision, state, attempt, failures, waits, queued_at, lane, reason, cause, run,
                        output_zarr, created_at, changed_at)
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last}),
     m(i, state, at, cause) AS (
         SELECT i, CASE WHEN i % 100 < 94 THEN 'done' WHEN i % 100 < 99 THEN 'skipped' ELSE 'dead' END,
                datetime('2020-01-01', i || ' minutes') || '.000000',
                CASE WHEN i % 100 < 94 THEN '' WHEN i % 100 < 99 THEN 'too_cloudy' ELSE 'no such group' END FROM n)
SELECT printf('%012x', i), 's2', 'S2A_' || i, 'rev', state, 1, 0, 0, at, CASE WHEN i % 3 THEN 'live' ELSE 'backfill' END,
       cause, cause, 'gz-' || i, '/out/' || i, at, at FROM m
"""  # 94 % done, 5 % skipped, 1 % dead: a ledger after some years
ITEMS = """
INSERT INTO item (source, item_id, revision, key, updated, sensing, tile, bbox, first_seen, last_seen)
SELECT source, item_id, revision, key, created_at, created_at, 'T32TQM', '[0, 0, 1, 1]', created_at, created_at FROM conversion
"""
FUNNEL = "INSERT INTO funnel SELECT source, lane, state, cause, count(*) FROM conversion GROUP BY 1, 2, 3, 4"


class NoEngine:
    """An engine without runs."""

    def submit(self, event: bytes) -> Receipt:
        """Is not asked."""
        raise AssertionError(event)

    def runs(self, keys: object) -> list[Run]:  # noqa: ARG002  # the engine's interface
        """Has none."""
        return []

    def headroom(self) -> int:
        """Has room."""
        return 20

    def close(self, *, stop_runs: bool) -> None:
        """Has nothing to let go."""


def sightings(count: int) -> list[Sighting]:
    """Returns new items as discovery hands them over."""
    result = []
    for number in range(count):
        item_id, sensed = f"S2B_MSIL2A_20240101T100041_N0511_R122_T32TQM_{number:08}", NOW - timedelta(minutes=number)
        href = f"https://objects.example/bucket/{item_id}.zarr"
        item = Item(
            collection="sentinel-2-l2a", item_id=item_id, revision="rev-a", updated=NOW, datetime=sensed, product_href=href,
            item_href=f"https://stac.example/{item_id}", bbox=(0.0, 0.0, 1.0, 1.0), cloud_cover=5.0, tile="T32TQM",
            deprecated=False,
        )  # fmt: skip
        conversion = Conversion(
            catalog="https://stac.example", collection="sentinel-2-l2a", item_id=item_id, revision="rev-a", recipe="groups=",
            kind="create", reason="backfill", lane="backfill", time=NOW, datetime=sensed, item_href=item.item_href,
            product_href=href, output_zarr=f"s3://bucket/{item_id}.zarr", bbox=item.bbox, options={"package": "tar"},
        )  # fmt: skip
        result.append(Sighting(item, conversion, None))
    return result


def timed(what: Callable[[], object], times: int) -> float:
    """Returns the median of so many runs, seconds."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        what()
        taken.append(time.perf_counter() - began)
    return median(taken)


def measure(folder: Path, items: int) -> dict[str, float]:
    """Returns the figures."""
    url = f"sqlite:///{folder / 'ledger.db'}"
    ledger = Ledger(open_engine(url))
    ledger.prepare()
    began = time.perf_counter()
    with create_engine(url).begin() as db:
        for statement in (CONVERSIONS, ITEMS, FUNNEL):
            db.exec_driver_sql(statement.format(last=items - 1))
    filled = time.perf_counter() - began
    sources = [Source(name="s2", api="https://stac.example", collection="sentinel-2-l2a")]
    engine, bucket, rng, limits = NoEngine(), TokenBucket(2), random.Random(1), Limits()  # noqa: S311  # jitter
    ids = [f"S2A_{number}" for number in range(0, items, max(1, items // 1000))]

    def tick() -> None:
        ledger.position("s2:updated")
        ledger.known("s2", ids[:20])  # what the overlap shows again
        reconcile(ledger, engine, limits, lambda _: None, lambda: NOW)
        dispatch(ledger, engine, bucket, rng, lambda: NOW)

    figures = {
        "items": items,
        "fill_s": filled,
        "idle_tick_ms": timed(tick, 20) * 1000,
        "status_ms": timed(lambda: asking.status(ledger, sources, limits, NOW), 5) * 1000,
        "map_ms": timed(lambda: asking.footprints(ledger), 5) * 1000,
        "known_1000_ms": timed(lambda: ledger.known("s2", ids), 5) * 1000,
    }
    new = sightings(10_000)
    began = time.perf_counter()
    for first in range(0, len(new), 1000):
        ledger.commit_window("s2", new[first : first + 1000], [], ("s2:backfill", NOW), NOW)
    figures["admitted_per_s"] = len(new) / (time.perf_counter() - began)
    figures["due_of_10000_waiting_ms"] = timed(lambda: ledger.due(NOW, 20, Queue("s2", "backfill")), 3) * 1000
    ledger.close()
    return figures


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), given.items)
    for name, value in figures.items():
        print(f"{name:28} {value:12,.1f}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
