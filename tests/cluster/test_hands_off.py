"""Items appear in a catalog and become verified outputs, hands off, on the real cluster."""

from contextlib import contextmanager

import faults
import pytest
from outputs import check_on_s3, check_on_volume
from stack import nodes

pytestmark = pytest.mark.cluster


def test_new_items_become_verified_outputs_on_volumes_of_their_own(stack, capsys):
    items = [stack.publish(size=360), stack.publish()]
    rows = stack.await_done(*items)
    stack.check(*items)
    for item in items:
        [workflow] = stack.workflows_of(item)
        assert set(nodes(workflow)) >= {"preflight", "volume", "convert"}
        claim = stack.kubectl.get("pvc", workflow["metadata"]["name"], "-n", stack.namespace)
        assert claim["metadata"]["ownerReferences"][0]["uid"] == workflow["metadata"]["uid"]
        assert check_on_volume(stack, workflow) == "equal to its source"
        with capsys.disabled():
            print(f"\n{item}: {stack.timing(item, workflow)}")
        assert rows[item]["attempt"] == 1


def test_outputs_on_s3_are_whole_when_they_are_visible(stack):
    try:
        stack.configure(recipe={"output": f"s3://{stack.bucket()}/{{collection}}/{{item_id}}.zarr"})
        item = stack.publish()
        row = stack.await_done(item)[item]
        stack.check(item)
        assert check_on_s3(stack, item, row["output"]) == "equal to its source"
    finally:
        stack.configure(recipe={"output": "/data/{collection}/{item_id}.zarr"})


@contextmanager
def working(stack, volume):
    """Runs work where the values say, and their outputs go to S3."""
    try:
        stack.values["runs"] = {"volume": volume, "scratch": "2Gi"}
        stack.configure(recipe={"output": f"s3://{stack.bucket()}/{{collection}}/{{item_id}}.zarr"})
        yield
    finally:
        stack.values.pop("runs")
        stack.configure(recipe={"output": "/data/{collection}/{item_id}.zarr"})


def pods_of(workflow):
    return [node for node in workflow.get("status", {}).get("nodes", {}).values() if node["type"] == "Pod"]


def has_begun(workflow):
    return any(node["phase"] == "Running" for node in pods_of(workflow))  # a pod that is only awaited would be made again


def claims(stack):
    return {claim["metadata"]["name"] for claim in stack.kubectl.get("pvc", "-n", stack.namespace)["items"]}


def test_without_a_volume_a_run_is_one_pod_and_a_killed_one_begins_anew(stack, capsys):
    with working(stack, "scratch"):
        item, killed = stack.publish(), stack.publish()
        faults.kill_pod(stack, faults.working_pod(stack.await_workflow(killed, has_begun)))
        rows = stack.await_done(item, killed)
        stack.check(item, killed)
        for each in (item, killed):
            [workflow] = stack.workflows_of(each)
            tried = [node["templateName"] for node in pods_of(workflow)]
            assert set(tried) == {"convert-on-scratch"}
            assert each == killed or len(tried) == 1
            assert workflow["metadata"]["name"] not in claims(stack)
            assert check_on_s3(stack, each, rows[each]["output"]) == "equal to its source"
        with capsys.disabled():
            print(f"\n{item}: {stack.timing(item, stack.workflows_of(item)[0])}; the killed one in {len(tried)} pods")


def test_the_outputs_place_decides_where_a_run_works_when_the_values_leave_it_to_that(stack):
    with working(stack, "auto"):
        remote = stack.publish()
        stack.await_done(remote)
        stack.configure(recipe={"output": "/data/{collection}/{item_id}.zarr"})
        local = stack.publish()
        stack.await_done(local)
        stack.check(remote, local)
        ran = {
            each: {node["templateName"] for node in pods_of(workflow)}
            for each in (remote, local)
            for workflow in stack.workflows_of(each)
        }
        assert ran == {remote: {"convert-on-scratch"}, local: {"preflight", "volume", "convert"}}
        [workflow] = stack.workflows_of(local)
        assert check_on_volume(stack, workflow) == "equal to its source"
