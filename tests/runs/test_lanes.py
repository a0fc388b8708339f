from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_watch.ledger.records import Order, Queue
from stac_watch.runs.lanes import WEIGHT, allowed, next_queue, reserved

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ORDER = Order("s2", NOW, NOW, NOW, 0, None, None)
QUEUES = st.builds(Queue, st.sampled_from(["a", "b", "c"]), st.sampled_from(sorted(WEIGHT)))


def fill(waiting, slots, caps=None, in_flight=None):
    runs = Counter(in_flight or {})
    for _ in range(slots):
        queue = next_queue(waiting, runs, caps or {})
        if queue is None:
            break
        runs[queue] += 1
    return runs


def by_lane(runs):
    lanes = Counter()
    for queue, n in runs.items():
        lanes[queue.lane] += n
    return lanes


def test_while_all_wait_each_lane_has_its_share():
    runs = fill([Queue("s", lane) for lane in WEIGHT], 18)
    assert by_lane(runs) == {"replay": 8, "live": 8, "backfill": 2}


def test_a_lane_alone_has_everything_and_gives_way_slot_by_slot():
    archive, live = Queue("s", "backfill"), Queue("s", "live")
    runs = fill([archive], 20)
    assert runs == {archive: 20}
    for _ in range(16):  # a slot that comes free goes to the live lane until it has its share
        runs[archive] -= 1
        assert next_queue([archive, live], runs, {}) == live
        runs[live] += 1
    runs[live] -= 1
    assert next_queue([archive, live], runs, {}) == live
    assert next_queue([archive, live], {archive: 4, live: 20}, {}) == archive


def test_what_people_asked_for_goes_first_among_equals():
    assert next_queue([Queue("s", lane) for lane in ("backfill", "live", "replay")], {}, {}) == Queue("s", "replay")


def test_no_source_starves_another_and_none_exceeds_its_own_limit():
    runs = fill([Queue("a", "live"), Queue("b", "live")], 10)
    assert set(runs.values()) == {5}
    runs = fill([Queue("a", "live"), Queue("b", "live")], 10, caps={"a": 2})
    assert runs == {Queue("a", "live"): 2, Queue("b", "live"): 8}
    assert next_queue([Queue("a", "live")], runs, {"a": 2}) is None
    assert next_queue([], {}, {}) is None


@given(
    st.sets(QUEUES, min_size=1),
    st.dictionaries(QUEUES, st.integers(0, 30)),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)),
)
def test_someone_always_goes_unless_every_source_is_at_its_limit(waiting, in_flight, caps):
    queue = next_queue(waiting, in_flight, caps)
    per_source = Counter()
    for other, n in in_flight.items():
        per_source[other.source] += n
    free = {q for q in waiting if q.source not in caps or per_source[q.source] < caps[q.source]}
    assert (queue in free) if free else queue is None


@given(st.lists(st.sampled_from(["live", "backfill"]), min_size=40, max_size=200))
def test_under_steady_turnover_no_lane_starves(ends):
    """One slot at a time comes free, whichever; the archive always waits, and so does what is new."""
    waiting = [Queue("s", "live"), Queue("s", "backfill")]
    runs = fill(waiting, 10)
    for lane in ends:
        if runs[Queue("s", lane)]:
            runs[Queue("s", lane)] -= 1
            runs[next_queue(waiting, runs, {})] += 1
        assert runs[Queue("s", "live")] >= 7
        assert runs[Queue("s", "backfill")] >= 1


@pytest.mark.parametrize(
    ("order", "done", "failed", "in_flight", "expected"),
    [
        (ORDER, 0, 0, 0, 9),
        (replace(ORDER, canary=3), 0, 0, 0, 3),
        (replace(ORDER, canary=3), 1, 0, 2, 0),
        (replace(ORDER, canary=3), 2, 0, 0, 1),
        (replace(ORDER, canary=3), 3, 0, 0, 9),
        (replace(ORDER, canary=30), 0, 0, 0, 9),
        (replace(ORDER, canary=3), 2, 1, 0, "1 of the first 3 failed"),
        (replace(ORDER, max_failures=2), 50, 1, 0, 9),
        (replace(ORDER, max_failures=2), 50, 2, 0, "2 of its conversions failed, 2 were the limit"),
    ],
)
def test_a_backfill_s_brake(order, done, failed, in_flight, expected):
    assert allowed(order, done=done, failed=failed, in_flight=in_flight, room=9) == expected


@pytest.mark.parametrize(
    ("names", "room", "most"),
    [("a", 20, 20), ("ab", 20, 19), ("abc", 20, 18), ("ab", 2, 1), ("abc", 2, 1), ("ab", 1, 1), ("abcdefgh", 4, 2)],
)
def test_a_source_that_keeps_its_slots_leaves_one_to_each_other(names, room, most):
    assert reserved(names, room, {}) == dict.fromkeys(names, most)


def test_a_limit_of_its_own_is_what_a_source_has():
    assert reserved(("a", "b"), 20, {"a": 20}) == {"a": 20, "b": 19}


def test_an_evil_source_whose_runs_never_end_stops_no_other():
    evil, good = Queue("evil", "live"), Queue("good", "live")
    caps = reserved(("evil", "good"), 2, {})
    held = fill([evil], 2, caps)
    assert held == {evil: 1}
    assert fill([evil, good], 1, caps, held)[good] == 1
