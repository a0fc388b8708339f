"""`--start` and `--end` as people and the nightly audit write them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_watch.cli.times import read_days, read_range, read_since
from stac_watch.jobs.backfill import BackfillRequest, check_range
from stac_watch.model.errors import InputError

NOW = datetime(2026, 3, 1, 3, 17, 5, 123, tzinfo=UTC)


def at(*parts):
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [
        ("30d", "1d", at(2026, 1, 30), at(2026, 2, 28)),
        ("2026-02-01", "2026-02-02", at(2026, 2, 1), at(2026, 2, 3)),
        ("2026-02-01", "2026-02-02T00:00:00Z", at(2026, 2, 1), at(2026, 2, 2)),
        ("2026-02-01T10:30:00+02:00", "12h", at(2026, 2, 1, 8, 30), NOW - timedelta(hours=12)),
        ("10h", "90m", NOW - timedelta(hours=10), NOW - timedelta(minutes=90)),
        ("1d", "0s", at(2026, 2, 28), NOW),
        ("2026-02-20", "2026-12-31", at(2026, 2, 20), at(2026, 3, 2)),
        ("2025-12", "2026-01", at(2025, 12, 1), at(2026, 2, 1)),
        ("yesterday", "yesterday", at(2026, 2, 28), at(2026, 3, 1)),
        ("yesterday", "today", at(2026, 2, 28), at(2026, 3, 2)),
    ],
)
def test_days_times_and_spans_may_be_mixed(start, end, first, last):
    assert read_range(start, end, NOW) == (first, last)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("1d", "30d"),
        ("2026-02-02", "2026-02-01"),
        ("10h", "10h"),
        ("2026-03-02", "2026-03-09"),
        ("2026-03-01T04:00:00Z", "2026-03-01"),
    ],
)
def test_a_range_without_anything_past_in_it_is_refused_and_not_found_to_be_in_order(start, end):
    with pytest.raises(InputError, match=f"nothing lies between --start={start} and --end={end}") as refusal:
        read_range(start, end, NOW)
    assert "--start=30d --end=1d" in refusal.value.hint


@pytest.mark.parametrize("text", ["tomorrow", "", "30", "2026", "2026-13", "30w", "-1d", "2026-02-30", "1e9d", "99999d"])
def test_what_is_none_of_them_is_named(text):
    with pytest.raises(InputError) as refusal:
        read_range(text, "1d", NOW)
    assert repr(text) in refusal.value.message
    assert "30d" in refusal.value.hint


@given(st.integers(1, 3000), st.timedeltas(timedelta(0), timedelta(hours=20, minutes=42)))
def test_a_span_in_days_is_the_same_range_all_day_long(days, later):
    assert read_range(f"{days}d", "0d", NOW)[0] == read_range(f"{days}d", "0d", NOW + later)[0]
    assert read_since(f"{days}d", NOW) == NOW - timedelta(days=days)


@pytest.mark.parametrize("end", ["2026-03-01", "2026-12-31"])
def test_a_day_that_is_not_over_as_the_end_is_the_same_backfill_all_day_long(end):
    """The range names a backfill's cursor: with another one, it would read from its start again."""
    asked = [check_range(BackfillRequest(*read_range("2026-02-20", end, now)), now) for now in (NOW, NOW + timedelta(minutes=1))]
    assert asked[0] == asked[1] == BackfillRequest(at(2026, 2, 20), at(2026, 3, 2))


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026-02-01", at(2026, 2, 1), at(2026, 2, 2)),
        ("Yesterday", at(2026, 2, 28), at(2026, 3, 1)),
        ("2026-02", at(2026, 2, 1), at(2026, 3, 1)),
        ("2025-12..2026-01", at(2025, 12, 1), at(2026, 2, 1)),
        ("2026-02-01..2026-02-03", at(2026, 2, 1), at(2026, 2, 4)),
        ("3d", at(2026, 2, 26), NOW),
    ],
)
def test_days_that_somebody_asks_for(text, first, last):
    assert read_days(text, NOW) == (first, last)


@pytest.mark.parametrize(
    "text", ["9999-12-31", "9999-12", "2026-02-03..2026-02-01", "..", "2026-02-30", "2026-02-01..", "tomorrow"]
)
def test_days_that_are_none_or_nothing_past_are_refused(text):
    with pytest.raises(InputError):
        read_days(text, NOW)


def test_since_a_day_is_since_its_start():
    assert read_since("yesterday", NOW) == at(2026, 2, 28)
    assert read_since("2026-02", NOW) == at(2026, 2, 1)
