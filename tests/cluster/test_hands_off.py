"""Items appear in a catalog and become verified outputs, hands off, on the real cluster."""

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
