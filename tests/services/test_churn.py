"""The acceptance test of discovery: a catalog that changes under the watcher's hands, on real pgstac.

Writers stamp an item and publish it some time later, in whole seconds or not, publish it again, change it without a word, date it
back, delete it. The watcher polls and sweeps meanwhile. Afterwards the final state of every item must be in the ledger, and no
event twice. Two pollers of the usual kinds watch the same churn, for comparison.
"""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import jsonschema
import pytest
import requests
import yaml
from awkward_proxy import Replica, awkward, beside
from churn import LOUD, POLL, WITH_BARE, Both, Ours, UsualPoller, Writers, churn, missed, restamp, there_before, watched
from flaky_proxy import NONSENSE, flaky

from stac_watch.demo.items import make_collection
from stac_watch.ledger.records import Rivals
from stac_watch.model.states import State

CLOUDEVENTS = yaml.safe_load("""
# CloudEvents 1.0.2, cloudevents/formats/cloudevents.json, the attributes that it defines
type: object
required: [id, source, specversion, type]
properties:
  id: {type: string, minLength: 1}
  source: {type: string, format: uri-reference, minLength: 1}
  specversion: {type: string, const: "1.0"}
  type: {type: string, minLength: 1}
  datacontenttype: {type: [string, "null"], minLength: 1}
  dataschema: {type: [string, "null"], format: uri, minLength: 1}
  subject: {type: [string, "null"], minLength: 1}
  time: {type: [string, "null"], format: date-time, minLength: 1}
  data: {type: [object, string, number, array, boolean, "null"]}
patternProperties: {"^[a-z0-9]{1,}$": {}}
additionalProperties: false
""")


FORMATS = jsonschema.FormatChecker(formats=["date-time", "uri", "uri-reference"])  # fails where one of them cannot be checked


def check(ours: Ours, writers: Writers, before: set[str]) -> None:
    final, state, events = writers.truth.final, ours.state(), ours.events()
    assert missed(final, state) == []
    gone = [item_id for item_id, href in final.items() if href is None and item_id in state]
    assert {state[item_id] for item_id in gone} <= {None}
    assert not before & state.keys()  # what was there before the source was watched is no news
    per_revision = Counter((e["subject"], e["data"]["revision"]) for e in events)
    # an item that was missing for two sweeps and returned, or returned to an earlier product, is asked for again, and says so
    assert [k for k, n in per_revision.items() if n > 1] == []
    assert len({(e["source"], e["id"]) for e in events}) == len(events)
    for event in events:
        jsonschema.validate(event, CLOUDEVENTS, format_checker=FORMATS)


def check_unreadable(ours: Ours, writers: Writers) -> None:
    """Nothing that is there is held for unreadable, once a sweep could read everything.

    One that was deleted while it could not be read is forgotten by the next sweep of everything, and not by one of recent days.
    """
    deleted = {item_id for item_id, href in writers.truth.final.items() if href is None}
    assert {item_id for _, item_id, _ in ours.ledger.absences.unreadable()} <= deleted


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_final_state_is_missed_and_nothing_is_announced_twice(pgstac, ledger, seed, capsys):
    ours, usual, writers, before = watched(pgstac, ledger, seed)
    living = [i for i, href in writers.truth.final.items() if href is not None]
    lines = [f"{len(missed(writers.truth.final, p.seen))} ({p.kind})" for p in usual]
    with capsys.disabled():
        print(
            f"\npgstac {pgstac.api.generation}, seed {seed}: of {len(living)} final states missed: "
            f"{len(missed(writers.truth.final, ours.state()))} (stac-watch), {', '.join(lines)}; {dict(writers.kinds)}"
        )
    check(ours, writers, before)
    check_unreadable(ours, writers)
    assert all(missed(writers.truth.final, p.seen) for p in usual), "the churn was too tame to tell pollers apart"


def test_behind_a_proxy_that_breaks_every_third_answer_the_result_is_the_same(pgstac, ledger, capsys):
    with churn(pgstac, 4) as (before, writers), flaky(pgstac.api.url) as proxy:
        ours = Ours(pgstac, ledger, api=proxy.url, timeout=(2, 2))
        with writers:
            while writers.alive():
                started = time.monotonic()
                ours.round()
                time.sleep(max(0.0, POLL - (time.monotonic() - started)))
        assert writers.errors == []
        ours.finish()
        check(ours, writers, before)
        delivered = Counter(proxy.delivered)
        proxy.calm.set()  # the last sweep may be the one that reads a spoilt item, which is then rightly listed as unreadable
        ours.finish()
    with capsys.disabled():
        print(f"\npgstac {pgstac.api.generation}: faults delivered {dict(delivered)}, rounds that failed {dict(ours.failed)}")
    assert set(delivered) == set(NONSENSE)
    check(ours, writers, before)
    check_unreadable(ours, writers)


def until(ours: Ours, holds) -> None:
    """Lets the watcher go on, each poll after the other, until something holds."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, dict(ours.failed)
        ours.round()


def test_of_items_without_stamps_signed_hrefs_re_stamps_and_a_probe_in_trouble_nothing_is_missed_doubled_or_invented(
    pgstac, ledger, capsys
):
    with awkward(pgstac.api.url, signs=True, refuses=9) as api, churn(pgstac, 5, kinds=WITH_BARE) as (before, writers):
        ours = Ours(pgstac, ledger, api=api.url)
        restamp(pgstac, only=("updated",))  # an archive that says itself that it was published before
        until(ours, lambda: "baseline" in ledger.sources.state("s2", ("baseline",)).positions)
        with writers:
            restamp(pgstac)
            while writers.alive():
                started = time.monotonic()
                ours.round()
                time.sleep(max(0.0, POLL - (time.monotonic() - started)))
        assert writers.errors == []
        restamp(pgstac)
        ours.finish()
    with capsys.disabled():
        print(f"\npgstac {pgstac.api.generation}: {dict(Counter(api.answers))}, {dict(writers.kinds)}, failed {dict(ours.failed)}")
    assert writers.kinds["bare"]
    assert api.answers.count("refused") == 9
    check(ours, writers, before)
    check_unreadable(ours, writers)


def test_where_one_of_two_replicas_lags_the_result_is_the_same(pgstac, ledger, capsys):
    late = beside(pgstac)
    pgstac.http.post(f"{pgstac.api.url}/collections", json=make_collection(late.collection), timeout=30)
    replica = Replica(late)
    with (
        awkward(pgstac.api.url, replica=late, of=pgstac.collection) as api,
        churn(pgstac, 6, kinds=LOUD, told=replica.follow) as (before, writers),
    ):
        for item in there_before(late):
            late.post(item)
        ours = Ours(pgstac, ledger, api=api.url)
        ours.round()
        with replica.running(), writers:
            while writers.alive():
                started = time.monotonic()
                ours.round()
                time.sleep(max(0.0, POLL - (time.monotonic() - started)))
        assert writers.errors == []
        api.calm.set()  # it has caught up
        ours.finish()
    with capsys.disabled():
        print(f"\npgstac {pgstac.api.generation}: {dict(Counter(api.answers))}, {dict(writers.kinds)}")
    check(ours, writers, before)


def test_two_collections_with_the_same_acquisitions_make_one_output_of_each(pgstac, ledger, capsys):
    """Zarr v2 and v3 of one scene have one id: two sources, two threads, one ledger, and the preferred one converts."""
    other = beside(pgstac)
    pgstac.http.post(f"{pgstac.api.url}/collections", json=make_collection(other.collection), timeout=30)
    with churn(Both(other, pgstac), 7) as (_, writers):
        new = Ours(other, ledger, name="v3", rivals=Rivals(behind=frozenset({"v2"})))
        old = Ours(pgstac, ledger, name="v2", rivals=Rivals(ahead=frozenset({"v3"})))
        for ours in (new, old):
            ours.round()
        with writers, ThreadPoolExecutor(2) as pool:
            while writers.alive():
                started = time.monotonic()
                list(pool.map(Ours.round, (new, old)))
                time.sleep(max(0.0, POLL - (time.monotonic() - started)))
        assert writers.errors == []
        for ours in (new, old, new, old):  # what one gave up the other takes, and gives back
            ours.finish()
    final = writers.truth.final
    states = Counter((row.source, row.reason or row.state.value) for row in ledger.conversions.find(limit=10_000))
    with capsys.disabled():
        print(f"\npgstac {pgstac.api.generation}: {dict(writers.kinds)}, {dict(states)}")
    assert missed(final, new.state()) == []
    asked = Counter(row.item_id for row in ledger.conversions.find(state=State.QUEUED, limit=10_000))
    assert asked.keys() == {item_id for item_id, href in final.items() if href is not None}
    assert set(asked.values()) == {1}
    assert states["v2", "other_source"] > 50


@pytest.mark.parametrize(
    "change", [{"id": ""}, {"source": "not a uri"}, {"specversion": "0.3"}, {"type": None}, {"time": "yesterday"},
               {"dataschema": "not a uri"}, {"Upper": 1}],
)  # fmt: skip
def test_the_schema_refuses_what_is_no_cloudevent(change):
    event = {"id": "1", "source": "https://x.example/a", "specversion": "1.0", "type": "t", "time": "2026-01-01T00:00:00Z"}
    jsonschema.validate(event, CLOUDEVENTS, format_checker=FORMATS)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(event | change, CLOUDEVENTS, format_checker=FORMATS)


def test_the_usual_pollers_do_reach_the_server(pgstac):
    pgstac.post(pgstac.item(1, datetime.now(UTC) + timedelta(seconds=5)))
    poller = UsualPoller(pgstac, "high-water mark")
    poller.poll()
    assert len(poller.seen) == 1
    assert requests.get(pgstac.url, timeout=5).ok
