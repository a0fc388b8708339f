"""The same item again, by every way that a person has: the ledger and the outputs stay right."""

import json
import os
import subprocess

import pytest
from harness.places import Binaries
from outputs import check_on_volume
from stack import outcome, slowly

pytestmark = pytest.mark.cluster


def test_a_done_item_is_replayed_by_its_id_and_really_converted_again(stack):
    item = stack.publish()
    stack.await_done(item)
    assert "1 would be queued" in stack.poller("replay", item)
    assert len(stack.workflows_of(item)) == 1  # without --yes nothing happens
    assert "1 queued" in stack.poller("replay", item, "--yes")
    row = stack.await_row(item, lambda row: row["state"] == "done" and row["attempt"] == 2)
    second = next(w for w in stack.workflows_of(item) if w["metadata"]["name"] == row["run"])
    assert outcome(second)["reason"] == "done"
    assert check_on_volume(stack, second) == "equal to its source"


@pytest.mark.cluster_long
def test_a_stored_event_is_posted_again_with_curl(stack, tmp_path):
    item = stack.publish()
    stack.await_done(item)
    event = tmp_path / "event.json"
    event.write_bytes(stack.poller("event", item).encode())
    headers = tmp_path / "headers"  # not in the argument list, where every user of the machine could read the token
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
        slowly(lambda: not stack.workflows_of(item), 30)
        leave_out_options()  # as in an event that a person writes: the Sensor knows the template's
        post()  # and without the Workflow, it is made again, under the same name
    again = stack.await_workflow(item, lambda w: w.get("status", {}).get("phase") == "Succeeded", seconds=180)
    assert again["metadata"]["name"] == workflow["metadata"]["name"]
    stack.check(item, later)


@pytest.mark.cluster_long
def test_argo_resubmit_and_argo_retry_leave_the_ledger_right(stack, argo):
    item = stack.publish(broken=True)
    stack.await_state("dead", item)
    [failed] = stack.workflows_of(item)
    stack.ask_catalogue("product", {"item_id": item})  # the publisher repairs it
    argo("retry", failed["metadata"]["name"])
    row = stack.await_done(item)[item]
    assert row["attempt"] == 1
    assert row["run"] == failed["metadata"]["name"]
    stack.check(item)

    other = stack.publish()
    stack.await_done(other)
    [first] = stack.workflows_of(other)
    argo("resubmit", first["metadata"]["name"])
    slowly(lambda: len(stack.workflows_of(other)) == 2, 30)
    slowly(lambda: all(w.get("status", {}).get("phase") == "Succeeded" for w in stack.workflows_of(other)), 180)
    assert stack.items()[other]["state"] == "done"
    stack.audit()


@pytest.fixture
def argo(stack, places, recipe):
    """Argo's own command line, on the namespace."""
    binary = Binaries(places, recipe)("argo")

    def run(*arguments):
        env = {**os.environ, "KUBECONFIG": str(stack.kubectl.kubeconfig)}
        return subprocess.run(
            [binary, "-n", stack.namespace, *arguments], env=env, check=True, capture_output=True, text=True
        ).stdout

    return run
