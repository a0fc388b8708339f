"""A watcher that is killed at any commit point and started again ends where an undisturbed one ends, on both databases."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
import yaml
from sqlalchemy import NullPool, create_engine, text

from stac_watch.demo.catalog import Server, Store, create_app, make_item
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger

pytestmark = pytest.mark.long

COLLECTION = "sentinel-2-l2a"
ITEMS = (
    "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613",
    "S2B_MSIL2A_20251008T101029_N0511_R022_T33UUP_20251008T132001",
)
MISSING = "S2C_MSIL2A_20251008T112131_N0511_R037_T29SMC_20251008T152216"


class Zygote:
    """The process that forks mortal watchers."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mortal.py"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def watch(self, config: Path, die_at: int = 0) -> dict:
        self.process.stdin.write(json.dumps({"config": str(config), "die_at": die_at}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the process that forks watchers ended"
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=10)


class World:
    """A catalog with two products and an item whose product is not there; and a folder for one watcher."""

    def __init__(self, folder: Path, server: Server, store: Store, products: Path, conversions: Path, ledger) -> None:
        self.folder, self.server, self.store, self.products, self.conversions = folder, server, store, products, conversions
        self.config, self.new_ledger = folder / "stac-watch.yaml", ledger

    def publish(self, item_id: str, version: int, *, with_product: bool = True) -> None:
        product = self.products / f"v{version}" / f"{item_id}.zarr"
        if with_product:
            product.mkdir(parents=True, exist_ok=True)
            (product / ".zmetadata").write_text("{}")
        sensed = datetime(2025, 10, 8, 10, 0, 41, tzinfo=UTC)
        href = f"{self.server.url}/products/v{version}/{item_id}.zarr"
        self.store.put(
            make_item(item_id, catalog_url=self.server.url, product_href=href, updated=datetime.now(UTC), datetime=sensed)
        )

    def fresh(self, name: str) -> None:
        place = self.folder / name
        place.mkdir()
        self.place, self.config = place, place / "stac-watch.yaml"
        self.ledger = self.new_ledger(place)
        self.conversions.write_text("")
        self.config.write_text(
            yaml.safe_dump(
                {
                    "ledger": self.ledger,
                    # five days are swept, in two steps: a day more is the same transaction again
                    "sources": [{"name": "demo", "api": self.server.url, "collection": COLLECTION, "poll": {"sweep_back": "5d"}}],
                    "recipe": {"output": f"{place}/outputs/{{item_id}}.zarr"},
                    "engine": {"kind": "local", "folder": f"{place}/runs", "limits": {"rate": "1000/s", "max_in_flight": 4}},
                }
            )
        )

    def remember(self) -> None:
        """Keeps what this ledger knows of the catalog, for `seed`."""
        ledger = Ledger(open_engine(self.ledger))
        known = ledger.sources.state("demo", ())
        self.abilities, self.sweeps = known.abilities[0], list(known.sweeps.values())
        assert self.sweeps
        ledger.close()

    def seed(self, *, sweeps: bool) -> None:
        """Writes it into a fresh ledger: asking the catalog what it can do takes longer than all the rest of such a watch."""
        ledger = Ledger(open_engine(self.ledger))
        ledger.prepare()
        ledger.sources.note_abilities("demo", self.abilities, datetime.now(UTC))
        for row in self.sweeps if sweeps else ():
            ledger.sources.note_sweep(row)
        ledger.close()

    def state(self) -> dict:
        """What must not depend on where the watcher was killed."""
        last = "SELECT dst FROM history h WHERE h.key = c.key ORDER BY id DESC LIMIT 1"
        with create_engine(self.ledger, poolclass=NullPool).connect() as db:

            def rows(query: str) -> list[tuple]:
                return [tuple(row) for row in db.execute(text(query))]

            found = rows("SELECT item_id, state, waits, failures FROM conversion ORDER BY item_id, created_at")
            outbox = rows("SELECT c.item_id, c.state FROM outbox o JOIN conversion c ON c.key = o.key")
            unexplained = rows(f"SELECT key FROM conversion c WHERE state != ({last})")
            (events,) = rows("SELECT count(*), count(DISTINCT id) FROM event")
            counted = rows("SELECT state, sum(n) FROM funnel WHERE n > 0 GROUP BY state ORDER BY state")
        assert dict(counted) == Counter(row[1] for row in found)
        assert events[0] == events[1]
        outputs = {p.parent.name: json.loads(p.read_text())["key"] for p in self.place.glob("outputs/*/stac-watch.json")}
        twice = [key for key, n in Counter(self.conversions.read_text().split()).items() if n > 1]
        return {"rows": found, "outbox": outbox, "unexplained": unexplained, "outputs": sorted(outputs), "twice": twice}


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    conversions = tmp_path_factory.mktemp("log") / "conversions"
    os.environ["CONVERSIONS"] = str(conversions)
    zygote = Zygote()
    zygote.conversions = conversions
    yield zygote
    zygote.close()
    del os.environ["CONVERSIONS"]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def new_ledger(request):
    """Makes the URL of a fresh ledger for a folder."""
    if request.param == "sqlite":
        return lambda place: f"sqlite:///{place}/ledger.db"
    server = request.getfixturevalue("postgres")

    def schema(place: Path) -> str:
        name = f"crash_{hashlib.sha256(str(place).encode()).hexdigest()[:16]}"
        server.sql(f"CREATE SCHEMA {name}")
        return server.url(schema=name)

    return schema


@pytest.fixture
def world(tmp_path, zygote, new_ledger):
    products = tmp_path / "products"
    products.mkdir()
    store = Store(None)
    with Server(create_app(store, products=products, now=lambda: datetime.now(UTC))) as server:
        yield World(tmp_path, server, store, products, zygote.conversions, new_ledger)
    store.close()


def publish_all(world: World, version: int) -> None:
    for item_id in ITEMS:
        world.publish(item_id, version)
    world.publish(MISSING, version, with_product=False)


def kill_everywhere(world: World, zygote: Zygote, prepare, expected: dict, points: Iterable[int]) -> int:
    """Kills a watcher at each of these commit points until one outlives its N; returns how many were killed."""
    killed = 0
    for n in points:
        prepare(f"killed-{n}")
        status = zygote.watch(world.config, die_at=n)["status"]
        if status == 0:
            break
        assert status == -signal.SIGKILL, n
        assert zygote.watch(world.config)["status"] == 0, n
        assert world.state() == expected, f"killed at commit point {n}"
        killed += 1
    return killed


@pytest.mark.parametrize("first", [pytest.param(1, id="odd"), pytest.param(2, id="even")])  # two workers share its points
def test_killed_at_every_commit_point_of_a_first_watch(world, zygote, first):
    publish_all(world, 1)
    world.fresh("undisturbed")
    assert zygote.watch(world.config)["status"] == 0
    expected = world.state()
    assert [row[1] for row in expected["rows"]].count("done") == len(ITEMS)
    assert expected["outbox"] == [(MISSING, "queued")]
    world.remember()

    def seeded(name: str) -> None:
        world.fresh(f"{name}-seeded")
        world.seed(sweeps=False)

    # lease and abilities; then all the others, of a watcher that knows its catalog
    assert kill_everywhere(world, zygote, world.fresh, expected, range(first, 7, 2)) == 3
    # 1 window, 3 events sent, 3 outcomes: two points for each transaction and each submission, of which this is one
    assert kill_everywhere(world, zygote, seeded, expected, count(first, 2)) >= 1 + 2 * 3 + 3


def test_killed_at_every_commit_point_of_a_replacement(world, zygote):
    def first(name: str) -> None:
        publish_all(world, 1)
        world.fresh(name)
        if name != "undisturbed":
            world.seed(sweeps=True)
        assert zygote.watch(world.config)["status"] == 0
        world.publish(ITEMS[0], 2)

    first("undisturbed")
    assert zygote.watch(world.config)["status"] == 0
    world.remember()
    expected = world.state()
    assert [row[:2] for row in expected["rows"]].count((ITEMS[0], "done")) == 2
    assert kill_everywhere(world, zygote, first, expected, count(1)) >= 2 * (1 + 2 + 1)
