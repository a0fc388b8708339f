from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from stac_watch.model.patience import Backoff, Breaker

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BACKOFF = Backoff(2 * SECOND, timedelta(minutes=5))


@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_a_pause_doubles_to_a_limit_and_is_jittered_downwards_by_half_at_most(earlier, rng):
    full = min(BACKOFF.longest, timedelta(seconds=2 * 2 ** min(earlier, 20)))
    assert BACKOFF.pause(earlier) == full
    assert full / 2 <= BACKOFF.pause(earlier, rng) <= full


@given(st.integers(0, 100), st.integers(0, 100_000))
def test_a_pause_is_as_long_as_the_server_asked_and_never_longer_than_the_longest(earlier, asked):
    pause = BACKOFF.pause(earlier, asked=asked * SECOND)
    assert pause == min(BACKOFF.longest, max(asked * SECOND, BACKOFF.pause(earlier)))


def test_a_breaker_opens_ever_longer_and_closes_with_the_first_answer():
    breaker, rests = Breaker(3, BACKOFF), []
    now = NOW
    for _ in range(12):
        breaker.failed(now, "HTTP 503")
        until = breaker.rest.until if breaker.rest is not None else now
        rests.append(until - now)
        now = until
        assert not breaker.is_open(now)  # one may try
    assert rests[:5] == [timedelta(0), timedelta(0), 2 * SECOND, 4 * SECOND, 8 * SECOND]
    assert rests[-1] == BACKOFF.longest
    assert breaker.said == "HTTP 503"
    breaker.worked()
    breaker.failed(now)
    assert not breaker.is_open(now)


def test_a_breaker_opens_at_once_for_as_long_as_the_server_asked():
    breaker = Breaker(3, BACKOFF)
    breaker.failed(NOW, asked=timedelta(hours=1))
    assert breaker.is_open(NOW + timedelta(minutes=59))
    assert not breaker.is_open(NOW + timedelta(hours=1))
