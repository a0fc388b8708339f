"""A date range on the real cluster: its limit in flight holds, and a live item overtakes it."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from stack import parameters, slowly

pytestmark = pytest.mark.cluster
LIMIT = 2


@pytest.fixture
def limit(installed):
    usual = installed.config["engine"]["limits"]
    installed.configure(engine={"limits": {**usual, "max_in_flight": LIMIT}})
    yield
    installed.configure(engine={"limits": usual})


@pytest.mark.cluster_long
def test_a_backfill_keeps_its_limit_and_a_live_item_overtakes_it(stack, limit):
    first = datetime.now(UTC) - timedelta(days=400)  # older than the filter's max_age: discovery skips them, and says so
    old = [stack.publish(stack.item_id(age=timedelta(days=400))) for _ in range(4)]
    skipped = stack.await_state("skipped", *old)
    assert {row["reason"] for row in skipped.values()} == {"too_old"}
    days = f"--start={first:%Y-%m-%d}", f"--end={first:%Y-%m-%d}"
    plan = json.loads(stack.poller("backfill", "s2-l2a", *days, "--json"))
    assert plan["to_do"] == 4
    assert stack.workflows(lane="backfill") == []  # a plan changes nothing
    assert "4 admitted" in stack.poller("backfill", "s2-l2a", *days, "--yes")

    at_once = []
    slowly(lambda: len(stack.workflows(lane="backfill")) >= LIMIT, 60)
    live = stack.publish()

    def all_done():
        at_once.append(sum(w.get("status", {}).get("phase") not in ("Succeeded", "Failed", "Error") for w in stack.workflows()))
        rows = stack.items()
        return all(rows.get(i, {}).get("state") == "done" for i in (*old, live))

    slowly(all_done, 600)
    assert max(at_once) == LIMIT, at_once
    stack.check(*old, live)
    made = sorted(stack.workflows(), key=lambda w: (w["metadata"]["creationTimestamp"], w["metadata"]["name"]))
    order = [w["metadata"]["labels"]["stac-watch/lane"] for w in made if parameters(w)["item_id"] in {*old, live}]
    assert "backfill" in order[order.index("live") + 1 :], f"the live item waited for the whole archive: {order}"
    again = stack.poller("backfill", "s2-l2a", *days, "--yes")
    assert "0 admitted" in again
