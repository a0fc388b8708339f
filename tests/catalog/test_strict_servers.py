"""Servers that refuse what others ignore: each refusal is an answer, and the next smaller request is asked."""

import re
from dataclasses import asdict

import pytest
from fakes.gateway import Answer

from stac_watch.catalog.abilities import words
from stac_watch.catalog.probe import probe
from stac_watch.discover.outlook import outlook
from stac_watch.model.errors import ConfigError, Refused, StacWatchError


def found(world) -> dict:
    return world.ledger.sources.state("s2", ()).abilities[0]


def refuses(gateway, *names, status=400, said="unknown parameter"):
    """Refuses searches that have one of these parameters."""

    def before(asked):
        given = [name for name in names if name in asked.query]
        return (
            Answer(status, {"code": "InvalidParameterValue", "description": f"{said} {given[0]}"})
            if asked.search and given
            else None
        )

    gateway.before = before


@pytest.mark.parametrize(("most", "kept", "status"), [(1000, 1000, 400), (15, 10, 422), (1, 1, 400)])
def test_a_limit_that_is_refused_is_lowered_until_it_is_taken(world, gateway, most, kept, status):
    def before(asked):
        if asked.search and int(asked.query.get("limit", 0)) > most:
            return Answer(status, {"detail": [{"loc": ["body", "limit"], "msg": f"must be at most {most}"}]})
        return None

    gateway.before = before
    world.fill(12)
    assert world.poll().admitted == 12
    assert found(world)["max_page"] == kept
    assert f"more than {kept} items at once are refused (limit: must be at most {most})" in found(world)["notes"]
    refused = sum(asked.search and status >= 400 for asked, status in gateway.seen)
    world.poll()
    assert sum(asked.search and status >= 400 for asked, status in gateway.seen) == refused  # never asked again


REFUSED = [("fields",), ("sortby",), ("filter",), ("filter-lang",), ("ids",), ("fields", "sortby", "filter", "filter-lang", "ids")]


@pytest.mark.parametrize(("names", "method"), [*((n, "POST") for n in REFUSED), (REFUSED[-1], "GET")], ids=str)
def test_a_parameter_that_is_refused_is_left_out(world, gateway, names, method):
    refuses(gateway, *names)
    if method == "GET":
        inner = gateway.before
        gateway.before = lambda asked: Answer(405) if asked.method == "POST" else inner(asked)
    world.fill(12)
    assert world.poll().admitted == 12
    told = "\n".join(words(probe(world.catalog(), 1000)))
    for name in names:
        if name in ("fields", "sortby", "filter"):
            assert f"unknown parameter {name}" in told
    assert found(world)["doubts"] == []


@pytest.mark.parametrize("status", [400, 403, 404, 500, 501])
def test_where_post_is_refused_get_is_asked(world, gateway, status):
    gateway.before = lambda asked: Answer(status, {"message": "Forbidden"}) if asked.method == "POST" else None
    world.fill(5)
    assert world.poll().admitted == 5
    assert found(world)["method"] == "GET"
    assert bool(found(world)["doubts"]) == (status == 500)  # trouble may pass


def test_where_the_links_offer_get_only_post_is_not_tried(world, gateway):
    def after(asked, answer):
        if asked.path == "/":
            document = answer.document
            document["links"] = [link for link in document["links"] if link.get("method") != "POST"]
            answer.body = document

    gateway.after = after
    world.fill(5)
    assert world.poll().admitted == 5
    assert {asked.method for asked in gateway.searches()} == {"GET"}


@pytest.mark.parametrize("code", [400, 500])
def test_an_empty_collection_is_no_error_where_nothing_can_be_sorted_yet(world, gateway, code):
    world.store.put_collection({"type": "Collection", "id": "sentinel-2-l2a", "links": []})
    refuses(gateway, "sortby", "filter", status=code, said="No mapping found for [properties.updated] in")
    assert world.poll().seen == 0
    assert found(world)["samples"] == 0


LINKS = {
    "of the inside": lambda root: [
        {"rel": "search", "href": "http://stac.default.svc:8080/search", "type": "application/geo+json"}
    ],
    "prefix twice": lambda root: [{"rel": "search", "href": f"{root}/stac/search", "type": "application/geo+json"}],
    "relative": lambda root: [{"rel": "search", "href": "./search"}],
    "relative to the host": lambda root: [{"rel": "search", "href": "/stac/search", "method": "post"}],
    "none": lambda root: [],
    "a page first": lambda root: [
        {"rel": "search", "href": f"{root}/search.html", "type": "text/html"},
        {"rel": "search", "href": f"{root}/opensearch", "type": "application/opensearchdescription+xml"},
        {"rel": "search", "href": f"{root}/search", "type": "application/geo+json"},
    ],
    "a template": lambda root: [{"rel": "search", "href": f"{root}/search{{?bbox,limit}}", "type": "application/json"}],
    "no URL": lambda root: [{"rel": "search", "href": "http://[", "type": "application/json"}, {"rel": "search"}, "search"],
}


@pytest.mark.parametrize("links", LINKS)
def test_the_search_is_found_wherever_its_link_leads(world, gateway, links):
    gateway.prefix = "/stac"
    world.url += "/stac"

    def after(asked, answer):
        if asked.path == "/stac/":
            document = answer.document
            document["links"] = [k for k in document["links"] if k["rel"] != "search"] + LINKS[links](world.url)
            answer.body = document

    gateway.after = after
    world.fill(5)
    assert world.poll().admitted == 5
    assert sum(status == 404 for asked, status in gateway.seen if asked.search) <= 1  # looked for once


def test_a_collection_that_lies_elsewhere_is_found_by_the_links(world, gateway):
    def before(asked):
        return (
            Answer(404, {"detail": "Not Found"}) if asked.path.startswith("/collections/") and not asked.headers.get("x") else None
        )

    def after(asked, answer):
        if asked.path == "/":
            document = answer.document
            document["links"] = [k for k in document["links"] if k["rel"] not in ("data", "child")]
            document["links"].append({"rel": "child", "href": "./here/sentinel-2-l2a"})
            answer.body = document

    def moved(asked):
        if asked.path == "/here/sentinel-2-l2a":
            return Answer(200, {"type": "Collection", "id": "sentinel-2-l2a", "links": []})
        return before(asked)

    gateway.before, gateway.after = moved, after
    world.fill(3)
    assert world.poll().admitted == 3


SLASHES = {
    "root without": ("/stac/", lambda path: path.rstrip("/"), 307),
    "root without, by 301": ("/stac/", lambda path: path.rstrip("/"), 301),
    "collection with": ("/stac/collections/sentinel-2-l2a", lambda path: f"{path}/", 308),
    "search with": ("/stac/search", lambda path: f"{path}/", 307),
    "search with, by 301": ("/stac/search", lambda path: f"{path}/", 301),
    "with another scheme": ("/stac/search", lambda path: f"http://127.0.0.1{path}/", 308),
}


@pytest.mark.parametrize("name", SLASHES)
def test_a_slash_at_the_end_is_followed(world, gateway, name):
    path, other, status = SLASHES[name]
    gateway.prefix = "/stac"
    world.url += "/stac"

    def before(asked):
        if asked.path == path:
            return Answer(status, b"", {"Location": other(path)})
        return None

    gateway.before = before
    world.fill(5)
    assert world.poll().admitted == 5
    turned = [asked for asked, status in gateway.seen if 300 <= status < 400]
    assert len(turned) == 1  # kept


def test_a_root_that_is_not_there_with_a_slash_is_asked_without(world, gateway):
    gateway.prefix = "/stac"
    world.url += "/stac"
    gateway.before = lambda asked: Answer(404, {"detail": "Not Found"}) if asked.path == "/stac/" else None
    world.fill(2)
    assert world.poll().admitted == 2


@pytest.mark.parametrize("empty", [204, 404])
def test_no_content_or_not_found_is_an_empty_answer(world, gateway, empty):
    def after(asked, answer):
        if asked.search and not answer.document.get("features"):
            return Answer(empty, b"" if empty == 204 else {"code": "NotFound", "description": "no items found"})
        return None

    gateway.after = after
    world.store.put_collection({"type": "Collection", "id": "sentinel-2-l2a", "links": []})
    world.store.put_collection({"type": "Collection", "id": "other", "links": []})
    world.store.put(world.item(1, collection="other"))
    assert world.poll().seen == 0
    world.clock.forward(minutes=11)
    world.store.put_many([world.item(n, updated=world.clock()) for n in range(5)])
    world.clock.forward(minutes=1)
    assert world.poll().admitted == 5
    assert found(world)["stamp"] == "updated"
    world.clock.forward(hours=2)
    assert world.poll().seen == 0
    world.store.put(world.item(6, updated=world.clock()))
    world.clock.forward(minutes=1)
    assert world.poll().admitted == 1


def test_a_search_that_is_gone_is_not_taken_for_an_empty_one(world, gateway):
    world.fill(3)
    world.poll()
    gateway.before = lambda asked: Answer(404, {"detail": "Not Found"}) if asked.search else None
    with pytest.raises(StacWatchError, match="HTTP 404"):
        world.poll()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_read(world, gateway, encoding):
    def after(asked, answer):
        answer.body = answer.body.decode().encode(encoding)

    gateway.after = after
    world.fill(3)
    assert world.poll().admitted == 3


@pytest.mark.parametrize("status", [413, 502])
def test_an_answer_that_is_too_large_for_a_gateway_is_asked_for_in_parts(world, gateway, status):
    def after(asked, answer):
        return Answer(status, {"message": "Request Too Long"}) if asked.search and len(answer.body) > 20_000 else None

    gateway.after = after
    world.fill(40)
    assert world.poll().admitted == 40
    catalog = world.catalog()
    probe(catalog, 1000)
    assert outlook(world.source(), catalog, world.clock()).matching > 0  # what `check` tells


def test_a_url_that_is_too_long_is_made_shorter(world, gateway):
    def before(asked):
        if asked.method == "POST":
            return Answer(405)
        return Answer(414, b"URI Too Long", kind="text/plain") if asked.length > 2_000 else None

    gateway.before = before
    wanted = world.fill(60)
    catalog = world.catalog()
    probe(catalog, 1000)
    assert {item["id"] for item in catalog.fetch(wanted)} == set(wanted)


def test_items_of_another_collection_are_told_of(world, gateway):
    def before(asked):
        if asked.search:
            asked.query.pop("collections", None)
        return

    def after(asked, answer):
        if asked.search:
            document = answer.document
            for feature in document["features"]:
                feature["collection"] = "sentinel-2-l2a-2026"
            answer.body = document

    gateway.before, gateway.after = before, after
    world.fill(4)
    told = "\n".join(words(probe(world.catalog(), 1000)))
    assert "4 of 4 items belong to collection 'sentinel-2-l2a-2026' and cannot be used" in told


def test_an_old_server_that_says_404_with_200_has_no_such_item(world, gateway):
    gateway.before = lambda asked: Answer(200, {"code": 404, "message": "Item not found"}) if "/items/" in asked.path else None
    world.fill(1)
    assert world.catalog().item("gone") is None


def test_a_refusal_by_every_request_is_the_first_one_told(world, gateway):
    gateway.before = lambda asked: Answer(400, {"description": "collections: not here"}) if asked.search else None
    world.fill(1)
    with pytest.raises(StacWatchError, match=r"POST http://127.0.0.1:\d+/search answered HTTP 400: collections: not here"):
        probe(world.catalog(), 1000)


def test_what_was_kept_is_all_that_was_found(world, gateway):
    refuses(gateway, "sortby")
    world.fill(3)
    world.poll()
    assert asdict(probe(world.catalog(), 1000))["notes"] == tuple(found(world)["notes"])


@pytest.mark.parametrize(
    ("status", "challenge", "said", "hint"),
    [
        (401, "Basic realm=x", "no", r"`auth: \{basic: \{user: NAME"),
        (401, 'Bearer realm="x"', "no", r"`auth: \{bearer: \{env: TOKEN"),
        (401, "ApiKey", "no", r"`auth: \{header: \{name: X-API-Key"),
        (403, "", "missing API key", r"`auth: \{header: \{name: X-API-Key.*blocked this address"),
        (403, "", "no", "`bearer.*`header.*`basic.*`oidc`.*blocked this address"),
        (401, "", "no", "`bearer.*`header.*`basic.*`oidc`"),
    ],
)
def test_a_catalog_that_lets_nobody_in_says_how(world, gateway, status, challenge, said, hint):
    gateway.before = lambda asked: Answer(status, {"message": said}, {"WWW-Authenticate": challenge} if challenge else {})
    with pytest.raises(Refused, match=f"HTTP {status}: {said}") as error:
        world.poll()
    assert re.search(hint, error.value.hint)
    assert ("blocked" in error.value.hint) == (status == 403)


def test_no_such_collection_names_those_there_are(world):
    world.fill(1)
    world.settings["collection"] = "sentinel-2-l1c"
    catalog = world.catalog()
    catalog.places._collection = "sentinel-2-l1c"
    catalog.places.collection_url = f"{world.url}/collections/sentinel-2-l1c"
    with pytest.raises(ConfigError, match="no collection 'sentinel-2-l1c'") as error:
        catalog.clock()
    assert "it has sentinel-2-l2a" in error.value.hint
