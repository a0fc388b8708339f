"""A filter that can match nothing is said by `check`, with where to look."""

from datetime import timedelta

import pytest

from stac_watch.catalog.probe import probe
from stac_watch.config.model import Limits
from stac_watch.demo.items import make_collection
from stac_watch.discover.outlook import outlook, product_hosts
from stac_watch.jobs import backfill


def said(world, **rules):
    world.settings["filter"] = rules
    catalog = world.catalog(whole="cql2" in rules, fields=(*world.catalog()._fields, "geometry"))
    probe(catalog, 1000)
    return " / ".join(outlook(world.source(), catalog, world.clock()).words(world.source().filter))


@pytest.fixture
def some(world):
    world.fill(20)
    world.store.put_many([world.item(n, properties={"eo:cloud_cover": 90.0, "grid:code": "MGRS-33TUM"}) for n in range(20, 50)])
    return world


def test_what_matches_is_counted_and_what_does_not_has_its_reason(some):
    assert said(some) == "of the newest 50 items 50 match / their products: 50 eopf-v2"
    assert said(some, max_cloud_cover=60) == "of the newest 50 items 20 match; 30 too_cloudy / their products: 50 eopf-v2"
    assert said(some, tiles=["32tqm"]).startswith("of the newest 50 items 20 match; 30 other_tile")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"bbox": [45, 12, 46, 13]}, ("50 outside_area", "filter.bbox")),
        ({"cql2": "platfrom = 'sentinel-2a'"}, ("50 cannot_match", "filter.cql2 names a property that these items do not have")),
        ({"tiles": ["T60XXX"]}, ("50 other_tile", "filter.tiles")),
        ({"max_cloud_cover": 0.6}, ("20 no", "max_cloud_cover 0.6", "write 60")),
    ],
)
def test_a_rule_that_nothing_meets_is_a_warning_and_says_where_to_look(some, rules, words):
    text = said(some, **rules)
    assert "warning: " in text
    assert all(word in text for word in words[1:])
    assert "0 match" in text


def test_items_that_cannot_be_read_are_named_with_the_reason(some):
    some.settings["allowed_hosts"] = ["elsewhere.example"]
    text = said(some)
    assert "0 match; 50 unreadable" in text
    assert text.count("is not allowed") == 1


def test_an_empty_collection_has_no_outlook(world):
    world.store.put_collection(make_collection())
    assert said(world, tiles=["T32TQM"]) == ""


def test_a_plan_says_why_items_are_skipped(some):
    some.settings["filter"] = {"max_cloud_cover": 60}
    request = backfill.BackfillRequest(some.clock() - timedelta(days=9), some.clock())
    plan = backfill.plan(some.intake(), Limits(), request)
    assert (plan.to_do, plan.reasons) == (20, {"too_cloudy": 30})
    some.poll()
    assert backfill.plan(some.intake(), Limits(), request).reasons == {"too_cloudy": 30}  # known by now


def test_a_product_whose_address_is_none_names_no_host(world):
    world.fill(2)
    world.store.put_many([world.item(2, product_href="https://[nowhere/x.zarr")])
    assert product_hosts(world.catalog()) != []
