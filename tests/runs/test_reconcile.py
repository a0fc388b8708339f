from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest

from stac_watch.config.model import Limits
from stac_watch.ledger.records import Move
from stac_watch.model.errors import NO_SPACE, Exit
from stac_watch.model.item import SkipReason
from stac_watch.model.outcome import Outcome, outcome_of
from stac_watch.model.states import TRANSITIONS, Fact, State
from stac_watch.runs.engine import Phase, Run
from stac_watch.runs.reconcile import ENOUGH, LONGEST_RETRY_PAUSE, Asked, Seen, decide, reconcile

LIMITS = Limits(attempts=3, retry_after="1m", confirm_after="15m", not_ready=("15m", "1h", "4h"), not_ready_for="14d")
ASKED = "https://objects.example/s2/x.zarr"
OURS = Asked("ours", (ASKED,))
UNFINISHED = (State.QUEUED, State.SUBMITTED, State.RUNNING)
TEMPORARY, PERMANENT, KILLED, UNSAID = Exit.TEMPORARY, Exit.BAD_INPUT, 137, None
CODES = [*Exit, 137, 1, 2, 139, UNSAID]


@pytest.fixture
def look(make):
    """What is decided about a row, a run of its current attempt and a marker."""

    def _look(state=State.SUBMITTED, phase=None, code=UNSAID, marker=None, superseded=False, now=None, outcome=None, **row):
        visible, asked = row.pop("visible", True), row.pop("asked", OURS)
        entry = make.row(state=state, **row)
        run = None
        if phase is not None:
            said = outcome if outcome is not None else ({} if code is UNSAID else {"code": int(code), "reason": "it said so"})
            run = Run("gz-x-1", entry.key, entry.attempt, phase, outcome=outcome_of(said))
        seen = Seen(outcome_of(marker), visible)
        return decide(entry, run, seen, now or make.now, LIMITS, superseded=superseded, asked=asked)

    return _look


@pytest.mark.parametrize("state", UNFINISHED)
@pytest.mark.parametrize(
    ("code", "fact"),
    [
        (Exit.BAD_INPUT, Fact.FAILED_PERMANENT),
        (Exit.UNAVAILABLE, Fact.FAILED_PERMANENT),
        (Exit.DEFECT, Fact.FAILED_PERMANENT),
        (Exit.CANNOT_WRITE, Fact.FAILED_PERMANENT),
        (Exit.REFUSED, Fact.FAILED_TEMPORARY),
        (Exit.CONFIG, Fact.FAILED_PERMANENT),
        (Exit.USAGE, Fact.FAILED_PERMANENT),
        (Exit.NOT_ALL_WELL, Fact.FAILED_PERMANENT),
        (UNSAID, Fact.FAILED_PERMANENT),
        (139, Fact.FAILED_PERMANENT),
        (Exit.SOURCE_NOT_THERE, Fact.NOT_READY),
        (Exit.TEMPORARY, Fact.FAILED_TEMPORARY),
        (137, Fact.FAILED_TEMPORARY),
        (Exit.TERMINATED, Fact.INTERRUPTED),
        (Exit.INTERRUPTED, Fact.INTERRUPTED),
    ],
)
def test_what_a_failed_run_s_exit_code_means(look, state, code, fact):
    move = look(state, Phase.FAILED, code)
    assert move.fact is fact
    assert move.reason
    if code is not UNSAID:
        assert "it said so" in move.reason
        assert move.outcome.code == code


@pytest.mark.parametrize(("state", "phase"), list(product(UNFINISHED, [Phase.PENDING, Phase.RUNNING])))
def test_a_run_that_is_there_makes_running_once(look, state, phase):
    move = look(state, phase)
    if state is State.RUNNING:
        assert move is None
    else:
        assert move.fact is Fact.RUN_SEEN
        assert phase.value in move.why


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_run_that_succeeded_is_believed_when_the_output_s_marker_carries_the_key(look, make, state):
    outcome = {"code": 0, "key": make.row().key, "installation": "ours"}
    move = look(state, Phase.SUCCEEDED, outcome=outcome, marker=outcome)
    assert (move.fact, move.outcome.document()) == (Fact.SUCCEEDED, outcome)
    assert "marker" in move.why
    assert look(state, Phase.SUCCEEDED, outcome=outcome, marker=outcome, superseded=True).fact is Fact.SUCCEEDED


@pytest.mark.parametrize(
    ("said", "marker", "visible", "believed"),
    [
        ({}, {}, True, True),
        ({}, None, True, False),  # an old run folder, and the outputs were removed
        ({}, {"key": "0" * 20}, True, False),  # another configuration's, or another revision's
        ({}, {"installation": "another"}, True, False),
        ({}, {"installation": "ours"}, True, True),
        ({}, {"code": 65}, True, False),
        ({"installation": "another"}, {}, True, False),
        ({"output_zarr": "/outputs/x.zarr"}, None, False, True),  # on a run's own volume: what it says, and where it was asked to
        ({"output_zarr": "file:///outputs/x.zarr/"}, None, False, True),
        ({"output_zarr": "/elsewhere/x.zarr"}, None, False, False),  # an event that was edited
        ({}, None, False, False),
    ],
)
def test_done_means_that_the_output_of_this_conversion_is_there(look, make, said, marker, visible, believed):
    key = make.row().key
    marker = {"key": key, "code": 0, **marker} if marker is not None else None
    move = look(State.RUNNING, Phase.SUCCEEDED, outcome={"code": 0, "key": key, **said}, marker=marker, visible=visible)
    assert move.fact is (Fact.SUCCEEDED if believed else Fact.VANISHED)
    if not believed:
        assert move.due == make.now + LIMITS.retry_after
        assert "gz-x-1" in move.reason


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        ({"source": ASKED}, True),
        ({"source": f"{ASKED}/?X-Amz-Signature=***"}, True),
        ({"source": "HTTPS://OBJECTS.example/s2/x.zarr"}, True),
        ({}, True),  # the marker of an earlier version
        ({"source": "https://objects.example/s2/another.zarr"}, False),
        ({"source": "https://elsewhere.example/s2/x.zarr"}, False),
        ({"source": "s3://objects.example/s2/x.zarr"}, False),
        ({"item_id": "of-another"}, False),
    ],
)
@pytest.mark.parametrize("where", ["outcome", "marker", "marker alone"])
def test_what_was_made_of_something_else_than_was_asked_for_finishes_nobody_s_item(look, make, said, believed, where):
    """Whoever may post can edit an event: its run carries the key, and writes where the item's output lies."""
    plain = {"code": 0, "key": make.row().key, "attempt": 1}
    outcome, marker = plain | (said if where == "outcome" else {}), plain | (said if where != "outcome" else {})
    if where == "marker alone":
        move = look(State.RUNNING, marker=marker)
    else:
        move = look(State.RUNNING, Phase.SUCCEEDED, outcome=outcome, marker=marker)
    assert move.fact is (Fact.SUCCEEDED if believed else Fact.VANISHED)
    failed = look(State.RUNNING, Phase.FAILED, outcome={**plain, **said, "code": 65, "reason": "no Sentinel-2"})
    assert failed.fact is (Fact.FAILED_PERMANENT if believed else Fact.VANISHED)


def test_what_met_a_later_revision_s_output_is_superseded_if_there_is_one_and_else_is_looked_at_again(look):
    """A ledger that was restored learns of it; what nobody learns of, somebody posted, and the item must not be skipped for it."""
    move = look(State.RUNNING, Phase.FAILED, Exit.SUPERSEDED, superseded=True)
    assert (move.fact, move.reason, move.outcome.code) == (Fact.SUPERSEDED, SkipReason.SUPERSEDED, Exit.SUPERSEDED)
    move = look(State.RUNNING, Phase.FAILED, Exit.SUPERSEDED)
    assert (move.fact, move.outcome.code) == (Fact.NOT_READY, Exit.SUPERSEDED)
    assert "no later revision is known" in move.reason


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_success_that_says_nothing_is_tried_again_and_not_failed(look, state):
    """Argo Workflows before 4.0.10 say Succeeded of a run that was ended while it waited for its mutex."""
    move = look(state, Phase.SUCCEEDED)
    assert move.fact is Fact.VANISHED
    assert "says nothing" in move.why
    last = look(state, Phase.SUCCEEDED, failures=LIMITS.attempts - 1)
    assert last.fact is Fact.FAILED_PERMANENT
    assert "says nothing" in last.reason
    assert look(State.FAILED, Phase.SUCCEEDED) is None, "it was tried often enough"


@pytest.mark.parametrize("outcome", [{"code": 0}, {"code": 0, "key": "somebody else's"}])
def test_a_success_without_its_key_is_no_success(look, outcome):
    move = look(State.RUNNING, Phase.SUCCEEDED, outcome=outcome)
    assert move.fact is Fact.FAILED_PERMANENT
    assert "key" in move.reason


@pytest.mark.parametrize(
    ("marker", "fact"),
    [
        ({"attempt": 1}, Fact.SUCCEEDED),
        ({"attempt": 2}, Fact.SUCCEEDED),  # of a later attempt: the ledger was restored
        ({"attempt": 0}, Fact.VANISHED),  # of an earlier attempt, of another key, none
        ({"attempt": 1, "key": "0" * 12}, Fact.VANISHED),
        (None, Fact.VANISHED),
    ],
)
def test_a_success_whose_outcome_was_lost_is_one_when_the_output_says_so(look, make, marker, fact):
    marker = {"key": make.row().key, "code": 0} | marker if marker is not None else None
    move = look(State.RUNNING, Phase.SUCCEEDED, marker=marker)
    assert move.fact is fact
    if fact is Fact.SUCCEEDED:
        assert (move.outcome.document(), "marker" in move.why) == (marker, True)
        other = {"code": 0, "key": "somebody else's"}  # an outcome that is there and says otherwise is not overruled
        assert look(State.RUNNING, Phase.SUCCEEDED, outcome=other, marker=marker).fact is Fact.FAILED_PERMANENT


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_marker_of_this_attempt_is_enough_when_the_run_is_gone(look, make, state):
    key = make.row().key
    assert look(state, marker={"key": key, "attempt": 1}).fact is Fact.SUCCEEDED
    later = look(state, marker={"key": key, "attempt": 1}, attempt=2)
    assert later is None or later.fact is Fact.VANISHED
    other = look(state, marker={"key": "0" * 12, "attempt": 1})
    assert other is None or other.fact is Fact.VANISHED


@pytest.mark.parametrize("code", [143, 137, 75, 65])
def test_a_run_that_was_ended_after_its_output_was_whole_did_its_work(look, make, code):
    key = make.row().key
    assert look(State.RUNNING, Phase.FAILED, code, marker={"key": key, "attempt": 1, "code": 0}).fact is Fact.SUCCEEDED
    assert look(State.RUNNING, Phase.FAILED, code, marker={"key": key, "attempt": 1}, attempt=2).fact is not Fact.SUCCEEDED


def test_a_marker_of_an_earlier_attempt_does_not_answer_a_replay(look, make):
    assert look(State.SUBMITTED, marker={"key": make.row().key, "attempt": 1}, attempt=2) is None


def test_an_accepted_event_without_a_run_is_waited_for_and_then_sent_again(look, make):
    accepted = make.row().changed_at
    assert look(State.SUBMITTED, now=accepted + LIMITS.confirm_after - timedelta(seconds=1)) is None
    move = look(State.SUBMITTED, now=accepted + LIMITS.confirm_after)
    assert (move.fact, move.due) == (Fact.SILENT, None)


def test_a_queued_row_without_a_run_is_left_to_the_outbox(look, make):
    assert look(State.QUEUED, now=make.now + timedelta(days=365)) is None


def test_absence_is_no_failure_before_its_time_but_a_run_that_was_seen_and_is_gone_is(look):
    assert look(State.SUBMITTED) is None
    move = look(State.RUNNING)
    assert move.fact is Fact.VANISHED
    assert "gone" in move.why


@pytest.mark.parametrize(("failures", "pause"), [(0, timedelta(minutes=1)), (1, timedelta(minutes=2))])
def test_the_pause_doubles_with_each_failure(look, make, failures, pause):
    for move in (look(State.RUNNING, Phase.FAILED, TEMPORARY, failures=failures), look(State.RUNNING, failures=failures)):
        assert move.due == make.now + pause


def test_when_the_attempts_are_spent_it_is_dead_and_says_how_often(look):
    for move in (look(State.RUNNING, Phase.FAILED, KILLED, failures=2), look(State.RUNNING, failures=2)):
        assert move.fact is Fact.FAILED_PERMANENT
        assert "3 attempts" in move.reason
        assert move.due is None


def test_the_pause_has_a_limit(make):
    row = make.row(state=State.RUNNING, failures=40)
    move = decide(row, None, Seen(), make.now, LIMITS.model_copy(update={"attempts": 100}))
    assert move.due == make.now + LONGEST_RETRY_PAUSE


def test_interruptions_from_outside_are_not_the_run_s_failure(look):
    move = look(State.RUNNING, Phase.FAILED, Exit.TERMINATED, failures=2)
    assert (move.fact, move.due) == (Fact.INTERRUPTED, None)


@pytest.mark.parametrize("code", [Exit.TERMINATED, Exit.INTERRUPTED])
def test_interruptions_without_end_are_counted_pause_and_come_to_one(look, make, code):
    assert look(State.RUNNING, Phase.FAILED, code, attempt=ENOUGH - 1, failures=2).fact is Fact.INTERRUPTED
    move = look(State.RUNNING, Phase.FAILED, code, attempt=ENOUGH)
    assert (move.fact, move.due) == (Fact.FAILED_TEMPORARY, make.now + LIMITS.retry_after)
    last = look(State.RUNNING, Phase.FAILED, code, attempt=ENOUGH + 2, failures=2)
    assert (last.fact, last.due) == (Fact.FAILED_PERMANENT, None)
    assert "it said so" in last.reason


@pytest.mark.parametrize(("waits", "pause"), [(0, "15m"), (1, "1h"), (2, "4h"), (3, "4h"), (50, "4h")])
def test_a_source_that_is_not_there_is_asked_again_ever_more_rarely(look, make, waits, pause):
    spans = {"15m": timedelta(minutes=15), "1h": timedelta(hours=1), "4h": timedelta(hours=4)}
    move = look(State.RUNNING, Phase.FAILED, Exit.SOURCE_NOT_THERE, waits=waits, failures=2)
    assert (move.fact, move.due) == (Fact.NOT_READY, make.now + spans[pause])
    assert move.reason.startswith("source not there yet")


def test_a_disk_that_is_full_is_waited_for_and_no_other_place_that_cannot_be_written(look, make):
    full = {"code": int(Exit.CANNOT_WRITE), "reason": f"{NO_SPACE} while writing /outputs/x.zarr"}
    move = look(State.RUNNING, Phase.FAILED, outcome=full, waits=1, failures=2)
    assert (move.fact, move.due, move.reason) == (Fact.NOT_READY, make.now + timedelta(hours=1), full["reason"])
    late = make.row().queued_at + LIMITS.not_ready_for
    assert look(State.RUNNING, Phase.FAILED, outcome=full, now=late).fact is Fact.FAILED_PERMANENT
    other = full | {"reason": "cannot write s3://bucket/x.zarr: no such bucket"}
    assert look(State.RUNNING, Phase.FAILED, outcome=other).fact is Fact.FAILED_PERMANENT


def test_a_source_that_never_came_is_failed(look, make):
    queued = make.row().queued_at
    before, after = queued + LIMITS.not_ready_for - timedelta(seconds=1), queued + LIMITS.not_ready_for
    assert look(State.RUNNING, Phase.FAILED, Exit.SOURCE_NOT_THERE, now=before).fact is Fact.NOT_READY
    assert look(State.RUNNING, Phase.FAILED, Exit.SOURCE_NOT_THERE, now=after).fact is Fact.FAILED_PERMANENT


@pytest.mark.parametrize("case", [*CODES, "vanished", "silent"], ids=str)
def test_once_a_newer_revision_is_there_nothing_that_failed_is_tried_again(look, make, case):
    if case == "vanished":
        move = look(State.RUNNING, superseded=True)
    elif case == "silent":
        move = look(State.SUBMITTED, superseded=True, now=make.now + timedelta(days=1))
    else:
        move = look(State.RUNNING, Phase.FAILED, case, superseded=True)
    assert (move.fact, move.reason, move.due) == (Fact.SUPERSEDED, SkipReason.SUPERSEDED, None)


def test_a_superseded_run_that_still_runs_is_let_finish(look):
    assert look(State.RUNNING, Phase.RUNNING, superseded=True) is None


def test_every_move_that_can_be_decided_is_in_the_table_and_explains_itself(look, make):
    seen = set()
    key = make.row().key
    outcomes = [None, {}, {"code": 0, "key": key}, *({"code": int(c), "reason": "r"} for c in CODES if c is not UNSAID)]
    markers = [None, {}, {"key": key, "attempt": 1}, {"key": "other", "attempt": 1}]
    for state, phase, outcome, marker, superseded, failures, late in product(
        UNFINISHED, [None, *Phase], outcomes, markers, [False, True], [0, 2, 99], [timedelta(0), timedelta(days=30)]
    ):
        move = look(
            state, phase, outcome=outcome or {}, marker=marker, superseded=superseded, failures=failures, now=make.now + late
        )
        if move is not None:
            assert (state, move.fact) in TRANSITIONS, (state, move)
            assert move.why
            if TRANSITIONS[state, move.fact] in (State.FAILED, State.SKIPPED):
                assert move.reason
            seen.add(move.fact)
    assert seen == {
        Fact.RUN_SEEN, Fact.SUCCEEDED, Fact.FAILED_PERMANENT, Fact.FAILED_TEMPORARY, Fact.INTERRUPTED, Fact.NOT_READY,
        Fact.VANISHED, Fact.SILENT, Fact.SUPERSEDED,
    }  # fmt: skip


# -- the loop over rows --------------------------------------------------------------------------------------------------


class Board:
    """An engine as a value: shows these runs."""

    def __init__(self, *runs):
        self.shown = runs

    def runs(self, keys):
        return [run for run in self.shown if run.key in keys]


@pytest.fixture
def sent(ledger, make):
    """Keys of items that were sent."""

    def _sent(*names):
        sightings = [make.sighting(item_id=name) for name in names]
        ledger.items.commit("s2", sightings, [], None, make.now)
        for sighting in sightings:
            ledger.conversions.move(ledger.conversions.get(sighting.conversion.key), Move(Fact.ACCEPTED, "accepted"), make.now)
        return [sighting.conversion.key for sighting in sightings]

    return _sent


def test_each_unfinished_conversion_is_looked_at_once(ledger, make, sent, consistent):
    a, b, c, d = sent("a", "b", "c", "d")
    board = Board(
        Run("a", a, 1, Phase.SUCCEEDED, outcome=Outcome(code=0, key=a)), Run("b", b, 1, Phase.RUNNING),
        Run("c", c, 1, Phase.FAILED, outcome=Outcome(code=65, reason="no such group")),
    )  # fmt: skip
    found = reconcile(ledger, board, LIMITS, lambda _: Outcome(code=0, key=a), lambda: make.now)
    consistent()
    assert found == {Fact.SUCCEEDED: 1, Fact.RUN_SEEN: 1, Fact.FAILED_PERMANENT: 1}
    assert [ledger.conversions.get(k).state for k in (a, b, c, d)] == [State.DONE, State.RUNNING, State.FAILED, State.SUBMITTED]
    assert ledger.conversions.get(a).outcome == Outcome(code=0, key=a)
    assert (ledger.conversions.get(c).reason, ledger.conversions.get(c).exit_code) == ("no such group", 65)


def test_a_dead_conversion_whose_run_a_person_retried_with_argo_is_done(ledger, make, sent, consistent):
    a, b = sent("a", "b")
    failed = [Run(name, key, 1, Phase.FAILED, outcome=Outcome(code=65, reason="corrupt")) for name, key in (("a", a), ("b", b))]
    reconcile(ledger, Board(*failed), LIMITS, lambda _: None, lambda: make.now)
    given_up = ledger.conversions.find(state=State.FAILED)
    assert len(given_up) == 2
    retried = Run("a", a, 1, Phase.SUCCEEDED, outcome=Outcome(code=0, key=a))
    assert reconcile(ledger, Board(retried, failed[1]), LIMITS, lambda _: None, lambda: make.now) == {}
    again = (ledger, Board(retried, failed[1]), LIMITS, lambda _: Outcome(code=0, key=a), lambda: make.now, given_up)
    assert reconcile(*again) == {Fact.SUCCEEDED: 1}
    consistent()
    assert [ledger.conversions.get(key).state for key in (a, b)] == [State.DONE, State.FAILED]


def test_a_run_of_an_earlier_attempt_says_nothing_about_this_one(ledger, make, sent):
    (key,) = sent("a")
    ledger.conversions.move(ledger.conversions.get(key), Move(Fact.FAILED_TEMPORARY, "x"), make.now)
    ledger.conversions.move(ledger.conversions.get(key), Move(Fact.ACCEPTED, "accepted"), make.now)
    old = Run("a", key, 1, Phase.FAILED, outcome=Outcome(code=75, reason="old news"))
    assert reconcile(ledger, Board(old), LIMITS, lambda _: None, lambda: make.now) == {}


def test_the_marker_of_the_output_is_asked_for_only_where_no_run_is_under_way_and_none_is_awaited(ledger, make, sent):
    a, b = sent("a", "b")
    asked = []

    def read_marker(output):
        asked.append(output)
        return Outcome(code=0, key=b, attempt=1)

    board = Board(Run("a", a, 1, Phase.RUNNING))
    assert reconcile(ledger, board, LIMITS, read_marker, lambda: make.now) == {Fact.RUN_SEEN: 1}
    assert asked == []  # an output on S3 is not asked for with every look while its run may still come
    found = reconcile(ledger, board, LIMITS, read_marker, lambda: make.now + LIMITS.confirm_after)
    assert asked == [ledger.conversions.get(b).output_zarr]
    assert found == {Fact.SUCCEEDED: 1}


def test_a_run_that_does_not_start_says_why_and_only_news_are_written(ledger, make, sent, consistent):
    (key,) = sent("a")
    began, told = make.now, []

    def look(stage, minutes, phase=Phase.RUNNING):
        run = Run("a", key, 1, phase, stage=stage, started=began)
        reconcile(ledger, Board(run), LIMITS, lambda _: None, lambda: began + timedelta(minutes=minutes))
        told.append(ledger.conversions.get(key).waits_for)

    look("convert waits: 0/3 nodes are available", 1)
    look("convert waits: 0/3 nodes are available", 3)
    look("convert waits: 0/4 nodes are available", 4)
    look("convert waits: quota exceeded", 5)
    look("convert", 6)
    nodes = "convert waits: 0/3 nodes are available"
    assert told == [None, nodes, nodes, "convert waits: quota exceeded", None]
    assert [h.fact for h in ledger.conversions.history(key)] == ["admitted", "accepted", "run_seen"]
    consistent()


def test_a_row_that_a_person_moves_meanwhile_is_left_to_the_next_look(ledger, make, sent, consistent):
    a, b = sent("a", "b")

    def read_marker(output):
        if ledger.conversions.get(a).state is State.SUBMITTED:
            ledger.conversions.move(ledger.conversions.get(a), Move(Fact.WITHDRAWN, "by a person"), make.now)
        return Outcome(code=0, key=b)

    runs = [Run(k, k, 1, Phase.SUCCEEDED, outcome=Outcome(code=0, key=k)) for k in (a, b)]
    assert reconcile(ledger, Board(*runs), LIMITS, read_marker, lambda: make.now) == {Fact.SUCCEEDED: 1}
    consistent()
    assert ledger.conversions.get(a).state is State.SKIPPED


def test_an_empty_ledger_asks_the_engine_nothing(ledger, make):
    assert reconcile(ledger, None, LIMITS, lambda _: None, lambda: make.now) == {}


def test_a_posted_event_without_an_answer_is_found_by_its_run(ledger, make, consistent):
    sighting = make.sighting()
    ledger.items.commit("s2", [sighting], [], None, make.now)
    ledger.outbox.note_post(ledger.outbox.due(make.now, 1)[0], make.now + timedelta(minutes=1))
    board = Board(Run("a", sighting.conversion.key, 1, Phase.RUNNING))
    assert reconcile(ledger, board, LIMITS, lambda _: None, lambda: make.now) == {Fact.RUN_SEEN: 1}
    consistent()
    assert ledger.outbox.due(make.now + timedelta(hours=1), 10) == []


@pytest.fixture
def overtaken(ledger, make, sent):
    """A revision whose run never came, and the one that took its place and is done."""
    (old,) = sent("a")
    newer = make.sighting(item_id="a", revision="rev-b")
    ledger.items.commit("s2", [newer], [], None, make.now)
    late = make.now + LIMITS.confirm_after
    assert reconcile(ledger, Board(), LIMITS, lambda _: None, lambda: late) == {Fact.SUPERSEDED: 1}
    new = newer.conversion.key
    ledger.conversions.move(ledger.conversions.get(new), Move(Fact.ACCEPTED, "accepted"), late)
    done = Run("b", new, 1, Phase.SUCCEEDED, outcome=Outcome(code=0, key=new))
    assert reconcile(ledger, Board(done), LIMITS, lambda _: Outcome(code=0, key=new), lambda: late) == {Fact.SUCCEEDED: 1}
    return old, new, late


def test_a_late_run_of_an_older_revision_is_noticed_and_the_newer_one_is_made_again(ledger, overtaken, consistent):
    old, new, late = overtaken
    holds, looked = [new], []

    def read_marker(output):
        looked.append(output)
        return Outcome(code=0, key=holds[0])

    def look(after):
        return reconcile(ledger, Board(), LIMITS, read_marker, lambda: late + after)

    assert (look(timedelta(minutes=14)), looked) == ({}, [])
    assert look(timedelta(minutes=15)) == {}
    assert len(looked) == 1
    holds[0] = old
    assert look(timedelta(minutes=29)) == {}
    assert look(timedelta(minutes=30)) == {Fact.REPLAYED: 1}
    row = ledger.conversions.get(new)
    assert (row.state, row.attempt) == (State.QUEUED, 2)
    assert "older revision" in ledger.conversions.history(new)[-1].why
    consistent()


def test_what_may_come_late_is_looked_for_as_long_as_a_bus_keeps_it_and_no_longer(ledger, overtaken):
    _, new, late = overtaken
    looked, now = [], late

    def read_marker(output):
        looked.append(now - late)
        return Outcome(code=0, key=new)

    while now < late + timedelta(days=40):
        reconcile(ledger, Board(), LIMITS, read_marker, lambda: now)  # noqa: B023  # called at once
        now += timedelta(minutes=15) if now < late + timedelta(hours=8) else timedelta(hours=6)
    assert timedelta(days=7) < looked[-1] <= timedelta(days=14, hours=12)
    assert len(looked) < 15


def test_a_failed_conversion_that_a_lost_ledger_had_mended_is_found_by_its_marker(ledger, make, sent, consistent):
    a, b = sent("a", "b")
    for key in (a, b):
        ledger.conversions.move(ledger.conversions.get(key), Move(Fact.FAILED_PERMANENT, "x", reason="corrupt"), make.now)
    given_up = ledger.conversions.find(state=State.FAILED)
    looks = (ledger, Board(), LIMITS, lambda _: Outcome(code=0, key=a, attempt=2), lambda: make.now, given_up)
    assert reconcile(*looks) == {}
    assert reconcile(*looks, afresh=True) == {Fact.SUCCEEDED: 1}
    assert [ledger.conversions.get(key).state for key in (a, b)] == [State.DONE, State.FAILED]
    consistent()


def test_decide_does_not_change_what_it_is_given(make):
    row, marker = make.row(), Outcome(key=make.row().key, attempt=1)
    before = (replace(row), replace(marker))
    decide(row, None, Seen(marker), make.now, LIMITS)
    assert (row, marker) == before
