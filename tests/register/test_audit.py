"""What an audit finds in the catalog of outputs: what is missing there, of an earlier output, and of nobody."""

from __future__ import annotations

from datetime import timedelta

import pytest
from shop import Shop

from stac_watch.jobs.audit import Audit
from stac_watch.jobs.registered import compared
from stac_watch.model.stamps import parse_stamp


@pytest.fixture
def found(shop: Shop):
    def found(listing=None) -> dict[str, str]:
        """Items with what is wrong."""
        sensed = parse_stamp("2025-10-08T10:00:41Z")
        nothing = Audit(
            "s2", sensed - timedelta(days=400), sensed + timedelta(days=400), shop.clock(), items=0, done=0, unseen=0, checked=0,
            skipped=0, retired=0, kinds={}, gaps=[],
        )  # fmt: skip
        names = [row.item_id for row in shop.ledger.items.within("s2", nothing.start, nothing.end)]
        there = [item for name in names if (item := shop.there(name))] if listing is None else listing
        audit = compared(nothing, shop.ledger, lambda: there)
        assert sum(audit.kinds.values()) == len(audit.gaps)
        return {gap.item: gap.kind.value for gap in audit.gaps}

    return found


def test_what_is_registered_as_it_is_is_no_gap_and_what_waits_is_unfinished(shop, found):
    names = [shop.finish(n) for n in range(3)]
    assert found([]) == dict.fromkeys(names, "unfinished")
    shop.registrar().round()
    assert found() == {}


def test_what_is_missing_there_of_an_earlier_output_or_of_nobody_is_named(shop, found):
    lost, old, failed, out, taken = (shop.finish(n) for n in range(5))
    shop.items[f"s3://bucket/scenes/{failed}.zarr"]["geometry"] = None
    registrar = shop.registrar()
    registrar.round()
    shop.ledger.publications.withdraw([shop.publication(name).key for name in (out, taken)], shop.clock())
    before = shop.there(taken)
    shop.on(registrar)
    there = [shop.there(old), before, {"id": "somebodys", "properties": {}}]
    there[0]["properties"]["processing:datetime"] = "2020-01-01T00:00:00Z"
    assert found(there) == {
        lost: "unregistered", old: "misregistered", failed: "unregistered", taken: "foreign", "somebodys": "foreign",
    }  # fmt: skip


def test_what_was_done_before_there_was_a_catalog_of_outputs_is_unregistered(shop, found, tmp_path, open_ledger):
    shop.ledger.close()
    shop.ledger = open_ledger(tmp_path / "other.db")
    assert found([{"id": "x", "properties": {}}]) == {"x": "foreign"}
    name = shop.finish()
    assert found([]) == {name: "unregistered"}
