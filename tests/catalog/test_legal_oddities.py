"""Catalogs that are within the rules, or nearly, and unlike any other: what they have is found, late and old items, too."""

import gzip
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from fakes.gateway import Answer

from stac_watch.catalog.probe import probe

YEARS = re.compile(r"\b(\d{4})-\d\d-\d\dT")


def no(status=400, said="not here"):
    return Answer(status, {"code": "BadRequest", "description": said})


def several_refusals(gateway):
    """Each parameter is refused in its own way."""

    def before(asked):
        if not asked.search:
            return None
        if "fields" in asked.query:
            return no(501, "fields is not implemented")
        if "sortby" in asked.query:
            return no(422, "sortby: extra fields are not permitted")
        return no(400, "limit must be at most 25") if int(asked.query.get("limit", 0)) > 25 else None

    gateway.before = before


def no_fields_for_strangers(gateway):
    gateway.before = lambda asked: no(403, "Forbidden") if asked.search and "fields" in asked.query else None


def clipped_without_a_next(gateway):
    """OGC API Features has `next` as a recommendation, and lets a server return fewer than were asked for."""

    def after(asked, answer):
        if asked.search and answer.status == 200:
            document = answer.document
            document["features"] = document["features"][:25]
            document["links"] = []
            answer.body = document

    gateway.after = after


def no_year_beyond_the_nanoseconds(gateway):
    """A time of 64 bits in nanoseconds ends in 2262."""
    gateway.before = lambda asked: (
        no(400, "year is out of range") if asked.search and any(int(y) > 2261 for y in YEARS.findall(str(asked.query))) else None
    )


def a_defect_beyond_the_nanoseconds(gateway):
    gateway.before = lambda asked: (
        no(500, "OutOfBoundsDatetime") if asked.search and any(int(y) > 2261 for y in YEARS.findall(str(asked.query))) else None
    )


def milliseconds_at_most(gateway):
    gateway.before = lambda asked: (
        no(400, "datetime: not RFC 3339") if asked.search and re.search(r"\.\d{4,}", str(asked.query.get("datetime"))) else None
    )


def a_body_that_is_dropped(gateway):
    """Everything comes back, with HTTP 200."""
    gateway.drops_bodies = True


def a_search_that_moved(gateway):
    """307 and 308 keep method and body; the parameters of a GET go with it, too, where it says so."""
    gateway.elsewhere = {"/v2/find": "/search"}
    gateway.before = lambda asked: Answer(308, b"", {"Location": "/v2/find"}) if asked.path == "/search" else None


def cloudflare(gateway):
    """Codes that no RFC has, now and then."""
    gateway.before = lambda asked: (
        Answer(520 + len(gateway.seen) % 10, b"<html><title>example.org | 52x</title></html>", kind="text/html")
        if asked.search and len(gateway.seen) % 7 == 3
        else None
    )


def a_page_for_people_now_and_then(gateway):
    gateway.before = lambda asked: Answer(200, b"<!DOCTYPE html><title>Maintenance</title>") if len(gateway.seen) % 6 == 4 else None


def packed(gateway):
    def after(asked, answer):
        answer.body = gzip.compress(answer.raw())
        answer.headers["Content-Encoding"] = "gzip"

    gateway.after = after


def counts_that_lie(gateway):
    def after(asked, answer):
        if asked.search and answer.status == 200:
            answer.body = answer.document | {"numberMatched": 0, "numberReturned": 7, "context": {"matched": 10**9, "limit": 1}}

    gateway.after = after


def a_next_that_never_ends(gateway):
    """The same token again and again, with a body to merge."""

    def after(asked, answer):
        if asked.search and answer.status == 200:
            following = {"rel": "next", "href": "./search", "method": "POST", "merge": True, "body": {"token": "next:1"}}
            answer.body = answer.document | {"links": [following]}

    gateway.after = after


def null_for_none(gateway):
    def after(asked, answer):
        if asked.search and answer.status == 200 and not answer.document["features"]:
            answer.body = {"type": "FeatureCollection", "features": None, "links": None}

    gateway.after = after


CATALOGS: dict[str, Callable] = {
    f.__name__.replace("_", " "): f
    for f in (
        several_refusals,
        no_fields_for_strangers,
        clipped_without_a_next,
        no_year_beyond_the_nanoseconds,
        a_defect_beyond_the_nanoseconds,
        milliseconds_at_most,
        a_body_that_is_dropped,
        a_search_that_moved,
        cloudflare,
        a_page_for_people_now_and_then,
        packed,
        counts_that_lie,
        a_next_that_never_ends,
        null_for_none,
    )
}


@pytest.mark.parametrize("name", CATALOGS)
def test_what_it_has_is_found_late_and_old_items_too(world, gateway, name):
    CATALOGS[name](gateway)
    world.settings["poll"] = {"since": "30d", "sweep": "6h", "sweep_back": "3d", "sweep_all": "1d"}
    world.fill(60)
    assert world.poll().admitted == 60
    world.clock.forward(minutes=5)
    old = world.item(-900, updated=world.clock())
    world.store.put_many([world.item(3, version=2, updated=world.clock()), old])
    polled = world.poll().admitted
    assert polled + world.sweep().admitted == 2
    assert old["id"] in world.states()
    world.clock.forward(hours=7)
    silent = world.item(75, version=2)
    world.store.put(silent)
    assert world.sweep().admitted == 1
    assert len(world.ledger.conversions.find(limit=100)) == 63


@pytest.mark.parametrize("order", ["newest first", "oldest first"])
def test_a_server_that_clips_is_noticed_where_all_of_a_sample_is_of_one_overpass(world, gateway, order):
    clipped_without_a_next(gateway)
    together = {"datetime": world.clock() - timedelta(days=1)}
    shared, rest = range(30), range(30, 60) if order == "newest first" else range(200, 230)
    world.store.put_many([*(world.item(n, **together) for n in shared), *(world.item(n) for n in rest)])
    assert probe(world.catalog(), 1000).max_page == 25
    assert world.poll().admitted == 60


def test_where_most_items_have_no_stamp_what_comes_late_is_found_stamped_or_not(world):
    """Of ten items six say nothing; the others say that they were created after they were updated."""
    world.settings["poll"] = {"since": "1d", "sweep": "6h", "sweep_back": "5d", "sweep_all": "1d"}
    items = [world.item(n) for n in range(80)]
    for n, item in enumerate(items):
        stamped = n % 10 < 4
        item["properties"]["created"] = f"{world.clock():%FT%TZ}" if stamped else None
        for name in ("updated", "published") if not stamped else ():
            del item["properties"][name]
    world.store.put_many(items)
    before = world.poll().admitted + world.sweep().admitted
    for number, stamps in ((-300, {}), (-301, dict.fromkeys(("updated", "created", "published"))), (100, {})):
        world.clock.forward(hours=1)
        world.store.put(world.item(number, updated=world.clock(), properties=stamps))
        world.poll()
    world.clock.forward(hours=25)
    world.poll()
    world.sweep()
    assert len(world.states()) == before + 3


def test_a_product_comes_alone_though_each_answer_signs_it_anew(world, gateway):
    def after(asked, answer):
        if asked.search and answer.status == 200:
            document = answer.document
            for item in document["features"]:
                if "product" in item.get("assets", {}):
                    item["assets"]["product"]["href"] += f"?se=1&sig={len(gateway.seen)}"
            answer.body = document

    gateway.after = after
    world.fill(3)
    assert probe(world.catalog(), 1000).product
