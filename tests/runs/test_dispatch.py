import json
import random
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_watch.ledger.records import Move
from stac_watch.model.errors import Refused
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import Fact, State
from stac_watch.runs.dispatch import Sent, dispatch
from stac_watch.runs.engine import Answer, Phase, Receipt, Run
from stac_watch.runs.pace import PAUSES, Throttle, TokenBucket


@dataclass
class Clock:
    """A clock that a test sets; `step` is what each look at it takes."""

    time: datetime
    step: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        self.time += self.step
        return self.time


@dataclass
class Desk:
    """An engine as a value: has so much room, gives these answers, keeps what it was given."""

    room: int = 100
    answers: dict[str, Answer] = field(default_factory=dict)
    given: list[bytes] = field(default_factory=list)
    shown: list[Run] = field(default_factory=list)  # what is there already

    def submit(self, event):
        self.given.append(event)
        return Receipt(self.answers.get(json.loads(event)["data"]["item_id"], Answer.ACCEPTED), "says the desk")

    def headroom(self):
        return self.room

    def runs(self, keys):
        return [run for run in self.shown if run.key in keys]

    def items(self):
        return [json.loads(event)["data"]["item_id"] for event in self.given]


@pytest.fixture
def clock(make):
    return Clock(make.now)


@pytest.fixture
def queue(ledger, make):
    def _queue(*names, **over):
        sightings = [make.sighting(item_id=name, **over) for name in names]
        ledger.items.commit("s2", sightings, [], None, make.now)
        return [s.conversion.key for s in sightings]

    return _queue


@pytest.fixture
def run(ledger, clock, consistent):
    def _run(desk, bucket=None, read_marker=lambda _: None, **more):
        throttle = Throttle(bucket or TokenBucket(1000, tokens=1000), **more)
        sent = dispatch(ledger, desk, throttle, random.Random(1), clock, read_marker)
        consistent()
        return sent

    return _run


def test_what_is_accepted_is_sent(ledger, queue, run):
    keys = queue("a", "b", "c")
    desk = Desk()
    assert run(desk) == Sent(accepted=3)
    assert {ledger.conversions.get(key).state for key in keys} == {State.SUBMITTED}
    assert run(desk) == Sent()
    assert len(desk.given) == 3
    assert desk.given == [
        ledger.conversions.events(json.loads(e)["data"]["key"])[0] for e in desk.given
    ]  # byte for byte what was stored


def test_what_is_refused_is_dead_and_says_why(ledger, queue, run):
    (key,) = queue("a")
    assert run(Desk(answers={"a": Answer.REFUSED})) == Sent(refused=1)
    row = ledger.conversions.get(key)
    assert (row.state, row.reason) == (State.FAILED, "the engine refused it: says the desk")


def test_what_is_refused_after_a_post_without_an_answer_is_not_dead_while_its_run_may_live(ledger, queue, run, clock):
    (key,) = queue("a")
    desk = Desk(answers={"a": Answer.UNKNOWN})
    run(desk)
    clock.time, desk.answers["a"] = ledger.outbox.next_due(), Answer.REFUSED
    assert run(desk) == Sent(refused=1)
    row = ledger.conversions.get(key)
    assert (row.state, row.reason) == (State.SUBMITTED, "the engine refused it: says the desk")
    assert [r.key for r in ledger.conversions.unfinished()] == [key]
    ledger.conversions.move(row, Move(Fact.SILENT, "no run"), clock())  # what reconcile says after the deadline
    assert run(desk) == Sent(refused=1)
    assert ledger.conversions.get(key).state is State.FAILED


def test_without_a_clear_answer_the_very_same_event_goes_out_again_later(ledger, queue, run, clock):
    (key,) = queue("a")
    desk = Desk(answers={"a": Answer.UNKNOWN})
    waits = []
    for _ in range(12):
        assert run(desk) == Sent(unknown=1)
        assert ledger.conversions.get(key).state is State.QUEUED
        assert run(desk) == Sent()  # not at once
        due = ledger.outbox.next_due()
        waits.append(due - clock.time)
        clock.time = due
    assert len(set(desk.given)) == 1
    assert ledger.conversions.get(key).attempt == 1
    assert waits[0] < waits[3] < waits[6] <= PAUSES.longest
    desk.answers.clear()
    assert run(desk) == Sent(accepted=1)


def test_no_more_than_there_is_room_for_the_most_urgent_first(queue, run):
    queue("back", lane="backfill")
    queue("live-1", "live-2")
    queue("again", lane="replay")
    desk = Desk(room=2)
    assert run(desk) == Sent(accepted=2)
    assert desk.items()[0] == "again"
    assert desk.items()[1].startswith("live-")
    assert run(Desk(room=0)) == Sent()
    assert run(Desk(room=-3)) == Sent()
    assert run(desk).accepted == 2
    assert desk.items()[-1] == "back"


def test_an_engine_that_was_restarted_and_forgot_what_it_was_told_gets_no_more_than_the_limit(ledger, queue, run, clock):
    keys = queue(*"abcdefgh")
    assert run(Desk(room=3), max_in_flight=3).accepted == 3
    assert run(Desk(room=3), max_in_flight=3) == Sent()  # accepted, and no run to be seen: all the room, says an engine that is new
    first, second, *_ = [key for key in keys if ledger.conversions.get(key).state is State.SUBMITTED]
    ledger.conversions.move(ledger.conversions.get(first), Move(Fact.RUN_SEEN, "seen"), clock())
    assert run(Desk(room=3), max_in_flight=3) == Sent()
    ledger.conversions.move(ledger.conversions.get(first), Move(Fact.SUCCEEDED, "done"), clock())
    ledger.conversions.move(ledger.conversions.get(second), Move(Fact.SILENT, "lost", due=clock() + timedelta(hours=1)), clock())
    assert run(Desk(room=3), max_in_flight=3).accepted == 2
    assert run(Desk(room=0), max_in_flight=3) == Sent()


def test_a_post_without_an_answer_takes_room_until_it_goes_out_again(ledger, queue, run, clock):
    queue("a", "b")
    desk = Desk(room=1, answers={"b": Answer.UNKNOWN, "a": Answer.UNKNOWN})
    assert run(desk, max_in_flight=1).unknown == 1
    desk.answers.clear()
    assert run(desk, max_in_flight=1) == Sent()
    clock.time = ledger.outbox.next_due() + timedelta(minutes=10)
    assert run(desk, max_in_flight=1) == Sent(accepted=1)
    assert run(desk, max_in_flight=1) == Sent()


def test_no_faster_than_the_rate(queue, run, clock):
    queue(*"abcdefgh")
    desk, bucket = Desk(), TokenBucket(2)
    assert run(desk, bucket).accepted == 1
    clock.time += timedelta(seconds=1)
    assert run(desk, bucket).accepted == 2
    clock.time += timedelta(seconds=0.5)
    assert run(desk, bucket).accepted == 1
    clock.time += timedelta(hours=1)
    assert run(desk, bucket).accepted == 2  # nothing is saved up beyond a second's worth


def test_one_event_s_answer_does_not_stop_the_others(queue, run):
    queue("a", "b", "c", "d")
    assert run(Desk(answers={"a": Answer.UNKNOWN, "b": Answer.REFUSED})) == Sent(accepted=2, refused=1, unknown=1)


def test_wrong_credentials_stop_everything_and_lose_nothing(ledger, queue, run, make):
    queue("a", "b")

    class Locked(Desk):
        def submit(self, event):
            raise Refused("HTTP 401", hint="set the token")

    with pytest.raises(Refused):
        run(Locked())
    assert len(ledger.outbox.due(make.now, 10)) == 2
    assert {row.state for row in ledger.conversions.find()} == {State.QUEUED}


@pytest.mark.parametrize("fact", [Fact.SUPERSEDED, Fact.WITHDRAWN, Fact.FAILED_TEMPORARY])
@pytest.mark.parametrize("answer", Answer)
def test_an_event_whose_conversion_is_moved_by_another_process_while_others_are_posted_is_not_sent(
    ledger, queue, run, make, clock, fact, answer
):
    second, first = sorted(queue("a", "b"))  # of one age the greater key goes first

    class Meanwhile(Desk):
        def submit(self, event):
            if not self.given:
                ledger.conversions.move(
                    ledger.conversions.get(second), Move(fact, "by another process", due=clock.time + timedelta(hours=1)), make.now
                )
            return super().submit(event)

    desk = Meanwhile(answers={"a": answer, "b": answer})
    run(desk)
    assert [json.loads(e)["data"]["key"] for e in desk.given] == [first]


@pytest.mark.parametrize("answer", [Answer.ACCEPTED, Answer.REFUSED])
def test_a_conversion_that_is_moved_while_its_own_event_is_posted_stays_as_it_was_moved(ledger, queue, run, make, answer):
    (key,) = queue("a")

    class Meanwhile(Desk):
        def submit(self, event):
            ledger.conversions.move(ledger.conversions.get(key), Move(Fact.WITHDRAWN, "by another process"), make.now)
            return super().submit(event)

    run(Meanwhile(answers={"a": answer}))
    assert ledger.conversions.get(key).state is State.SKIPPED


@pytest.mark.parametrize(
    ("phase", "holds", "goes_out"),
    [
        (Phase.FAILED, None, 4),  # mended by a later one, in a ledger that was lost
        (Phase.SUCCEEDED, None, 4),  # and its output was removed
        (Phase.SUCCEEDED, Outcome(attempt=1), 1),  # it is there: nothing is to be done anew
        (Phase.RUNNING, None, 1),  # somebody posted this very event
    ],
)
def test_a_first_post_never_meets_a_run_of_a_lost_ledger(ledger, queue, run, phase, holds, goes_out):
    """A backup that was restored numbers its attempts anew: their runs' folders or Workflows are there, and did something else."""
    (key,) = queue("a")
    desk = Desk(shown=[Run("x", key, 1, phase), Run("y", key, 3, Phase.SUCCEEDED), Run("z", "another", 9, Phase.FAILED)])
    marked = replace(holds, key=key) if holds is not None else None
    run(desk, read_marker=lambda _: marked)
    assert len(desk.given) == (goes_out == 1)
    run(desk, read_marker=lambda _: marked)
    assert [json.loads(event)["data"]["attempt"] for event in desk.given] == [goes_out]
    assert ledger.conversions.get(key).attempt == goes_out
    if goes_out > 1:
        assert "restored" in ledger.conversions.history(key)[1].why


@pytest.mark.parametrize(("runs", "marked", "goes_out"), [([], 0, 2), ([1], 1, 2), ([1, 2], 2, 3), ([], 5, 6), ([7], 2, 8)])
def test_a_replay_of_what_is_done_is_numbered_above_whatever_is_there(ledger, queue, run, clock, runs, marked, goes_out):
    (key,) = queue("a")
    run(Desk())
    ledger.conversions.move(ledger.conversions.get(key), Move(Fact.SUCCEEDED, "done"), clock())
    ledger.conversions.move(ledger.conversions.get(key), Move(Fact.REPLAYED, "asked for", lane="replay", overwrite=True), clock())
    desk = Desk(shown=[Run("x", key, attempt, Phase.SUCCEEDED) for attempt in runs])
    for _ in range(2):
        run(desk, read_marker=lambda _: Outcome(key=key, attempt=marked))
    (event,) = desk.given
    data = json.loads(event)["data"]
    assert (data["attempt"], data["run"].rpartition("-")[2], data["options"]["overwrite"]) == (goes_out, str(goes_out), "true")


def test_what_a_newer_revision_took_the_place_of_is_looked_for_and_not_posted_again(ledger, queue, run, clock):
    (old,) = queue("a")
    run(Desk(answers={"a": Answer.UNKNOWN}))
    queue("a", revision="rev-b", kind="replace")
    clock.time += PAUSES.longest
    desk = Desk()
    run(desk)
    assert [json.loads(event)["data"]["revision"] for event in desk.given] == []
    row = ledger.conversions.get(old)
    assert (row.state, ledger.conversions.history(old)[-1].fact) == (State.SUBMITTED, Fact.UNCLEAR)


class _Killed(BaseException):
    """The watcher's process ends here."""


def test_killed_in_a_post_an_older_revision_is_waited_for_so_that_it_cannot_finish_last(ledger, queue, run, make, clock):
    """Killed, and superseded before the next post: in a simulated year one output of 500,000 was left with its older product."""
    (old,) = queue("a")

    class Arrives(Desk):
        def submit(self, event):
            super().submit(event)
            raise _Killed

    with pytest.raises(_Killed):
        run(Arrives())
    (new,) = queue("a", revision="rev-b", kind="replace")
    assert ledger.conversions.get(old).state is State.QUEUED
    assert [row.key for row in ledger.conversions.unfinished()] == [old]  # its run is looked for
    assert [row.key for row in ledger.outbox.due(clock.time + PAUSES.longest, 10)] == [old]
    ledger.conversions.move(ledger.conversions.get(old), Move(Fact.RUN_SEEN, "it is there"), clock())
    ledger.conversions.move(ledger.conversions.get(old), Move(Fact.SUCCEEDED, "done"), clock())
    assert [row.key for row in ledger.outbox.due(clock.time, 10)] == [new]


def test_a_revision_that_appears_while_the_older_is_posted_waits_for_it(ledger, queue, run, make, clock):
    (old,) = queue("a")
    new = []

    class Meanwhile(Desk):
        def submit(self, event):
            new.extend(queue("a", revision="rev-b", kind="replace") if not self.given else [])
            return super().submit(event)

    desk = Meanwhile()
    assert run(desk) == Sent(accepted=1)
    assert (ledger.conversions.get(old).state, ledger.conversions.get(new[0]).state) == (State.SUBMITTED, State.QUEUED)
    assert run(desk) == Sent()


@given(st.floats(0.05, 50), st.lists(st.floats(0, 3), max_size=60))
def test_a_bucket_gives_no_more_than_rate_times_time_and_a_burst(rate, gaps):
    now = start = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    bucket, granted = TokenBucket(rate), 0
    for gap in gaps:
        now += timedelta(seconds=gap)
        granted += bucket.take(now)
        assert granted <= max(1.0, rate) + rate * (now - start).total_seconds() + 1e-3


@given(st.floats(0.05, 50), st.lists(st.floats(0, 1), max_size=20))
def test_a_bucket_that_was_left_alone_long_enough_always_gives(rate, gaps):
    now = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    bucket = TokenBucket(rate)
    for gap in gaps:
        now += timedelta(seconds=gap)
        bucket.take(now)
    assert bucket.take(now + timedelta(seconds=1 / rate + 0.001))


def test_a_clock_that_is_set_back_stops_nothing():
    now = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    bucket = TokenBucket(1)
    assert bucket.take(now)
    assert not bucket.take(now - timedelta(hours=1))
    assert bucket.take(now - timedelta(hours=1) + timedelta(seconds=1))
