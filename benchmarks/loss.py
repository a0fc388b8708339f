"""How many items each reader of a catalog has wrong after a churn: ours, fixed windows, everything newer than the newest seen.

In: how many seeds. Out: a table; build/bench/loss.json. Never: part of the tests, which ask for none of ours on three seeds of each
generation; touches a running PostgreSQL (it starts its own, see tests/services).

Publishers stamp an item and publish it up to seconds later, publish some again, change some without a word, date some back and
delete some, for 12 seconds; all three readers look every two seconds at the same collection of a real pgstac.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import requests
from result import Goal, Result

from stac_watch.demo.items import make_collection
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "services"))  # the harness that the tests use

import pgstac_servers as servers
from churn import missed, watched
from place import Place
from postgres import Postgres


def measured(api: servers.Api, seed: int, folder: Path) -> tuple[int, dict[str, int]]:
    """Returns how many items are there in the end, and how many each reader has not, or has wrong."""
    place = Place(api, f"s2-{seed}")
    requests.post(f"{api.url}/collections", json=make_collection(place.collection), timeout=30).raise_for_status()
    ledger = Ledger(open_engine(f"sqlite:///{folder}/{api.generation}-{seed}.db"))
    with contextlib.closing(ledger):
        ledger.prepare()
        ours, usual, writers, _ = watched(place, ledger, seed)
        final = writers.truth.final
        wrong = {"stac-watch": len(missed(final, ours.state())), **{p.kind: len(missed(final, p.seen)) for p in usual}}
    return sum(href is not None for href in final.values()), wrong


def main() -> None:
    """Measures, prints, keeps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    servers.require_postgis()
    rows, lost = [], 0
    with contextlib.closing(Postgres()) as postgres, tempfile.TemporaryDirectory() as folder:
        for generation in servers.GENERATIONS:
            with servers.stac_api(postgres, generation) as api:
                for seed in range(101, 101 + given.seeds):
                    items, wrong = measured(api, seed, Path(folder))
                    lost += wrong["stac-watch"]
                    rows.append([generation, seed, items, *wrong.values()])
    Result(
        "loss", "Items that each reader has not, or has wrong, after a churn", "make bench-loss",
        ["pgstac", "seed", "items", "stac-watch", "fixed windows", "newest seen"], rows,
        goals=[Goal("wrong with stac-watch", lost, 0)],
    ).keep()  # fmt: skip


if __name__ == "__main__":
    main()
