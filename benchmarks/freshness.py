"""How long an item waits, from its insertion into a real pgstac to the engine's "accepted": polled every 5 s, under 10 items/s.

In: seconds of trickle (60 by default). Out: two tables; build/bench/freshness.json and idle.json. Never: part of the tests; touches
a running PostgreSQL (it starts its own, see tests/services). The engine says yes at once: it is discovery and dispatch.

It is the steady state: before anything is measured the catalog has as many items in the overlap as a quarter of an hour at this
rate brings, and the watcher knows all of them. Beside it, what a user would write: every 5 s a search for what is newer than the
newest one seen, by pystac-client. It is as fast, and loses items; how many, `make test-services` shows under churn. Then the same
with a hint for each item, over HTTP; and what a poll costs that finds nothing, beside one that reads the overlap whole.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import requests
from result import Goal, Result

from stac_watch.catalog.client import FIELDS, Catalog, ItemPage
from stac_watch.catalog.http import CatalogHttp
from stac_watch.config.model import Limits, Poll, Recipe, Source
from stac_watch.demo.items import COLLECTION, make_collection, make_item
from stac_watch.discover.intake import Intake
from stac_watch.discover.overlap import MEASURED
from stac_watch.discover.poll import poll
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Moved
from stac_watch.model.states import State
from stac_watch.report.web.answers import serving
from stac_watch.report.web.hints import Desk
from stac_watch.report.web.site import Site
from stac_watch.report.web.timeline import percentile
from stac_watch.runs.engine import Answer, Receipt, Run
from stac_watch.watch.hints import Hints
from stac_watch.watch.loop import Parts, Watcher
from stac_watch.watch.pulse import Recorder

POLL = timedelta(seconds=5)  # of the watcher
OVERLAP = timedelta(minutes=15)
WARM = 10.0  # seconds of trickle, again and again until the watcher knows how late this catalog is
IDLE = 12  # polls that find nothing
TOKEN = "bench"  # noqa: S105  # on loopback


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


def made(api: str, number: int, stamp: datetime) -> tuple[str, dict[str, Any]]:
    """Returns an item and its id."""
    sensed = datetime.now(UTC) - timedelta(days=1, seconds=number)
    item_id = f"S2A_MSIL2A_{sensed:%Y%m%dT%H%M%S}_N0511_R122_T32TQM_{number:08d}T000000"
    href = f"https://data.example/{item_id}.zarr"
    return item_id, make_item(item_id, catalog_url=api, product_href=href, updated=stamp, datetime=sensed)


def filled(api: Any, folder: Path, rate: float) -> int:  # noqa: ANN401  # of the services' harness
    """Loads what a quarter of an hour at this rate would have brought; returns how many items these are."""
    count, now = int(OVERLAP.total_seconds() * rate), datetime.now(UTC)
    items = (made(api.url, 1_000_000 + n, now - timedelta(seconds=n / rate))[1] for n in range(count))
    (folder / "items.ndjson").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    api.load(folder / "items.ndjson")
    return count


def trickle(api: str, rate: float, seconds: float, born: dict[str, float], start: int, hint: str = "") -> int:
    """Inserts items, a second's at a time; notes when the server had each. Returns the number of the next one.

    In bulk, as a producer's loader does: one by one pgstac takes two a second beside a watcher, on two cores.
    """
    session, began, number = requests.Session(), time.monotonic(), start
    said = {"Authorization": f"Bearer {TOKEN}"}
    while time.monotonic() - began < seconds:
        due = max(1, int((time.monotonic() - began + 1) * rate) - (number - start))
        items = dict(made(api, number + n, datetime.now(UTC)) for n in range(due))
        url, many = f"{api}/collections/{COLLECTION}/bulk_items", {"items": items, "method": "insert"}
        session.post(url, json=many, timeout=30).raise_for_status()
        born |= dict.fromkeys(items, time.monotonic())
        for _ in items if hint else ():
            session.post(hint, json={"collection": COLLECTION}, headers=said, timeout=30).raise_for_status()
        number += due
        time.sleep(max(0.0, began + (number - start) / rate - time.monotonic()))
    return number


class Counting(Catalog):
    """A catalog, and how much it was asked."""

    requests = items = 0

    def ask(self, query: dict[str, Any], **more: Any) -> ItemPage:  # noqa: ANN401  # as it is
        """Asks, and counts."""
        page = super().ask(query, **more)
        self.requests, self.items = self.requests + 1, self.items + len(page.items)
        return page

    def clock(self) -> datetime:
        """Asks, and counts."""
        self.requests += 1
        return super().clock()


def intake(api: str, file: Path, timing: Poll) -> Intake:
    """Discovery of the catalog, with a ledger of its own."""
    source = Source(name="s2", api=api, collection=COLLECTION, poll=timing, allowed_hosts=("data.example",))
    ledger = Ledger(open_engine(f"sqlite:///{file}"))
    ledger.prepare()
    now, rng = lambda: datetime.now(UTC), random.Random(1)  # noqa: S311  # jitter
    catalog = Counting(CatalogHttp(api, now=now, sleep=time.sleep, rng=rng, hosts=source.hosts()), COLLECTION, fields=FIELDS)
    return Intake(source, Recipe(), catalog, ledger, now)


@contextlib.contextmanager
def ours(inside: Intake, over: threading.Event, seen: Callable[[str], None]) -> Iterator[str]:
    """A watcher on the catalog, as `stac-watch watch` runs it; yields where it takes hints."""

    def heard(moved: Moved) -> None:
        if moved.dst is State.SUBMITTED:
            seen(moved.item_id)

    inside.ledger.listen(heard)
    sources, hints, now = (inside.source,), Hints(), inside.now
    limits = Limits(rate="1000/s", max_in_flight=100_000)
    watcher = Watcher(Parts(
        sources=sources, recipe=Recipe(), limits=limits, ledger=inside.ledger, engine=Yes(), catalogs={"s2": inside.catalog},
        read_marker=lambda _: None, now=now, wait=over.wait, rng=random.Random(1), hints=hints,  # noqa: S311  # jitter
    ))  # fmt: skip
    loop = threading.Thread(target=watcher.run, args=(lambda _: None,))
    site = Site(inside.ledger, sources, limits, Recorder(now).read, now, "1", desk=Desk(sources, hints, lambda: TOKEN))
    with serving(site, "127.0.0.1", 0) as url:
        loop.start()
        try:
            yield f"{url}hints"
        finally:
            over.set()
            loop.join()


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


def idle(api: str, known: Intake, folder: Path, rate: float) -> Result:
    """What polls cost that find nothing, in turns and whole."""
    # it has seen no item come, so it does not know how late they are, and reads all of it
    anew = intake(api, folder / "whole.db", Poll(interval=POLL, overlap=OVERLAP))
    poll(anew)
    rows, ways = [], {"in turns": known, "the overlap whole": anew}
    sums = {way: [0.0] * 4 for way in ways}
    for way, inside in ways.items():  # one after the other: a whole one takes longer than the pause between two polls
        for _ in range(IDLE):
            catalog, at, used = cast("Counting", inside.catalog), time.monotonic(), time.thread_time()
            before = catalog.requests, catalog.items
            poll(inside)
            new = catalog.requests - before[0], catalog.items - before[1], time.thread_time() - used, time.monotonic() - at
            sums[way] = [one + other for one, other in zip(sums[way], new, strict=True)]
            time.sleep(max(0.0, at + POLL.total_seconds() - time.monotonic()))
    for way, of in sums.items():
        rows.append([way, of[0] / IDLE, of[1] / IDLE, 1000 * of[2] / IDLE, of[3] / IDLE])
    shares = [mine / whole for mine, whole in zip(rows[0][1:], rows[1][1:], strict=True)]
    anew.ledger.close()
    return Result(
        "idle", f"A poll that finds nothing, {OVERLAP.seconds // 60} minutes at {rate:g} items/s before it",
        "make bench-freshness", ["the overlap is read", "requests", "items", "CPU of the watcher, ms", "seconds"], rows,
        notes=[f"The mean of {IDLE} polls, five seconds apart where they take less. Before there were turns, each read it whole."],
        goals=[Goal("requests, to whole", shares[0], 0.1), Goal("CPU, to whole", shares[2], 0.1)],
    )  # fmt: skip


@dataclass
class Seen:
    """When each item was inserted, and when each reader had it: seconds of one clock."""

    polled: dict[str, float] = field(default_factory=dict)
    hinted: dict[str, float] = field(default_factory=dict)
    by_us: dict[str, float] = field(default_factory=dict)
    by_them: dict[str, float] = field(default_factory=dict)
    rate: float = 0.0  # items/s that the catalog really took


def noted(took: dict[str, float]) -> Callable[[str], None]:
    """Returns what notes that an item was seen now, if it is the first time."""
    return lambda item: took.setdefault(item, time.monotonic()) and None


def followed(api: str, inside: Intake, there: int, rate: float, seconds: float) -> Seen:
    """Lets items come, once polled by us and by them, then with a hint for each."""
    found, over, other, pause = Seen(), threading.Event(), threading.Event(), 4 * POLL.total_seconds()
    with ours(inside, over, noted(found.by_us)) as hints:
        while len(found.by_us) < there:
            time.sleep(1.0)
        reader = threading.Thread(target=theirs, args=(api, other, noted(found.by_them)))
        reader.start()
        number = 0
        while sum(inside.ledger.sources.lateness("s2").values()) < MEASURED:
            number = trickle(api, rate, WARM, {}, number)
        began, first = time.monotonic(), number
        number = trickle(api, rate, seconds, found.polled, number)
        found.rate = (number - first) / (time.monotonic() - began)
        time.sleep(pause)
        other.set()
        reader.join()
        trickle(api, rate, seconds, found.hinted, number, hints)
        time.sleep(pause)
    return found


def table(found: Seen, there: int, generation: str) -> Result:
    """Returns how long the items of each reader took."""
    rows = []
    for who, seen, born in (
        ("stac-watch", found.by_us, found.polled), ("stac-watch, a hint for each item", found.by_us, found.hinted),
        ("newest `updated`, pystac-client", found.by_them, found.polled),
    ):  # fmt: skip
        waits = [seen[item] - at for item, at in born.items() if item in seen]
        shares = [percentile(waits, share) or 0.0 for share in (0.5, 0.95, 0.99, 1.0)]
        rows.append([who, len(born), len(born) - len(waits), *shares])
    return Result(
        "freshness", f"From insertion to accepted, pgstac {generation}, {found.rate:.1f} items/s, polled each {POLL.seconds} s",
        "make bench-freshness", ["reader", "items", "missed", "p50, s", "p95, s", "p99, s", "longest, s"], rows,
        notes=[f"In the steady state: {there:,} items of the last quarter of an hour were there, and known."],
        goals=[
            Goal("missed by stac-watch", rows[0][2] + rows[1][2], 0), Goal("p95 / poll interval", rows[0][4] / POLL.seconds, 1.2),
            Goal("p95 with a hint, s", rows[1][4], 2.0),
        ],
    )  # fmt: skip


def main() -> None:
    """Measures, prints, keeps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=10, help="items a second; fewer for a trial")
    parser.add_argument("--generation", default="0.9.11", help="of pgstac: 0.9.11 or 0.10.0")
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "services"))  # the harness that the tests use
    import pgstac_servers as servers
    from postgres import Postgres

    servers.require_postgis()
    with contextlib.closing(Postgres()) as postgres, servers.stac_api(postgres, given.generation) as api, \
            tempfile.TemporaryDirectory() as place:  # fmt: skip
        folder = Path(place)
        requests.post(f"{api.url}/collections", json=make_collection(), timeout=30).raise_for_status()
        api.declare_updated()
        there, inside = filled(api, folder, given.rate), intake(api.url, folder / "ledger.db", Poll(interval=POLL))
        found = followed(api.url, inside, there, given.rate, given.seconds)
        costs = idle(api.url, inside, folder, given.rate)
        inside.ledger.close()
    table(found, there, given.generation).keep()
    costs.keep()


if __name__ == "__main__":
    main()
