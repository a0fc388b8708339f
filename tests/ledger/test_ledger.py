import contextlib
import json
import sqlite3
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy import event as sa_event

from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Known, Move, Place, Queue, Tally
from stac_watch.ledger.schema import SCHEMA_VERSION
from stac_watch.ledger.session import StaleState
from stac_watch.model.errors import CannotWrite, ConfigError, Temporary, Unavailable
from stac_watch.model.item import SkipReason, Unreadable
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import Fact, State

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def see(ledger, make, consistent):
    """Shows the ledger one window of item revisions; returns what was tallied."""

    def _see(*sightings, at=None, cursor=None, source="s2", unreadable=()):
        tally = ledger.items.commit(source, sightings, unreadable, cursor, at or make.now)
        consistent()
        return tally

    return _see


@pytest.fixture
def move(ledger, make, consistent):
    """Reports one fact about a conversion as it stands now."""

    def _move(key, fact, *, why="because", at=None, **over):
        state = ledger.conversions.move(ledger.conversions.get(key), Move(fact, why, **over), at or make.now)
        consistent()
        return state

    return _move


def test_a_new_item_is_queued_with_its_event_and_the_cursor_in_one_step(ledger, make, see):
    seen = make.sighting()
    assert see(seen, cursor=("s2:updated", make.now)) == Tally(seen=1, admitted=1)
    row = ledger.conversions.get(seen.conversion.key)
    assert (row.state, row.attempt, row.lane, row.reason, row.output_zarr) == (
        State.QUEUED, 1, "live", None, seen.conversion.output_zarr,
    )  # fmt: skip
    assert ledger.sources.position("s2:updated") == make.now
    assert ledger.items.known("s2", [make.item_id, "other"]) == {
        make.item_id: Known("rev-a", row.key, State.QUEUED, updated=make.now)
    }
    assert [h.why for h in ledger.conversions.history(row.key)] == ["new item in s2"]
    assert [e.event_id for e in ledger.outbox.due(make.now, 10)] == [f"{row.key}-1"]


def test_a_skipped_item_has_its_reason_and_no_outbox_row(ledger, make, see):
    assert see(make.sighting(SkipReason.TOO_CLOUDY)) == Tally(seen=1, skipped=1)
    (row,) = ledger.conversions.find()
    assert (row.state, row.reason) == (State.SKIPPED, "too_cloudy")
    assert ledger.outbox.due(make.now, 10) == []
    assert ledger.counts.funnel() == {Place("s2", "live", State.SKIPPED, "too_cloudy"): 1}


def test_an_exception_halfway_leaves_nothing(ledger, make, count):
    def half_a_page():
        yield make.sighting(item_id="first")
        yield make.sighting(SkipReason.TOO_OLD, item_id="second")
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        ledger.items.commit("s2", half_a_page(), [], ("s2:updated", make.now), make.now)
    with pytest.raises(KeyError):
        ledger.items.commit("s2", [make.sighting()], iter_then_raise(), ("s2:updated", make.now), make.now)
    for table in ("item", "conversion", "event", "outbox", "history", "cursor", "unreadable", "funnel"):
        assert count(table) == 0, table


@pytest.fixture
def count(database):
    """Counts the rows of a table."""

    def _count(table):
        engine = create_engine(database, poolclass=NullPool)
        with engine.connect() as db:
            return db.execute(text(f"SELECT count(*) FROM {table}")).scalar()

    return _count


def iter_then_raise():
    yield Unreadable("x", "why")
    raise KeyError("a defect")


def test_the_same_window_again_changes_nothing_but_the_sighting_time(ledger, make, see):
    see(make.sighting())
    before = ledger.conversions.find()
    later = make.now + timedelta(minutes=5)
    assert see(make.sighting(), at=later) == Tally(seen=1)
    assert ledger.conversions.find() == before
    assert len(ledger.conversions.history(before[0].key)) == 1


@pytest.mark.parametrize("state", [State.QUEUED, State.FAILED])
def test_a_newer_revision_takes_the_place_of_one_that_has_not_run(ledger, make, see, move, state):
    old, new = make.sighting(), make.sighting(revision="rev-b", kind="replace")
    see(old)
    if state is State.FAILED:
        move(old.conversion.key, Fact.REFUSED)
    assert see(new) == Tally(seen=1, admitted=1)
    row = ledger.conversions.get(old.conversion.key)
    assert (row.state, row.reason) == (State.SKIPPED, "superseded")
    assert [e.event_id for e in ledger.outbox.due(make.now, 10)] == [f"{new.conversion.key}-1"]
    assert "rev-b" in ledger.conversions.history(row.key)[-1].why


@pytest.mark.parametrize("facts", [(Fact.ACCEPTED,), (Fact.ACCEPTED, Fact.RUN_SEEN)])
def test_an_older_revision_in_flight_is_waited_for_so_that_it_cannot_finish_last(ledger, make, see, move, facts):
    old, new = make.sighting(), make.sighting(revision="rev-b", kind="replace")
    see(old)
    for fact in facts:
        move(old.conversion.key, fact)
    see(new)
    assert ledger.conversions.get(old.conversion.key).state in (State.SUBMITTED, State.RUNNING)
    assert ledger.conversions.superseded(ledger.conversions.get(old.conversion.key))
    assert not ledger.conversions.superseded(ledger.conversions.get(new.conversion.key))
    assert ledger.outbox.due(make.now, 10) == []
    move(old.conversion.key, Fact.SUCCEEDED)
    assert [e.key for e in ledger.outbox.due(make.now, 10)] == [new.conversion.key]


def test_a_posted_event_without_an_answer_may_have_become_a_run_and_is_waited_for_too(ledger, make, see):
    old, new = make.sighting(), make.sighting(revision="rev-b", kind="replace")
    see(old)
    (row,) = ledger.outbox.due(make.now, 10)
    ledger.outbox.note_post(row, make.now + timedelta(minutes=1))
    see(new)
    # its run may exist: whatever state it is in, it is looked at, and the newer revision's event waits
    assert old.conversion.key in {r.key for r in ledger.conversions.unfinished()}
    assert new.conversion.key not in {e.key for e in ledger.outbox.due(make.now, 10)}


def test_another_output_is_not_held_back(ledger, make, see, move):
    one, other = make.sighting(), make.sighting(item_id="other")
    see(one, other)
    move(one.conversion.key, Fact.ACCEPTED)
    assert [e.key for e in ledger.outbox.due(make.now, 10)] == [other.conversion.key]


def test_an_item_that_returns_to_an_earlier_revision_is_converted_again(ledger, make, see, move):
    first, second = make.sighting(), make.sighting(revision="rev-b", kind="replace")
    for sighting in (first, second):
        see(sighting)
        move(sighting.conversion.key, Fact.ACCEPTED)
        move(sighting.conversion.key, Fact.SUCCEEDED)
    assert see(first) == Tally(seen=1, admitted=1)
    row = ledger.conversions.get(first.conversion.key)
    assert (row.state, row.attempt) == (State.QUEUED, 2)
    assert [e.event_id for e in ledger.outbox.due(make.now, 10)] == [f"{row.key}-2"]
    assert ledger.items.known("s2", [make.item_id])[make.item_id].revision == "rev-a"


def test_returning_while_the_newer_one_waits_withdraws_the_newer_one(ledger, make, see, move):
    first, second = make.sighting(), make.sighting(revision="rev-b", kind="replace")
    see(first)
    move(first.conversion.key, Fact.ACCEPTED)
    see(second)
    see(first)
    assert ledger.conversions.get(second.conversion.key).reason == "superseded"
    assert not ledger.conversions.superseded(ledger.conversions.get(first.conversion.key))


def test_a_skipped_item_is_admitted_when_the_rules_let_it_in(ledger, make, see):
    see(make.sighting(SkipReason.NO_CLOUD_COVER))
    assert see(make.sighting()) == Tally(seen=1, admitted=1)
    (row,) = ledger.conversions.find()
    assert (row.state, row.attempt, row.reason) == (State.QUEUED, 2, None)
    assert see(make.sighting(SkipReason.TOO_CLOUDY)) == Tally(seen=1)  # what is admitted is not taken back by a rule
    assert ledger.conversions.get(row.key).state is State.QUEUED


def test_attempts_count_on_and_failures_are_of_this_queueing_only(ledger, make, see, move):
    see(make.sighting())
    key = make.conversion().key
    steps = [
        (Fact.ACCEPTED, 1, 0, 0), (Fact.FAILED_TEMPORARY, 2, 1, 0), (Fact.ACCEPTED, 2, 1, 0), (Fact.RUN_SEEN, 2, 1, 0),
        (Fact.VANISHED, 3, 2, 0), (Fact.ACCEPTED, 3, 2, 0), (Fact.NOT_READY, 4, 2, 1), (Fact.ACCEPTED, 4, 2, 1),
        (Fact.INTERRUPTED, 5, 2, 1), (Fact.ACCEPTED, 5, 2, 1), (Fact.SILENT, 5, 2, 1), (Fact.REFUSED, 5, 2, 1),
        (Fact.REPLAYED, 6, 0, 0),
    ]  # fmt: skip
    for number, (fact, attempt, failures, waits) in enumerate(steps, 1):
        move(key, fact, at=make.now + timedelta(hours=number))
        row = ledger.conversions.get(key)
        assert (row.attempt, row.failures, row.waits) == (attempt, failures, waits), fact
        assert row.run.endswith(f"-{attempt}")
    assert row.queued_at == make.now + timedelta(hours=len(steps))
    assert [json.loads(body)["data"]["reason"] for body in ledger.conversions.events(key)] == ["new", *["retry"] * 4, "replay"]


def test_a_silent_conversion_sends_the_very_same_bytes_again(ledger, make, see, move):
    see(make.sighting())
    (first,) = ledger.outbox.due(make.now, 1)
    move(first.key, Fact.ACCEPTED)
    move(first.key, Fact.SILENT)
    (second,) = ledger.outbox.due(make.now, 1)
    assert (second.event_id, second.body) == (first.event_id, first.body)


def test_a_replay_goes_out_in_the_replay_lane(ledger, make, see, move):
    see(make.sighting())
    key = make.conversion().key
    move(key, Fact.ACCEPTED)
    move(key, Fact.SUCCEEDED, outcome=Outcome(code=0, key=key))
    move(key, Fact.REPLAYED, lane="replay")
    data = json.loads(ledger.conversions.events(key)[-1])["data"]
    assert (ledger.conversions.get(key).lane, data["lane"], data["priority"], data["reason"]) == ("replay", "replay", 10, "replay")


def test_a_withdrawn_item_that_comes_back_is_admitted_in_its_last_lane(ledger, make, see, move):
    see(make.sighting(lane="backfill"))
    key = make.conversion().key
    move(key, Fact.WITHDRAWN, reason="withdrawn")
    see(make.sighting(lane="backfill"))
    assert ledger.conversions.get(key).state is State.QUEUED


@pytest.mark.parametrize("fact", [Fact.ACCEPTED, Fact.FAILED_TEMPORARY, Fact.FAILED_PERMANENT])
def test_a_decision_about_a_row_that_moved_meanwhile_is_refused_and_leaves_no_trace(ledger, make, see, move, fact):
    see(make.sighting())
    key = make.conversion().key
    stale = ledger.conversions.get(key)
    move(key, Fact.FAILED_TEMPORARY)  # somebody else: still queued, but at attempt 2
    before = (
        ledger.conversions.get(key),
        ledger.conversions.history(key),
        ledger.conversions.events(key),
        ledger.outbox.due(make.now, 9),
    )
    with pytest.raises(StaleState, match=key):
        ledger.conversions.move(stale, Move(fact, "too late"), make.now)
    assert (
        ledger.conversions.get(key),
        ledger.conversions.history(key),
        ledger.conversions.events(key),
        ledger.outbox.due(make.now, 9),
    ) == before


def test_of_two_who_move_the_same_row_at_once_one_wins(ledger, make, see, consistent):
    see(make.sighting())
    stale = ledger.conversions.get(make.conversion().key)
    barrier, outcomes = threading.Barrier(4), []

    def contend():
        barrier.wait()
        try:
            outcomes.append(ledger.conversions.move(stale, Move(Fact.ACCEPTED, "mine"), make.now))
        except StaleState:
            outcomes.append(None)

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [None, None, None, State.SUBMITTED]
    consistent()


def test_replays_go_before_live_before_backfill_the_newest_acquisition_first_but_an_archive_from_its_start(ledger, make, see):
    hours = {"old": 10, "new": 1, "middle": 5}
    for lane in ("backfill", "replay", "live"):
        see(*(make.sighting(item_id=f"{lane}-{n}", lane=lane, datetime=make.now - timedelta(hours=h)) for n, h in hours.items()))
    order = [json.loads(e.body)["data"]["item_id"] for e in ledger.outbox.due(make.now, 100)]
    newest_first = [f"{lane}-{n}" for lane in ("replay", "live") for n in ("new", "middle", "old")]
    assert order == [*newest_first, "backfill-old", "backfill-middle", "backfill-new"]
    for lane in ("replay", "live", "backfill"):
        of_lane = [json.loads(e.body)["data"]["item_id"] for e in ledger.outbox.due(make.now, 100, Queue("s2", lane))]
        assert of_lane == [name for name in order if name.startswith(lane)]
    assert ledger.outbox.due(make.now, 100, Queue("another", "live")) == []
    assert [json.loads(e.body)["data"]["item_id"] for e in ledger.outbox.due(make.now, 4)] == order[:4]


def test_an_event_is_due_at_its_time_and_not_before(ledger, make, see, move):
    see(make.sighting())
    key = make.conversion().key
    due = make.now + timedelta(minutes=15)
    move(key, Fact.ACCEPTED)
    move(key, Fact.NOT_READY, due=due, reason="source not there yet")
    assert ledger.outbox.due(due - timedelta(microseconds=1), 10) == []
    assert [e.key for e in ledger.outbox.due(due, 10)] == [key]
    assert (ledger.outbox.next_due(), ledger.outbox.of([key])[key].due) == (due, due)


def test_a_postponed_event_is_counted_and_is_then_looked_for_among_the_runs(ledger, make, see, consistent):
    see(make.sighting())
    assert ledger.conversions.unfinished() == []
    (row,) = ledger.outbox.due(make.now, 10)
    ledger.outbox.note_post(row, make.now + timedelta(seconds=5))
    consistent()
    assert ledger.outbox.due(make.now, 10) == []
    (again,) = ledger.outbox.due(make.now + timedelta(seconds=5), 10)
    assert (again.posts, again.body) == (1, row.body)
    assert [r.key for r in ledger.conversions.unfinished()] == [row.key]


def test_the_outcome_and_its_code_are_kept(ledger, make, see, move):
    see(make.sighting())
    key = make.conversion().key
    outcome = Outcome(code=65, reason="no such group", hint="see there")
    move(key, Fact.FAILED_PERMANENT, reason="no such group", outcome=outcome)
    row = ledger.conversions.get(key)
    assert (row.state, row.outcome, row.exit_code, row.reason) == (State.FAILED, outcome, 65, "no such group")
    assert ledger.counts.funnel() == {Place("s2", "live", State.FAILED, "no such group"): 1}
    assert ledger.conversions.find(state=State.FAILED) == ledger.conversions.find(item_id=make.item_id) == [row]
    assert ledger.conversions.find(state=State.DONE) == []


def test_history_explains_the_state(ledger, make, see, move):
    see(make.sighting())
    key = make.conversion().key
    move(key, Fact.ACCEPTED, why="event accepted", at=make.now + timedelta(minutes=1))
    move(key, Fact.VANISHED, why="the run is gone", at=make.now + timedelta(minutes=2))
    story = [(h.src, h.fact, h.dst, h.attempt, h.at - make.now, h.why) for h in ledger.conversions.history(key)]
    assert story == [
        (None, "admitted", "queued", 1, timedelta(0), "new item in s2"),
        ("queued", "accepted", "submitted", 1, timedelta(minutes=1), "event accepted"),
        ("submitted", "vanished", "queued", 2, timedelta(minutes=2), "the run is gone"),
    ]


def test_unreadable_items_are_kept_and_shown_with_the_latest_reason(ledger, make, see):
    assert see(unreadable=[Unreadable("bad", "no href")]) == Tally(unreadable=1)
    see(unreadable=[Unreadable("bad", "no properties"), Unreadable("worse", "no id")])
    assert ledger.absences.unreadable() == [("s2", "bad", "no properties"), ("s2", "worse", "no id")]


def test_two_sources_with_the_same_item_id_are_apart(ledger, make, see):
    one = make.sighting()
    other = replace(one, conversion=replace(one.conversion, catalog="https://other.example"))
    see(one, source="one")
    see(other, source="two")
    assert {r.key for r in ledger.conversions.find()} == {one.conversion.key, other.conversion.key}
    assert ledger.items.known("two", [make.item_id])[make.item_id].key == other.conversion.key


def test_everything_is_there_after_closing_and_opening_again(ledger, make, see, database):
    see(make.sighting(), make.sighting(SkipReason.TOO_OLD, item_id="old"), cursor=("s2:updated", make.now))
    before = (ledger.conversions.find(), ledger.outbox.due(make.now, 9), ledger.sources.position("s2:updated"))
    ledger.close()
    again = Ledger(open_engine(database))
    again.prepare()
    assert (again.conversions.find(), again.outbox.due(make.now, 9), again.sources.position("s2:updated")) == before
    again.close()


def test_times_come_back_aware_and_a_naive_one_is_refused(ledger, make, see):
    see(make.sighting(), cursor=("c", make.now.replace(microsecond=123456)))
    assert ledger.sources.position("c") == make.now.replace(microsecond=123456)
    assert ledger.sources.position("c").utcoffset() == timedelta(0)
    with pytest.raises(Exception, match="naive"):
        see(cursor=("c", make.now.replace(tzinfo=None)))


# -- databases that cannot be used ---------------------------------------------------------------------------------------


@ON_SQLITE
def test_a_ledger_of_a_newer_schema_is_refused_untouched(ledger, tmp_path, open_ledger):
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute("UPDATE schema_version SET version = ?", (SCHEMA_VERSION + 1,))
    db.close()
    with pytest.raises(ConfigError, match=f"schema {SCHEMA_VERSION + 1}") as caught:
        open_ledger(tmp_path / "ledger.db")
    assert "newer" in caught.value.hint


@pytest.mark.parametrize("content", [b"this is no database " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_corrupt_file_is_refused_and_left_as_it_is(tmp_path, open_ledger, content):
    path = tmp_path / "broken.db"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.db") as caught:
        open_ledger(path)
    assert "ledger" in caught.value.hint
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_and_a_file_that_is_a_folder(tmp_path, open_ledger):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="ledger's folder") as caught:
        open_ledger(tmp_path / "file" / "x.db")
    assert caught.value.hint
    with pytest.raises(ConfigError, match="cannot use the ledger"):
        open_ledger(tmp_path)


@pytest.mark.parametrize("url", ["nonsense", "", "oracle://x/y", "nosuch+driver://x/y", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_is_no_ledger(url):
    with pytest.raises(ConfigError, match="ledger"):
        Ledger(open_engine(url)).prepare()


def test_a_password_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        open_engine("nosuch+driver://me:hunter2@x/y")
    assert "hunter2" not in caught.value.message


@pytest.fixture
def ledger_with(tmp_path):
    """Opens the ledger anew so that its database really is read-only, full or locked: SQLite says so, not a mock."""
    with contextlib.ExitStack() as opened:

        def reopened(pragma):
            engine = open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
            sa_event.listen(engine, "connect", lambda connection, _record: connection.execute(f"PRAGMA {pragma}"))
            return opened.enter_context(contextlib.closing(Ledger(engine)))

        yield reopened


@ON_SQLITE
@pytest.mark.parametrize(("pragma", "said"), [("query_only=ON", "readonly"), ("max_page_count=1", "full")])
def test_a_read_only_or_full_disk_is_said_in_one_line_and_nothing_is_half_written(ledger, make, ledger_with, pragma, said):
    limited = ledger_with(pragma)
    many = [make.sighting(item_id=f"item-{n}") for n in range(200)]
    with pytest.raises(CannotWrite, match=said) as caught:
        limited.items.commit("s2", many, [], ("s2:updated", make.now), make.now)
    assert "\n" not in caught.value.message
    assert ("bytes) are free there" in caught.value.hint) == (said == "full")
    assert ledger.conversions.find() == []
    assert ledger.sources.position("s2:updated") is None


@ON_SQLITE
def test_a_database_that_somebody_holds_is_asked_again_later(ledger, make, ledger_with, tmp_path):
    impatient = ledger_with("busy_timeout=0")
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Temporary, match="locked"):
        impatient.items.commit("s2", [make.sighting()], [], None, make.now)
    holder.execute("ROLLBACK")
    holder.close()
    assert impatient.items.commit("s2", [make.sighting()], [], None, make.now) == Tally(seen=1, admitted=1)


@ON_SQLITE
def test_reading_neither_waits_for_a_writer_nor_needs_a_writable_database(ledger, make, see, ledger_with, tmp_path):
    see(make.sighting())
    reader = ledger_with("busy_timeout=0")
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert len(reader.conversions.find()) == 1  # `status` beside a watcher
    holder.execute("ROLLBACK")
    holder.close()
    assert len(ledger_with("query_only=ON").conversions.find()) == 1


def test_a_ledger_that_was_cut_short_is_damaged_and_left_as_it_is(open_ledger, make, tmp_path):
    """It was exit 78, "check that `ledger:` names a database of ours", and no word of a backup."""
    file = tmp_path / "cut.db"
    first = open_ledger(file)
    first.items.commit("s2", [make.sighting(item_id=f"item-{n}") for n in range(60)], [], None, make.now)
    first.close()
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = file.read_bytes()[:30_000]
    file.write_bytes(content)
    with pytest.raises(Unavailable, match="is damaged") as caught:
        open_ledger(file)
    assert "put a backup in its place" in caught.value.hint
    assert file.read_bytes() == content


def test_a_damaged_page_is_the_file_s_trouble_and_not_a_defect_of_ours(open_ledger, make, tmp_path):
    """It was exit 70, "a defect of stac-watch", with a dump of SQL and every id in it."""
    file = tmp_path / "damaged.db"
    first = open_ledger(file)
    first.items.commit("s2", [make.sighting(item_id=f"item-{n}") for n in range(60)], [], None, make.now)
    first.close()
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'conversion'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    content = bytearray(file.read_bytes())
    content[(page - 1) * size : page * size] = b"\xa5" * size
    file.write_bytes(content)
    damaged = Ledger(open_engine(f"sqlite:///{file}"))
    one = make.sighting(item_id="item-1")
    try:
        for asked in (damaged.conversions.find, lambda: damaged.items.commit("s2", [one], [], None, make.now)):
            with pytest.raises(Unavailable, match="is damaged") as caught:
                asked()
            assert "put a backup in its place" in caught.value.hint
            assert "item-" not in caught.value.message
    finally:
        damaged.close()
