import json
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as sa_event

from stac_watch.config.model import Limits
from stac_watch.jobs import replay
from stac_watch.jobs.audit import Looked, examine
from stac_watch.jobs.prune import prune
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.pruning import Bookmark
from stac_watch.ledger.records import Move
from stac_watch.ledger.session import StaleState
from stac_watch.model.announcement import Audience, DeliveryState
from stac_watch.model.errors import Defect, InputError
from stac_watch.model.item import SkipReason
from stac_watch.model.outcome import outcome_of
from stac_watch.model.publication import PublicationState
from stac_watch.model.states import TRANSITIONS, Fact, State
from stac_watch.report import explain

LATER = timedelta(days=500)
OUTCOME = {
    "code": 0, "key": "", "attempt": 2, "reason": "done", "hint": "", "source": "https://objects.example/x.zarr",
    "groups": ["measurements/reflectance/r10m"], "seconds": {"convert": 190.5}, "counts": {"bytes_read": 1_260_000_000},
    "checks": [{"name": "values", "verdict": "passed", "detail": "12 arrays are what the source has " * 5}],
}  # fmt: skip


@pytest.fixture
def lived(ledger, make):
    """Takes an item through a failed attempt and a good one; returns its key."""

    def _lived(item_id="one", at=None, outcome=None, **over):
        at = at or make.now
        seen = make.sighting(item_id=item_id, **over)
        key = seen.conversion.key
        ledger.items.commit("s2", [seen], [], None, at)
        for fact in (Fact.ACCEPTED, Fact.RUN_SEEN, Fact.FAILED_TEMPORARY, Fact.ACCEPTED, Fact.RUN_SEEN, Fact.SUCCEEDED):
            last = outcome_of({**OUTCOME, "key": key}) if fact is Fact.SUCCEEDED else None
            ledger.conversions.move(ledger.conversions.get(key), Move(fact, "because", outcome=last), at)
        return key

    return _lived


def test_without_yes_it_counts_and_changes_nothing(ledger, make, lived, consistent):
    key = lived()
    before = (ledger.conversions.get(key), ledger.conversions.history(key), ledger.conversions.events(key))
    found = prune(ledger, make.now + LATER, yes=False)
    assert (found.looked_at, found.conversions, found.events, found.moves, found.packed, found.outcomes) == (1, 1, 1, 5, 1, 1)
    assert found.bytes > 1500
    assert not found.done
    assert (ledger.conversions.get(key), ledger.conversions.history(key), ledger.conversions.events(key)) == before
    assert prune(ledger, make.now + LATER, yes=False) == found


def test_what_nobody_asks_for_goes_and_the_rest_is_as_it_was(ledger, make, lived):
    key = lived()
    row, history, events = ledger.conversions.get(key), ledger.conversions.history(key), ledger.conversions.events(key)
    counted = prune(ledger, make.now + LATER, yes=False)
    done = prune(ledger, make.now + LATER, yes=True)
    same = ("looked_at", "conversions", "events", "moves", "packed", "outcomes", "bytes")
    assert [getattr(done, name) for name in same] == [getattr(counted, name) for name in same]
    assert done.complete
    assert ledger.conversions.events(key) == events[-1:]  # byte for byte
    assert ledger.conversions.history(key) == [history[0], history[-1]]
    after = ledger.conversions.get(key)
    assert {**vars(after), "outcome": None} == {**vars(row), "outcome": None}
    assert after.outcome.document()["checks"] == [{"name": "values", "verdict": "passed"}]
    assert after.outcome.document().keys() == OUTCOME.keys() - {"source", "groups"}
    again = prune(ledger, make.now + LATER, yes=True)
    assert [getattr(again, name) for name in same] == [1, 0, 0, 0, 0, 0, 0]


def test_what_is_young_or_dead_or_on_its_way_is_left_alone(ledger, make, lived):
    young = lived("young", at=make.now + timedelta(days=100))
    failed, queued = (Fact.ACCEPTED, Fact.FAILED_TEMPORARY, Fact.REFUSED), (Fact.ACCEPTED, Fact.RUN_SEEN, Fact.VANISHED)
    for item_id, facts in (("failed", failed), ("queued", queued)):
        seen = make.sighting(item_id=item_id)
        ledger.items.commit("s2", [seen], [], None, make.now)
        for fact in facts:
            ledger.conversions.move(ledger.conversions.get(seen.conversion.key), Move(fact, "because", reason="why"), make.now)
    rows = ledger.conversions.find()
    assert {row.state for row in rows} == {State.DONE, State.FAILED, State.QUEUED}
    before = [(row, ledger.conversions.history(row.key), ledger.conversions.events(row.key)) for row in rows]
    found = prune(ledger, make.now + timedelta(days=50), yes=True)
    assert (found.looked_at, found.conversions) == (0, 0)
    assert [
        (row, ledger.conversions.history(row.key), ledger.conversions.events(row.key)) for row in ledger.conversions.find()
    ] == before
    assert ledger.conversions.get(young).outcome.groups


def test_a_pruned_conversion_is_replayed_from_its_last_event(ledger, make, lived):
    key = lived()
    last = json.loads(ledger.conversions.events(key)[-1])
    prune(ledger, make.now + LATER, yes=True)
    targets = replay.chosen([ledger.conversions.get(key)], ledger)
    (done,) = replay.execute(targets, ledger, {}, lambda: make.now + LATER)
    assert (done.state, done.action) == (State.QUEUED, "attempt 3")
    (waits,) = ledger.outbox.due(make.now + LATER, 10)
    event = json.loads(waits.body)
    assert (event["id"], event["data"]["product_href"]) == (f"{key}-3", last["data"]["product_href"])
    assert event["data"]["options"] == {**last["data"]["options"], "overwrite": "true"}


def test_an_item_that_returns_to_a_pruned_revision_is_converted_again(ledger, make, lived):
    first = lived()
    lived(revision="rev-b")
    prune(ledger, make.now + LATER, yes=True)
    ledger.items.commit("s2", [make.sighting(item_id="one")], [], None, make.now + LATER)
    assert (ledger.conversions.get(first).state, ledger.conversions.get(first).attempt) == (State.QUEUED, 3)
    assert [w.event_id for w in ledger.outbox.due(make.now + LATER, 10)] == [f"{first}-3"]


def test_explain_and_an_old_event_say_that_it_was_pruned(ledger, make, lived):
    key = lived()
    old, last = ledger.conversions.events(key)
    (chain,) = explain.read(ledger, "one", Limits(), make.now, lambda _: None)
    assert not chain.pruned
    prune(ledger, make.now + LATER, yes=True)
    (chain,) = explain.read(ledger, "one", Limits(), make.now, lambda _: None)
    assert chain.pruned
    assert chain.rule == "new item in s2"
    assert [event["id"] for event in chain.events] == [f"{key}-2"]
    assert replay.stored(last, ledger).state is State.DONE
    with pytest.raises(InputError, match=r"no more: `ledger prune`"):
        replay.stored(old, ledger)


def test_stopped_anywhere_it_goes_on(ledger, make, lived):
    keys = [lived(f"item-{n}", at=make.now + timedelta(minutes=n // 2)) for n in range(7)]
    waits = iter([False, True])
    first = prune(ledger, make.now + LATER, yes=True, chunk=2, wait=lambda _: next(waits))
    assert (first.complete, first.looked_at, first.conversions) == (False, 4, 4)
    second = prune(ledger, make.now + LATER, yes=True, chunk=2)
    assert (second.complete, second.looked_at, second.conversions) == (True, 7, 3)
    assert {len(ledger.conversions.history(key)) for key in keys} == {2}


def test_between_two_parts_a_watcher_gets_its_turn(ledger, make, lived):
    for n in range(4):
        lived(f"item-{n}")

    def a_watcher_works(_seconds):
        for row in ledger.conversions.find(state=State.DONE, limit=1):
            ledger.conversions.move(row, Move(Fact.REPLAYED, "a person asked for it"), make.now + LATER)
        return False

    found = prune(ledger, make.now + LATER, yes=True, chunk=1, wait=a_watcher_works)
    replayed = ledger.conversions.find(state=State.QUEUED)
    assert found.complete
    assert replayed
    for row in replayed:  # whole or pruned before, but never half of it
        assert ledger.conversions.history(row.key)[-1].fact == Fact.REPLAYED
        assert json.loads(ledger.conversions.events(row.key)[-1])["id"] == f"{row.key}-3"


def test_what_moved_since_it_was_looked_at_is_not_touched(ledger, make, lived):
    key = lived()
    part = ledger.pruning.forgettable(make.now + LATER, Bookmark(), 10)
    ledger.conversions.move(ledger.conversions.get(key), Move(Fact.REPLAYED, "a person asked for it"), make.now + LATER)
    before = (ledger.conversions.get(key), ledger.conversions.history(key), ledger.conversions.events(key))
    assert ledger.pruning.forget(part, make.now + LATER).keys == ()
    assert (ledger.conversions.get(key), ledger.conversions.history(key), ledger.conversions.events(key)) == before


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_part_is_read_in_the_order_of_an_index_and_not_sorted_out_of_everything(ledger, make, lived, database):
    lived()
    asked = []
    engine = ledger._engine

    def note(connection, _cursor, statement, parameters, _context, _many):
        if statement.startswith("SELECT conversion"):
            plan = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            asked.append(" ".join(row[3] for row in plan))

    sa_event.listen(engine, "before_cursor_execute", note)
    ledger.pruning.forgettable(make.now + LATER, Bookmark(changed_at=make.now, key="0"), 10)
    (plan,) = asked
    assert "INDEX conversion_by_state" in plan
    assert "FOR ORDER BY" not in plan  # FOR LAST TERM: of those that changed at the very same moment only


# -- what others were told ---------------------------------------------------------------------------------------------------


def test_of_what_was_told_the_last_of_each_item_stays_and_whatever_waits(ledger, make, lived):
    ledger.deliveries.enrol(Audience("test", {"a": frozenset(), "b": frozenset()}, registers=False))
    for revision in ("rev-a", "rev-b", "rev-c"):
        lived("one", revision=revision)
        for sink in ("a", "b"):
            for row in ledger.deliveries.due(sink, make.now, 10):
                ledger.deliveries.settle(row, DeliveryState.DELIVERED, make.now)
    waiting = [lived("two"), lived("two", revision="rev-b")]
    bodies = [row.body for row in ledger.deliveries.due("a", make.now, 10)]
    last = [told for told in ledger.deliveries.find(topics=["one"], limit=99) if told.type.endswith("replace")][:2]
    counted = prune(ledger, make.now + LATER, yes=False, chunk=2)
    done = prune(ledger, make.now + LATER, yes=True, chunk=2)
    assert (counted.announcements, done.announcements, done.bytes) == (2, 2, counted.bytes)
    assert ledger.deliveries.find(topics=["one"], limit=99) == last
    assert [row.body for row in ledger.deliveries.due("a", make.now, 10)] == bodies
    assert set(ledger.deliveries.of_item("two")) == set(waiting)
    ledger.deliveries.again(last[:1], make.now)  # it can still be posted once more, byte for byte
    [again] = [row for row in ledger.deliveries.due(last[0].sink, make.now, 10) if row.topic == "one"]
    assert json.loads(again.body)["id"] == last[0].event_id
    lived("one", revision="rev-d", at=make.now + LATER)
    assert ledger.deliveries.find(topics=["one"], limit=1)[0].type.endswith("replace")
    assert prune(ledger, make.now + LATER, yes=True).announcements == 0
    assert prune(ledger, make.now - LATER, yes=True).announcements == 0


def test_a_publication_goes_when_its_item_is_out_and_its_output_is_no_more(ledger, make, lived):
    keys = {name: lived(name) for name in ("gone", "out", "in")}
    ledger.publications.ask(list(keys.values()), make.now, anew=False)
    for name in ("gone", "out"):
        ledger.publications.withdraw([keys[name]], make.now)
        [row] = ledger.publications.of(name)
        assert ledger.publications.settle(row, replace(row, state=PublicationState.WITHDRAWN))
    ledger.conversions.move(ledger.conversions.get(keys["gone"]), Move(Fact.RETIRED, "x", reason=SkipReason.RETIRED), make.now)
    counted, done = (prune(ledger, make.now + LATER, yes=yes, chunk=1) for yes in (False, True))
    assert (counted.publications, done.publications) == (1, 1)
    assert [len(ledger.publications.of(name)) for name in ("gone", "out", "in")] == [0, 1, 1]
    assert ledger.publications.unregistered(None, 9) == [], "what a person took out is not taken for forgotten"


# -- whatever a ledger has been through --------------------------------------------------------------------------------------

ITEMS, REVISIONS = ("item-a", "item-b", "item-c"), ("rev-a", "rev-b")
SIGHTINGS = st.tuples(st.sampled_from(ITEMS), st.sampled_from(REVISIONS), st.sampled_from([None, SkipReason.TOO_CLOUDY]))
FACTS = st.tuples(st.sampled_from(ITEMS), st.sampled_from(sorted({fact for _, fact in TRANSITIONS})), st.booleans())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.one_of(SIGHTINGS, FACTS), min_size=3, max_size=30), age=st.integers(0, 32), chunk=st.integers(1, 4))
def test_whatever_is_asked_of_a_pruned_ledger_the_answer_is_the_same(make, open_ledger, steps, age, chunk):
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(Path(folder) / "ledger.db")
        for hour, step in enumerate(steps):
            lived_through(ledger, make, step, make.now + timedelta(hours=hour))
        before = answers(ledger, make)
        found = prune(ledger, make.now + timedelta(hours=age), yes=True, chunk=chunk)
        assert found.complete
        assert answers(ledger, make) == before
        for row in ledger.conversions.find():  # whatever may happen to it can still happen
            if row.state in (State.DONE, State.SKIPPED):
                ledger.conversions.move(row, Move(Fact.REPLAYED, "a person asked for it"), make.now + LATER)
                assert json.loads(ledger.conversions.events(row.key)[-1])["data"]["attempt"] == row.attempt + 1
        ledger.close()


def lived_through(ledger: Ledger, make, step, now) -> None:
    item, what, more = step
    if isinstance(what, Fact):
        rows = ledger.items.current("s2", [item])
        try:
            for row in rows.values():
                outcome = outcome_of({**OUTCOME, "key": row.key}) if more else None
                ledger.conversions.move(row, Move(what, "because", reason="a reason", outcome=outcome), now)
        except (Defect, StaleState):
            return  # not possible in that state
    else:
        ledger.items.commit("s2", [make.sighting(more, item_id=item, revision=what)], [], ("s2:updated", now), now)


def answers(ledger: Ledger, make):
    start, end = make.now - timedelta(days=9), make.now + LATER
    rows = list(ledger.items.within("s2", start, end))
    markers = [None, *(outcome_of({**OUTCOME, "key": row.key}) for row in rows)]
    return {
        "known": ledger.items.known("s2", ITEMS),
        "funnel": ledger.counts.funnel(),
        "states": ledger.counts.states_within("s2", start, end),
        "gaps": [
            examine(r, Looked(m, bool(v)), [], in_catalog=bool(c)) for r in rows for m in markers for c in (0, 1) for v in (0, 1)
        ],
        "current": {i: without_outcome(row) for i, row in ledger.items.current("s2", ITEMS).items()},
        "rows": [without_outcome(row) for row in ledger.conversions.find()],
        "due": ledger.outbox.due(make.now + LATER, 100),
        "unfinished": ledger.conversions.unfinished(),
        "last events": [ledger.conversions.events(row.key)[-1] for row in ledger.conversions.find()],
        "acquired": ledger.items.acquired("s2", start, end),
    }


def without_outcome(row):
    return {**vars(row), "outcome": row.outcome and row.outcome.key}


# -- the verb ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_the_verb_counts_and_with_yes_prunes(ledger, lived, database, tmp_path, stac_watch):
    key = lived(at=datetime(2020, 1, 1, tzinfo=UTC))
    config = tmp_path / "stac-watch.yaml"
    source = "{name: s2, api: https://stac.example, collection: sentinel-2-l2a}"
    config.write_text(f"ledger: {database}\nsources: [{source}]\nengine: {{kind: local, folder: {tmp_path}/runs}}\n")

    def verb(*options):
        said = stac_watch("ledger", "prune", "--config", config, *options)
        assert (said.code, said.err) == (0, "")
        return said.out

    assert "--yes does it" in verb()
    counted = json.loads(verb("--json"))
    assert (counted["done"], counted["events"], counted["moves"]) == (False, 1, 5)
    assert json.loads(verb("--older-than=20000d", "--json"))["looked_at"] == 0
    assert len(ledger.conversions.history(key)) == 7
    assert "MB freed" in verb("--yes")
    assert len(ledger.conversions.history(key)) == 2
