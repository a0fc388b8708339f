"""An evil catalog does nothing on the cluster but a named skip, and the good item beside it is converted."""

import json

import pytest

pytestmark = pytest.mark.cluster


def test_evil_items_are_named_and_nothing_else_happens(stack):
    template = stack.ask_catalog("publish", {"item_id": stack.item_id(), "product": False, "visible_in": 86_400})
    host = f"catalog.{stack.namespace}.svc"
    evil_ids = ["$(touch /tmp/pwned)`id`;", "{{workflow.name}}", "../../etc/passwd", "S2A_" + "A" * 1_000_000, "x\ny"]
    evil_hrefs = [
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data/x.zarr",
        "http://127.0.0.1:8080/x.zarr",
        f"http://user:secret@{host}:8000/products/x.zarr",
        f"http://{host}.evil.example/x.zarr",
        "http://[fe80::1]/x.zarr",
        f"http://{host}:8000/products/{{{{workflow.name}}}}.zarr",
    ]
    by_href = {stack.item_id(): href for href in evil_hrefs}
    for item_id in evil_ids:
        stack.ask_catalog("item", {**template, "id": item_id})
    for item_id, href in by_href.items():
        assets = {name: {**asset, "href": href} for name, asset in template["assets"].items()}
        stack.ask_catalog("item", {**template, "id": item_id, "assets": assets})
    good = stack.publish()
    stack.await_done(good)
    stack.check(good)
    bad = json.loads(stack.poller("items", "--unreadable", "--json", "--limit=1000"))
    rows = stack.items()
    for item_id in by_href:
        why = [q["why"] for q in bad if q["item"] == item_id]
        assert why, rows.get(item_id, f"{item_id} ({by_href[item_id]}) left no trace")
        assert "secret" not in why[0]
    known = json.dumps(bad)
    for item_id in ("touch /tmp/pwned", "{{workflow.name}}", "../../etc/passwd", "x\\\\ny"):
        assert item_id in known, (item_id, known[:2000])
    assert max(len(q["item"]) for q in bad) < 1000, "a megabyte of id went into the ledger"
    made = {p["value"] for w in stack.workflows() for p in w["spec"]["arguments"]["parameters"] if p["name"] == "item_id"}
    assert not made & {*evil_ids, *by_href}
