"""What can happen to a single item, by its publisher or by a person, every way at the same time: each has an item of its own.

The scenarios run together, as items do in an installation, and each is a test that says how its own ended. One after the other
they took nine minutes of waiting for pods.
"""

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.places import Binaries
from outputs import check_on_volume
from stack import Stack, outcome, parameters, running, slowly

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class World:
    """What a scenario has."""

    stack: Stack
    argo: Callable[..., None]
    folder: Path


def a_product_comes_later_than_its_item(world):
    stack = world.stack
    item = stack.publish(product=False)
    row = stack.await_row(item, lambda row: "not there yet" in (row["reason"] or ""))
    assert row["state"] == "queued"
    stack.ask_catalog("product", {"item_id": item})
    assert stack.await_done(item)[item]["attempt"] >= 2
    stack.check(item)


def a_product_can_never_be_converted_and_is_dead_after_one_attempt_that_says_why(world):
    stack = world.stack
    item = stack.publish(broken=True)
    row = stack.await_state("failed", item)[item]
    assert row["attempt"] == 1
    assert "b02" in row["reason"]
    [workflow] = stack.workflows_of(item)
    assert outcome(workflow) == {}
    stack.ask_catalog("product", {"item_id": item})
    assert "1 queued" in stack.poller("replay", item, "--yes")
    assert stack.await_done(item)[item]["attempt"] == 2
    stack.check(item)


def its_workflow_is_deleted_by_hand_and_made_again(world):
    stack = world.stack
    item = stack.publish()
    workflow = stack.await_workflow(item, running("preflight"))
    stack.await_row(item, lambda row: row["state"] == "running")
    stack.do("delete", "workflow", workflow["metadata"]["name"])
    assert stack.await_done(item)[item]["attempt"] == 2
    stack.check(item)


def its_event_is_posted_twenty_times_at_once_and_is_one_workflow(world):
    stack = world.stack
    item = stack.publish(visible_in=5)
    stack.await_row(item, bool)
    event = stack.poller("event", item).encode()

    def post(_):
        headers = {"Content-Type": "application/cloudevents+json", "Authorization": f"Bearer {stack.token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/items", event, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status

    with stack.forward(stack.namespace, "svc/stac-eventsource-svc", 12000) as port, ThreadPoolExecutor(20) as pool:
        assert set(pool.map(post, range(20))) == {200}
    stack.await_done(item)
    again = stack.publish()  # behind the twenty in the same bus: when it is done, they have been through
    stack.await_done(again)
    assert len(stack.workflows_of(item)) == 1
    stack.check(item, again)


def it_is_stamped_again_and_not_converted_then_it_is_new_and_is(world):
    stack = world.stack
    item = stack.publish()
    stack.await_done(item)
    stack.publish(item, product=False)  # the same href, another stamp
    other = stack.publish()  # published later, so the re-stamp was seen when this one is known
    stack.await_row(other, bool)
    first = stack.items()[item]["key"]
    stack.publish(item, revision=2)
    stack.await_row(item, lambda row: row["key"] != first and row["state"] == "done")
    runs = stack.workflows_of(item)
    assert len(runs) == 2
    assert {parameters(w)["reason"] for w in runs} == {"new", "updated"}
    stack.await_done(other)


def it_is_replayed_by_its_id_and_really_converted_again(world):
    stack = world.stack
    item = stack.publish()
    stack.await_done(item)
    assert "1 would be queued" in stack.poller("replay", item)
    assert len(stack.workflows_of(item)) == 1  # without --yes nothing happens
    assert "1 queued" in stack.poller("replay", item, "--yes")
    row = stack.await_row(item, lambda row: row["state"] == "done" and row["attempt"] == 2)
    second = next(w for w in stack.workflows_of(item) if w["metadata"]["name"] == row["run"])
    assert outcome(second)["reason"] == "done"
    assert check_on_volume(stack, second) == "equal to its source"


def its_stored_event_is_posted_again_with_curl(world):
    stack = world.stack
    item = stack.publish()
    stack.await_done(item)
    event = world.folder / "event.json"
    event.write_bytes(stack.poller("event", item).encode())
    headers = world.folder / "headers"  # not in the argument list, where every user of the machine could read the token
    headers.write_text(f"Content-Type: application/cloudevents+json\nAuthorization: Bearer {stack.token}\n")
    with stack.forward(stack.namespace, "svc/stac-eventsource-svc", 12000) as port:
        curl = ["curl", "--fail", "--silent", "--noproxy", "*", "--header", f"@{headers}", "--data-binary", f"@{event}"]

        def post():
            return subprocess.run([*curl, f"http://127.0.0.1:{port}/items"], check=True, capture_output=True, text=True)

        def leave_out_options():
            document = json.loads(event.read_text())
            del document["data"]["options"]
            event.write_text(json.dumps(document))

        assert "success" in post().stdout
        later = stack.publish()
        stack.await_done(later)  # it went through the same bus, behind that event
        assert len(stack.workflows_of(item)) == 1, "the same event is the same Workflow"
        [workflow] = stack.workflows_of(item)
        stack.do("delete", "workflow", workflow["metadata"]["name"])
        slowly(lambda: not stack.workflows_of(item), 60)
        leave_out_options()  # as in an event that a person writes: the Sensor knows the template's
        post()  # and without the Workflow, it is made again, under the same name
    again = stack.await_workflow(item, lambda w: w.get("status", {}).get("phase") == "Succeeded")
    assert again["metadata"]["name"] == workflow["metadata"]["name"]
    stack.check(item, later)


def its_failed_run_is_retried_with_argo(world):
    stack = world.stack
    item = stack.publish(broken=True)
    stack.await_state("failed", item)
    [failed] = stack.workflows_of(item)
    stack.ask_catalog("product", {"item_id": item})  # the publisher repairs it
    world.argo("retry", failed["metadata"]["name"])
    row = stack.await_done(item)[item]
    assert row["attempt"] == 1
    assert row["run"] == failed["metadata"]["name"]
    stack.check(item)


def its_run_is_submitted_again_with_argo(world):
    stack = world.stack
    item = stack.publish()
    stack.await_done(item)
    [first] = stack.workflows_of(item)
    world.argo("resubmit", first["metadata"]["name"])
    slowly(lambda: len(stack.workflows_of(item)) == 2, 60)
    slowly(lambda: all(w.get("status", {}).get("phase") == "Succeeded" for w in stack.workflows_of(item)), 300)
    assert stack.items()[item]["state"] == "done"


SCENARIOS = (
    a_product_comes_later_than_its_item,
    a_product_can_never_be_converted_and_is_dead_after_one_attempt_that_says_why,
    its_workflow_is_deleted_by_hand_and_made_again,
    its_event_is_posted_twenty_times_at_once_and_is_one_workflow,
    it_is_stamped_again_and_not_converted_then_it_is_new_and_is,
    it_is_replayed_by_its_id_and_really_converted_again,
    its_stored_event_is_posted_again_with_curl,
    its_failed_run_is_retried_with_argo,
    its_run_is_submitted_again_with_argo,
)


@pytest.fixture(scope="module")
def ended(installed, places, recipe, tmp_path_factory, request) -> dict[str, Future]:
    """Runs those scenarios that are asked for, together; how each ended, by its name."""

    def argo(*arguments):
        env = {**os.environ, "KUBECONFIG": str(installed.kubectl.kubeconfig)}
        argv = [Binaries(places, recipe)("argo"), "-n", installed.namespace, *arguments]
        subprocess.run(argv, env=env, check=True, capture_output=True, text=True)

    chosen = {i.callspec.params["scenario"] for i in request.session.items if i.path == request.path and hasattr(i, "callspec")}
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        futures = {
            scenario.__name__: pool.submit(scenario, World(installed, argo, tmp_path_factory.mktemp(scenario.__name__[:30])))
            for scenario in SCENARIOS
            if scenario in chosen
        }
        wait(futures.values())
    return futures


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_whatever_happens_to_an_item(stack, ended, scenario):
    ended[scenario.__name__].result()


def test_and_the_audit_finds_no_gap_afterwards(stack, ended):
    stack.audit()
