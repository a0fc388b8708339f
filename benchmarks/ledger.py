"""How fast the ledger is as it grows to a million items: an idle tick, `status`, admissions, moves; and what an item takes.

In: sizes. Out: a table for SQLite and PostgreSQL (its own, see tests/services); build/bench/ledger.json. Never: part of the tests;
those ask the database for its plans instead of a clock.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from result import Goal, Result
from sqlalchemy import create_engine

from stac_watch.config.model import Limits, Source
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Move, Queue, Sighting
from stac_watch.model.event import Conversion
from stac_watch.model.item import Item
from stac_watch.model.states import Fact, State
from stac_watch.report import status
from stac_watch.runs.dispatch import dispatch
from stac_watch.runs.engine import Receipt, Run
from stac_watch.runs.pace import Throttle, TokenBucket
from stac_watch.runs.reconcile import reconcile

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MOVES = 500  # a transaction each
CONVERSIONS = """
INSERT INTO conversion (key, source, item_id, revision, state, attempt, failures, waits, queued_at, lane, reason, cause, run,
                        output_zarr, created_at, changed_at)
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last}),
     m(i, state, at, cause) AS (
         SELECT i, CASE WHEN i % 100 < 94 THEN 'done' WHEN i % 100 < 99 THEN 'skipped' ELSE 'failed' END,
                datetime('2020-01-01', i || ' minutes') || '.000000',
                CASE WHEN i % 100 < 94 THEN '' WHEN i % 100 < 99 THEN 'too_cloudy' ELSE 'no such group' END FROM n)
SELECT printf('%012x', i), 's2', 'S2A_' || i, 'rev', state, 1, 0, 0, at, CASE WHEN i % 3 THEN 'live' ELSE 'backfill' END,
       cause, cause, 'gz-' || i, '/out/' || i, at, at FROM m
"""  # 94 % done, 5 % skipped, 1 % failed: a ledger after some years
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


def measure(url: str, items: int) -> dict[str, float]:
    """Returns the figures of a ledger that has so many items."""
    engine = open_engine(url)
    ledger = Ledger(engine)
    ledger.prepare()
    with create_engine(url).begin() as db:
        for statement in (CONVERSIONS, ITEMS, FUNNEL):
            db.exec_driver_sql(_spelled(statement.format(last=items - 1), db.dialect.name))
    with create_engine(url, isolation_level="AUTOCOMMIT").connect() as db:
        db.exec_driver_sql("ANALYZE")
    before = ledger.counts.sums(NOW).ledger_bytes
    sources = [Source(name="s2", api="https://stac.example", collection="sentinel-2-l2a")]
    none, throttle, rng, limits = NoEngine(), Throttle(TokenBucket(2)), random.Random(1), Limits()  # noqa: S311  # jitter
    ids = [f"S2A_{number}" for number in range(0, items, max(1, items // 1000))]

    def tick() -> None:
        ledger.sources.position("s2:updated")
        ledger.items.known("s2", ids[:20])  # what the overlap shows again
        reconcile(ledger, none, limits, lambda _: None, lambda: NOW)
        dispatch(ledger, none, throttle, rng, lambda: NOW)

    figures = {
        "tick": timed(tick, 20) * 1000,
        "status": timed(lambda: status.read(ledger, sources, limits, NOW), 5) * 1000,
        "known": timed(lambda: ledger.items.known("s2", ids), 5) * 1000,
    }
    new = sightings(5_000)
    began = time.perf_counter()
    for first in range(0, len(new), 1000):
        ledger.items.commit("s2", new[first : first + 1000], [], ("s2:backfill", NOW), NOW)
    figures["admitted"] = len(new) / (time.perf_counter() - began)
    figures["due"] = timed(lambda: ledger.outbox.due(NOW, 20, Queue("s2", "backfill")), 3) * 1000
    waiting = ledger.conversions.find(state=State.QUEUED, limit=MOVES)
    began = time.perf_counter()
    for row in waiting:
        ledger.conversions.move(row, Move(Fact.ACCEPTED, "accepted"), NOW)
    figures["moved"] = len(waiting) / (time.perf_counter() - began)
    figures["bytes"] = (ledger.counts.sums(NOW).ledger_bytes - before) / len(new)
    ledger.close()
    return figures


def _spelled(statement: str, dialect: str) -> str:
    """Returns a statement in the words of a database; both mean the same rows."""
    if dialect == "sqlite":
        return statement
    for ours, theirs in (
        ("printf('%012x', i)", "lpad(to_hex(i), 12, '0')"),
        ("datetime('2020-01-01', i || ' minutes') || '.000000'", "timestamptz '2020-01-01Z' + i * interval '1 minute'"),
        ("CASE WHEN i % 3 THEN", "CASE WHEN i % 3 <> 0 THEN"),
        ("'[0, 0, 1, 1]'", "'[0, 0, 1, 1]'::json"),
    ):
        statement = statement.replace(ours, theirs)
    return statement.replace("%", "%%")


def main() -> None:
    """Measures, prints, keeps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "services"))  # the harness that the tests use
    from postgres import Postgres

    rows, found = [], dict[str, list[list[float]]]()
    with contextlib.closing(Postgres()) as postgres, tempfile.TemporaryDirectory() as folder:
        for items in given.items:
            name = f"ledger_{items}"
            postgres.sql(f"CREATE DATABASE {name}")
            for kind, url in (("SQLite", f"sqlite:///{folder}/{name}.db"), ("PostgreSQL", postgres.url(name))):
                figures = measure(url, items)
                found.setdefault(kind, []).append([items, figures["tick"]])
                rows.append([kind, items, *(figures[n] for n in ("tick", "status", "known", "due", "admitted", "moved", "bytes"))])
    columns = ["database", "items", "idle tick, ms", "status, ms", "1,000 known, ms", "next 20 due, ms", "admitted/s", "moves/s"]
    first, *_, last = found["SQLite"]
    Result(
        "ledger", "The ledger as it grows", "make bench-ledger", [*columns, "bytes per item"], rows,
        goals=[
            Goal("idle tick at the most items, SQLite, ms", last[1], 100.0),
            Goal("idle tick, most items / fewest, SQLite", last[1] / first[1], 3.0),
        ],
        plot={"title": "An idle tick, as the ledger grows", "x": "items", "y": "ms", "series": found},
    ).keep()  # fmt: skip


if __name__ == "__main__":
    main()
