"""Servers in trouble, and those that are asked too fast: what they say then says nothing of what they can do."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from fakes.gateway import Answer

from stac_watch.catalog import answers
from stac_watch.catalog.abilities import words
from stac_watch.catalog.pace import AskingPace
from stac_watch.catalog.probe import CAUTIOUS, good_for, probe
from stac_watch.model.errors import ConfigError, Refused, StacWatchError

TROUBLE = {
    "503": Answer(503, {"message": "upstream connect error"}),
    "500": Answer(500, b"Internal Server Error", kind="text/plain"),
    "429": Answer(429, {"message": "too many requests"}),
    "403": Answer(403, {"message": "Forbidden"}),
    "html": Answer(200, b"<html><title>Back soon</title></html>", kind="text/html"),
}
ASKED = {
    "filter": lambda asked: "filter" in asked.query,
    "ids": lambda asked: "ids" in asked.query,
    "datetime": lambda asked: "datetime" in asked.query,
}


LATE = "S2A_MSIL2A_20251025T100041_N0511_R122_T32TQM_20251025T122613"


def found(world) -> dict:
    return world.ledger.sources.state("s2", ()).abilities[0]


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("trouble", ["503", "403"])
def test_trouble_during_the_probe_is_doubted_and_nothing_is_lost(world, gateway, what, trouble):
    world.fill(6)
    gateway.before = lambda asked: TROUBLE[trouble] if asked.search and ASKED[what](asked) else None
    try:
        world.poll()
    except StacWatchError:
        assert what == "datetime"  # nothing can be read without it
    doubts = found(world)["doubts"]
    assert doubts
    assert "HTTP" in doubts[0]
    gateway.before = lambda asked: None
    old = world.item(9, item_id=LATE, datetime=world.clock() - timedelta(days=30), updated=world.clock())
    world.store.put(old)
    world.clock.forward(minutes=1)
    world.poll()
    assert (found(world)["stamp"], found(world)["sorts"], found(world)["doubts"]) == ("updated", True, [])
    assert LATE in world.states()
    assert len(world.states()) == 7


@pytest.mark.parametrize("trouble", TROUBLE)
def test_what_was_known_stays_so_in_trouble(world, gateway, trouble):
    world.fill(6)
    catalog = world.catalog()
    known = probe(catalog, 1000)
    gateway.before = lambda asked: TROUBLE[trouble] if asked.search and {"filter", "sortby", "ids"} & asked.query.keys() else None
    again = probe(catalog, 1000, known)
    kept = ("stamp", "typed", "filters", "sorts", "stamps", "max_page", "honest_next", "product", "method")
    assert {k: asdict(again)[k] for k in kept} == {k: asdict(known)[k] for k in kept}
    assert again.doubted == 1
    third = probe(catalog, 1000, again)
    assert third.doubted == 2
    assert "in doubt, and asked again soon: which stamp can be filtered" in "\n".join(words(third))


def test_doubts_rest_for_ever_longer_and_an_hour_at_most():
    rests = [good_for(replace(CAUTIOUS, doubts=("x",), doubted=n)) for n in (1, 2, 3, 50)]
    assert rests == [timedelta(0), timedelta(minutes=1), timedelta(minutes=2), timedelta(hours=1)]


LIMITS = {
    "429 with Retry-After": (429, {"Retry-After": "2"}),
    "429 with a date": (429, {"Retry-After": "Mon, 24 Nov 2025 12:00:02 GMT"}),
    "429 with RateLimit-Reset": (429, {"RateLimit-Limit": "5", "RateLimit-Remaining": "0", "RateLimit-Reset": "2"}),
    "429 with RateLimit": (429, {"RateLimit": '"default";r=0;t=2'}),
    "429 alone": (429, {}),
    "403 with words": (403, {"x": "y"}),
    "403 alone": (403, {}),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_server_that_limits_the_rate_is_asked_as_it_says(world, gateway, name):
    """Every sixth request is refused until a pause was made."""
    status, headers = LIMITS[name]
    room = [5]

    def before(asked):
        if len(world.slept) > waited[0]:
            waited[0], room[0] = len(world.slept), 5
        room[0] -= 1
        said = {"message": "Request rate exceeded" if "words" in name else "Forbidden"}
        return Answer(status, said, headers) if room[0] < 0 else None

    waited = [0]
    gateway.before = before
    world.fill(12)
    assert world.poll().admitted == 12
    assert found(world)["stamp"] == "updated"
    assert found(world)["doubts"] == []
    if (len(headers) == 1 and "x" not in headers) or "RateLimit-Reset" in headers:
        assert 2.0 in world.slept


NOW = datetime(2025, 11, 24, 12, tzinfo=UTC)
PAUSES = [
    ({"Retry-After": "7"}, 7), ({"Retry-After": "0.5"}, 0.5), ({"Retry-After": "Mon, 24 Nov 2025 12:00:09 GMT"}, 9),
    ({"Retry-After": "Monday, 24-Nov-25 12:00:09 GMT"}, 9), ({"Retry-After": "Mon Nov 24 12:00:09 2025"}, 9),
    ({"Retry-After": "soon"}, 0), ({"Retry-After": "-3"}, 0), ({"Retry-After": "99999999"}, 86_400), ({}, 0),
    ({"RateLimit-Reset": "3"}, 3), ({"X-RateLimit-Reset": f"{int(NOW.timestamp()) + 4}"}, 4),
    ({"X-Rate-Limit-Reset": f"{int(NOW.timestamp() * 1000) + 4000}"}, 4), ({"RateLimit": "limit=5, remaining=0, reset=6"}, 6),
    ({"RateLimit": '"a";r=0;t=8'}, 8), ({"RateLimit-Reset": "x"}, 0), ({"Retry-After": "1", "RateLimit-Reset": "9"}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "seconds"), PAUSES, ids=str)
def test_every_way_to_ask_for_a_pause_is_read(headers, seconds):
    assert answers.pause({k.lower(): v for k, v in headers.items()} | headers, NOW) == seconds


def test_the_last_request_that_is_left_is_followed_by_the_pause_that_was_asked_for():
    pace = AskingPace()
    assert pace.wait(100.0) == 0
    pace.heard({"ratelimit-remaining": "0", "ratelimit-reset": "3"}, NOW, 100.0)
    assert pace.wait(101.0) == 2.0
    pace.slower()
    pace.slower()
    pace.wait(200.0)
    assert pace.wait(200.0) == pace.gap == 0.5
    for _ in range(60):
        pace.heard({}, NOW, 300.0)
    assert pace.gap == 0.0


@pytest.mark.parametrize("odd", [None, 1_763_000_000, "n/a", "2025-11-20 25:00", "yesterday"])
def test_one_odd_stamp_decides_nothing(world, odd):
    wanted = world.fill(20)
    bare = world.item(19, properties={"updated": odd, "published": odd, "created": odd})
    world.store.put(bare)
    world.poll()
    assert (found(world)["stamp"], found(world)["sorts"]) == ("updated", True)
    assert any(
        "`updated` is missing or no time on 1 of 20 items: such items are found by sweeps" in n for n in found(world)["notes"]
    )
    world.sweep()
    assert set(world.states()) == set(wanted)


def test_a_stamp_that_most_items_lack_is_not_used(world):
    world.fill(12, properties={"updated": None})
    world.store.put_many([world.item(n, updated=world.clock()) for n in range(20, 25)])
    world.poll()
    assert found(world)["stamp"] == "published"


ENDS = ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00", "9999-01-01T00:00:00Z", None, ".."]


@pytest.mark.parametrize("end", ENDS)
def test_an_item_without_an_end_is_no_proof_that_datetime_is_ignored(world, gateway, end):
    """It is in every window after its start, whatever the server makes of its end."""
    open_one = world.item(
        40, item_id=LATE, properties={"datetime": None, "start_datetime": "2025-11-21T00:00:00Z", "end_datetime": end}
    )

    def after(asked, answer):
        if asked.search and "9999" in str(asked.query.get("datetime", "")):
            answer.body = {"type": "FeatureCollection", "features": [open_one], "links": []}

    gateway.after = after
    world.fill(12)
    world.store.put(world.item(13))
    assert world.poll().admitted == 13


def test_instants_that_come_back_are(world, gateway):
    def after(asked, answer):
        if asked.search and "9999" in str(asked.query.get("datetime", "")):
            answer.body = {"type": "FeatureCollection", "features": [world.item(0)], "links": []}

    gateway.after = after
    world.fill(3)
    with pytest.raises(ConfigError, match="ignores `datetime`"):
        world.poll()


def test_a_year_that_is_none_to_the_server_is_not_needed(world, gateway):
    def before(asked):
        far = asked.search and str(asked.query.get("datetime", "")).startswith("9999")
        return Answer(400, {"description": "datetime: year out of range"}) if far else None

    gateway.before = before
    world.fill(3)
    assert world.poll().admitted == 3


@pytest.mark.parametrize("age", ["3540", "0", "x", "-5", "99999999999"])
def test_what_a_cache_has_kept_is_as_old_as_it_says(world, gateway, age):
    """GET is cached for an hour, POST is not: the server's time is `Date` and `Age` together."""
    made = world.clock()

    def after(asked, answer):
        if asked.method == "GET":
            answer.headers |= {"date": f"{made:%a, %d %b %Y %H:%M:%S} GMT", "age": age}

    gateway.after = after
    world.fill(1)
    expected = made + timedelta(seconds=3540 if age == "3540" else 0)
    assert world.catalog().clock() == expected


def test_behind_a_cache_polls_read_again_what_it_may_have_kept(world, gateway):
    made = world.clock()

    def after(asked, answer):
        if asked.method == "GET":
            answer.headers |= {"date": f"{made:%a, %d %b %Y %H:%M:%S} GMT", "age": "3540"}

    gateway.after = after
    world.fill(3)
    world.clock.forward(seconds=3540)
    world.poll()
    world.store.put(world.item(50, updated=world.clock() - timedelta(minutes=40)))
    world.clock.forward(minutes=1)
    assert world.poll().admitted == 1


def test_a_page_that_a_cache_has_kept_moves_no_cursor_past_what_it_shows(world, gateway):
    made = world.clock()
    gateway.before = lambda asked: Answer(405) if asked.method == "POST" else None

    def after(asked, answer):
        if asked.search and "filter" in asked.query:
            answer.headers |= {"date": f"{made:%a, %d %b %Y %H:%M:%S} GMT", "age": "3540"}

    gateway.after = after
    world.fill(3)
    world.clock.forward(seconds=3540)
    world.poll()
    assert world.ledger.sources.position("s2:updated") == made


def test_a_refusal_after_answers_is_not_for_good_and_one_before_any_is(world, gateway):
    refusals = [3]

    def before(asked):
        if asked.search and gateway.searches() and refusals[0] > 0:
            refusals[0] -= 1
            return Answer(403, {"message": "Forbidden"})
        return None

    gateway.before = before
    world.fill(3)
    assert world.poll().admitted == 3
    gateway.before = lambda asked: Answer(403, {"message": "Forbidden"})
    before_that = len(gateway.seen)
    with pytest.raises(Refused):
        world.catalog().clock()
    assert len(gateway.seen) == before_that + 1
