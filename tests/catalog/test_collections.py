"""A collection may be called nearly anything: it is asked for, and what is made of it has a place and a name."""

import json
from urllib.parse import unquote

import pytest
from fakes.gateway import Answer

from stac_watch.catalog.client import Catalog
from stac_watch.config.model import Recipe, Source
from stac_watch.demo.catalog import make_collection
from stac_watch.discover.intake import Intake
from stac_watch.discover.poll import poll
from stac_watch.discover.sweep import sweep

NAMES = ["urn:eop:VITO:S2_L2A", "sentinel 2/l2a", "Höhenmodell & Wald (50 %)", "a+b?c#d", "s2..l2a", "L" * 200, "_s2", "s2,l2a"]


def intake_of(world, name: str) -> Intake:
    given = {"name": "s2", "api": world.url, "collection": name, "poll": {"since": "30d", "sweep_all": "off"}}
    catalog = Catalog(world.catalog()._http, name)
    recipe = Recipe(output="out/{collection}/{item_id}.zarr")
    return Intake(Source.model_validate(given), recipe, catalog, world.ledger, world.clock)


@pytest.mark.parametrize("name", NAMES)
def test_a_collection_is_watched_whatever_its_id(world, gateway, name):
    # its router takes no slash within a part of a path
    gateway.before = lambda asked: Answer(200, make_collection(name)) if asked.path == f"/collections/{name}" else None
    world.store.put_collection(make_collection(name))
    world.store.put_many([world.item(n, collection=name) for n in range(3)])
    intake = intake_of(world, name)
    assert poll(intake).admitted == 3
    world.clock.forward(hours=7)
    sweep(intake)
    row = world.ledger.conversions.find()[0]
    event = json.loads(world.ledger.conversions.events(row.key)[0])
    assert unquote(event["source"]) == f"{world.url}/collections/{name}"
    assert event["data"]["collection"] == name
    assert not set(event["source"] + event["data"]["item_href"]) & set(" ?#<>")
    folder = event["data"]["output_zarr"].split("/")
    assert len(folder) == 3, "the collection is one folder"
    assert ".." not in folder[1]
