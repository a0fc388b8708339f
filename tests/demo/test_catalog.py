"""The catalog answers like a STAC API: to pystac-client, to plain requests, and to whoever changes it meanwhile."""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from pystac_client import Client

from stac_watch.demo.catalog import COLLECTION, Server, Store, create_app, make_item
from stac_watch.demo.product import write_product
from stac_watch.model.errors import CannotWrite, InputError, Unavailable

from .conftest import PRODUCT, Api

BASELINE = {"op": ">=", "args": [{"property": "updated"}, "2025-11-03T00:00:00"]}


@pytest.fixture
def client(api: Api):
    api.store.put(api.item(0))
    opened = Client.open(api.url, timeout=5)
    yield opened
    opened._stac_io.session.close()


def ids(page: requests.Response) -> list[str]:
    assert page.status_code == 200, page.text
    return [feature["id"] for feature in page.json()["features"]]


def test_pystac_client_finds_its_way(api: Api, client: Client) -> None:
    expected = api.fill(25)
    assert [c.id for c in client.get_collections()] == [COLLECTION]
    assert client.get_collection(COLLECTION).get_item(expected[3]).assets["product"].href.endswith(f"{expected[3]}.zarr")
    for method in ("POST", "GET"):
        search = client.search(method=method, collections=[COLLECTION], sortby="+properties.updated,+id", limit=7)
        assert [item.id for item in search.items()] == expected
        with pytest.warns(UserWarning, match="numberMatched or context.matched not in response"):
            assert search.matched() is None


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_pystac_client_filters_by_stamp(api: Api, client: Client, method: str) -> None:
    expected = api.fill(10)
    between = {"op": "between", "args": [{"property": "updated"}, "2025-11-03T00:00:00", "2025-11-05T23:59:59"]}
    text = "updated between '2025-11-03T00:00:00' and '2025-11-05T23:59:59'"
    search = client.search(method=method, collections=[COLLECTION], filter=between if method == "POST" else text, sortby="+id")
    assert [item["id"] for item in search.items_as_dicts()] == expected[2:5]


def test_pages_hold_each_item_once_whatever_the_order(api: Api) -> None:
    expected = api.fill(23, updated="2025-11-20T00:00:00Z")  # all stamps equal
    api.store.put(api.item(99, properties={"updated": None}))
    everything = {*expected, api.item(99)["id"]}
    for field, direction in (
        ("updated", "asc"),
        ("updated", "desc"),
        ("eo:cloud_cover", "asc"),
        ("nowhere", "desc"),
        ("id", "desc"),
    ):
        walked = api.walk(sortby=[{"field": field, "direction": direction}], limit=5)
        assert len(walked) == 24
        assert set(walked) == everything
    assert api.walk(sortby=[{"field": "updated", "direction": "asc"}], limit=5)[-1] == api.item(99)["id"], "no stamp sorts last"


def test_get_pages_carry_every_parameter(api: Api) -> None:
    expected = api.fill(12)
    page = api.get(
        "/search",
        collections=COLLECTION,
        limit=5,
        sortby="-properties.updated,+id",
        fields="id,properties.updated",
        filter="updated >= '2025-11-03T00:00:00'",
    )
    seen = ids(page)
    while following := [link for link in page.json()["links"] if link["rel"] == "next"]:
        page = api.http.get(following[0]["href"], timeout=5)
        seen += ids(page)
        assert all(set(f) == {"id", "collection", "properties"} for f in page.json()["features"])
    assert seen == expected[:1:-1]


def test_a_page_boundary_that_moves_or_goes_loses_nothing(api: Api) -> None:
    expected = api.fill(20)
    body = {"sortby": [{"field": "updated", "direction": "asc"}], "limit": 8}
    page = api.post(**body).json()
    seen = [f["id"] for f in page["features"]]
    api.store.put(api.item(7, updated=datetime(2025, 12, 24, tzinfo=UTC)))
    api.store.delete(COLLECTION, expected[6])
    seen += api.walk(**body, **page["links"][-1]["body"])
    assert set(seen) == set(expected)


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("updated >= '2025-11-03T00:00:00'", 8),
        ("updated >= '2025-11-03T01:00:00Z' AND updated < '2025-11-04T01:00:00+00:00'", 1),
        ("updated > TIMESTAMP('2025-11-09T00:00:00Z')", 2),
        ("updated IS NULL", 0),
        ("NOT (updated >= '2025-11-03T00:00:00')", 2),
        ('"eo:cloud_cover" < 12', 0),
        ("properties.eo:cloud_cover BETWEEN 12 AND 13", 10),
        ("platform = 'sentinel-2a' AND platform <> 'x'", 10),
        ("platform IN ('sentinel-2b', 'sentinel-2a')", 10),
        ("id LIKE 'S2A%'", 10),
        ("id LIKE 's2a%'", 0),
        ("deprecated = FALSE", 10),
        ("collection = 'nowhere'", 0),
        ("nowhere > 3", 0),
        ("nowhere > 3 OR gsd = 10", 10),
        ("T_AFTER(datetime, TIMESTAMP('2025-11-08T12:00:00Z'))", 2),
        ("S_INTERSECTS(geometry, POINT(12.1 42.0))", 10),
        ("S_INTERSECTS(geometry, POINT(0 0))", 0),
        ("S_INTERSECTS(geometry, POINT(12.1 42.0)) AND updated < '2025-11-03T00:00:00'", 2),
        ("CASEI(platform) = CASEI('SENTINEL-2A')", 10),
    ],
)
def test_cql2(api: Api, expression: str, count: int) -> None:
    api.fill(10)
    assert len(ids(api.get("/search", filter=expression))) == count
    assert len(ids(api.post(filter=expression, **{"filter-lang": "cql2-text"}))) == count


def test_space_and_time(api: Api) -> None:
    rome = api.fill(3)
    vienna = api.item(5, tile="T33UUP")
    api.store.put(vienna)
    west, south, east, north = vienna["bbox"]
    assert ids(api.post(bbox=[west, south, east, north])) == [vienna["id"]]
    assert ids(api.post(bbox=[west, south, -100, east, north, 9000])) == [vienna["id"]]
    assert set(ids(api.post(bbox=[170, -10, 13.5, 60]))) == {*rome, vienna["id"]}, "a box across the antimeridian"
    assert ids(api.post(intersects=vienna["geometry"])) == [vienna["id"]]
    assert ids(api.get("/search", datetime="2025-11-02T00:00:00Z")) == [rome[1]]
    assert ids(api.get("/search", datetime="2025-11-03T00:00:00Z/..")) == [vienna["id"], rome[2]]
    assert ids(api.post(datetime="../2025-11-01T23:59:59Z")) == [rome[0]]
    assert ids(api.post(ids=[rome[2], "nowhere"])) == [rome[2]]
    assert ids(api.get(f"/collections/{COLLECTION}/items", bbox=f"{west},{south},{east},{north}")) == [vienna["id"]]


def test_times_are_compared_as_times(api: Api) -> None:
    stamps = [
        "2025-11-13T19:07:13Z",
        "2025-11-13T19:07:13.000001Z",
        "2025-11-13T21:07:13.5+02:00",
        "2025-11-13T19:07:13.9Z",
        "2025-11-13T19:07:14Z",
    ]
    expected = [api.item(n, updated=stamp) for n, stamp in enumerate(stamps)]
    api.store.put_many(expected)
    for bounds in (("2025-11-13T19:07:13Z", "2025-11-13T19:07:14Z"), ("2025-11-13T19:07:13", "2025-11-13T19:07:14")):
        window = {
            "op": "and",
            "args": [{"op": op, "args": [{"property": "updated"}, at]} for op, at in zip((">=", "<"), bounds, strict=True)],
        }
        assert sorted(ids(api.post(filter=window))) == [item["id"] for item in expected[:4]]
    assert api.walk(sortby=[{"field": "updated", "direction": "asc"}], limit=2) == [item["id"] for item in expected]


def test_fields(api: Api) -> None:
    api.store.put(api.item(0))
    feature = api.post(fields={"include": ["properties.updated", "properties.eo:cloud_cover", "assets.product.href"]}).json()[
        "features"
    ][0]
    assert set(feature) == {"id", "collection", "properties", "assets"}
    assert set(feature["properties"]) == {"updated", "eo:cloud_cover"}
    assert set(feature["assets"]) == {"product"}
    assert set(feature["assets"]["product"]) == {"href"}
    slim = api.get("/search", fields="-assets,-links,-properties.providers").json()["features"][0]
    assert not {"assets", "links"} & set(slim)
    assert "updated" in slim["properties"]
    assert "providers" not in slim["properties"]


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"limit": "0"}, "limit"), ({"limit": "many"}, "limit"), ({"bbox": "1,2,3"}, "bbox"), ({"bbox": "0,9,1,8"}, "bbox"),
        ({"datetime": "yesterday"}, "datetime"), ({"datetime": "2025-12-01/2025-11-01"}, "datetime"),
        ({"datetime": ".."}, "datetime"),
        ({"intersects": "{"}, "intersects"), ({"bbox": "0,0,1,1", "intersects": '{"type":"Point","coordinates":[0,0]}'}, "exclude"),
        ({"sortby": "a b"}, "sortby"), ({"filter": "updated >"}, "filter"), ({"filter": "foo(id) = 1"}, "foo"),
        ({"filter": "updated > 'soon'"}, "soon"), ({"filter": '"a""b" = 1'}, "name of a property"),
        ({"token": "nonsense"}, "token"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_400_and_named(api: Api, parameters: dict, named: str) -> None:
    api.fill(1)
    answer = api.get("/search", **parameters)
    assert answer.status_code == 400
    assert named in answer.json()["description"]


def test_large_limits_are_clipped_and_matches_are_not_counted(api: Api) -> None:
    api.fill(12)
    page = api.post(limit=50_000).json()
    assert page["numberReturned"] == 12
    assert "numberMatched" not in page
    assert api.post().json()["numberReturned"] == 10


def test_transactions(api: Api) -> None:
    api.store.put(api.item(0))
    items = f"/collections/{COLLECTION}/items"
    item = api.item(1) | {"links": [{"rel": "license", "href": "https://example.com"}]}
    created = api.http.post(api.url + items, json=item, timeout=5)
    assert (created.status_code, created.headers["location"]) == (201, f"{api.url}{items}/{item['id']}")
    assert {link["rel"] for link in api.get(f"{items}/{item['id']}").json()["links"]} == {
        "license",
        "self",
        "parent",
        "collection",
        "root",
    }
    assert api.http.post(api.url + items, json=item, timeout=5).status_code == 409
    assert (
        api.http.post(
            api.url + items, json={"type": "FeatureCollection", "features": [api.item(2), api.item(3)]}, timeout=5
        ).status_code
        == 201
    )
    changed = item | {"properties": item["properties"] | {"updated": "2026-01-01T00:00:00Z"}}
    assert api.http.put(f"{api.url}{items}/{item['id']}", json=changed, timeout=5).status_code == 200
    assert api.get(f"{items}/{item['id']}").json()["properties"]["updated"] == "2026-01-01T00:00:00Z"
    assert api.http.put(f"{api.url}{items}/{api.item(9)['id']}", json=api.item(9), timeout=5).status_code == 404
    assert api.http.delete(f"{api.url}{items}/{item['id']}", timeout=5).status_code == 204
    assert api.http.delete(f"{api.url}{items}/{item['id']}", timeout=5).status_code == 404
    assert api.get(f"{items}/{item['id']}").status_code == 404
    assert api.store.count(COLLECTION) == 3


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"type": "Feature"}',
        b'{"type": "FeatureCollection", "features": []}',
        b'{"type": "FeatureCollection", "features": [1]}',
    ],
)
def test_a_bad_item_is_400_and_changes_nothing(api: Api, body: bytes) -> None:
    api.fill(1)
    answer = api.http.post(f"{api.url}/collections/{COLLECTION}/items", data=body, timeout=5)
    assert (answer.status_code, api.store.count()) == (400, 1)


def test_an_id_or_collection_that_does_not_fit_is_400(api: Api) -> None:
    api.fill(1)
    for wrong in ({"id": "a/b"}, {"collection": "other"}, {"geometry": None}):
        answer = api.http.post(f"{api.url}/collections/{COLLECTION}/items", json=api.item(5) | wrong, timeout=5)
        assert answer.status_code == 400
    assert api.http.post(f"{api.url}/collections/nowhere/items", json=api.item(5), timeout=5).status_code == 404


def test_landing_collections_queryables_and_clock(api: Api) -> None:
    api.fill(1)
    root = api.get("/")
    assert root.headers["date"] == "Mon, 24 Nov 2025 12:00:00 GMT"
    assert {link["rel"] for link in root.json()["links"]} >= {"self", "root", "data", "conformance", "search", "child"}
    assert root.json()["conformsTo"] == api.get("/conformance").json()["conformsTo"]
    assert api.get("/_mgmt/ping").json() == {"message": "PONG"}
    assert api.get("/collections").json()["collections"][0]["id"] == COLLECTION
    for path in ("/queryables", f"/collections/{COLLECTION}/queryables"):
        assert api.get(path).json()["properties"]["updated"] == {"type": "string", "format": "date-time"}
    for path in ("/collections/nowhere", "/collections/nowhere/items", "/collections/nowhere/queryables", "/nowhere"):
        assert api.get(path).status_code == 404


def test_products_are_plain_files(api: Api, tmp_path: Path) -> None:
    product = write_product(tmp_path / "products", PRODUCT, size=72)
    href = f"/products/{PRODUCT}.zarr"
    got = api.get(f"{href}/measurements/reflectance/r10m/b02/0.0")
    assert got.content == (product / "measurements/reflectance/r10m/b02/0.0").read_bytes()
    assert (
        int(api.http.head(f"{api.url}{href}/.zmetadata", timeout=5).headers["content-length"])
        == (product / ".zmetadata").stat().st_size
    )
    for missing in (
        href,
        f"{href}/",
        f"{href}/measurements",
        f"{href}/measurements/reflectance/r10m/b02/9.9",
        "/products/",
        "/products/../catalog.db",
    ):
        assert api.get(missing).status_code == 404
    (tmp_path / "secret").write_text("x")
    assert api.get("/products/%2e%2e/secret").status_code == 404


def test_a_port_in_use_is_named_with_the_remedy(clock) -> None:
    with socket.socket() as taken, Store() as store:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=str(port)) as caught, Server(create_app(store, now=clock), port=port):
            pytest.fail("the server started on a port that is in use")
        assert "another port" in caught.value.hint


def test_a_server_leaves_its_port_and_can_start_again(clock) -> None:
    with Store() as store:
        with Server(create_app(store, now=clock)) as server:
            port = int(server.url.rsplit(":", 1)[1])
        with pytest.raises(requests.ConnectionError):
            requests.get(server.url, timeout=2)
        with Server(create_app(store, now=clock), port=port) as again:
            assert requests.get(f"{again.url}/_mgmt/ping", timeout=2).ok
        assert not [t for t in threading.enumerate() if t.name == "the demo catalog"]


def test_a_store_in_a_file_survives_and_serves_several_threads(tmp_path: Path, api: Api) -> None:
    path = tmp_path / "deep" / "catalog.db"
    with Store(path) as store:
        threads = [
            threading.Thread(target=lambda first: [store.put(api.item(n)) for n in range(first, 200, 4)], args=(i,))
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Store(path) as again:
        assert again.count(COLLECTION) == 200
        assert again.get(COLLECTION, api.item(7)["id"])["properties"]["platform"] == "sentinel-2a"


def test_a_file_that_cannot_hold_the_catalog_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotWrite, match="cannot keep the catalog"):
        Store(tmp_path / "file" / "catalog.db")


def test_items_are_of_the_real_shape(api: Api) -> None:
    item = api.item(0)
    assert item["assets"]["product"] == item["assets"]["product"] | {"roles": ["data", "metadata"], "type": "application/vnd.zarr"}
    assert item["assets"]["product_metadata"]["href"] == f"{item['assets']['product']['href']}/.zmetadata"
    assert {asset["type"] for asset in item["assets"].values()} == {
        "application/vnd.zarr",
        "application/vnd+zarr",
        "application/json",
    }
    assert item["properties"]["processing:version"] == "05.11"
    assert "eo:cloud_cover" not in api.item(0, cloud_cover=None)["properties"]
    with pytest.raises(InputError, match="not a Sentinel-2 product id"):
        make_item("x", catalog_url=api.url, product_href="", updated="")
    with pytest.raises(InputError, match="needs id and collection"):
        api.store.put({"id": "x"})
