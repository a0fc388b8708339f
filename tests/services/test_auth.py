"""Registering through stac-auth-proxy: what production's own harness asserts, of a real proxy in front of a real STAC API."""

from __future__ import annotations

import base64
import json
import random
import threading
from datetime import UTC, datetime, timedelta

import pytest
import requests
from auth_servers import guarded
from issuer_clients import credentials
from pgstac_servers import MissingServiceError
from registering import passing

from stac_watch.catalog.credentials import ANONYMOUS, Credentials
from stac_watch.catalog.writing import TargetCollection, WritingHttp
from stac_watch.demo.items import make_collection, make_item
from stac_watch.model.errors import CatalogUnavailable, Refused, StacWatchError

COLLECTION = "guarded"


@pytest.fixture(scope="module")
def place(apis):
    """A proxy with an issuer in front of pgstac."""
    api = apis("0.10.0")
    try:
        with guarded(api.url) as found:
            yield found, api
            requests.delete(f"{api.url}/collections/{COLLECTION}", timeout=60)
    except MissingServiceError as error:
        pytest.skip(str(error))


def target(url: str, credentials: Credentials = ANONYMOUS) -> TargetCollection:
    http = WritingHttp(
        url, now=lambda: datetime.now(UTC), sleep=lambda _: None, rng=random.Random(1), credentials=credentials, timeout=(5, 30)
    )
    return TargetCollection(http, COLLECTION)


def item(number: int, url: str) -> dict:
    name = f"S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T{number:06}"
    updated = datetime(2025, 11, 20, tzinfo=UTC)
    document = make_item(name, catalog_url=url, product_href="https://objects.example/x.zarr", updated=updated)
    return {**document, "collection": COLLECTION, "links": []}


def asked(place, client: str) -> int:
    return requests.get(f"{place.issuer}/asked", timeout=10).json()[client]


def test_only_who_may_write_writes_and_nobody_is_let_in_without_a_token(place):
    found, api = place
    described = requests.get(f"{found.issuer}/.well-known/openid-configuration", timeout=10).json()
    assert described["token_endpoint"] == found.token_url
    assert requests.get(described["jwks_uri"], timeout=10).json()["keys"][0]["kid"] == "key-1"

    let_in = credentials(found, "writer")
    request = let_in(requests.Request("GET", found.url).prepare())
    header, claims, _ = request.headers["Authorization"].removeprefix("Bearer ").split(".")
    parts = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in (header, claims)]
    assert parts[0]["kid"] == "key-1"
    assert {parts[1][name] for name in ("azp", "aud")} == {"writer", "stac-api"}
    assert "stac:write" in parts[1]["scope"]
    assert parts[1]["exp"] > parts[1]["iat"]

    writing = target(found.url, let_in)  # one token for all of it
    writing.describe({**make_collection(COLLECTION), "links": []}, there=False)
    items = [item(n, found.url) for n in range(10)]
    for document in items:
        writing.put(document)
    third = items[3]["id"]
    assert writing.item(third)["id"] == third
    assert asked(found, "writer") == 1
    writing.knock()

    assert target(found.url).item(third) is not None, "everybody reads"
    nobody = [ANONYMOUS, credentials(found, "reader"), credentials(found, "stranger")]
    for other in [target(found.url, who) for who in nobody]:
        for tried in (lambda t=other: t.put(item(666, found.url)), lambda t=other: t.remove(third), other.knock):
            with pytest.raises(Refused):
                tried()
    for wrong in (credentials(found, "nobody"), credentials(found, "writer", secret="wrong-secret")):
        with pytest.raises(Refused, match="answered HTTP 401") as caught:
            target(found.url, wrong).put(item(666, found.url))
        assert "wrong-secret" not in caught.value.message + caught.value.hint
    there = requests.get(f"{api.url}/collections/{COLLECTION}/items?limit=100", timeout=30).json()["features"]
    assert sorted(document["id"] for document in there) == sorted(document["id"] for document in items)


def test_a_token_is_fetched_before_it_ends_and_anew_where_it_was_refused(place):
    found, _ = place
    moment = datetime.now(UTC)
    clock = {"now": moment}
    held = target(found.url, credentials(found, "writer", now=lambda: clock["now"]))
    before = asked(found, "writer")
    for seconds in (0, 100, 230):
        clock["now"] = moment + timedelta(seconds=seconds)
        held.knock()
    assert asked(found, "writer") == before + 1, "it is kept as long as it is good"
    clock["now"] = moment + timedelta(seconds=241)  # of 300
    held.knock()
    assert asked(found, "writer") == before + 2, "and fetched anew before it ends"

    stopped = target(found.url, credentials(found, "brief", now=lambda: moment))  # this clock stands still
    stopped.knock()
    token = stopped._http._credentials._last["Authorization"].split(".")[1]
    ends = json.loads(base64.urlsafe_b64decode(token + "=="))["exp"]
    threading.Event().wait(ends + 1 - datetime.now(UTC).timestamp())  # the proxy's clock is nobody's to turn
    fetched = asked(found, "brief")
    stopped.knock()
    assert asked(found, "brief") > fetched


def test_no_request_goes_out_without_a_token_while_there_is_none_to_be_had(place):
    found, api = place
    with passing(api.url) as open_to_all:  # whoever came in without a token would be let in
        gone = credentials(found, "writer", token_url="http://127.0.0.1:9/token")
        with pytest.raises(CatalogUnavailable, match="cannot be reached"):
            target(open_to_all.url, gone).put(item(666, found.url))
        with pytest.raises(StacWatchError):
            target(open_to_all.url, credentials(found, "writer", secret="")).remove("nobody")
    assert requests.get(f"{api.url}/collections/{COLLECTION}/items/{item(666, found.url)['id']}", timeout=30).status_code == 404
