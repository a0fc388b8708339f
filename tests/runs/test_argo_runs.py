"""What the Argo engine reads from Workflows, and what it makes of an API that does not answer."""

import pytest
from engine_contract import data_of, event_of
from fakes.eventsource import deliver
from fakes.workflows import ended, status, step

from stac_watch.model.errors import Refused, Temporary
from stac_watch.runs.argo import KEYS_PER_LIST
from stac_watch.runs.engine import Phase


def seen(engine, api, phase="", *nodes, message="", **spec):
    event = event_of()
    deliver(api, event)
    if phase:
        api.put(data_of(event)["run"], status=status(phase, *nodes, message=message), spec=spec)
    [run] = engine.runs([data_of(event)["key"]])
    return run


def test_many_keys_and_many_pages(engine, api):
    api.page = 7
    events = [event_of(n) for n in range(KEYS_PER_LIST + 20)]
    for event in events:
        deliver(api, event)
    keys = [data_of(e)["key"] for e in events]
    assert sorted(run.key for run in engine.runs(keys)) == sorted(keys)
    lists = [asked for asked in api.asked if asked.kind == "list"]
    assert len({asked.query["labelSelector"] for asked in lists}) == 2
    assert len(lists) == 29 + 3


def test_an_object_is_fetched_once_for_each_version(engine, api):
    event = event_of()
    deliver(api, event)
    key, name = data_of(event)["key"], data_of(event)["run"]

    def fetched():
        engine.runs([key])
        return len([asked for asked in api.asked if asked.path.endswith(name)])

    assert [fetched(), fetched()] == [1, 1]
    api.put(name, status=status("Running"))
    assert [fetched(), fetched()] == [2, 2]


def test_a_workflow_that_nobody_has_looked_at(engine, api):
    run = seen(engine, api)
    assert (run.phase, run.stage) == (Phase.PENDING, "waits for the Workflow controller")


def test_a_workflow_that_waits_for_a_lock_says_so(engine, api):
    run = seen(engine, api, "Pending", message="Waiting for geozarr/Mutex/s3://b/o.zarr lock. Lock status: 0/1")
    assert run.phase is Phase.PENDING
    assert "Lock status: 0/1" in run.stage


def test_a_pod_that_cannot_start_says_why(engine, api):
    message = "Unschedulable: 0/1 nodes are available: 1 Insufficient memory."
    run = seen(engine, api, "Running", step("preflight", "Succeeded"), step("convert", "Pending", message=message, startedAt="~"))
    assert (run.phase, run.stage) == (Phase.RUNNING, f"convert waits: {message}")


def test_progress_is_the_runners(engine, api):
    nodes = [
        step("preflight", "Succeeded", progress="1/1"),
        step("convert", "Running", progress="37/100", startedAt="2025-09-01T00:01:00Z"),
    ]
    run = seen(engine, api, "Running", *nodes)
    assert (run.stage, run.progress) == ("convert", (37, 100))


def test_success_without_an_outcome_is_no_success_with_a_key(engine, api):
    run = seen(engine, api, "Succeeded", step("convert", "Succeeded", outcome=""))
    assert (run.phase, run.outcome) == (Phase.SUCCEEDED, None)


TERMINATED = {"code": 143, "reason": "terminated"}
FAILURES = {
    "the runner's own words": (
        "Failed", [step("preflight", "Failed", exit_code="66", outcome={"code": 66, "reason": "not yet"})], {}, 66, "not yet",
    ),
    "out of memory": (
        "Failed", [step("convert", "Failed", exit_code="137", outcome="", message="OOMKilled (exit 137)")], {}, 137, "OOMKilled",
    ),
    "evicted": ("Error", [step("convert", "Error", message="pod deleted")], {}, 75, "pod deleted"),
    "quota": ("Failed", [step("volume", "Failed", exit_code="64", message="exceeded quota: q")], {}, 75, "exceeded quota"),
    "no template": ("Error", [], {"message": 'workflowtemplates "geozarr-convert" not found'}, 75, "not found"),
    "invalid": ("Failed", [], {"message": "invalid spec: spec.arguments.stac_url.value is required"}, 78, "invalid spec"),
    "stopped by a person": (
        "Failed", [step("convert", "Failed", exit_code="143", outcome=TERMINATED)], {"shutdown": "Terminate"}, 1, "person",
    ),
    "too slow": (
        "Failed", [step("convert", "Failed", exit_code="143", outcome=TERMINATED, message="Step exceeded its deadline")], {},
        75, "exceeded its deadline",
    ),
    "a word of the runner's that Argo uses, too": (
        "Failed",
        [step("convert", "Failed", exit_code="65", outcome={"code": 65, "reason": "bad"},
              message="Error (exit code 65): convert: array 'deadline' is no raster")],
        {}, 65, "bad",
    ),
    "no outcome, and words of the runner's": (
        "Failed", [step("convert", "Failed", exit_code="137", outcome="", message="Error (exit code 137): deadline")], {}, 137,
        "Error (exit code 137)",
    ),
    "done, but its pod was lost": (
        "Error", [step("convert", "Error", outcome={"code": 0, "reason": "done"}, message="node lost")], {}, 75, "node lost",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("phase", "nodes", "spec", "code", "words"), FAILURES.values(), ids=FAILURES)
def test_failures(engine, api, phase, nodes, spec, code, words):
    run = seen(engine, api, phase, *nodes, **spec)
    assert run.phase is Phase.FAILED
    assert run.outcome.code == code
    assert words in run.outcome.reason


def test_the_last_attempt_of_a_step_counts(engine, api):
    tries = [
        step("convert", "Failed", exit_code="75", outcome={"code": 75, "reason": "first"}, startedAt="2025-09-01T00:00:05Z"),
        step("convert", "Failed", exit_code="65", outcome={"code": 65, "reason": "second"}, startedAt="2025-09-01T00:01:05Z"),
    ]
    assert seen(engine, api, "Failed", *tries[::-1]).outcome.reason == "second"


def test_a_resubmitted_workflow_is_the_same_attempt(engine, api):
    """`argo resubmit` copies the labels: the better end counts."""
    event = event_of()
    deliver(api, event)
    data = data_of(event)
    api.put(data["run"], status=ended(65, data["key"]))
    api.put(f"{data['run']}-x7k2p", key=data["key"], status=ended(0, data["key"]))
    [run] = engine.runs([data["key"]])
    assert (run.name, run.phase, run.outcome.code) == (f"{data['run']}-x7k2p", Phase.SUCCEEDED, 0)


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, Temporary), (503, Temporary), (429, Temporary), (410, Temporary), (401, Refused), (403, Refused), (404, Refused)],
)
def test_answers_of_the_api(engine, api, status, error):
    api.refuse_all(status)
    with pytest.raises(error) as raised:
        engine.headroom()
    assert raised.value.hint
    with pytest.raises(error):
        engine.runs(["0" * 12])


def test_an_api_that_nobody_can_trust_is_refused(argo, api):
    """A server that does not speak TLS stands for every certificate that does not fit: asking again changes nothing."""
    with pytest.raises(Refused, match="no trust"):
        argo(host=api.url.replace("http://", "https://")).headroom()


def test_an_api_that_is_down_is_temporary(argo):
    with pytest.raises(Temporary, match="does not answer"):
        argo(host="http://127.0.0.1:9").runs(["0" * 12])


@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        (("get", "list", "watch"), []),
        (("get",), ["list workflows", "watch workflows"]),
        ((), ["get workflows", "list workflows", "watch workflows"]),
    ],
)
def test_rights_are_what_the_api_server_says(engine, api, rights, missing):
    api.refused = {(verb, "workflows") for verb in {"get", "list", "watch"} - {*rights}}
    assert engine.missing_rights() == missing
    api.refused = {("list", "persistentvolumeclaims")}
    assert engine.missing_rights() == ["list persistentvolumeclaims"]


@pytest.mark.parametrize(("status", "error"), [(403, Refused), (500, Temporary)])
def test_an_api_server_that_does_not_judge_is_not_taken_for_a_yes(engine, api, status, error):
    api.refuse_all(status)
    with pytest.raises(error):
        engine.missing_rights()
