"""Valid values to start from: a test says only what is different about its own."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stac_watch.changes import Item
from stac_watch.database import open_engine
from stac_watch.events import Conversion
from stac_watch.ledger import Ledger
from stac_watch.policy import SkipReason
from stac_watch.records import ConversionRow, Sighting
from stac_watch.states import State

ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
HREF = f"https://objects.example/bucket/{ITEM_ID}.zarr"


class Make:
    """Factories of valid values; every argument overrides one field."""

    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    item_id = ITEM_ID
    href = HREF

    def document(self, **properties: Any) -> dict[str, Any]:
        """A STAC item as a catalogue gives it."""
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
            key=conversion.key, source="s2", item_id=ITEM_ID, revision="rev-a", state=State.SENT, attempt=1, failures=0, waits=0,
            queued_at=then, lane="live", reason=None, exit_code=None, run="gz-t32tqm-1", output_zarr="/outputs/x.zarr",
            outcome=None, created_at=then, changed_at=then,
        )  # fmt: skip
        return replace(row, **over)


@pytest.fixture(scope="session")
def make() -> Make:
    """Factories of valid values."""
    return Make()


@pytest.fixture(scope="session")
def open_ledger() -> Callable[[Path], Ledger]:
    """Opens a prepared SQLite ledger at a path."""

    def opened(path: Path) -> Ledger:
        ledger = Ledger(open_engine(f"sqlite:///{path}"))
        ledger.prepare()
        return ledger

    return opened


@pytest.fixture
def ledger(tmp_path: Path, open_ledger: Callable[[Path], Ledger]) -> Ledger:
    """A fresh ledger in a file."""
    return open_ledger(tmp_path / "ledger.db")
