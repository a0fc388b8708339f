"""Valid values to start from: a test says only what is different about its own."""

import contextlib
import functools
import hashlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, NullPool, RowMapping, create_engine, text

from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow, Sighting
from stac_watch.model.event import PRIORITY, Conversion, parse_event
from stac_watch.model.item import Item, SkipReason
from stac_watch.model.states import Fact, State, next_state

ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
HREF = f"https://objects.example/bucket/{ITEM_ID}.zarr"


class Make:
    """Factories of valid values; every argument overrides one field."""

    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    item_id = ITEM_ID
    href = HREF

    def document(self, **properties: Any) -> dict[str, Any]:
        """A STAC item as a catalog gives it."""
        given = {
            "datetime": "2025-10-08T10:00:41.024000Z", "updated": "2025-10-08T12:26:13Z", "eo:cloud_cover": 12.5,
            "grid:code": "MGRS-32TQM", "processing:version": "05.11", "processing:software": {"EOPF-CPM": "2.6.2"},
        }  # fmt: skip
        return {
            "type": "Feature", "id": ITEM_ID, "collection": "sentinel-2-l2a", "bbox": [11.4, 41.4, 12.8, 42.5],
            "properties": given | properties,
            "assets": {"product": {"href": HREF, "type": "application/vnd+zarr", "file:checksum": "1620ab"}},
        }  # fmt: skip

    def item(self, **over: Any) -> Item:
        """An item as `changes` reads it."""
        item = Item(
            collection="sentinel-2-l2a", item_id=ITEM_ID, revision="rev-a", updated=self.now, datetime=self.now - timedelta(days=1),
            product_href=HREF, item_href=f"https://stac.example/collections/sentinel-2-l2a/items/{ITEM_ID}",
            bbox=(11.4, 41.4, 12.8, 42.5), cloud_cover=12.5, tile="T32TQM", deprecated=False,
        )  # fmt: skip
        return replace(item, **over)

    def conversion(self, **over: Any) -> Conversion:
        """What one event asks for."""
        conversion = Conversion(
            catalog="https://stac.example", collection="sentinel-2-l2a", item_id=ITEM_ID, revision="rev-a", recipe="groups=",
            kind="create", reason="new", lane="live", time=self.now, datetime=self.now - timedelta(days=1),
            item_href=f"https://stac.example/collections/sentinel-2-l2a/items/{ITEM_ID}", product_href=HREF,
            output_zarr=f"/outputs/{over.get('item_id', ITEM_ID)}.zarr", bbox=(11.4, 41.4, 12.8, 42.5),
            options={"package": "tar", "spatial_chunk": "1024"},
        )  # fmt: skip
        return replace(conversion, **over)

    def sighting(self, skip: SkipReason | None = None, **over: Any) -> Sighting:
        """An item revision as a window showed it."""
        conversion = self.conversion(**over)
        item = self.item(item_id=conversion.item_id, revision=conversion.revision, datetime=conversion.datetime)
        return Sighting(item, conversion, skip)

    def row(self, **over: Any) -> ConversionRow:
        """A conversion as the ledger gives it: sent a minute ago."""
        conversion = self.conversion()
        then = self.now - timedelta(minutes=1)
        row = ConversionRow(
            key=conversion.key, source="s2", item_id=ITEM_ID, revision="rev-a", state=State.SUBMITTED, attempt=1, failures=0,
            waits=0,
            queued_at=then, lane="live", reason=None, exit_code=None, run="gz-t32tqm-1", output_zarr="/outputs/x.zarr",
            outcome=None, created_at=then, changed_at=then,
        )  # fmt: skip
        return replace(row, **over)


@pytest.fixture(scope="session")
def make() -> Make:
    """Factories of valid values."""
    return Make()


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite ledger with its tables and nothing else, to be copied: making one waits for the disk and takes 17 ms."""
    path: Path = tmp_path_factory.mktemp("empty") / "ledger.db"
    ledger = Ledger(open_engine(f"sqlite:///{path}"))
    ledger.prepare()
    ledger.close()
    return path


@pytest.fixture(scope="session")
def open_ledger(empty_ledger: Path) -> Callable[[Path], Ledger]:
    """Opens an SQLite ledger at a path, a new one where there is none."""

    def opened(path: Path) -> Ledger:
        if path.parent.is_dir() and not path.exists():
            shutil.copyfile(empty_ledger, path)
        ledger = Ledger(open_engine(f"sqlite:///{path}"))
        ledger.prepare()
        return ledger

    return opened


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: each test that asks for it runs on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server = request.getfixturevalue("postgres")
    schema = f"t_{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]}"
    server.sql(f"CREATE SCHEMA {schema}")
    url: str = server.url(schema=schema)
    return url


@pytest.fixture
def ledger(database: str, empty_ledger: Path) -> Iterator[Ledger]:
    """A fresh ledger."""
    if database.startswith("sqlite:///"):
        shutil.copyfile(empty_ledger, database.removeprefix("sqlite:///"))
    ledger = Ledger(open_engine(database))
    ledger.prepare()
    yield ledger
    ledger.close()


@functools.cache
def checking(url: str) -> Engine:
    """Opens a database for checks: kept, because what an engine has compiled costs more than a check."""
    return create_engine(url, poolclass=NullPool)


def check_invariants(place: Path | str) -> None:
    """What holds in a ledger after every transaction, read by plain SQL and not by the ledger's own code."""
    engine = checking(place if isinstance(place, str) else f"sqlite:///{place}")
    with contextlib.closing(engine.connect()) as db:

        def rows(table: str, order: str = "1") -> list[RowMapping]:
            return list(db.execute(text(f"SELECT * FROM {table} ORDER BY {order}")).mappings())

        conversions = {row["key"]: row for row in rows("conversion")}
        outbox = {row["key"]: row for row in rows("outbox")}
        events, history = defaultdict(list), defaultdict(list)
        for row in rows("event", "attempt"):
            events[row["key"]].append(row)
        for row in rows("history", "id"):
            history[row["key"]].append(row)
        assert outbox.keys() == {key for key, row in conversions.items() if row["state"] == "queued"}
        for item in rows("item"):
            current = conversions[item["key"]]
            same = ("item_id", "revision")  # of two sources over one collection it is the one's that admitted it
            assert [current[name] for name in same] == [item[name] for name in same]
        for key, row in conversions.items():
            check_events(key, row, events[key], outbox.get(key))
            check_history(row, history[key])
        counted = Counter((row["source"], row["lane"], row["state"], row["cause"]) for row in conversions.values())
        assert {(f["source"], f["lane"], f["state"], f["cause"]): f["n"] for f in rows("funnel") if f["n"]} == counted
        if engine.dialect.name == "sqlite":
            assert db.execute(text("PRAGMA integrity_check")).scalar() == "ok"
            assert not list(db.execute(text("PRAGMA foreign_key_check")))


def check_events(key: str, row: RowMapping, events: list[RowMapping], waits: RowMapping | None) -> None:
    """Each attempt has one event of its own; the last one waits exactly when the conversion is queued.

    Numbers are left out only where runs of a lost ledger have them.
    """
    attempts = [e["attempt"] for e in events]
    assert attempts == sorted(set(attempts))
    assert (attempts[0], attempts[-1]) == (1, row["attempt"])
    for entry in events:
        event = parse_event(bytes(entry["body"]))
        assert (event["id"], event["data"]["key"], event["data"]["attempt"]) == (entry["id"], key, entry["attempt"])
        assert (event["data"]["item_id"], event["data"]["revision"]) == (row["item_id"], row["revision"])
    last = events[-1]
    assert row["run"] == parse_event(bytes(last["body"]))["data"]["run"]
    if waits is not None:
        assert waits["event_id"] == last["id"]
        assert (waits["priority"], waits["source"]) == (PRIORITY[row["lane"]], row["source"])


def check_history(row: RowMapping, moves: list[RowMapping]) -> None:
    """The history is an unbroken chain of legal moves that ends in the state that the row has."""
    state = None
    for move in moves:
        assert move["src"] == state
        assert next_state(State(state) if state else None, Fact(move["fact"])).value == move["dst"]
        assert move["why"].strip()
        state = move["dst"]
    assert (state, moves[-1]["attempt"], moves[-1]["at"]) == (row["state"], row["attempt"], row["changed_at"])


@pytest.fixture
def consistent(database: str) -> Iterator[Callable[[], None]]:
    """Checks the invariants of the ledger of this test when called, and once more at its end."""

    def check() -> None:
        check_invariants(database)

    yield check
    check()


@pytest.fixture(scope="session")
def invariants() -> Callable[[Path | str], None]:
    """The checker itself, for ledgers that a test opens by itself."""
    return check_invariants
