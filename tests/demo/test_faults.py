"""Each fault is off by default, happens exactly when asked for, and looks to a client as it does with real servers."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
import requests
from pystac_client import Client

from stac_watch.demo.catalog import COLLECTION, Faults, Server, Store, create_app

from .conftest import Api

ASCENDING = [{"field": "updated", "direction": "asc"}]


def window(start: str, end: str) -> dict:
    return {"op": "and", "args": [{"op": op, "args": [{"property": "updated"}, at]} for op, at in ((">=", start), ("<", end))]}


@pytest.mark.parametrize("status", ["500", "502", "503", "429"])
def test_statuses_for_the_next_requests(api: Api, status: str) -> None:
    api.fill(3)
    api.faults.set(wire=(status, status))  # type: ignore[arg-type]
    answers = [api.post() for _ in range(3)]
    assert [a.status_code for a in answers] == [int(status), int(status), 200]
    assert answers[0].headers.get("retry-after") == ("1" if status in ("429", "503") else None)
    assert api.faults.delivered == [status, status]
    assert api.get("/").status_code == 200, "only /search is asked to fail"


def test_faults_reach_other_paths_when_told(api: Api) -> None:
    api.faults.set(wire=("503",), wire_paths=("/products",), retry_after=None)
    assert api.post().status_code == 200
    answer = api.get("/products/x.zarr/.zmetadata")
    assert (answer.status_code, answer.headers.get("retry-after")) == (503, None)


def test_reset(api: Api) -> None:
    api.fill(1)
    api.faults.set(wire=("reset",))
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        api.post()
    assert api.post().status_code == 200


def test_hang(api: Api) -> None:
    api.fill(1)
    api.faults.set(wire=("hang",), hang=20)
    with pytest.raises(requests.ReadTimeout):
        api.post(timeout=0.2)
    assert api.post().status_code == 200


def test_a_hanging_answer_does_not_hold_the_server(api: Api) -> None:
    api.faults.set(wire=("hang",), hang=0.1)
    with pytest.raises(requests.ConnectionError):
        api.post()


def test_truncated_body(api: Api) -> None:
    api.fill(3)
    api.faults.set(wire=("truncate",))
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)):
        api.post()
    assert len(api.post().json()["features"]) == 3


def test_invalid_utf8(api: Api) -> None:
    api.fill(3)
    api.faults.set(wire=("bad_utf8",))
    answer = api.post()
    assert answer.status_code == 200
    with pytest.raises(UnicodeDecodeError):
        answer.content.decode()


def test_html_with_200(api: Api) -> None:
    api.faults.set(wire=("html",))
    answer = api.post()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()


@pytest.mark.parametrize("at", [0, 1])
def test_empty_page_with_next_loses_nothing_for_who_goes_on(api: Api, at: int) -> None:
    expected = api.fill(9)
    body = {"sortby": ASCENDING, "limit": 4}
    seen, page = [], None
    for number in range(4):
        if number == at:
            api.faults.set(wire=("empty_page",))
        page = api.post(**body).json()
        assert (page["features"] == []) is (number == at)
        seen += [f["id"] for f in page["features"]]
        following = [link for link in page["links"] if link["rel"] == "next"]
        assert bool(following) is (number < 3)
        body |= following[0]["body"] if following else {}
    assert seen == expected


def test_empty_page_ends_pystac_client_early(api: Api) -> None:
    api.fill(9)
    client = Client.open(api.url, timeout=5)
    pages = client.search(collections=[COLLECTION], limit=4).pages_as_dicts()
    first = next(pages)
    api.faults.set(wire=("empty_page",))
    assert sum(len(page["features"]) for page in pages) + len(first["features"]) < 9
    client._stac_io.session.close()


def test_text_mode_orders_and_compares_strings(api: Api) -> None:
    stamps = ["2025-11-13T19:07:13Z", "2025-11-13T19:07:13.000001Z", "2025-11-13T21:07:13.5+02:00", "2025-11-13T19:07:13.9Z"]
    api.store.put_many([api.item(n, updated=stamp) for n, stamp in enumerate(stamps)])
    whole = window("2025-11-13T19:07:13Z", "2025-11-13T19:07:14Z")
    assert api.post(filter=whole).json()["numberReturned"] == 4
    api.faults.set(text_updated=True)
    found = api.post(filter=whole).json()["features"]
    assert [f["id"] for f in found] == [api.item(0)["id"]], "one of four: `.` sorts before `Z`, and the offset is not seen"
    assert api.post(filter=window("2025-11-13T19:07:13", "2025-11-13T19:07:14")).json()["numberReturned"] == 3
    assert "updated" not in api.get("/queryables").json()["properties"]
    assert api.walk(sortby=ASCENDING)[0] == api.item(1)["id"]


def test_text_mode_fails_on_timestamp_literals_and_looks_at_datetime_in_temporal_operators(api: Api) -> None:
    api.fill(3)
    literal = {"timestamp": "2025-11-01T00:00:00Z"}
    compare = {"op": ">=", "args": [{"property": "updated"}, literal]}
    during = {
        "op": "t_after",
        "args": [{"property": "updated"}, {"timestamp": "2025-11-03T00:30:00Z"}],
    }  # stamped after, sensed before
    assert [api.post(filter=f).json()["numberReturned"] for f in (compare, during)] == [3, 1]
    api.faults.set(text_updated=True)
    assert api.post(filter=compare).status_code == 500
    assert api.post(filter=during).json()["numberReturned"] == 0
    assert api.post(filter={"op": ">=", "args": [{"property": "datetime"}, literal]}).json()["numberReturned"] == 3


def test_id_tokens_lose_the_rest_when_the_boundary_is_republished(api: Api) -> None:
    expected = api.fill(20)
    api.faults.set(id_tokens=True)
    body = {"sortby": [*ASCENDING, {"field": "id", "direction": "asc"}], "limit": 8}
    page = api.post(**body).json()
    link = page["links"][-1]
    assert link["body"]["token"] == f"next:{COLLECTION}:{expected[7]}"
    assert len(api.walk(**body)) == 20, "nothing is lost while nothing changes"
    api.store.put(api.item(7, updated=datetime(2025, 12, 24, tzinfo=UTC)))
    assert api.walk(**body, **link["body"]) == []
    api.store.delete(COLLECTION, expected[7])
    gone = api.post(**body, **link["body"])
    assert (gone.status_code, "Could not find item using token" in gone.json()["description"]) == (500, True)


def test_id_tokens_lose_ties(api: Api) -> None:
    api.fill(38, updated="2025-11-20T00:00:00Z")
    api.faults.set(id_tokens=True)
    assert len(set(api.walk(sortby=ASCENDING, limit=5))) < 38
    assert len(set(api.walk(sortby=[*ASCENDING, {"field": "id", "direction": "asc"}], limit=5))) == 38


def test_redirected_next_turns_post_into_a_bare_get(api: Api) -> None:
    api.fill(12)
    api.store.put_many([api.item(n) | {"collection": "other", "id": f"other-{n}"} for n in range(50, 53)])
    api.faults.set(redirect_next=True)
    page = api.post(collections=[COLLECTION], limit=5).json()
    link = page["links"][-1]
    assert api.http.post(link["href"], json={}, allow_redirects=False, timeout=5).status_code == 301
    followed = api.http.post(link["href"], json={"collections": [COLLECTION], "limit": 5, **link["body"]}, timeout=5).json()
    assert {f["collection"] for f in followed["features"]} == {COLLECTION, "other"}, "the body is gone, and nobody says so"
    got = api.get("/search", collections=COLLECTION, limit=5).json()["links"][-1]
    assert {f["collection"] for f in api.http.get(got["href"], timeout=5).json()["features"]} == {COLLECTION}


def test_hrefless_assets_and_missing_properties(api: Api) -> None:
    first, second = api.fill(2)
    api.faults.set(hrefless=(first,), no_properties=(second,))
    found = {f["id"]: f for f in api.post().json()["features"]}
    assert [key for key, asset in found[first]["assets"].items() if "href" not in asset] == ["thumbnail"]
    assert "properties" not in found[second]
    assert "properties" not in api.post(ids=[second], fields={"include": ["id", "properties.updated"]}).json()["features"][0]
    api.faults.set(hrefless=("*",), no_properties=())
    assert all("thumbnail" in f["assets"] for f in api.post().json()["features"])


def test_poison_item_spoils_each_page_that_holds_it(api: Api) -> None:
    expected = api.fill(6)
    api.faults.set(poison=(expected[4],))
    assert api.post(sortby=ASCENDING, limit=10).status_code == 500
    assert api.post(sortby=ASCENDING, limit=4).status_code == 200
    assert api.post(ids=[expected[5]]).status_code == 200
    assert api.post(ids=[expected[4]]).status_code == 500


def test_delayed_visibility_keeps_the_old_one_until_then(api: Api) -> None:
    old, new = api.item(0), api.item(1)
    api.store.put(old)
    api.faults.set(visibility_delay=60)
    items = f"{api.url}/collections/{COLLECTION}/items"
    changed = api.item(0, updated=api.clock())
    assert api.http.post(items, json=new, timeout=5).status_code == 201
    assert api.http.put(f"{items}/{old['id']}", json=changed, timeout=5).status_code == 200
    assert api.walk() == [old["id"]]
    api.clock.forward(seconds=59)
    assert api.http.get(f"{items}/{new['id']}", timeout=5).status_code == 404
    api.clock.forward(seconds=1)
    found = {f["id"]: f["properties"]["updated"] for f in api.post().json()["features"]}
    assert found == {new["id"]: new["properties"]["updated"], old["id"]: "2025-11-24T12:00:00Z"}


def test_python_may_put_with_a_delay_and_what_is_newer_wins(api: Api) -> None:
    first, second = api.item(0, updated="2025-11-01T00:00:00Z"), api.item(0, updated="2025-11-02T00:00:00Z")
    api.store.put(first, visible=datetime(2025, 11, 24, 12, 1, tzinfo=UTC))
    assert api.walk() == []
    api.store.put(second)
    api.clock.forward(minutes=5)
    assert [f["properties"]["updated"] for f in api.post().json()["features"]] == ["2025-11-02T00:00:00Z"]


@pytest.mark.parametrize("name", ["sortby", "fields", "filter", "limit"])
def test_ignored_parameters(api: Api, name: str) -> None:
    expected = api.fill(12)
    body = {
        "sortby": ASCENDING, "fields": {"include": ["id"]}, "limit": 3,
        "filter": {"op": "<", "args": [{"property": "updated"}, "2025-11-07T00:00:00"]},
    }  # fmt: skip

    def facts() -> dict:
        features = api.post(**body).json()["features"]
        return {
            "sortby": features[0]["id"] == expected[0], "fields": "assets" not in features[0], "limit": len(features) == 3,
            "filter": max(f["id"] for f in api.post(**(body | {"limit": 50})).json()["features"]) == expected[5] or name == "limit",
        }  # fmt: skip

    assert all(facts().values())
    api.faults.set(ignore=frozenset({name}))
    changed = {fact for fact, holds in facts().items() if not holds}
    assert name in changed
    assert changed <= {name, *({"sortby"} if name == "filter" else ())}


@pytest.mark.parametrize(("how", "status"), [("405", 405), ("301", 301)])
def test_a_search_by_post_may_be_refused_or_redirected_and_one_by_get_is_answered(api: Api, how: str, status: int) -> None:
    api.fill(3)
    api.faults.set(post_search=how)
    assert api.http.post(f"{api.url}/search", json={}, timeout=5, allow_redirects=False).status_code == status
    assert api.get("/search").json()["numberReturned"] == 3


def test_a_slow_server_is_slow_where_a_filter_has_no_limit_on_the_acquisition_time(api: Api) -> None:
    api.fill(3)
    api.faults.set(slow=0.3)
    everything = window("2025-01-01T00:00:00", "2027-01-01T00:00:00")
    assert api.post(filter=everything, datetime="2025-01-01T00:00:00Z/..").json()["numberReturned"] == 3
    assert api.faults.delivered == []
    began = time.monotonic()
    assert api.post(filter=everything).json()["numberReturned"] == 3
    assert time.monotonic() - began >= 0.3
    assert api.faults.delivered == ["slow"]


def test_a_count_may_be_wrong_and_other_collections_may_be_returned(api: Api) -> None:
    api.fill(3)
    assert "numberMatched" not in api.post().json()
    api.store.put(api.item(5) | {"collection": "other"})
    api.faults.set(matched=7, ignore=frozenset({"collections"}))
    page = api.post(collections=[COLLECTION]).json()
    assert (page["numberMatched"], page["numberReturned"]) == (7, 4)


def test_all_faults_are_off_by_default_and_after_clear(api: Api) -> None:
    api.fill(1)
    assert api.faults.current == Faults()
    api.faults.set(wire=("500",), poison=("x",), text_updated=True)
    api.faults.clear()
    assert api.faults.current == Faults()
    assert api.post().status_code == 200
    with pytest.raises(TypeError, match="nonsense"):
        api.faults.set(nonsense=True)


def test_the_server_stops_at_once_while_an_answer_hangs(clock) -> None:
    with Store() as store, requests.Session() as http:
        with Server(create_app(store, now=clock, faults=Faults(wire=("hang",)))) as server:
            with pytest.raises(requests.ReadTimeout):
                http.post(f"{server.url}/search", json={}, timeout=0.1)
            began = time.monotonic()
        assert time.monotonic() - began < 3
