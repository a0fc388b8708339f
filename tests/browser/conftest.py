"""An installation as its page shows it, two days after its start: two sources, every state, failures, a backfill; and a Chromium.

What happened is written through the ledger's own doors, on a clock of the past; how long things took is drawn from a seed.
"""

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from stac_watch.config.model import Limits, Source
from stac_watch.demo.tiles import parse_tile
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Audited, Move, Order, Sighting
from stac_watch.model.event import Conversion
from stac_watch.model.item import Item, SkipReason
from stac_watch.model.outcome import Check, Outcome
from stac_watch.model.states import Fact, State
from stac_watch.report.links import Links
from stac_watch.report.web.answers import serving
from stac_watch.report.web.site import Site
from stac_watch.runs.engine import Phase, Run, Runs
from stac_watch.watch.loop import Tick
from stac_watch.watch.pulse import Recorder

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages

API = "https://stac.example.com"
TILES = (
    "32TQM", "33UUP", "31UFU", "30TXT", "29SMC", "32UPU", "33TUL", "31TCJ", "30SYJ", "29TNE",
    "33SVB", "34SEJ", "32VNM", "33WWR", "30UYC", "31UDQ", "34TCR", "35UNR", "32TLR", "33TWN",
)  # fmt: skip
SWITCHES = (  # root has no sandbox to go to; the others keep it from calling its maker
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--font-render-hinting=none",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader",  # WebGL without a graphics card
)  # fmt: skip
FAILURES = (
    "chunk 3.7 of measurements/reflectance/r10m/b02 is corrupt: /data/stage/{item}.zarr",
    "no group 'measurements/reflectance/r20m' in {item}",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.services)
            if os.environ.get("STAC_WATCH_TEST_SERVICES") != "1":
                item.add_marker(pytest.mark.skip(reason="needs Chromium: `make test-services` runs it"))


@dataclass
class Installation:
    """A page that is served, and the ledger behind it."""

    ledger: Ledger
    url: str
    clock: list[datetime]
    rng: random.Random
    pulse: Recorder
    number: int = 0

    @property
    def now(self) -> datetime:
        return self.clock[0]

    def pass_time(self, span: timedelta) -> None:
        self.clock[0] += span

    def sight(self, source: str, lane: str, *, age: timedelta, skip: SkipReason | None = None) -> str:
        """A new item of a source, sensed so long ago and published half an hour to two hours before now; returns its id."""
        item, conversion = self.make(source, lane, age)
        self.ledger.items.commit(source, [Sighting(item, conversion, skip)], [], (f"{source}:updated", self.now), self.now)
        return item.item_id

    def sight_many(self, source: str, number: int) -> None:
        """So many new items at once."""
        found = [Sighting(*self.make(source, "live", timedelta(hours=9)), None) for _ in range(number)]
        self.ledger.items.commit(source, found, [], (f"{source}:updated", self.now), self.now)

    def make(self, source: str, lane: str, age: timedelta) -> tuple[Item, Conversion]:
        """An item and its conversion."""
        self.number += 1
        tile = TILES[self.number % len(TILES)]
        sensed = (self.now - age - timedelta(seconds=self.number)).replace(microsecond=0)
        at = f"{sensed:%Y%m%dT%H%M%S}"
        item_id = f"S2{'ABC'[self.number % 3]}_MSIL2A_{at}_N0511_R{self.number % 143:03d}_T{tile}_{at}"
        updated = self.now - timedelta(minutes=self.rng.uniform(0.5, 12))
        bbox = tuple(parse_tile(f"T{tile}").bbox())
        href = f"{API}/collections/sentinel-2-l2a/items/{item_id}"
        product = f"https://objects.example.com/{item_id}.zarr"
        item = Item(
            collection="sentinel-2-l2a", item_id=item_id, revision="r1", updated=updated, datetime=sensed, product_href=product,
            item_href=href, bbox=bbox, cloud_cover=12.5, tile=f"T{tile}", deprecated=False,
        )  # fmt: skip
        conversion = Conversion(
            catalog=API, collection="sentinel-2-l2a", item_id=item_id, revision="r1", recipe="groups=", kind="create",
            reason="new", lane=lane, time=updated, datetime=sensed, item_href=href, product_href=product,
            output_zarr=f"s3://geozarr/{source}/{item_id}.zarr", bbox=bbox, options={"package": "tar"},
        )  # fmt: skip
        return item, conversion

    def move(self, item_id: str, fact: Fact, why: str = "", **more) -> None:
        [row] = self.ledger.conversions.find(item_id=item_id)
        self.ledger.conversions.move(row, Move(fact, why or fact.value, **more), self.now)

    def convert(self, item_id: str, *, until: State = State.DONE, failure: str = "") -> None:
        """Takes an item through its steps, as long as they take."""
        began = self.now
        self.pass_time(timedelta(seconds=self.rng.lognormvariate(1.5, 0.8)))
        self.move(item_id, Fact.ACCEPTED)
        if until is not State.SUBMITTED:
            self.pass_time(timedelta(seconds=self.rng.lognormvariate(2.2, 0.5)))
            self.move(item_id, Fact.RUN_SEEN)
        if until is State.FAILED:
            self.move(item_id, Fact.FAILED_PERMANENT, failure, reason=failure, outcome=Outcome(code=65, reason=failure))
        elif until is State.DONE:
            self.pass_time(timedelta(seconds=self.rng.lognormvariate(4.4, 0.35)))
            [row] = self.ledger.conversions.find(item_id=item_id)
            checks = tuple(Check(name, "passed") for name in ("native bands", "overviews", "chunks", "conformance"))
            self.move(item_id, Fact.SUCCEEDED, "verified", outcome=Outcome(code=0, key=row.key, checks=checks))
        self.clock[0] = began  # others went on meanwhile


def fill(here: Installation) -> None:
    """Two days of two sources."""
    end = here.now
    for step in range(160):
        here.clock[0] = end - timedelta(hours=48) + step * timedelta(minutes=17)
        source = "s2-l2a" if step % 4 else "s2-l2a-africa"
        if step % 9 == 5:
            here.sight(source, "live", age=timedelta(hours=9), skip=SkipReason.TOO_CLOUDY)
            continue
        item = here.sight(source, "live", age=timedelta(hours=9))
        failed = step in (31, 78, 101, 142)
        failure = FAILURES[step % 2].format(item=item)
        here.convert(item, until=State.FAILED if failed else State.DONE, failure=failure)
    here.clock[0] = end - timedelta(hours=3)
    here.ledger.orders.give(Order("s2-l2a", end - timedelta(days=120), end - timedelta(days=90), here.now, 0, None, None))
    old = [here.sight("s2-l2a", "backfill", age=timedelta(days=91 + n // 2)) for n in range(48)]
    for item in old[:29]:
        here.convert(item)
        here.pass_time(timedelta(minutes=5))
    here.clock[0] = end - timedelta(minutes=4)
    running = [here.sight("s2-l2a", "live", age=timedelta(hours=8)) for _ in range(4)]
    for item in running[:3]:
        here.convert(item, until=State.RUNNING)
    here.convert(running[3], until=State.SUBMITTED)
    waits = here.sight("s2-l2a", "live", age=timedelta(hours=8))
    here.convert(waits, until=State.RUNNING)
    here.clock[0] = end - timedelta(minutes=2)
    here.move(
        waits, Fact.NOT_READY, "not there yet", reason="the source is not there yet: HTTP 404", due=end + timedelta(minutes=13)
    )
    here.ledger.sources.note_audit(
        Audited("s2-l2a", end - timedelta(hours=5), end - timedelta(days=30), end - timedelta(days=1), {"lost": 0})
    )
    here.clock[0] = end
    here.ledger.lease.hold("watcher-7d9f, process 7", lambda: here.clock[0])
    rows = {here.ledger.conversions.find(item_id=item)[0].key: n for n, item in enumerate(running[:3])}
    runs = [Run(f"gz-{k}", k, 1, Phase.RUNNING, ("stage", "convert", "verify")[n], (31 + 40 * n, 120)) for k, n in rows.items()]
    here.pulse.note(Tick(runs=Runs(runs)))


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("page")) as here:
        fill(here)
        yield here


@contextmanager
def installed(folder: Path) -> Iterator[Installation]:
    """An installation whose catalogs showed nothing yet, and its page."""
    clock = [datetime(2026, 3, 12, 9, 41, tzinfo=UTC)]
    ledger = Ledger(open_engine(f"sqlite:///{folder}/ledger.db"))
    ledger.prepare()
    pulse = Recorder(lambda: clock[0])
    sources = tuple(Source(name=name, api=API, collection="sentinel-2-l2a") for name in ("s2-l2a", "s2-l2a-africa"))
    links = Links(run_page=lambda run: f"https://argo.example.com/workflows/geozarr/{run}")
    site = Site(ledger, sources, Limits(), pulse.read, lambda: clock[0], "0.1.0", links)
    with serving(site, "127.0.0.1", 0) as url:
        yield Installation(ledger, url, clock, random.Random(7), pulse)
    ledger.close()


@pytest.fixture
def anew(tmp_path: Path) -> Callable[[], AbstractContextManager[Installation]]:
    """Opens installations of a test's own."""
    return lambda: installed(tmp_path)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        assert not os.environ.get("CI"), "CI has no Chromium: apt-get install chromium"
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(SWITCHES))
        yield started
        started.close()


@contextmanager
def opened(browser: Browser, url: str, *, fails: bool = False, **how: object) -> Iterator[Page]:
    """A page of its own; what the browser complained of fails the test, unless what it asks is to fail."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **how})
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda asked: None if _is_left(asked) else complaints.append(f"{asked.url}: {asked.failure}"))
    page.goto(url)
    yield page
    said = list(complaints)  # before it is closed: what is still on its way then has failed, too
    context.close()
    assert fails or said == []


def _is_left(asked: Request) -> bool:
    """Whether a request failed because its page was left: the stream, and the icon, which comes last."""
    return "/events" in asked.url or (asked.url.endswith("/icon.svg") and "ERR_ABORTED" in str(asked.failure))


@pytest.fixture(name="opened")
def _opened(browser: Browser) -> Callable[..., AbstractContextManager[Page]]:
    return partial(opened, browser)


@pytest.fixture
def page(browser: Browser, installation: Installation, request: pytest.FixtureRequest) -> Iterator[Page]:
    with opened(browser, installation.url, **getattr(request, "param", {})) as shown:
        yield shown
