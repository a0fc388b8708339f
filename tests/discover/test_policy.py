from datetime import timedelta

import pytest

from stac_watch.config.model import Filter
from stac_watch.discover.policy import Admit, Skip, judge
from stac_watch.model.forms import Form
from stac_watch.model.item import SkipReason

CASES = [
    (SkipReason.DEPRECATED, {}, {"deprecated": True}, {"deprecated": False}),
    (SkipReason.FORM, {}, {"form": Form.OTHER}, {"form": Form.GEOZARR}),
    (SkipReason.FORM, {}, {"form": Form.ARCHIVE}, {"form": Form.EOPF_V3}),
    (SkipReason.OTHER_TILE, {"tiles": ("T32TQM", "T01CCV")}, {"tile": "T33TUM"}, {"tile": "T01CCV"}),
    (SkipReason.OUTSIDE_AREA, {"bbox": (0, 0, 10, 10)}, {"bbox": (10.1, 0, 11, 1)}, {"bbox": (9, 9, 20, 20)}),
    (SkipReason.NO_BBOX, {"bbox": (0, 0, 10, 10)}, {"bbox": ()}, {"bbox": (1, 1, 2, 2)}),
    (SkipReason.TOO_CLOUDY, {"max_cloud_cover": 60}, {"cloud_cover": 60.1}, {"cloud_cover": 60.0}),
    (SkipReason.NO_CLOUD_COVER, {"max_cloud_cover": 60}, {"cloud_cover": None}, {"cloud_cover": 0.0}),
]
SET_BY_THE_LEDGER = {
    SkipReason.WITHDRAWN,
    SkipReason.SUPERSEDED,
    SkipReason.RETIRED,
    SkipReason.LIFETIME_OVER,
    SkipReason.OTHER_SOURCE,
}


@pytest.mark.parametrize(("reason", "rules", "bad", "good"), CASES, ids=lambda v: str(v) if isinstance(v, SkipReason) else "")
def test_each_rule_says_no_under_its_own_name_and_yes_at_its_limit(make, reason, rules, bad, good):
    rules = Filter(**rules)
    assert judge(make.item(**bad), rules, make.now) == Skip(reason)
    assert judge(make.item(**good), rules, make.now) == Admit()


def test_age_is_counted_from_the_acquisition(make):
    rules = Filter(max_age="30d")
    old, young = make.now - timedelta(days=30, seconds=1), make.now - timedelta(days=30)
    # re-stamped yesterday: upstream does so to whole archives
    assert judge(make.item(datetime=old, updated=make.now), rules, make.now) == Skip(SkipReason.TOO_OLD)
    assert judge(make.item(datetime=young, updated=None), rules, make.now) == Admit()


def test_every_reason_is_either_tested_here_or_set_by_the_ledger():
    elsewhere_here = {SkipReason.TOO_OLD, SkipReason.NO_MATCH, SkipReason.CANNOT_MATCH}
    assert {case[0] for case in CASES} | elsewhere_here | SET_BY_THE_LEDGER == set(SkipReason)


@pytest.mark.parametrize("cql2", ["platform = 'sentinel-2a'", {"op": "=", "args": [{"property": "platform"}, "sentinel-2a"]}])
def test_an_expression_holds_does_not_hold_or_cannot_be_answered(make, cql2):
    rules = Filter(cql2=cql2)
    for properties, verdict in [
        ({"platform": "sentinel-2a"}, Admit()),
        ({"platform": "sentinel-2b"}, Skip(SkipReason.NO_MATCH)),
        ({}, Skip(SkipReason.CANNOT_MATCH)),
    ]:
        assert judge(make.item(), rules, make.now, make.document(**properties)) == verdict


def test_an_area_is_compared_with_the_footprint_and_with_the_bbox_where_there_is_none(make):
    rules = Filter(intersects={"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]})
    inside, outside = ({"type": "Point", "coordinates": [x, 5]} for x in (5, 15))
    assert judge(make.item(bbox=(20, 20, 21, 21)), rules, make.now, {"geometry": inside}) == Admit()
    assert judge(make.item(bbox=(1, 1, 2, 2)), rules, make.now, {"geometry": outside}) == Skip(SkipReason.OUTSIDE_AREA)
    for geometry in (None, {}, {"type": "Polygon"}, "POINT (5 5)"):
        assert judge(make.item(bbox=(1, 1, 2, 2)), rules, make.now, {"geometry": geometry}) == Admit()
        assert judge(make.item(bbox=()), rules, make.now, {"geometry": geometry}) == Skip(SkipReason.NO_BBOX)


def test_without_rules_everything_is_wanted_but_what_is_deprecated(make):
    bare = make.item(bbox=(), cloud_cover=None, tile="", updated=None, datetime=make.now - timedelta(days=20_000))
    assert judge(bare, Filter(), make.now) == Admit()
    assert judge(make.item(deprecated=True), Filter(), make.now) == Skip(SkipReason.DEPRECATED)


def test_the_tile_comes_from_the_id_where_the_item_does_not_say(make):
    rules = Filter(tiles=("T32TQM",))
    assert judge(make.item(tile=""), rules, make.now) == Admit()
    assert judge(make.item(tile="", item_id="LC09_L2SP_193029"), rules, make.now) == Skip(SkipReason.OTHER_TILE)


def test_everything_that_is_given_must_hold(make):
    rules = Filter(bbox=(0, 0, 20, 60), max_cloud_cover=60, tiles=("T32TQM",), max_age="30d")
    assert judge(make.item(), rules, make.now) == Admit()
    for reason, over in [
        (SkipReason.TOO_CLOUDY, {"cloud_cover": 61.0}), (SkipReason.OUTSIDE_AREA, {"bbox": (30, 0, 31, 1)}),
        (SkipReason.TOO_OLD, {"datetime": make.now - timedelta(days=31)}), (SkipReason.OTHER_TILE, {"tile": "T33TUM"}),
    ]:  # fmt: skip
        assert judge(make.item(**over), rules, make.now) == Skip(reason)
