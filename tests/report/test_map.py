"""The map of the status page: every footprint lies where it is, and what is no footprint draws nothing."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_watch.ledger.records import Footprint
from stac_watch.model.states import State
from stac_watch.report.web.map import NARROWEST, coast, draw


def item(name, *bbox, state=State.DONE):
    return Footprint(name, state, list(bbox))


def test_items_at_one_place_are_one_rectangle_and_y_goes_south():
    found = draw([item("a", 11, 41, 12, 42), item("b", 11, 41, 12, 42), item("c", 11, 41, 12, 42, state=State.FAILED)])
    assert [(r.x, r.y, r.width, r.height, r.state, r.items) for r in found.rectangles] == [
        (11, -42, 1, 1, State.DONE, ["a", "b"]), (11, -42, 1, 1, State.FAILED, ["c"]),
    ]  # fmt: skip
    assert found.height == NARROWEST
    assert found.width * found.stretch == pytest.approx(2 * NARROWEST, abs=0.1)
    assert found.west + found.width / 2 == pytest.approx(11.5, abs=0.01)
    assert found.stretch == pytest.approx(math.cos(math.radians(41.5)), abs=1e-3)
    assert found.meridians == [-20, 0, 20, 40]
    assert found.parallels == [40]


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
