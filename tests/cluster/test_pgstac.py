"""Hands off from a real catalog: pgstac of the generation that EOPF runs, on PostgreSQL with PostGIS, outside the cluster."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from outputs import check_on_volume
from stack import COLLECTION

from stac_watch.demo.items import make_collection, make_item

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "services"))
import pgstac_servers as servers
from postgres import Postgres

pytestmark = pytest.mark.cluster
GENERATION = "0.9.11"
GATEWAY = "10.244.0.1"  # this machine, as pods see it: the bridge of the pod network
ANYWHERE = "0.0.0.0"  # pods come through the bridge, the test through loopback


@pytest.fixture
def pgstac(stack, own_cluster):
    """A pgstac on this machine and a Service in the namespace that leads there; yields its URL for us and for pods."""
    try:
        servers.require_postgis()
    except servers.MissingServiceError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    database = Postgres()
    try:
        with servers.stac_api(database, GENERATION, listen=ANYWHERE) as api:
            port = urlsplit(api.url).port
            ports = [{"name": "http", "port": 80, "targetPort": port}]
            service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "pgstac"}, "spec": {"ports": ports}}
            slices = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "pgstac", "labels": {"kubernetes.io/service-name": "pgstac"}},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": port}],
                "endpoints": [{"addresses": [GATEWAY]}],
            }
            stack.do("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [service, slices]}))
            answer = requests.post(f"{api.url}/collections", json=make_collection(COLLECTION), timeout=30)
            assert answer.status_code == 201, answer.text
            stack.ports.add(port)  # NetworkPolicies see where a Service leads, not the port that it is asked at
            yield api.url, f"http://pgstac.{stack.namespace}.svc"
            stack.ports.remove(port)
    finally:
        database.close()


def test_items_of_a_real_catalog_become_verified_outputs(stack, pgstac, capsys):
    ours, theirs = pgstac
    demo, host = stack.config["sources"][0], urlsplit(stack.catalog).hostname
    second = {**demo, "name": "pgstac", "api": theirs, "allowed_hosts": [host]}
    try:
        stack.config["sources"] = [demo, second]
        stack.configure(recipe={"output": "/data/{catalog}/{collection}/{item_id}.zarr"})  # two catalogs share no path
        items = [stack.item_id(), stack.item_id()]
        for item_id in items:
            stack.ask_catalog("product", {"item_id": item_id})
            href = f"{stack.catalog}/products/v1/{item_id}.zarr"
            sensed = datetime.strptime(item_id.split("_")[2], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
            item = make_item(item_id, catalog_url=theirs, product_href=href, updated=datetime.now(UTC), datetime=sensed)
            answer = requests.post(f"{ours}/collections/{COLLECTION}/items", json=item, timeout=30)
            assert answer.status_code == 201, answer.text
        rows = stack.await_done(*items)
        stack.check(*items)
        assert {row["source"] for row in rows.values()} == {"pgstac"}
        [workflow] = stack.workflows_of(items[0])
        assert workflow["metadata"]["labels"]["stac-watch/source"] == "pgstac"
        assert check_on_volume(stack, workflow) == "equal to its source"
        with capsys.disabled():
            print(f"\npgstac {GENERATION}: {', '.join(stack.timing(item, stack.workflows_of(item)[0]) for item in items)}")
    finally:
        stack.config["sources"] = [demo]
        stack.configure(recipe={"output": "/data/{collection}/{item_id}.zarr"})
