"""Footprints at the antimeridian and the poles, as real catalogs spell them, beside areas of every kind."""

import pytest
from shapely.geometry import box, shape

from stac_watch.config.areas import parse_area
from stac_watch.config.globe import area_of, footprint
from stac_watch.config.model import Filter
from stac_watch.discover.policy import Admit, Skip, judge
from stac_watch.model.item import SkipReason


def ring(west, east, south=66.0, north=67.0):
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def multi(*rings):
    return {"type": "MultiPolygon", "coordinates": [[one] for one in rings]}


SPLIT = multi(ring(179, 180), ring(-180, -179))
CROSSING = {  # from 179 east to 179 west, 66 to 67 north
    "RFC 7946": ([179, 66, -179, 67], SPLIT),
    "a bbox around the globe": ([-180, 66, 180, 67], SPLIT),
    "a bbox with heights": ([-180, 66, 0, 180, 67, 9], SPLIT),
    "beyond 180 west": ([-181, 66, -179, 67], polygon(ring(-181, -179))),
    "beyond 180 east": ([179, 66, 181, 67], polygon(ring(179, 181))),
    "from 0 to 360": ([179, 66, 181, 67], multi(ring(179, 180), ring(180, 181))),
    "a turn too far": ([539, 66, 541, 67], polygon(ring(539, 541))),
    "not split": ([-179, 66, 179, 67], polygon([[179, 66], [-179, 66], [-179, 67], [179, 67], [179, 66]])),
    "not split, clockwise": ([-179, 66, 179, 67], polygon([[179, 66], [179, 67], [-179, 67], [-179, 66], [179, 66]])),
    "not split, with points at 180": (
        [-180, 66, 180, 67],
        polygon([[179, 66], [180, 66], [-180, 66], [-179, 66], [-179, 67], [-180, 67], [180, 67], [179, 67], [179, 66]]),
    ),
    "split, 180 written as -180": ([-180, 66, 180, 67], multi(ring(179, -180), ring(-180, -179))),
    "split in a collection": (
        [-180, 66, 180, 67],
        {"type": "GeometryCollection", "geometries": [polygon(ring(179, 180)), polygon(ring(-180, -179))]},
    ),
    "with heights": ([179, 66, -179, 67], multi([[*p, 5.0] for p in ring(179, 180)], [[*p, 5.0] for p in ring(-180, -179)])),
    "no geometry, west > east": ([179, 66, -179, 67], None),
    "no geometry, beyond 180": ([-181, 66, -179, 67], None),
    "no geometry, smallest and largest": ([-179, 66, 179, 67], None),
    "no bbox": ([], SPLIT),
    "no bbox, not split": ([], polygon([[179, 66], [-179, 66], [-179, 67], [179, 67], [179, 66]])),
    "a bbox that says something else": ([10, 45, 11, 46], SPLIT),
}  # fmt: skip
AREAS = {
    "at the east": ([179.2, 66.2, 179.8, 66.8], True),
    "at the west": ([-179.8, 66.2, -179.2, 66.8], True),
    "across": ([179.5, 66.2, -179.5, 66.8], True),
    "Norway": ([14, 66.2, 15, 66.8], False),
    "Alaska": ([-170, 66.2, -160, 66.8], False),
}


@pytest.mark.parametrize("rule", ["bbox", "intersects"])
@pytest.mark.parametrize(("bbox", "geometry"), CROSSING.values(), ids=CROSSING)
def test_what_crosses_the_antimeridian_lies_at_both_its_sides_and_nowhere_else(make, bbox, geometry, rule):
    found = {}
    place = tuple(float(n) for n in (*bbox[:2], *bbox[len(bbox) // 2 :][:2]))
    for name, (area, _) in AREAS.items():
        west, south, east, north = area
        if rule == "bbox":
            rules = Filter(bbox=area)
        else:
            rules = Filter(intersects=polygon(ring(west, east if east >= west else east + 360, south, north)))
        found[name] = judge(make.item(bbox=place), rules, make.now, {"geometry": geometry}) == Admit()
    assert found == {name: inside for name, (_, inside) in AREAS.items()}


@pytest.mark.parametrize(
    ("geometry", "area"),
    [
        (polygon([[0, 85], [90, 85], [180, 85], [-90, 85], [0, 85]]), 360 * 5),
        (polygon([[0, -85], [-90, -85], [180, -85], [90, -85], [0, -85]]), 360 * 5),
        (polygon([[-180, 85], [-90, 85], [0, 85], [90, 85], [180, 85], [180, 90], [-180, 90], [-180, 85]]), 360 * 5),
        (polygon(ring(-180, 180, 85, 90)), 360 * 5),
        (polygon(ring(-180, 180, -90, 90)), 360 * 180),
        (polygon(ring(-100, 0), ring(-90, -80, 66.2, 66.8)), 100 - 6),  # a hole stays one
        (polygon([[0, 66], [1, 67], [1, 66], [0, 67], [0, 66]]), 0.5),  # it crosses itself
        ({"type": "Point", "coordinates": [190.0, 66.0]}, 0),
        ({"type": "LineString", "coordinates": [[179, 66], [-179, 66]]}, 0),
    ],
)
def test_poles_bands_and_odd_shapes_are_what_they_mean(geometry, area):
    found = footprint({"geometry": geometry}, ())
    assert found is not None
    assert found.is_valid
    assert found.area == pytest.approx(area)
    west, south, east, north = found.bounds
    assert -180 <= west <= east <= 180
    assert -90 <= south <= north <= 90


def nested(depth):
    geometry = {"type": "Point", "coordinates": [0, 0]}
    for _ in range(depth):
        geometry = {"type": "GeometryCollection", "geometries": [geometry]}
    return geometry


@pytest.mark.parametrize(
    "geometry",
    [
        None, {}, [], "POINT (5 5)", {"type": "Polygon"}, {"type": "Polygon", "coordinates": []}, nested(3000),
        {"type": "Point", "coordinates": [float("nan"), 1]}, {"type": "Point", "coordinates": [10**400, 1]},
        {"type": "Polygon", "coordinates": [[[1e308, 0], [-1e308, 0], [1e308, 5], [1e308, 0]]]},
        {"type": "Polygon", "coordinates": [[["a", 0], [1, 0], [1, 1], ["a", 0]]]},
        {"type": "Point", "coordinates": [5000.0, 1]},
    ],
    ids=lambda given: str(given)[:30],
)  # fmt: skip
def test_nonsense_leaves_the_bbox_and_no_bbox_nothing(geometry):
    assert footprint({"geometry": geometry}, (1.0, 2.0, 3.0, 4.0)).bounds == (1, 2, 3, 4)
    assert footprint({"geometry": geometry}, ()) is None
    assert area_of((1e308, 0, 1e300, 1e308)) is None


def test_a_geometry_wins_over_a_bbox(make):
    rules = Filter(bbox=[0, 0, 5, 5])
    item = make.item(bbox=(0, 0, 5, 5))
    assert judge(item, rules, make.now, {"geometry": polygon(ring(100, 101))}) == Skip(SkipReason.OUTSIDE_AREA)
    assert judge(item, rules, make.now, {}) == Admit()


def test_an_area_may_go_on_beyond_180_and_must_not_jump():
    beyond = parse_area(polygon(ring(179, 181))).geometry
    assert beyond.equals(shape(SPLIT))
    with pytest.raises(ValueError, match="split it at 180"):
        parse_area(polygon([[179, 66], [-179, 66], [-179, 67], [179, 67], [179, 66]]))
    assert parse_area(polygon(ring(-180, 180, -90, 90))).geometry.equals(box(-180, -90, 180, 90))


@pytest.mark.parametrize(
    "bbox", [[-181, 0, 1, 1], [0, -91, 1, 1], [0, 5, 1, 4], [400_000, 4_600_000, 500_000, 4_700_000], [0, 0, 1, float("nan")]]
)
def test_a_bbox_that_is_not_in_degrees_is_refused(bbox):
    with pytest.raises(ValueError, match="west, south, east, north in degrees"):
        Filter(bbox=bbox)


def test_a_tile_is_known_however_it_is_written(make):
    rules = Filter(tiles=["32TQM", "t33tum", "MGRS-1CCV", " T60XXX "])
    assert rules.tiles == ("T32TQM", "T33TUM", "T01CCV", "T60XXX")
    assert judge(make.item(tile="T32TQM"), rules, make.now) == Admit()


@pytest.mark.parametrize("tile", ["", "32T", "T32TQ", "T99TQM", "T00ABC", "T32IQM", "T32TOM", "T32AQM", "paris", "T32TQMX"])
def test_what_is_no_tile_is_refused(tile):
    with pytest.raises(ValueError, match="is no MGRS tile"):
        Filter(tiles=[tile])
