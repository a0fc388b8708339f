"""What people ask for: a backfill, a replay, an audit, the chain of one item; with a real catalog, ledger and dispatch."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stac_watch.config.model import Limits
from stac_watch.jobs import audit, backfill, replay
from stac_watch.jobs.replay import Wish
from stac_watch.ledger.records import Move
from stac_watch.model.errors import InputError, Unavailable
from stac_watch.model.outcome import Outcome
from stac_watch.model.stamps import ordered_stamp
from stac_watch.model.states import Fact, State
from stac_watch.report import explain as explaining
from stac_watch.report import status as summing
from stac_watch.runs.engine import Answer
from stac_watch.runs.local import arguments
from stac_watch.runs.markers import Damage

pytestmark = pytest.mark.long

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
WHOLE = Damage(compared=True)
LIMITS = Limits(rate="1000/s", max_in_flight=4)  # what the worlds of this folder run with
RANGE = backfill.BackfillRequest(START - timedelta(days=10), START)


def ask(world, **over):
    return backfill.check_range(replace(RANGE, **over), world.clock())


def carry_out(world, request, *, stop_after=None):
    """Admits a backfill, or the first windows of it, as if it was interrupted then."""
    backfill.begin(world.intake, request)
    counts = [0]
    for _, admitted in backfill.admit(world.intake, request):
        counts.append(admitted)
        if len(counts) - 1 == stop_after:
            break
    return counts[-1]


def fail(world, *items):
    for item in items:
        (row,) = world.ledger.conversions.find(item_id=item)
        why = f"no group /r10m in https://host/{item}.zarr"
        world.ledger.conversions.move(row, Move(Fact.FAILED_PERMANENT, why, reason=why), world.clock())
        world.plant.deleted.add(row.run)  # a run that the engine shows as succeeded would be believed


@pytest.fixture
def archive(build):
    """Twelve items, three a day, acquired up to six days ago and published long before the watcher came."""
    world = build()
    world.items = [world.publish(n, days=2 + n // 3, minutes_ago=60 * 24 * 2) for n in range(12)]
    return world


# -- backfill ------------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_would_be_done_and_changes_nothing(archive):
    plan = backfill.plan(archive.intake, LIMITS, ask(archive))
    assert [(d.items, d.to_do, d.done) for d in plan.days if d.items] == [(3, 3, 0)] * 4
    assert (plan.to_do, plan.measured, plan.goes_on_at, plan.held) == (12, False, None, None)
    assert plan.gigabytes == pytest.approx(12 * 1.26, abs=0.1)
    assert plan.hours == pytest.approx(12 * 300 / 4 / 3600, abs=0.01)
    assert "4 runs at a time" in plan.limit
    assert archive.ledger.conversions.find() == []
    assert archive.ledger.orders.all() == []
    assert backfill.plan(archive.intake, LIMITS, ask(archive, max_items=5)).to_do == 5


def test_a_plan_knows_what_is_done_already_and_what_the_range_is(archive):
    carry_out(archive, ask(archive, end=START - timedelta(days=4)))
    archive.run()
    plan = backfill.plan(archive.intake, LIMITS, ask(archive))
    assert (plan.to_do, sum(d.done for d in plan.days), sum(d.items for d in plan.days)) == (6, 6, 12)
    with pytest.raises(InputError, match="nothing lies between"):
        ask(archive, start=START, end=START - timedelta(days=1))
    assert ask(archive, end=START + timedelta(days=9)).end == datetime(2026, 3, 2, tzinfo=UTC)  # today is included, and over then


def test_it_converts_oldest_first_in_its_own_lane(archive):
    assert carry_out(archive, ask(archive)) == 12
    assert {(r.lane, r.state) for r in archive.ledger.conversions.find()} == {("backfill", State.QUEUED)}
    archive.run()
    assert {r.state for r in archive.ledger.conversions.find()} == {State.DONE}
    sent = [next(i for i in archive.items if i[11:26].lower() in run) for run in archive.plant.posts]
    assert sent == sorted(sent)
    assert (
        json.loads(archive.ledger.conversions.events(archive.ledger.conversions.find()[0].key)[0])["data"]["reason"] == "backfill"
    )


def test_what_was_too_old_to_be_taken_by_itself_is_taken_when_it_is_asked_for(build):
    world = build(filter={"max_age": "5d"})
    world.publish(0, minutes_ago=300)
    world.discover()
    old, new = world.publish(1, days=8, minutes_ago=5), world.publish(2, days=2, minutes_ago=5)
    world.discover()
    world.run(hours=0.1)
    rows = {r.item_id: r for r in world.ledger.conversions.find()}
    assert (rows[old].state, rows[old].reason, rows[new].state) == (State.SKIPPED, "too_old", State.DONE)
    assert world.audit().gaps == [], "what discovery leaves out by its rules is no gap"
    assert backfill.plan(world.intake, LIMITS, ask(world)).to_do == 1
    assert carry_out(world, ask(world)) == 1
    world.run(hours=0.1)
    (row,) = world.ledger.conversions.find(item_id=old)
    assert (row.state, row.lane, row.attempt) == (State.DONE, "backfill", 2)
    event = json.loads(world.ledger.conversions.events(row.key)[-1])["data"]
    assert (event["reason"], event["lane"]) == ("backfill", "backfill")
    assert len(world.plant.posts) == 3


@pytest.mark.parametrize("stop_after", range(1, 12))
def test_interrupted_at_any_window_and_run_again_it_goes_on_where_it_was(archive, stop_after):
    request = ask(archive)
    first = carry_out(archive, request, stop_after=stop_after)
    if 0 < first < 12:
        plan = backfill.plan(archive.intake, LIMITS, request)
        assert plan.goes_on_at is not None
        assert plan.to_do == 12 - first
    asked = archive.catalog.search
    spans = []
    archive.catalog.search = lambda window, **how: spans.append(window) or asked(window, **how)
    assert first + carry_out(archive, request) == 12
    if stop_after < 10:
        assert min(w.start for w in spans if w.field == "datetime") > request.start  # what was read is not read again
    archive.run()
    assert Counter(r.state for r in archive.ledger.conversions.find()) == {State.DONE: 12}
    assert len(archive.plant.posts) == 12
    assert carry_out(archive, request) == 0


def test_max_items_is_a_bound_and_the_next_run_takes_the_next(archive):
    request = ask(archive, max_items=5)
    assert [carry_out(archive, request) for _ in range(4)] == [5, 5, 2, 0]
    assert len(archive.ledger.conversions.find()) == 12


def test_a_canary_goes_first_and_the_rest_only_when_it_went_well(archive):
    carry_out(archive, ask(archive, canary=2))
    archive.run(hours=0.05)
    assert len(archive.plant.posts) == 2
    archive.run()
    assert Counter(r.state for r in archive.ledger.conversions.find()) == {State.DONE: 12}


def test_a_canary_that_fails_stops_the_rest_until_the_command_is_given_again(archive):
    request = ask(archive, canary=2)
    carry_out(archive, request)
    archive.run(hours=0.02)
    fail(archive, *[r.item_id for r in archive.ledger.conversions.unfinished()][:1])
    archive.run(hours=1, step=120)
    assert len(archive.plant.posts) == 2
    (order,) = archive.ledger.orders.all()
    assert order.held == "1 of the first 2 failed"
    status = summing.read(archive.ledger, [archive.source], Limits(), archive.clock())
    assert status.sources[0].backfill.held == order.held
    assert any("held" in w.why for w in status.waiting)
    assert backfill.progress(archive.ledger, "demo", request, START, 0, archive.clock()).settled
    carry_out(archive, replace(request, canary=0))
    archive.run()
    assert Counter(r.state for r in archive.ledger.conversions.find()) == {State.DONE: 11, State.FAILED: 1}


def test_after_so_many_failures_nothing_more_is_sent(archive):
    carry_out(archive, ask(archive, max_failures=3))
    archive.run(hours=0.02)
    fail(archive, *[r.item_id for r in archive.ledger.conversions.unfinished()][:3])
    archive.run(hours=1, step=120)
    assert Counter(r.state for r in archive.ledger.conversions.find())[State.QUEUED] > 0
    assert "3 of its conversions failed" in archive.ledger.orders.all()[0].held


def test_live_work_keeps_its_share_while_an_archive_is_converted(archive):
    carry_out(archive, ask(archive))
    archive.run(hours=0.02)
    new = [archive.publish(100 + n, days=0, minutes_ago=1) for n in range(3)]
    archive.discover()
    archive.run(hours=0.2)  # two rounds of runs
    done = {r.item_id for r in archive.ledger.conversions.find(state=State.DONE)}
    assert set(new) <= done
    assert len(done) < 12 + len(new)


# -- replay --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(archive):
    carry_out(archive, ask(archive))
    archive.run()
    return archive


def again(world, targets):
    return replay.execute(targets, world.ledger, {world.source.name: world.intake}, world.clock)


def test_who_replays_what_met_an_output_that_nobody_asked_for_replaces_it(finished):
    """Somebody who had the token wrote another output there, and a fence of just now into it: the item was skipped for good."""
    row = finished.ledger.conversions.find(item_id=finished.items[0])[0]
    ledger, met = finished.ledger, Outcome(code=79, key=row.key, attempt=2)
    again(finished, replay.named([Wish(row.item_id)], ledger, ["demo"]))
    met = Move(Fact.FAILED_PERMANENT, "a later revision", reason="after 14 days still: a later revision", outcome=met)
    for fact in (Move(Fact.ACCEPTED, "accepted"), met):
        ledger.conversions.move(ledger.conversions.get(row.key), fact, finished.clock())
    again(finished, replay.named([Wish(row.item_id)], ledger, ["demo"]))
    fences = [json.loads(body)["data"]["fence"] for body in ledger.conversions.events(row.key)]
    assert fences[0] == fences[1] < fences[2] == ordered_stamp(finished.clock())


def test_replay_by_id_makes_the_next_attempt_and_refuses_what_is_on_its_way(finished):
    a, b = finished.items[:2]
    targets = replay.named([Wish(a), Wish(b), Wish(a)], finished.ledger, ["demo"])
    assert [(t.item, t.action, t.refusal) for t in targets] == [
        (a, "attempt 2, converts again", None),
        (b, "attempt 2, converts again", None),
    ]
    assert {r.state for r in finished.ledger.conversions.find()} == {State.DONE}  # saying it does nothing
    assert [t.state for t in again(finished, targets)] == [State.QUEUED] * 2
    refused = again(finished, replay.named([Wish(a)], finished.ledger, ["demo"]))
    assert "already queued" in refused[0].refusal
    finished.run()
    (row,) = finished.ledger.conversions.find(item_id=a)
    assert (row.state, row.attempt, row.lane) == (State.DONE, 2, "replay")


def test_replay_by_a_part_of_the_name_is_of_that_item_and_of_no_other(finished):
    tile = finished.items[0].split("_")[5]
    alone = finished.items[0][11:26]  # its moment of acquisition
    (target,) = replay.named([Wish(alone)], finished.ledger, ["demo"])
    assert target.item == finished.items[0]
    with pytest.raises(InputError, match=f"'{tile}' may be 12 items") as refusal:
        replay.named([Wish(tile)], finished.ledger, ["demo"])
    assert finished.items[0] not in refusal.value.hint
    assert "items --text" in refusal.value.hint


def test_what_is_queued_for_later_goes_out_now_when_a_person_says_so(finished):
    item = finished.items[0]
    again(finished, replay.named([Wish(item)], finished.ledger, ["demo"]))
    (row,) = finished.ledger.conversions.find(item_id=item)
    waits = finished.ledger.outbox.of([row.key])[row.key]
    finished.ledger.outbox.note_post(waits, finished.clock() + timedelta(days=1), happened=False)
    assert finished.ledger.outbox.due(finished.clock(), 10) == []
    (refused,) = again(finished, replay.named([Wish(item)], finished.ledger, ["demo"]))
    assert "--now" in refused.refusal
    targets = replay.named([Wish(item)], finished.ledger, ["demo"], urgent=True)
    assert [(t.action, t.refusal) for t in targets] == [("attempt 2 goes out now", None)]
    assert finished.ledger.outbox.due(finished.clock(), 10) == []  # saying it does nothing
    assert [t.refusal for t in again(finished, targets)] == [None]
    assert [w.key for w in finished.ledger.outbox.due(finished.clock(), 10)] == [row.key]
    finished.run()
    assert [(r.state, r.attempt) for r in finished.ledger.conversions.find(item_id=item)] == [(State.DONE, 2)]


@pytest.mark.parametrize("waiting", [False, True])
def test_a_person_may_take_what_is_missing_for_nodata(finished, waiting):
    item = finished.items[0]
    if waiting:
        again(finished, replay.named([Wish(item)], finished.ledger, ["demo"]))
    targets = replay.named([Wish(item)], finished.ledger, ["demo"], urgent=True)
    replay.execute(targets, finished.ledger, {finished.source.name: finished.intake}, finished.clock, allow_empty=True)
    (row,) = finished.ledger.conversions.find(item_id=item)
    body = finished.ledger.outbox.of([row.key])[row.key].body
    assert json.loads(body)["data"]["options"]["allow_empty"] == "true"
    assert "--allow-empty=true" in arguments(json.loads(body)["data"])
    finished.run()
    assert [(r.state, r.attempt) for r in finished.ledger.conversions.find(item_id=item)] == [(State.DONE, 2)]


def test_what_taking_missing_chunks_for_nodata_does_not_reach_is_refused(finished):
    """An event that has gone out is not changed, and what is read from the catalog anew has not been found to lack anything."""
    item, intakes = finished.items[0], {finished.source.name: finished.intake}
    again(finished, replay.named([Wish(item)], finished.ledger, ["demo"]))
    (row,) = finished.ledger.conversions.find(item_id=item)
    finished.ledger.outbox.note_post(finished.ledger.outbox.of([row.key])[row.key], finished.clock() + timedelta(days=1))
    targets = replay.named([Wish(item), Wish("unheard-of")], finished.ledger, ["demo"], urgent=True)
    assert [t.refusal for t in targets] == [None, None]
    said = replay.fit_for_empty(targets, finished.ledger)
    done = replay.execute(targets, finished.ledger, intakes, finished.clock, allow_empty=True)
    assert done == said
    assert ["has gone out" in said[0].refusal, "from the catalog anew" in said[1].refusal] == [True, True]
    assert finished.ledger.outbox.due(finished.clock(), 10) == []
    assert not finished.ledger.outbox.hasten(row.key, finished.clock(), allow_empty=True)
    assert "allow_empty" not in json.loads(finished.ledger.outbox.of([row.key])[row.key].body)["data"].get("options", {})


def test_a_dry_run_asks_the_catalog_for_what_the_ledger_does_not_know_and_writes_nothing(archive):
    targets = replay.named([Wish(archive.items[0]), Wish("T32TQM-nowhere")], archive.ledger, ["demo"])
    known, unknown = sorted(replay.preview(targets, {archive.source.name: archive.intake}), key=lambda t: t.refusal or "")
    assert (known.item, known.action, known.refusal) == (archive.items[0], "taken as the catalog shows it now", None)
    assert "no such item" in unknown.refusal
    assert archive.ledger.conversions.find() == []


def test_replay_by_state_time_and_error(finished):
    redo = finished.items[:4]
    again(finished, replay.named([Wish(i) for i in redo], finished.ledger, ["demo"]))
    fail(finished, *redo)
    failed = finished.ledger.conversions.find(state=State.FAILED, error="NO GROUP /r10m")
    assert {t.item for t in replay.chosen(failed, finished.ledger)} == set(redo)
    assert finished.ledger.conversions.find(state=State.FAILED, error="100%") == []
    assert finished.ledger.conversions.find(state=State.FAILED, since=finished.clock() + timedelta(seconds=1)) == []
    assert {f.count for f in summing.read(finished.ledger, [finished.source], Limits(), finished.clock()).failures} == {4}
    again(finished, replay.chosen(failed, finished.ledger))
    finished.run()
    assert Counter(r.state for r in finished.ledger.conversions.find()) == {State.DONE: 12}


def test_an_older_revision_is_refused_by_name(finished):
    old = finished.ledger.conversions.find(item_id=finished.items[0])[0].key
    finished.publish(0, version=2, days=2, minutes_ago=0)
    finished.discover()
    (target,) = replay.named([Wish(old)], finished.ledger, ["demo"])
    assert "not the item's current one" in target.refusal


def test_an_item_that_the_ledger_does_not_know_comes_from_the_catalog(archive):
    targets = replay.named([Wish(archive.items[0]), Wish("nobody")], archive.ledger, ["demo"])
    results = {t.item: t for t in again(archive, targets)}
    assert results[archive.items[0]].state is State.QUEUED
    assert "no such item" in results["nobody"].refusal
    archive.run()
    assert [(r.state, r.lane) for r in archive.ledger.conversions.find()] == [(State.DONE, "replay")]


def test_a_stored_event_is_posted_once_more_byte_for_byte(finished):
    row = finished.ledger.conversions.find(item_id=finished.items[0])[0]
    body = finished.ledger.conversions.events(row.key)[0]
    assert "not looked for" in replay.stored(body, finished.ledger).note
    assert replay.repost(body, finished.ledger, finished.plant, finished.clock()).answer is Answer.ACCEPTED
    assert finished.plant.posts[-1] == row.run
    assert finished.ledger.conversions.get(row.key) == row
    with pytest.raises(InputError, match="byte for byte"):
        replay.stored(body.replace(b'"groups": ""', b'"groups": "x"'), finished.ledger)
    with pytest.raises(InputError, match="no event"):
        replay.stored(body.replace(row.key.encode(), b"0" * 20).replace(row.key[:16].encode(), b"0" * 16), finished.ledger)


def test_a_waiting_event_that_a_person_posts_is_sent(archive):
    carry_out(archive, ask(archive))
    row = archive.ledger.conversions.find(item_id=archive.items[0])[0]
    replay.repost(archive.ledger.conversions.events(row.key)[0], archive.ledger, archive.plant, archive.clock())
    assert archive.ledger.conversions.get(row.key).state is State.SUBMITTED


@pytest.mark.parametrize("line", ['{"item": 3', '{"item": "x"}', "[]"])
def test_a_file_that_is_no_audit_names_the_line(tmp_path, line):
    path = tmp_path / "f"
    path.write_text(f"# comment\n\nid-1\n{line}\n")
    if line.startswith("{"):
        with pytest.raises(InputError, match="line 4"):
            replay.wishes(path)
    else:
        assert replay.wishes(path) == [Wish("id-1"), Wish("[]")]
    with pytest.raises(InputError, match="cannot read"):
        replay.wishes(tmp_path / "nowhere")


# -- audit ---------------------------------------------------------------------------------------------------------------


def test_an_audit_of_a_finished_range_finds_nothing(finished):
    found = finished.audit()
    assert (found.items, found.done, found.skipped, found.gaps) == (12, 12, 0, [])


def test_an_audit_names_every_kind_and_a_replay_of_its_file_closes_them(finished, tmp_path):
    world, items = finished, finished.items
    rows = {r.item_id: r for r in world.ledger.conversions.find()}
    del world.plant.outputs[rows[items[0]].output_zarr]
    world.plant.outputs[rows[items[1]].output_zarr] = Outcome(key="of another", revision="older")
    world.plant.outputs[rows[items[2]].output_zarr] = Outcome(key=rows[items[2]].key, code=65)
    world.publish(3, version=2, days=3, minutes_ago=0)
    new = world.publish(50, days=4, minutes_ago=0)
    world.store.delete("sentinel-2-l2a", items[4])
    bad = world.publish(51, days=5, minutes_ago=0)
    document = world.store.get("sentinel-2-l2a", bad)
    world.store.put(document | {"assets": {name: {**a, "href": "file:///etc/passwd"} for name, a in document["assets"].items()}})
    world.store.delete("sentinel-2-l2a", items[7])  # done: its output stays, and is no gap
    again(world, replay.named([Wish(items[4]), Wish(items[5]), Wish(items[6])], world.ledger, ["demo"]))
    fail(world, items[4], items[5])
    found = world.audit()
    assert found.retired == 1
    kinds, kind = {gap.item: gap.kind for gap in found.gaps}, audit.GapKind
    assert kinds == {
        items[0]: kind.LOST, items[1]: kind.STALE, items[2]: kind.UNVERIFIED, items[3]: kind.STALE, new: kind.MISSING,
        items[4]: kind.GONE, items[5]: kind.FAILED, items[6]: kind.UNFINISHED, bad: kind.UNREADABLE,
    }  # fmt: skip
    once = ("failed", "gone", "lost", "missing", "unfinished", "unreadable", "unverified")
    assert found.kinds == dict.fromkeys(once, 1) | {"stale": 2}
    assert audit.write(found, tmp_path / "gaps") == 6
    targets = replay.named(replay.wishes(tmp_path / "gaps"), world.ledger, ["demo"])
    assert [t.refusal for t in again(world, targets)] == [None] * 6
    world.run()
    after = world.audit()
    assert ({gap.kind for gap in after.gaps}, after.retired) == ({audit.GapKind.UNREADABLE}, 2), "both are done, and stay"


def test_what_a_deep_audit_found_is_named_and_a_replay_of_its_file_converts_it_again(finished, tmp_path):
    world, (bad, *_) = finished, finished.items
    (row,) = [r for r in world.ledger.conversions.find() if r.item_id == bad]
    flipped = Damage("1 are not what was written", ("b02/c/0/0: other bytes",), compared=True)
    evidence = replace(world.evidence, damage=lambda output, m: flipped if (output, m.attempt) == (row.output_zarr, 1) else WHOLE)
    expected = []
    found = audit.audit(world.intake, evidence, START - timedelta(days=10), world.clock(), expected.append)
    [gap] = found.gaps
    assert (gap.item, gap.kind, gap.objects, found.checked) == (bad, audit.GapKind.DAMAGED, flipped.objects, 11)
    assert len(expected) == 1
    assert audit.write(found, tmp_path / "gaps") == 1
    again(world, replay.named(replay.wishes(tmp_path / "gaps"), world.ledger, ["demo"]))
    assert json.loads(world.ledger.conversions.events(row.key)[-1])["data"]["options"]["overwrite"] == "true"
    world.run()
    assert audit.audit(world.intake, evidence, START - timedelta(days=10), world.clock()).gaps == []


def test_an_audit_that_is_ended_tells_its_readers(finished):
    told = []

    def stop(*_):
        raise KeyboardInterrupt

    evidence = replace(finished.evidence, damage=stop, give_up=lambda: told.append(True))
    with pytest.raises(KeyboardInterrupt):
        audit.audit(finished.intake, evidence, START - timedelta(days=10), finished.clock())
    assert told == [True]


def test_outputs_that_cannot_be_looked_at_are_not_lost(finished):
    world = finished

    def nowhere(output):
        raise Unavailable(f"cannot look into {output}", hint="credentials")

    found = audit.audit(world.intake, replace(world.evidence, find_marker=nowhere), START - timedelta(days=10), world.clock())
    assert (found.gaps, found.done, found.unseen) == ([], 12, 12)
    assert world.audit().unseen == 0


def test_two_runs_at_once_are_found(archive):
    carry_out(archive, ask(archive))
    archive.run(hours=0.01)
    row = archive.ledger.conversions.unfinished()[0]
    data = dict(archive.plant.events[row.run], attempt=2)
    archive.plant.begun["gz-double-2"], archive.plant.events["gz-double-2"] = archive.clock(), data
    doubled = [gap for gap in archive.audit().gaps if gap.kind is audit.GapKind.DOUBLED]
    assert [gap.item for gap in doubled] == [row.item_id]
    assert "gz-double-2" in doubled[0].why


# -- explain -------------------------------------------------------------------------------------------------------------


def explain(world, item):
    (chain,) = explaining.read(world.ledger, item, Limits(confirm_after="15m"), world.clock(), lambda _: None)
    return chain


def test_explain_says_what_comes_next_in_every_state(archive):
    item = archive.items[0]
    carry_out(archive, ask(archive))
    assert explain(archive, item).next.what.endswith("goes out when there is room")
    archive.ledger.orders.hold("demo", "1 of the first 2 failed")
    assert "is held: 1 of the first 2 failed" in explain(archive, item).next.what
    carry_out(archive, ask(archive))
    row = archive.ledger.conversions.find(item_id=item)[0]
    archive.ledger.conversions.move(row, Move(Fact.ACCEPTED, "accepted"), archive.clock())
    chain = explain(archive, item)
    assert chain.next.at == archive.clock() + timedelta(minutes=15)
    archive.ledger.conversions.move(archive.ledger.conversions.get(row.key), Move(Fact.RUN_SEEN, "seen"), archive.clock())
    archive.ledger.conversions.note_wait(archive.ledger.conversions.get(row.key), "convert waits: quota exceeded")
    assert explain(archive, item).next.what == "convert waits: quota exceeded"
    later = archive.clock() + timedelta(hours=1)
    archive.ledger.conversions.move(
        archive.ledger.conversions.get(row.key),
        Move(Fact.NOT_READY, "HTTP 404", due=later, reason="source not there yet"),
        archive.clock(),
    )
    chain = explain(archive, item)
    assert chain.next.at == later
    assert "source not there yet" in chain.next.what
    fail(archive, item)
    chain = explain(archive, item)
    assert f"stac-watch replay {item} --yes" in chain.next.what
    assert chain.item.item_id == item
    assert chain.rule == "new item in demo"
    assert [h.fact for h in chain.history] == ["admitted", "accepted", "run_seen", "not_ready", "failed_permanent"]
    assert [e["data"]["attempt"] for e in chain.events] == [1, 2]
