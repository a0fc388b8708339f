"""What discovery makes of a product's form: the event says it, and one that is not taken is skipped by that name, at once."""

import json

import pytest

V3 = "application/vnd.zarr; version=3"


def assets(url: str, kind: str, **product: object) -> dict:
    return {"product": {"href": url, "type": kind, "roles": ["data", "metadata"], **product}}


def put(world, number: int, make, **properties: object) -> str:
    document = world.item(number)
    document["assets"] = make(document["assets"]["product"]["href"])
    document["properties"] |= properties
    world.store.put_many([document])
    return document["id"]


@pytest.mark.parametrize(
    ("make", "properties", "form"),
    [
        (lambda url: assets(url, V3, **{"zarr:consolidated": True}), {"processing:software": {"EOPF_CPM": "3.0.0"}}, "geozarr-v3"),
        (lambda url: assets(url, V3), {}, "eopf-v3"),
        (lambda url: assets(url, "application/vnd+zarr"), {"processing:software": {"EOPF-CPM": "2.7.0"}}, "eopf-v2"),
    ],
)
def test_the_event_says_the_form(world, make, properties, form):
    world.fill(1)
    item_id = put(world, 5, make, **properties)
    world.poll()
    key = next(row.key for row in world.ledger.conversions.find() if row.item_id == item_id)
    data = json.loads(world.ledger.conversions.events(key)[0])["data"]
    assert (data["form"], data["options"]["native"]) == (form, "mirror")


@pytest.mark.parametrize(
    ("make", "properties"),
    [
        (lambda url: assets(url, "application/vnd.zarr; version=4"), {}),
        (lambda url: assets(url, V3), {"product:type": "S01SIWSLC"}),
        (lambda url: {"zipped_product": {"href": f"{url}.zip", "type": "application/zip"}}, {}),
    ],
)
def test_a_form_that_is_not_taken_is_skipped_by_name(world, make, properties):
    world.fill(1)
    item_id = put(world, 5, make, **properties)
    world.poll()
    assert world.states()[item_id] == "form_not_taken"
