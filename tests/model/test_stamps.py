"""Times as others write them: all that RFC 3339 allows, and nothing that is no time."""

from datetime import UTC, datetime, timedelta

import pytest

from stac_watch.model.stamps import parse_stamp, stamp

NOON = datetime(2025, 11, 24, 12, tzinfo=UTC)
SPELLINGS = {
    "2025-11-24T12:00:00Z": NOON,
    "2025-11-24t12:00:00z": NOON,
    "2025-11-24t12:00:00.000z": NOON,
    "2025-11-24T14:00:00+02:00": NOON,
    "2025-11-24t07:00:00-05:00": NOON,
    "2025-11-24T12:00:00": NOON,
    "2025-11-24T11:59:60Z": NOON,
    "2025-11-24t11:59:60.25z": NOON + timedelta(seconds=0.25),
    "2025-11-24T13:59:60+02:00": NOON,
    "2016-12-31T23:59:60Z": datetime(2017, 1, 1, tzinfo=UTC),
    "2025-11-24T12:00:00.7346780Z": NOON + timedelta(microseconds=734678),
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_of_a_time_is_that_time(text):
    assert parse_stamp(text) == SPELLINGS[text]
    assert parse_stamp(stamp(SPELLINGS[text])) == SPELLINGS[text]


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "2025-13-01T00:00:00Z", "2025-11-24T12:60:60Z", "2025-11-24T12:00:61Z", "9999-12-31T23:59:60Z", 0, None],
)
def test_what_is_no_time_is_none(value):
    assert parse_stamp(value) is None
