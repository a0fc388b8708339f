"""A failed run's reason in its Workflow's description: written once, taken back by a retry, and never in anybody's way."""

from collections import Counter
from datetime import timedelta

import pytest
from engine_contract import data_of, event_of
from fakes.eventsource import deliver
from fakes.kubernetes import NAMESPACE, WORKFLOWS, client
from fakes.workflows import ended, status, step

from stac_watch.model.errors import Exit
from stac_watch.runs.descriptions import ASK_AGAIN, AT_ONCE, DESCRIPTION, PAUSE
from stac_watch.runs.engine import Phase
from stac_watch.runs.kubernetes_api import Cluster

OWN = "new · live · attempt 1 · S2A_X to s3://b/o.zarr"


@pytest.fixture
def run(api):
    """One run, with the description that its template gave it: name and key."""
    return made(api)


def made(api, number=0):
    event = event_of(number)
    deliver(api, event)
    data = data_of(event)
    Cluster(client(api.url), NAMESPACE).patch(f"{WORKFLOWS}/{data['run']}", {"metadata": {"annotations": {DESCRIPTION: OWN}}})
    api.asked.clear()
    return data["run"], data["key"]


def shown(api, name):
    return api.workflows[name]["metadata"]["annotations"][DESCRIPTION]


def looked(engine, *keys):
    found = engine.runs(keys)
    engine.describe()
    return found


def patches(api):
    return Counter(asked.path.rpartition("/")[2] for asked in api.asked if asked.kind == "patch")


def test_it_begins_with_state_reason_and_next_step_and_is_written_once(engine, api, run):
    name, key = run
    api.put(name, key=key, status=ended(66, key, "the product is not there yet", hint="it is tried again", stage="preflight"))
    for _ in range(3):
        looked(engine, key)
    assert shown(api, name) == f"failed: preflight: the product is not there yet → it is tried again ·\n{OWN}"
    assert patches(api) == {name: 1}


def test_what_argo_alone_knows_is_said_too(engine, api, run):
    name, key = run
    api.put(name, key=key, status=status("Failed", step("volume", "Failed", message="exceeded quota: geozarr")))
    looked(engine, key)
    assert shown(api, name).startswith("failed: volume: exceeded quota: geozarr → see the namespace's quota")


def test_who_starts_anew_says_nothing_twice(argo, api, run):
    name, key = run
    api.put(name, key=key, status=ended(65, key, "no group 'r20m'"))
    looked(argo(), key)
    looked(argo(), key)
    assert patches(api) == {name: 1}


def test_a_run_that_is_retried_in_argo_has_its_own_words_back(engine, api, run):
    name, key = run
    api.put(name, key=key, status=ended(75, key, "a time-out"))
    looked(engine, key)
    api.put(name, key=key, status=status("Running", step("convert", "Running")))
    looked(engine, key)
    assert shown(api, name) == OWN


def test_runs_that_do_not_fail_are_left_alone(engine, api, run):
    name, key = run
    for after in (status("Running"), ended(0, key)):
        api.put(name, key=key, status=after)
        looked(engine, key)
    assert not patches(api)


def test_only_the_description_is_changed_and_nothing_that_changed_meanwhile(engine, api, run):
    name, key = run
    api.put(name, key=key, status=ended(65, key, "first"))
    engine.runs([key])
    api.put(name, key=key, status=ended(65, key, "second"))
    before = {part: api.workflows[name][part] for part in ("spec", "status")}
    engine.describe()
    assert shown(api, name) == OWN
    engine.describe()  # nobody asks for the run again: its conversion waits for the next attempt
    assert shown(api, name).startswith("failed: convert: second")
    assert {part: api.workflows[name][part] for part in ("spec", "status")} == before


def test_without_the_right_nothing_is_tried_and_it_is_asked_for_once_an_hour(engine, api, run, clock):
    name, key = run
    api.refused = {("patch", "workflows")}

    def reviews():
        return sum(asked.path.endswith("selfsubjectaccessreviews") for asked in api.asked)

    for reason in ("one", "two", "three"):
        api.put(name, key=key, status=ended(65, key, reason))
        assert [r.phase for r in looked(engine, key)] == [Phase.FAILED]
    assert (reviews(), patches(api)) == (1, {})
    api.refused = set()
    clock.forward(seconds=ASK_AGAIN.total_seconds() + 1)
    api.put(name, key=key, status=ended(65, key, "four"))
    looked(engine, key)
    assert shown(api, name).startswith("failed: convert: four")


@pytest.mark.parametrize("answer", [(403, "a policy of ours"), (422, "denied"), (503, "etcd"), (500, "a webhook")])
def test_an_api_that_refuses_it_is_nobody_s_trouble(engine, api, run, clock, answer):
    name, key = run
    api.answers = {"PATCH": answer}
    api.put(name, key=key, status=ended(65, key, "no group"))
    for _ in range(3):
        [found] = looked(engine, key)
        assert found.outcome.code == Exit.BAD_INPUT
    assert sum(patches(api).values()) <= 2
    if answer[0] >= 500:
        api.answers = {}
        clock.forward(seconds=PAUSE.total_seconds() + 1)
        looked(engine, key)
        assert shown(api, name).startswith("failed: convert: no group")


def test_what_strangers_wrote_stays_text(engine, api, run):
    name, key = run
    api.put(name, key=key, status=ended(65, key, "array '![x](https://e.example/p.png)'\n# <b>*not*</b> `good`"))
    looked(engine, key)
    first, _, own = shown(api, name).partition("\n")
    assert r"'!\[x\](https://e.example/p.png)'".replace("!", r"\!") in first
    assert r"# \<b\>\*not\*\</b\> \`good\`" in first
    assert own == OWN


def test_an_outage_that_fails_many_at_once_is_written_down_little_by_little(engine, api):
    runs = [made(api, number) for number in range(AT_ONCE + 3)]
    for name, key in runs:
        api.put(name, key=key, status=ended(75, key, "the store is away"))
    api.asked.clear()
    keys = [key for _, key in runs]
    looked(engine, *keys)
    assert sum(patches(api).values()) == AT_ONCE
    looked(engine, *keys)
    assert sum(patches(api).values()) == len(runs)
    assert all(shown(api, name).startswith("failed: ") for name, _ in runs)


def test_a_reason_without_end_is_cut(engine, api, run):
    name, key = run
    api.put(name, key=key, status=ended(65, key, "x" * 4000))
    looked(engine, key)
    assert len(shown(api, name)) < 700
    assert timedelta(0) < PAUSE < ASK_AGAIN
