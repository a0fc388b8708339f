"""A lost ledger of half a million conversions, made again out of the markers of their outputs: `make bench-rebuild`.

In: how many. Out: a table, and JSON. Never: a network. A marker is read out of a text as it lies in a store, and its place yielded
as a listing does; so this is what the rebuild itself takes, and a store's answers come on top: a LIST for each 1,000 names, and a
GET for each marker, many at once. Some thousands lie in a real folder, listed and read as any file system is.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from result import Goal, Result

from stac_watch.config.model import Recipe, Source
from stac_watch.jobs.rebuild import Owners, rebuild
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.model.outcome import MARKER, Counts, Outcome, parse_outcome
from stac_watch.model.stamps import stamp
from stac_watch.runs.shelves import markers, outputs

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEMPLATE = "s3://bucket/{collection}/{item_id}.zarr"
IN_A_FOLDER = 5_000
HOUR = 3600.0

type Read = Callable[[Sequence[str]], dict[str, Outcome | None]]


def main() -> int:
    """Rebuilds, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=int, default=500_000)
    count = parser.parse_args().outputs
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = folder / "ledger.db"
        ledger = Ledger(open_engine(f"sqlite:///{path}"))
        ledger.prepare()
        places = [TEMPLATE.format(collection="sentinel-2-l2a", item_id=item_id(n)) for n in range(count)]
        before = _memory()
        first = _measured(lambda: _rebuilt(ledger, TEMPLATE, iter(places), _read))
        grown, size = _memory() - before, path.stat().st_size / 1e6
        again = _measured(lambda: _rebuilt(ledger, TEMPLATE, iter(places), _read))
        ledger.close()
        few = min(count, IN_A_FOLDER)
        template = f"{folder}/outputs/{{collection}}/{{item_id}}.zarr"
        for n in range(few):
            place = folder / "outputs" / "sentinel-2-l2a" / f"{item_id(n)}.zarr"
            place.mkdir(parents=True)
            (place / MARKER).write_text(_marker(item_id(n)))
        ledger = Ledger(open_engine(f"sqlite:///{folder}/small.db"))
        ledger.prepare()
        real = _measured(lambda: _rebuilt(ledger, template, outputs(template), markers))
        ledger.close()
    rows = [
        ("nothing known", count, *first, grown, size),
        ("again, all known", count, *again, "", ""),
        ("of a real folder", few, *real, "", ""),
    ]
    goals = [Goal("hours", first[0] / HOUR, 1.0), Goal("memory it grows by, MB", grown, 200.0)]
    Result(
        "rebuild", f"A lost ledger of {count:,} conversions", "make bench-rebuild",
        ("rebuild", "outputs", "seconds", "CPU, s", "memory grown, MB", "ledger, MB"), rows,
        notes=["SQLite; a store's answers come on top: a LIST for each 1,000 names, a GET for each marker, 500 at once"],
        goals=goals,
    ).keep()  # fmt: skip
    return 0


def item_id(number: int) -> str:
    """Returns an id; the same number, the same id."""
    sensed = datetime(2025, 3, 1, tzinfo=UTC) + timedelta(minutes=number)
    return f"S2B_MSIL2A_{sensed:%Y%m%dT%H%M%S}_N0511_R122_T32TQM_{sensed:%Y%m%dT%H%M%S}"


def _marker(name: str) -> str:
    at, key = stamp(NOW), hashlib.sha256(name.encode()).hexdigest()[:20]
    place = TEMPLATE.format(collection="sentinel-2-l2a", item_id=name)
    return Outcome(
        code=0, reason="done", key=key, revision="rev-a", attempt=1, item_id=name, fence=at, finished=at,
        source=f"https://objects.example/bucket/{name}.zarr", output_zarr=place, counts=Counts(137, 152, 547, 10**9, 10**9),
    ).as_json()  # fmt: skip


def _read(places: Sequence[str]) -> dict[str, Outcome | None]:
    return {place: parse_outcome(_marker(place.rpartition("/")[2].removesuffix(".zarr")).encode()) for place in places}


def _rebuilt(
    ledger: Ledger, template: str, places: Iterator[str], read: Callable[[Sequence[str]], dict[str, Outcome | None]]
) -> None:
    source = Source(name="s2", api="https://stac.example", collection="sentinel-2-l2a")
    found = rebuild(ledger, Owners((source,), Recipe(output=template), ""), places, read, (), lambda: NOW, yes=True)
    if not found.complete or found.left or found.added + found.known != found.outputs:
        raise SystemExit(f"it is not all there: {found}")


def _measured(what: Callable[[], None]) -> tuple[float, float]:
    began, used = time.monotonic(), time.process_time()
    what()
    return time.monotonic() - began, time.process_time() - used


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
