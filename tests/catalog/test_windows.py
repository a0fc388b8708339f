import itertools
from datetime import UTC, datetime, timedelta, timezone

import cql2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_watch.catalog.windows import (
    AHEAD,
    FAR,
    Span,
    Window,
    advance,
    after,
    bisect,
    bounds,
    days,
    floor_second,
    interval,
    next_window,
)

SECONDS = st.integers(0, 4_000_000_000).map(lambda s: datetime(2015, 1, 1, tzinfo=UTC) + timedelta(seconds=s))
MOMENTS = st.builds(lambda second, micro: second.replace(microsecond=micro), SECONDS, st.integers(0, 999_999))
LENGTHS = st.integers(1, 10_000).map(lambda s: timedelta(seconds=s))
WINDOWS = st.builds(lambda start, length: Window("updated", start, start + length), SECONDS, LENGTHS)


def spellings(moment: datetime) -> list[str]:
    """Every way in which real catalogs write this moment in UTC."""
    second, micro = moment.strftime("%Y-%m-%dT%H:%M:%S"), f"{moment.microsecond:06d}"
    if moment.microsecond == 0:
        return [f"{second}Z", f"{second}+00:00", f"{second}.000000Z", f"{second}.0Z"]
    return [f"{second}.{micro}Z", f"{second}.{micro}+00:00", f"{second}.{micro.rstrip('0')}Z"]


def server_selects(condition: dict, value: object, item_id: str = "a") -> bool:
    """What a server answers that compares the property as it is stored; by the reference implementation of CQL2."""
    return cql2.Expr(condition).matches({"id": item_id, "updated": value})


@given(WINDOWS, MOMENTS, st.data())
def test_a_text_comparing_server_selects_exactly_the_moments_inside_however_they_are_written(window, anywhere, data):
    near = st.builds(
        lambda edge, offset: edge + timedelta(microseconds=offset),
        st.sampled_from([window.start, window.end]), st.integers(-2_000_000, 2_000_000),
    )  # fmt: skip
    moment = data.draw(st.one_of(near, st.just(window.start), st.just(window.end), st.just(anywhere)))
    inside = window.start <= moment < window.end
    for text in spellings(moment):
        assert server_selects(bounds(window), text) is inside, text


@given(WINDOWS, st.integers(-3_000_000, 3_000_000))
def test_a_typed_server_selects_exactly_the_moments_inside(window, offset):
    moment = window.start + timedelta(microseconds=offset)
    (low, high) = (datetime.fromisoformat(c["args"][1]) for c in bounds(window, typed=True)["args"])
    assert (low <= moment < high) is (window.start <= moment < window.end)


def test_the_bounds_literally():
    window = Window(
        "updated", datetime(2025, 10, 8, 12, 26, 13, tzinfo=timezone(timedelta(hours=2))), datetime(2025, 10, 8, 11, tzinfo=UTC)
    )
    prop = {"property": "updated"}
    assert bounds(window) == {
        "op": "and",
        "args": [{"op": ">=", "args": [prop, "2025-10-08T10:26:13"]}, {"op": "<", "args": [prop, "2025-10-08T11:00:00"]}],
    }
    assert [c["args"][1] for c in bounds(window, typed=True)["args"]] == [
        "2025-10-08T10:26:13.000000Z",
        "2025-10-08T11:00:00.000000Z",
    ]


@given(WINDOWS)
def test_halves_cover_the_window_exactly_and_are_smaller(window):
    halves = bisect(window)
    if window.seconds == 1:
        assert halves is None
    else:
        first, second = halves
        assert (first.start, first.end, second.end) == (window.start, second.start, window.end)
        assert min(first.seconds, second.seconds) >= 1
        assert first.seconds + second.seconds == window.seconds
        assert {first.field, second.field} == {window.field}


@given(st.integers(1, 300))
def test_bisecting_to_the_end_gives_each_second_once_in_order(length):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    todo, leaves = [Window("updated", start, start + timedelta(seconds=length))], []
    while todo:
        window = todo.pop()
        halves = bisect(window)
        todo += reversed(halves) if halves else ()
        leaves += [] if halves else [window]
    assert [w.start for w in leaves] == [start + timedelta(seconds=s) for s in range(length)]
    assert all(w.seconds == 1 for w in leaves)


@given(MOMENTS, LENGTHS, MOMENTS)
def test_the_next_window_reaches_from_before_the_cursor_into_the_future(cursor, overlap, server_now):
    window = next_window("updated", cursor, overlap, server_now)
    assert window.start <= cursor - overlap < window.start + timedelta(seconds=1)
    assert window.seconds >= 1
    assert (window.start.microsecond, window.end.microsecond) == (0, 0)
    assert window.end == FAR
    if server_now > cursor:
        assert server_now < window.knee <= server_now + AHEAD


@given(MOMENTS, MOMENTS)
def test_an_open_window_is_halved_at_the_server_s_clock_first_and_in_few_steps(cursor, server_now):
    window, steps = next_window("updated", cursor, timedelta(minutes=15), server_now), 0
    while window.knee is not None:
        first, second = bisect(window)
        assert (first.start, first.end, second.end) == (window.start, second.start, window.end)
        assert first.end == window.knee
        window, steps = second, steps + 1
    assert steps <= 24  # 8,000 years


@given(MOMENTS, WINDOWS, MOMENTS)
def test_the_cursor_never_goes_back_and_never_past_the_server_s_clock_or_what_was_read(cursor, window, server_now):
    after_commit = advance(cursor, window, server_now)
    assert after_commit >= cursor
    assert after_commit <= max(cursor, server_now)
    assert after_commit <= max(cursor, window.end)


@given(st.lists(st.tuples(MOMENTS, LENGTHS), min_size=1, max_size=20))
def test_windows_one_after_the_other_leave_no_gap(polls):
    cursor, covered = polls[0][0], None
    server_now = cursor
    for _, pause in polls:
        server_now += pause
        window = next_window("updated", cursor, timedelta(seconds=30), server_now)
        assert covered is None or window.start <= covered
        covered = window.end
        cursor = advance(cursor, window, server_now)


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.text("abc", min_size=1, max_size=3)), min_size=1, max_size=40, unique_by=lambda row: row[1]
)


@given(ROWS, st.integers(1, 5))
def test_going_on_inside_a_second_meets_every_item_once(rows, limit):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    window = Window("updated", start, start + timedelta(seconds=1))
    items = sorted((f"2026-01-01T00:00:00.{micro:06d}Z", item_id) for micro, item_id in rows)
    met, condition = [], None
    while True:
        page = [i for i in items if condition is None or server_selects(condition, *i)][:limit]
        met += page
        if len(page) < limit:
            break
        condition = after(window, *page[-1])
    assert met == items


@pytest.mark.parametrize("offset", [0, 5, -7])
def test_floor_second_is_utc(offset):
    moment = datetime(2026, 1, 1, 12, 0, 7, 999_999, tzinfo=timezone(timedelta(hours=offset)))
    floored = floor_second(moment)
    assert floored.utcoffset() == timedelta(0)
    assert moment - floored == timedelta(microseconds=999_999)


@given(SECONDS, st.integers(1, 30 * 86_400))
def test_days_cover_a_span_without_gap_or_overlap(start, seconds):
    end = start + timedelta(seconds=seconds)
    windows = list(days("datetime", start, end))
    assert (windows[0].start, windows[-1].end) == (start, end)
    assert all(a.end == b.start for a, b in itertools.pairwise(windows))
    assert all(w.seconds <= 86_400 and w.start.date() == (w.end - timedelta(seconds=1)).date() for w in windows)


def test_an_interval_has_both_its_ends_and_is_still_half_open():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert interval(Window("datetime", start, start + timedelta(days=1))) == (
        "2026-01-01T00:00:00.000000Z/2026-01-01T23:59:59.999999Z"
    )
    assert interval(Span(start, None)) == "2026-01-01T00:00:00.000000Z/.."


@given(MOMENTS, LENGTHS, MOMENTS)
def test_no_window_starts_before_the_watch_did(cursor, overlap, origin):
    window = next_window("updated", cursor, overlap, cursor, origin=origin)
    assert window.start >= min(floor_second(origin), floor_second(cursor))


@given(ROWS)
def test_the_same_keyset_leads_down(rows):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    window = Window("updated", start, start + timedelta(seconds=1))
    items = sorted(((f"2026-01-01T00:00:00.{micro:06d}Z", i) for micro, i in rows), reverse=True)
    for n, item in enumerate(items):
        condition = after(window, *item, descending=True)
        assert [i for i in items if server_selects(condition, *i)] == items[n + 1 :]
