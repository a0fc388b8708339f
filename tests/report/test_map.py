"""The map of the status page: every footprint lies where it is, and what is no footprint draws nothing."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_watch.config.model import Source
from stac_watch.ledger.records import Footprint
from stac_watch.model.states import State
from stac_watch.report.web.map import NARROWEST, areas_of, coast, draw


def item(name, *bbox, state=State.DONE):
    return Footprint(name, state, list(bbox))


def test_items_at_one_place_are_one_rectangle_of_the_worst_state_and_y_goes_south():
    found = draw([item("a", 11, 41, 12, 42), item("b", 11, 41, 12, 42), item("c", 11, 41, 12, 42, state=State.FAILED)])
    [place] = found.rectangles
    assert (place.x, place.y, place.width, place.height) == (11, -42, 1, 1)
    assert (place.state, place.items, place.counts) == (State.FAILED, ["c", "a", "b"], {State.FAILED: 1, State.DONE: 2})
    assert found.height == NARROWEST
    assert found.width * found.stretch == pytest.approx(2 * NARROWEST, abs=0.1)
    assert found.west + found.width / 2 == pytest.approx(11.5, abs=0.01)
    assert found.stretch == pytest.approx(math.cos(math.radians(41.5)), abs=1e-3)
    assert found.meridians == [0, 10, 20]
    assert found.parallels == [40]


def test_a_tile_is_one_rectangle_however_much_of_it_each_item_covers():
    halves = [Footprint("a", State.DONE, [11, 41, 11.5, 42], "T32TQM"), Footprint("b", State.RUNNING, [11.3, 41, 12, 42], "T32TQM")]
    [tile] = draw(halves).rectangles
    assert (tile.x, tile.width, tile.tile, tile.state) == (11, 1, "T32TQM", State.RUNNING)


def test_the_frame_is_around_what_was_not_skipped_or_the_tile_that_is_asked_for():
    here, there = Footprint("a", State.DONE, [11, 41, 12, 42], "T32TQM"), Footprint("b", State.DONE, [25, 60, 26, 61], "T35VLG")
    far = item("c", -50, 70, -49, 71, state=State.SKIPPED)
    assert draw([far, here]).west > -10
    assert draw([far]).west < -50
    assert draw([here, there]).north < draw([here, there], tile="T32TQM").north
    assert draw([here, there, far], tile="T35VLG").west == draw([there]).west


def test_areas_of_interest_are_drawn_as_they_are():
    box = Source(name="a", api="https://x.example", collection="c", filter={"bbox": (10, 40, 12, 42)})
    ring = {"type": "Polygon", "coordinates": [[[0, 0], [2, 0], [2, 1], [0, 0]]]}
    shape = Source(name="b", api="https://x.example", collection="c", filter={"intersects": ring})
    assert areas_of([box, shape], "a") == ["M10.0 -42.0H12.0V-40.0H10.0Z"]
    [path] = areas_of([box, shape], "b")
    assert re.fullmatch(r"M[\d. -]+Z", path)
    assert "2.00 -1.00" in path


def test_no_coast_runs_across_the_map():
    """Eurasia and Antarctica cross the antimeridian; closed without a cut they drew bands over the Arctic."""
    for part in coast().split("Z")[:-1]:
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", part)]
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        for (x, y), (to, _) in zip(points, points[1:] + points[:1], strict=True):
            assert abs(to - x) < 60 or y == 90, f"from {x} to {to} degrees east at {-y} degrees north"


def test_a_box_across_the_antimeridian_is_two_rectangles():
    found = draw([item("a", 179, -17, -179, -16)])
    assert [(r.x, r.width) for r in found.rectangles] == [(179, 1), (-180, 1)]
    assert (found.west, found.width) == (-180, 360)


def test_a_box_with_heights_counts_by_its_ground():
    assert draw([item("a", 11, 41, 0, 12, 42, 900)]).rectangles == draw([item("a", 11, 41, 12, 42)]).rectangles


@pytest.mark.parametrize(
    "bbox", [(), (1, 2, 3), (1, 5, 2, 4), (0, 0, 1, 91), (-181, 0, 0, 1), (math.nan, 0, 1, 1), (0, 0, math.inf, 1)]
)
def test_what_is_no_box_draws_nothing(bbox):
    assert draw([item("a", *bbox)]) is None


@given(
    st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180), st.floats(-90, 90)), min_size=1, max_size=9)
)
def test_the_frame_holds_everything_and_stays_on_earth(boxes):
    found = draw([item("a", w, min(s, n), e, max(s, n)) for w, s, e, n in boxes])
    east, south = found.west + found.width, found.north + found.height
    assert -180 <= found.west < east <= 180.01
    assert -90 <= found.north < south <= 90.01
    for r in found.rectangles:
        assert found.west <= r.x <= r.x + r.width <= east + 0.01
        assert found.north <= r.y <= r.y + r.height <= south + 0.01
    assert len(found.meridians) <= 13


def test_the_coast_is_there_and_on_earth():
    numbers = [float(n) for n in coast().replace("M", " ").replace("Z", " ").split()]
    assert len(numbers) > 4000
    assert max(map(abs, numbers[::2])) <= 180
    assert max(map(abs, numbers[1::2])) <= 90
