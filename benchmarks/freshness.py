"""How long an item waits, from its insertion into a real pgstac to the engine's "accepted": polled every 5 s, under 10 items/s.

In: seconds of trickle (120 by default). Out: a table; build/bench/freshness.json. Never: part of the tests; touches a running
PostgreSQL (it starts its own, see tests/services). The engine says yes at once: what is measured is discovery and dispatch.

Beside it, what a user would write: every 5 s a search for `updated` after the newest one seen, by pystac-client. It is as fast, and
loses items; how many, `make test-services` shows under churn.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests
from result import Goal, Result

from stac_watch.catalog.client import FIELDS, Catalog
from stac_watch.catalog.http import CatalogHttp
from stac_watch.config.model import Limits, Poll, Recipe, Source
from stac_watch.demo.items import COLLECTION, make_collection, make_item
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Moved
from stac_watch.model.states import State
from stac_watch.report.web.timeline import percentile
from stac_watch.runs.engine import Answer, Receipt, Run
from stac_watch.watch.loop import Parts, Watcher

POLL, RATE = timedelta(seconds=5), 10.0  # of the watcher; items a second


class Yes:
    """An engine that accepts at once and never gets on."""

    def submit(self, event: bytes) -> Receipt:  # noqa: ARG002  # the engine's interface
        """Accepts."""
        return Receipt(Answer.ACCEPTED)

    def runs(self, keys: object) -> list[Run]:  # noqa: ARG002
        """Has none."""
        return []

    def headroom(self) -> int:
        """Has room."""
        return 100_000

    def close(self, *, stop_runs: bool) -> None:
        """Has nothing to let go."""


def trickle(api: str, seconds: float, born: dict[str, float]) -> None:
    """Inserts items one by one; notes when the server had each."""
    session, began, number = requests.Session(), time.monotonic(), 0
    while time.monotonic() - began < seconds:
        sensed = datetime.now(UTC) - timedelta(days=1, seconds=number)
        item_id = f"S2A_MSIL2A_{sensed:%Y%m%dT%H%M%S}_N0511_R122_T32TQM_{number:08d}T000000"
        href = f"https://data.example/{item_id}.zarr"
        item = make_item(item_id, catalog_url=api, product_href=href, updated=datetime.now(UTC), datetime=sensed)
        session.post(f"{api}/collections/{COLLECTION}/items", json=item, timeout=30).raise_for_status()
        born[item_id] = time.monotonic()
        number += 1
        time.sleep(max(0.0, began + number / RATE - time.monotonic()))


def ours(api: str, folder: Path, over: threading.Event, seen: Callable[[str], None]) -> None:
    """A watcher on the catalog, as `stac-watch watch` runs it."""
    source = Source(name="s2", api=api, collection=COLLECTION, poll=Poll(interval=POLL), allowed_hosts=("data.example",))
    ledger = Ledger(open_engine(f"sqlite:///{folder}/ledger.db"))
    ledger.prepare()

    def heard(moved: Moved) -> None:
        if moved.dst is State.SUBMITTED:
            seen(moved.item_id)

    ledger.listen(heard)
    now, rng = lambda: datetime.now(UTC), random.Random(1)  # noqa: S311  # jitter
    catalog = Catalog(CatalogHttp(api, now=now, sleep=time.sleep, rng=rng, hosts=source.hosts()), COLLECTION, fields=FIELDS)
    limits = Limits(rate="1000/s", max_in_flight=100_000)
    Watcher(Parts(
        sources=(source,), recipe=Recipe(), limits=limits, ledger=ledger, engine=Yes(), catalogs={"s2": catalog},
        read_marker=lambda _: None, now=now, wait=over.wait, rng=rng, beat=0.2,
    )).run(lambda _: None)  # fmt: skip
    ledger.close()


def theirs(api: str, over: threading.Event, seen: Callable[[str], None]) -> None:
    """What a user would write."""
    from pystac_client import Client
    from pystac_client.exceptions import APIError

    client, newest = Client.open(api), datetime.now(UTC)
    while not over.wait(POLL.total_seconds()):
        asked = {"op": ">", "args": [{"property": "updated"}, newest.isoformat()]}
        with contextlib.suppress(APIError):  # a connection that the server has closed meanwhile; the next poll asks again
            for item in client.search(collections=[COLLECTION], filter=asked, filter_lang="cql2-json", limit=250).items_as_dicts():
                newest = max(newest, datetime.fromisoformat(item["properties"]["updated"]))
                seen(item["id"])


def main() -> None:
    """Measures, prints, keeps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--generation", default="0.9.11", help="of pgstac: 0.9.11 or 0.10.0")
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "services"))  # the harness that the tests use
    import pgstac_servers as servers
    from postgres import Postgres

    servers.require_postgis()
    born: dict[str, float] = {}
    took: dict[str, dict[str, float]] = {"stac-watch": {}, "newest `updated`, pystac-client": {}}

    def noted(who: str) -> Callable[[str], None]:
        return lambda item: took[who].setdefault(item, time.monotonic()) and None

    with contextlib.closing(Postgres()) as postgres, servers.stac_api(postgres, given.generation) as api, \
            tempfile.TemporaryDirectory() as folder:  # fmt: skip
        requests.post(f"{api.url}/collections", json=make_collection(), timeout=30).raise_for_status()
        over = threading.Event()
        readers = [
            threading.Thread(target=ours, args=(api.url, Path(folder), over, noted("stac-watch"))),
            threading.Thread(target=theirs, args=(api.url, over, noted("newest `updated`, pystac-client"))),
        ]
        for reader in readers:
            reader.start()
        time.sleep(2 * POLL.total_seconds())  # the catalog is probed, the first poll is over
        trickle(api.url, given.seconds, born)
        time.sleep(4 * POLL.total_seconds())
        over.set()
        for reader in readers:
            reader.join()
    rows = []
    for who, seen in took.items():
        waits = [seen[item] - at for item, at in born.items() if item in seen]
        rows.append(
            [who, len(born), len(born) - len(waits), *(percentile(waits, share) or 0.0 for share in (0.5, 0.95, 0.99, 1.0))]
        )
    Result(
        "freshness", f"From insertion to accepted, pgstac {given.generation}, {RATE:g} items/s, polled every {POLL.seconds} s",
        "make bench-freshness", ["reader", "items", "missed", "p50, s", "p95, s", "p99, s", "longest, s"], rows,
        notes=["With each poll the watcher reads the last quarter of an hour again: at this rate hundreds of items."],
        goals=[Goal("missed by stac-watch", rows[0][2], 0), Goal("p95 / poll interval", rows[0][4] / POLL.total_seconds(), 1.5)],
    ).keep()  # fmt: skip


if __name__ == "__main__":
    main()
