"""The ledger's tables: older ones are brought up to date, and no question reads a big table from end to end."""

import contextlib
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy import event as sa_event

from stac_watch import app as composition
from stac_watch.cli.checks import checks
from stac_watch.config.load import load
from stac_watch.config.model import Limits, Source
from stac_watch.ledger import schema
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.migrations import STEPS
from stac_watch.ledger.naming import Sort
from stac_watch.ledger.records import Audited, Move, Place, Queue, Scope
from stac_watch.model.errors import ConfigError, Exit
from stac_watch.model.event import parse_event
from stac_watch.model.item import SkipReason, Unreadable
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import Fact, State
from stac_watch.report import explain, items, status
from stac_watch.report.web import overview
from stac_watch.report.web.query import View
from stac_watch.runs.dispatch import dispatch
from stac_watch.runs.engine import Runs
from stac_watch.runs.pace import Throttle, TokenBucket
from stac_watch.runs.reconcile import reconcile

FIRST, LANDED = (Path(__file__).with_name(f"ledger-{version}.sql") for version in (1, 3))
TO_1 = (  # what the first version did not have, taken away
    *(f"DROP TABLE {name}" for name in ("funnel", "lease", "backfill", "probe", "lateness", "sweep", "baseline", "absent",
      "second_look", "restamp")),
    "DROP TABLE moved",
    *(f"DROP INDEX {name}" for name in ("item_by_sensing", "item_by_update", "item_by_sight", "conversion_by_source",
      "conversion_by_change", "conversion_by_wait", "outbox_by_age", "outbox_by_due", "outbox_posted")),
    "ALTER TABLE conversion DROP COLUMN cause", "ALTER TABLE conversion DROP COLUMN waits_for",
    "ALTER TABLE conversion DROP COLUMN fence", "ALTER TABLE outbox DROP COLUMN source",
    "ALTER TABLE item DROP COLUMN trace", "ALTER TABLE unreadable RENAME TO quarantine",
    "CREATE INDEX outbox_by_due ON outbox (priority, due)",
    "UPDATE schema_version SET version = 1",
)  # fmt: skip


TO_3 = (  # the words that version 0.1.0 wrote
    *(f"UPDATE {table} SET {column} = '{old}' WHERE {column} = '{new}'" for old, new in (("dead", "failed"), ("sent", "submitted"))
      for table, column in (("conversion", "state"), ("history", "src"), ("history", "dst"), ("funnel", "state"))),
    "DROP INDEX conversion_by_wait", "DROP INDEX absent_by_output", "ALTER TABLE absent DROP COLUMN output",
    "ALTER TABLE baseline DROP COLUMN revision", "ALTER TABLE item DROP COLUMN trace", "DROP TABLE moved",
    "ALTER TABLE unreadable RENAME TO quarantine", "ALTER TABLE probe RENAME COLUMN invalidated TO doubted",
    """UPDATE audited SET gaps = '{"dead": 1, "lost": 2}'""",
    "ALTER TABLE conversion DROP COLUMN fence", "UPDATE schema_version SET version = 3",
)  # fmt: skip


def differences(url):
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as db:
        context = MigrationContext.configure(db, opts={"compare_type": False})
        return compare_metadata(context, schema.metadata)


def test_there_is_a_step_for_each_version():
    assert sorted(STEPS) == list(range(2, schema.SCHEMA_VERSION + 1))


def test_a_new_ledger_has_what_the_code_says(ledger, database):
    assert differences(database) == []


def test_an_older_ledger_gets_what_the_code_says(ledger, database, make):
    ledger.items.commit("s2", [make.sighting(), make.sighting(SkipReason.TOO_OLD, item_id="old")], [], None, make.now)
    before = ledger.conversions.find()
    with create_engine(database, poolclass=NullPool).begin() as db:
        for statement in TO_1:
            db.execute(text(statement))
    assert differences(database)
    ledger.prepare()
    assert differences(database) == []
    assert ledger.conversions.find() == before
    assert ledger.counts.funnel() == {Place("s2", "live", State.QUEUED, ""): 1, Place("s2", "live", State.SKIPPED, "too_old"): 1}


def test_the_words_of_an_older_ledger_are_changed_on_both_databases(ledger, database, make):
    ledger.items.commit("s2", [make.sighting(item_id=name) for name in "abc"], [Unreadable("odd", "no asset")], None, make.now)
    a, b = (ledger.conversions.find(item_id=name)[0] for name in "ab")
    ledger.conversions.move(a, Move(Fact.ACCEPTED, "accepted"), make.now)
    ledger.conversions.move(b, Move(Fact.FAILED_PERMANENT, "corrupt", reason="corrupt"), make.now)
    ledger.sources.note_abilities("s2", {}, make.now)
    ledger.sources.note_audit(Audited("s2", make.now, make.now, make.now, {"failed": 1, "lost": 2}))

    def seen():
        histories = [ledger.conversions.history(row.key) for row in (a, b)]
        return (
            ledger.conversions.find(),
            histories,
            ledger.counts.funnel(),
            ledger.absences.unreadable(),
            ledger.sources.remembered(()).audits,
        )

    before = seen()
    with create_engine(database, poolclass=NullPool).begin() as db:
        for statement in TO_3:
            db.execute(text(statement.replace(":", r"\:")))
        assert {state for (state,) in db.execute(text("SELECT state FROM conversion"))} == {"queued", "sent", "dead"}
    ledger.prepare()
    assert differences(database) == []
    assert seen() == before


def test_a_ledger_of_the_first_version_goes_on_where_it_was(tmp_path, open_ledger, invariants, make):
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.executescript(FIRST.read_text())
    ledger = open_ledger(tmp_path / "ledger.db")
    invariants(tmp_path / "ledger.db")
    states = {row.item_id: row.state.value for row in ledger.conversions.find()}
    assert states == {"queued": "queued", "posted": "queued", "skipped": "skipped", "dead": "failed", "done": "done"}
    later = make.now + timedelta(hours=1)
    assert {row.key for row in ledger.outbox.due(later, 9, Queue("s2", "live"))} == {
        row.key for row in ledger.conversions.find(state=State.QUEUED)
    }
    assert [row.item_id for row in ledger.conversions.unfinished()] == ["posted"]
    (failed,) = ledger.conversions.find(state=State.FAILED)
    assert failed.cause == "no group /x in store 123"
    ledger.conversions.move(failed, Move(Fact.REPLAYED, "asked for", lane="replay"), later)
    invariants(tmp_path / "ledger.db")
    assert ledger.sources.position("s2:updated") == make.now
    ledger.prepare()  # a second start finds nothing to do
    invariants(tmp_path / "ledger.db")
    ledger.close()


def test_a_ledger_of_0_1_0_goes_on_under_the_words_of_the_glossary(tmp_path, open_ledger, invariants, make):
    """What the landed version wrote: `dead`, `sent`, a quarantine, a doubted catalog; each state is there, and each goes on."""
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.executescript(LANDED.read_text())
    ledger = open_ledger(tmp_path / "ledger.db")
    invariants(tmp_path / "ledger.db")
    states = {row.item_id: row.state.value for row in ledger.conversions.find()}
    assert states == {
        "queued": "queued", "posted": "queued", "retried": "queued", "sent": "submitted", "running": "running", "done": "done",
        "dead": "failed", "skipped": "skipped",
    }  # fmt: skip
    (dead,) = ledger.conversions.find(state=State.FAILED)
    assert [(h.src, h.dst) for h in ledger.conversions.history(dead.key)] == [
        (None, "queued"), ("queued", "submitted"), ("submitted", "running"), ("running", "failed"),
    ]  # fmt: skip
    assert dead.outcome == Outcome(code=65, reason="no group /x in store 123")
    assert ledger.counts.funnel()[Place("s2", "live", State.SUBMITTED, "")] == 1
    assert ledger.absences.unreadable() == [("s2", "odd", "no asset with an href is a Zarr store")]
    assert ledger.sources.state("s2", ()).abilities[2] is True
    assert ledger.sources.remembered(()).audits["s2"].gaps == {"failed": 1}
    later = make.now + timedelta(hours=1)
    ledger.conversions.move(dead, Move(Fact.REPLAYED, "asked for", lane="replay"), later)
    (sent,) = ledger.conversions.find(state=State.SUBMITTED)
    ledger.conversions.move(sent, Move(Fact.RUN_SEEN, "run x is running"), later)
    invariants(tmp_path / "ledger.db")
    ledger.close()


@pytest.mark.parametrize("dump", [FIRST, LANDED])
def test_what_was_done_under_a_shorter_key_is_not_converted_again(tmp_path, open_ledger, invariants, make, dump):
    """Rows, events and runs keep the keys that their markers carry; an unchanged item is no news, whatever its key would be now."""
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.executescript(dump.read_text())
    ledger = open_ledger(tmp_path / "ledger.db")
    before = ledger.conversions.find()
    later = make.now + timedelta(hours=1)
    (done,) = ledger.conversions.find(state=State.DONE)
    assert (len(done.key), done.fence) == (12, "")
    known = ledger.items.known("s2", [row.item_id for row in before])
    assert known[done.item_id].revision == done.revision, "discovery compares revisions"
    (skipped,) = ledger.conversions.find(state=State.SKIPPED)
    same = make.sighting(SkipReason.TOO_OLD, item_id=skipped.item_id, revision=skipped.revision)
    assert len(same.conversion.key) == 20
    assert ledger.items.commit("s2", [same], [], None, later).skipped == 0, "it is skipped once"
    assert ledger.conversions.find() == before
    newer = make.sighting(item_id=done.item_id, revision="rev-b")
    assert ledger.items.commit("s2", [newer], [], None, later).admitted == 1
    assert ledger.conversions.get(newer.conversion.key).fence == "2026-03-01T12:00:00.000000Z"
    (failed,) = ledger.conversions.find(state=State.FAILED)
    ledger.conversions.move(failed, Move(Fact.REPLAYED, "asked for", lane="replay"), later)
    again = ledger.conversions.get(failed.key)
    assert again.run.endswith(f"-{failed.key[:10]}-{failed.attempt + 1}")
    assert parse_event(ledger.conversions.events(failed.key)[-1])["data"]["run"] == again.run
    invariants(tmp_path / "ledger.db")
    ledger.close()


def test_who_only_asks_leaves_an_older_ledger_to_the_watcher_that_uses_it(tmp_path, stac_watch):
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.executescript(FIRST.read_text())
    source = {"name": "s2", "api": "https://stac.example", "collection": "c"}
    output = f"{tmp_path}/outputs/{{item_id}}.zarr"
    document = {"ledger": f"sqlite:///{tmp_path}/ledger.db", "sources": [source], "recipe": {"output": output}}
    config = tmp_path / "stac-watch.yaml"
    config.write_text(json.dumps(document))

    def version():
        with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
            return db.execute("SELECT version FROM schema_version").fetchall()

    said = stac_watch("status", "--config", config)
    assert said.code == Exit.CONFIG
    assert f"schema 1, this stac-watch knows {schema.SCHEMA_VERSION}" in said.err
    assert "stac-watch watch" in said.err
    with pytest.raises(ConfigError, match="schema 1"):
        dict(checks(load(config, {}), {}))["ledger"]()
    assert version() == [(1,)]
    composition.open_ledger(load(config, {})).close()  # as `watch` does
    assert version() == [(schema.SCHEMA_VERSION,)]
    assert len(json.loads(stac_watch("items", "--json", "--config", config).out)) == 5
    (tmp_path / "ledger.db").unlink()
    said = stac_watch("items", "--json", "--config", config)  # asked before there is one
    assert (said.code, said.out, "there is no ledger" in said.err) == (Exit.CONFIG, "", True)


# -- plans ---------------------------------------------------------------------------------------------------------------


class Idle:
    def headroom(self):
        return 20

    def runs(self, keys):
        return []


YEARS = """
CREATE TEMP TABLE past AS WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
    SELECT i, printf('%012x', i) AS key, datetime('2020-01-01', i || ' minutes') || '.000000' AS at,
           CASE i % 50 WHEN 1 THEN 'failed' WHEN 2 THEN 'skipped' ELSE 'done' END AS state FROM n;
INSERT INTO conversion (key, source, item_id, revision, state, attempt, failures, waits, queued_at, lane, reason, cause, run,
                        output_zarr, created_at, changed_at)
    SELECT key, 's2', 'S2A_' || i, 'rev', state, 1, 0, 0, at, 'live', '', '', 'gz-' || i, '/out/' || i, at, at FROM past;
INSERT INTO item (source, item_id, revision, key, updated, sensing, tile, bbox, first_seen, last_seen)
    SELECT 's2', 'S2A_' || i, 'rev', key, at, at, 'T32TQM', '[0, 0, 1, 1]', at, at FROM past;
INSERT INTO restamp (source, item_id, stamp, href, since, due, tries, found, looked_at)
    SELECT 's2', 'S2A_' || i, at, '', at, at, 0, 'same', at FROM past;
INSERT INTO event (id, key, attempt, body, created_at) SELECT key || '-1', key, 1, '{}', at FROM past;
INSERT INTO history (key, src, fact, dst, attempt, at, why)
    SELECT key, src, 'x', dst, 1, at, '' FROM past
    JOIN (SELECT 'queued' AS src, 'submitted' AS dst UNION VALUES ('submitted', 'done'));
ANALYZE;
"""


@pytest.mark.parametrize("statistics", [False, True], ids=["no statistics", "analyzed"])
def test_no_question_of_a_tick_or_of_a_person_reads_a_big_table_from_end_to_end(make, tmp_path, statistics):
    """With statistics SQLite plans otherwise: to find nothing it read a million finished conversions in order of time, 142 ms."""
    asked = []
    engine = open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger = Ledger(engine)
    ledger.prepare()
    ledger.items.commit("s2", [make.sighting(), make.sighting(item_id="b", lane="backfill")], [], None, make.now)
    ledger.conversions.move(ledger.conversions.get(make.conversion().key), Move(Fact.FAILED_PERMANENT, "x", reason="x"), make.now)
    before = ledger.outbox.due(make.now, 1)[0]
    if statistics:
        with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as db:
            db.executescript(YEARS)
        engine.dispose()  # an open connection would go on planning without
    sa_event.listen(engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    ledger.items.known("s2", ["a", "b"])
    reconcile(ledger, Idle(), Limits(), lambda _: None, lambda: make.now)
    ledger.outbox.note_post(before, make.now + timedelta(hours=1))
    dispatch(ledger, Idle(), Throttle(TokenBucket(1), max_in_flight=9), None, lambda: make.now)
    ledger.outbox.load(make.now)
    for lane in ("live", "backfill", "replay"):
        ledger.outbox.due(make.now, 20, Queue("s2", lane))
    status.read(ledger, [Source(name="s2", api="https://stac.example", collection="c")], Limits(), make.now)
    view = status.read(ledger, [], Limits(), make.now)
    for scope in (Scope(make.now - timedelta(days=1), "s2", "live"), Scope(None, "s2"), Scope()):
        extent = overview.read_extent(ledger, view, scope, Limits(), Runs())
    for asked_for in (View(), View(source="s2"), View(state=State.FAILED), View(sort=Sort.OLDEST), View(page=3)):
        overview.read_listing(ledger, extent, asked_for, Runs())
    items.read(ledger, make.now)
    items.read(ledger, make.now, scope=Scope(source="s2"), state=State.FAILED)
    explain.read(ledger, "b", Limits(), make.now, lambda _: None)
    ledger.counts.states_within("s2", make.now - timedelta(days=9), make.now)
    ledger.counts.waiting_within("s2", make.now - timedelta(days=9), make.now)
    ledger.restamps.due("s2", make.now, 9)
    ledger.restamps.get("s2", "a")
    ledger.retirements.of("s2", "a")
    ledger.restamps.forget("s2", make.now)
    ledger.lease.hold("somebody", lambda: make.now, gives_way=True)
    list(ledger.items.within("s2", make.now - timedelta(days=9), make.now))
    ledger.items.current("s2", ["a"])
    ledger.conversions.find(source="s2", lane="backfill", state=State.DONE, since=make.now, limit=3)
    ledger.items.commit("s2", [make.sighting(item_id="c")], [], None, make.now)
    ledger.close()
    assert len(asked) > 40
    found = set()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        for statement, parameters in dict(asked).items():
            if not statement.startswith(("SELECT", "UPDATE", "DELETE")):
                continue
            plan = [
                row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", parameters if isinstance(parameters, tuple) else ())
            ]
            found |= {(step, statement) for step in plan if scans(step, statement)}
    assert not found


SMALL = {
    "funnel",
    "backfill",
    "unreadable",
    "second_look",
    "each_source",  # those of the funnel
    "lease",
    "probe",
    "lateness",
    "sweep",
    "audited",
    "schema_version",
    "pragma_page_count",
    "pragma_page_size",
}


def scans(step, statement):
    """Whether a step of a plan reads a table that may be big, or its index, to the end."""
    words = step.split()
    if words[0] != "SCAN" or words[1] in SMALL or words[1:3] == ["CONSTANT", "ROW"]:
        return False
    ordered = "USING INDEX" in step or "USING COVERING INDEX" in step
    return not (ordered and ("LIMIT" in statement or "outbox_posted" in step))


def test_the_check_for_plans_knows_a_scan():
    assert scans("SCAN conversion", "SELECT … LIMIT 3")
    assert scans("SCAN conversion USING INDEX conversion_by_change", "SELECT count(*)")
    assert not scans("SCAN conversion USING INDEX conversion_by_change", "SELECT … ORDER BY changed_at LIMIT 3")
    assert not scans("SEARCH item USING INDEX item_by_sensing (source=?)", "SELECT …")
    assert not scans("SCAN funnel", "SELECT …")


def test_a_file_that_was_put_in_the_place_of_the_ledger_is_the_ledger(tmp_path):
    """A backup that is restored under a running watcher: what it writes must not end in a file that has no name any more."""
    path, backup = tmp_path / "ledger.db", tmp_path / "backup.db"
    ledger = Ledger(open_engine(f"sqlite:///{path}"))
    ledger.prepare()
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    backup.replace(path)
    for rest in tmp_path.glob("ledger.db-*"):
        rest.unlink()
    ledger.sources.note_abilities("s2", {}, datetime(2026, 3, 1, tzinfo=UTC))
    ledger.close()
    with contextlib.closing(sqlite3.connect(path)) as found:
        assert found.execute("SELECT count(*) FROM probe").fetchone() == (1,)
