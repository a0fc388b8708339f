from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_watch.model.errors import Defect
from stac_watch.model.states import FINAL, IN_FLIGHT, NEXT_ATTEMPT, TRANSITIONS, Fact, State, next_state

COLUMNS = (None, State.QUEUED, State.SUBMITTED, State.RUNNING, State.DONE, State.EXPIRED, State.SKIPPED, State.FAILED)
# the table of DESIGN.md written a second time, by hand: a changed rule has to be changed here as well, on purpose
TABLE = """
                  new      queued   submitted running  done    expired skipped  failed
admitted          queued   -        -         -        -       -       queued   -
skipped           skipped  -        -         -        -       -       -        -
accepted          -        submitted -         -        -       -       -        -
refused           -        failed   -         -        -       -       -        -
unclear           -        submitted -         -        -       -       -        -
run_seen          -        running  running   -        -       -       -        -
silent            -        -        queued    -        -       -       -        -
succeeded         -        done     done      done     -       done    done     done
failed_temporary  -        queued   queued    queued   -       -       -        -
failed_permanent  -        failed   failed    failed   -       -       -        -
interrupted       -        queued   queued    queued   -       -       -        -
vanished          -        queued   queued    queued   -       -       -        -
not_ready         -        queued   queued    queued   -       -       -        -
expired           -        -        -         -        expired -       -        -
replayed          -        -        -         -        queued  queued  queued   queued
withdrawn         -        skipped  skipped   skipped  -       -       -        skipped
retired           -        -        -         -        skipped -       -        -
name_taken        -        queued   -         -        -       -       -        -
superseded        -        skipped  skipped   skipped  -       -       -        skipped
"""
EXPECTED = {
    (state, Fact(name)): None if cell == "-" else State(cell)
    for name, *cells in (line.split() for line in TABLE.strip().splitlines()[1:])
    for state, cell in zip(COLUMNS, cells, strict=True)
}


def test_the_table_above_is_complete():
    assert set(EXPECTED) == {(s, f) for s in COLUMNS for f in Fact}


@pytest.mark.parametrize(("pair", "expected"), EXPECTED.items(), ids=lambda v: "-".join(str(x) for x in v) if v else "")
def test_every_pair(pair, expected):
    if expected is None:
        with pytest.raises(Defect, match=pair[1].value) as caught:
            next_state(*pair)
        assert (pair[0].value if pair[0] else "new") in caught.value.message
        assert "explain" in caught.value.hint
    else:
        assert next_state(*pair) is expected


@given(st.sampled_from([s for s in State if s is not State.DONE]))
def test_a_verified_marker_makes_done_from_anywhere(state):
    assert next_state(state, Fact.SUCCEEDED) is State.DONE


@given(st.lists(st.sampled_from(Fact), max_size=30))
def test_whatever_happens_done_is_left_by_a_replay_or_with_its_output_only_and_final_states_are_left_by_named_facts_only(facts):
    state = None
    for fact in facts:
        if (state, fact) not in TRANSITIONS:
            continue
        after = next_state(state, fact)
        if state is State.DONE:
            assert fact in (Fact.REPLAYED, Fact.RETIRED, Fact.EXPIRED)
        if state in FINAL and after not in FINAL:
            assert fact in {Fact.REPLAYED, Fact.ADMITTED}
        if after is State.DONE:
            assert fact is Fact.SUCCEEDED
        if after is State.FAILED:
            assert fact in {Fact.REFUSED, Fact.FAILED_PERMANENT}
        if after in IN_FLIGHT:
            assert fact in {Fact.ACCEPTED, Fact.UNCLEAR, Fact.RUN_SEEN}
        state = after


def test_from_every_state_each_final_state_can_be_reached():
    for start in COLUMNS:
        seen, todo = {start}, deque([start])
        while todo:
            here = todo.popleft()
            for (src, _), dst in TRANSITIONS.items():
                if src is here and dst not in seen:
                    seen.add(dst)
                    todo.append(dst)
        assert seen >= FINAL


def test_a_new_attempt_always_waits_in_the_outbox():
    for (state, fact), dst in TRANSITIONS.items():
        if fact in NEXT_ATTEMPT and state is not None:
            assert dst is State.QUEUED


def test_final_and_in_flight_are_apart_and_queued_is_neither():
    assert FINAL.isdisjoint(IN_FLIGHT)
    assert set(State) - FINAL - IN_FLIGHT == {State.QUEUED}
