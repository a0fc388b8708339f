"""What an item says of an acquisition: repeated where it has its form, set right where it can be computed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from stac_watch.model import sun
from stac_watch.model.acquired import checked, gathered
from stac_watch.model.extensions import used
from stac_watch.model.mgrs import square

ITEM = "S2B_MSIL2A_20260907T130029_N0512_R138_T26TLL_20260907T145009"
BEGUN = datetime(2026, 9, 7, 13, 0, 29, 24000, tzinfo=UTC)
BOX = [-29.379, 40.538, -28.409, 41.035]


@pytest.mark.parametrize(
    ("moment", "place", "elevation", "azimuth"),
    [  # the solstices and an equinox, as geometry has them
        (datetime(2025, 6, 21, 12, 2, tzinfo=UTC), (0.0, 51.4779), 61.96, 180.0),
        (datetime(2025, 12, 21, 11, 58, tzinfo=UTC), (0.0, 51.4779), 15.09, 180.0),
        (datetime(2025, 3, 20, 12, 7, 30, tzinfo=UTC), (0.0, 0.0), 89.9, None),
        (datetime(2025, 6, 21, 0, 2, tzinfo=UTC), (0.0, 80.0), 13.44, 0.0),
        (datetime(2025, 12, 21, 11, 58, tzinfo=UTC), (0.0, -33.9), 79.54, 0.0),
    ],
    ids=["summer", "winter", "overhead", "midnight-sun", "south"],
)
def test_the_sun_stands_where_the_almanac_says(moment, place, elevation, azimuth):
    found = sun.position(moment, *place)
    assert found[0] == pytest.approx(elevation, abs=0.15)
    if azimuth is not None:
        assert abs(sun.turned(found[1] - azimuth)) < 1.5


def _sun(elevation: float | None, azimuth: float | None, begun: datetime = BEGUN) -> tuple[dict, tuple[str, ...]]:
    given = {"view:sun_elevation": elevation, "view:sun_azimuth": azimuth}
    found = checked({k: v for k, v in given.items() if v is not None}, ITEM, sensed=begun, bbox=BOX)
    return found.properties, found.notes


def test_a_zenith_angle_is_no_elevation_and_is_turned_into_one():
    properties, notes = _sun(37.0139544532677, 158.001836176052)
    assert properties["view:sun_elevation"] == pytest.approx(52.986, abs=1e-3)
    assert properties["view:sun_azimuth"] == 158.001836176052
    assert notes == ("view:sun_elevation said 37.01, the sun's zenith angle; it is 52.99",)


def test_right_angles_stay_to_the_last_digit_and_wrong_ones_are_computed():
    assert _sun(52.9860455, 158.001836176052) == (_sun(52.9860455, 158.001836176052)[0], ())
    assert _sun(52.9860455, 158.001836176052)[0]["view:sun_elevation"] == 52.9860455
    properties, notes = _sun(12.0, 158.0)
    assert properties["view:sun_elevation"] == pytest.approx(53.0, abs=1.0)
    assert len(notes) == 1
    turned, words = _sun(53.0, 338.0)
    assert turned["view:sun_azimuth"] == pytest.approx(158, abs=4)
    assert "view:sun_azimuth said 338" in words[0]


def test_an_item_without_angles_gets_computed_ones_and_nobody_was_wrong():
    properties, notes = _sun(None, None)
    assert (properties["view:sun_elevation"], notes) == (pytest.approx(53, abs=1), ())


def test_late_tiles_of_a_datatake_are_judged_by_their_own_time():
    """Half an hour after it began the sun is elsewhere: the azimuth says when the tile was sensed."""
    sensed = BEGUN + timedelta(minutes=25)
    middle = (BOX[0] + BOX[2]) / 2, (BOX[1] + BOX[3]) / 2
    elevation, azimuth = sun.position(sensed, *middle)
    assert _sun(elevation, azimuth) == ({**_sun(elevation, azimuth)[0], "view:sun_elevation": elevation}, ())
    assert _sun(90 - elevation, azimuth)[0]["view:sun_elevation"] == pytest.approx(elevation)


@pytest.mark.parametrize(("letter", "designator"), [("A", "2015-028A"), ("B", "2017-013A"), ("C", "2024-157A")])
def test_each_satellite_has_its_own_designator(letter, designator):
    item = ITEM.replace("S2B", f"S2{letter}")
    said = {"platform": "sentinel-2a", "sat:platform_international_designator": "2015-028A", "processing:version": "05.11"}
    found = checked(said, item, sensed=None, bbox=None)
    assert found.properties["platform"] == f"sentinel-2{letter.lower()}"
    assert found.properties["sat:platform_international_designator"] == designator
    assert "processing:version said 05.11, it is 05.12" in found.notes
    assert len(found.notes) == (1 if letter == "A" else 3)


def test_a_satellite_that_is_not_known_keeps_what_is_said_of_it():
    said = {"sat:platform_international_designator": "2031-001A"}
    found = checked(said, ITEM.replace("S2B", "S2D"), sensed=None, bbox=None)
    assert found.properties["sat:platform_international_designator"] == "2031-001A"
    assert found.notes == ()


def test_the_tile_is_named_where_projection_and_extent_agree():
    said = {"grid:code": "MGRS-31ABC", "mgrs:utm_zone": 31}
    good = checked(said, ITEM, sensed=None, bbox=None, crs="EPSG:32626", metres=[300000, 4490220, 409800, 4600020])
    assert {k: v for k, v in good.properties.items() if k.startswith(("grid", "mgrs"))} == {
        "grid:code": "MGRS-26TLL", "mgrs:utm_zone": 26, "mgrs:latitude_band": "T", "mgrs:grid_square": "LL",
    }  # fmt: skip
    for crs, metres in (("EPSG:32632", ()), ("EPSG:32626", [600000, 4490220, 709800, 4600020])):
        wrong = checked(said, ITEM, sensed=None, bbox=None, crs=crs, metres=metres)
        assert "grid:code" not in wrong.properties
        assert "mgrs:utm_zone" not in wrong.properties
        assert wrong.notes[0].startswith("grid:code is left out")


@pytest.mark.parametrize(
    "name", ["T32TQM", "T01CCV", "T60XWP", "T55GDN", "T19FDV", "T56HLH", "T31NEA", "T30NZF", "T36MZE", "T28WDE"]
)
def test_a_square_holds_its_own_tile_and_no_neighbour(name):
    from stac_watch.demo.tiles import TILE_SIZE, parse_tile

    tile, found = parse_tile(name), square(name)
    assert found.epsg == f"EPSG:{tile.epsg}"
    box = [tile.left, tile.top - TILE_SIZE, tile.left + TILE_SIZE, tile.top]
    assert found.holds(box)
    assert found.holds([box[0], box[3] - 7560, box[0] + 7560, box[3]])
    for dx, dy in ((100_000, 0), (-100_000, 0), (0, 100_000), (0, -100_000)):
        assert not found.holds([box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy])


@pytest.mark.parametrize("name", ["", "T61TQM", "T32TIM", "T32TAM", "32", "T32IQM"])
def test_what_names_no_square_is_none(name):
    assert square(name) is None


def test_the_first_who_says_it_in_its_form_is_taken_and_nonsense_is_nobodys():
    best = {"eo:cloud_cover": 101, "product:timeliness": "soon", "sat:orbit_state": "sideways", "providers": "ESA", "mission": " "}
    other = {
        "eo:cloud_cover": 12.5, "product:timeliness": "PT3H", "providers": [{"name": "ESA", "roles": ["producer"]}],
        "eopf:data_take_id": "GS2B_1", "instrument": "MSI", "start_datetime": "2025-08-11T11:21:31.025000+00:00",
        "end_datetime": "2025-08-11T11:21:31Z", "s2:foo": 1,
    }  # fmt: skip
    assert gathered(best, other) == {
        "eo:cloud_cover": 12.5, "product:timeliness": "PT3H", "providers": [{"name": "ESA", "roles": ["producer"]}],
        "eopf:datatake_id": "GS2B_1", "instruments": ["msi"], "start_datetime": "2025-08-11T11:21:31.025000Z",
        "end_datetime": "2025-08-11T11:21:31Z",
    }  # fmt: skip
    assert gathered({"start_datetime": "2025-08-11T11:21:31Z"}) == {}, "STAC knows only both"


def test_an_item_declares_what_it_uses_in_properties_assets_bands_and_links():
    item = {
        "properties": {"datetime": None, "eo:cloud_cover": 1, "expires": "2026-01-01T00:00:00Z"},
        "assets": {"a": {"href": "x", "bands": [{"name": "b", "raster:scale": 1}], "alternate": {"s3": {"storage:refs": ["s"]}}}},
        "links": [{"rel": "xyz", "href": "y"}, {"rel": "self", "href": "z"}],
    }
    assert [url.rpartition("io/")[2].split("/")[0] for url in used(item)] == [
        "alternate-assets", "eo", "raster", "storage", "timestamps", "web-map-links",
    ]  # fmt: skip
    assert used({"properties": {}, "assets": {}, "links": []}) == []
