"""Windows, cursor, overlap, changes and rules together, on a catalog that is as awkward as real ones."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
import requests

from stac_watch.discover.overlap import FIRST_OVERLAP, LONGEST_OVERLAP, SHORTEST_OVERLAP, auto_overlap, lateness_bucket
from stac_watch.discover.poll import poll
from stac_watch.model.errors import CatalogUnavailable
from stac_watch.model.states import Fact, State


def acquired(world, *, baseline="N0511", generation="20251120T235959", version=1, **changes):
    """A processing of one acquisition."""
    item_id = f"S2A_MSIL2A_20251120T100041_{baseline}_R122_T32TQM_{generation}"
    return world.item(10, item_id=item_id, version=version, **changes)


def test_only_what_matters_is_a_change(world):
    world.fill(5)
    assert world.poll().admitted == 5
    world.clock.forward(minutes=5)
    world.store.put_many([world.item(n, updated=world.clock()) for n in range(5)])  # a mass re-stamp
    assert world.poll().seen == 0
    world.store.put(world.item(1, updated=world.clock(), properties={"eo:snow_cover": 99.0, "title": "new"}))
    assert world.poll().seen == 0
    world.store.put(world.item(2, updated=world.clock(), version=2))
    assert world.poll().admitted == 1
    assert len(world.ledger.conversions.find()) == 6


def test_a_re_stamp_is_a_change_where_the_source_says_so(world):
    world.settings["on"] = "restamp"
    world.fill(3)
    world.poll()
    world.clock.forward(minutes=5)
    world.store.put(world.item(1, updated=world.clock()))
    assert world.poll().admitted == 1


def test_an_item_that_becomes_visible_long_after_its_stamp_is_found_and_makes_the_overlap_longer(world):
    world.fill(5)
    world.poll()
    for minute in range(10):
        world.clock.forward(minutes=1)
        for n in range(10):
            world.store.put(world.item(100 + 10 * minute + n, updated=world.clock() - timedelta(minutes=12)))
        assert world.poll().admitted == 10
    late = world.ledger.sources.lateness("s2")
    assert late == {10: 100}  # 12 min less the minute since the last poll: less than 1,024 s
    assert auto_overlap(late) == timedelta(seconds=2048)
    world.clock.forward(minutes=1)
    world.store.put(world.item(300, updated=world.clock() - timedelta(minutes=30)))
    assert world.poll().admitted == 1


def test_what_a_catalog_shows_later_than_it_accepts_it_is_found(world):
    """Stamped, accepted with 201, and visible some minutes later, behind what the polls have read by then."""
    world.fill(3)
    world.poll()
    world.faults.set(visibility_delay=600)
    url = f"{world.url}/collections/sentinel-2-l2a/items"
    new, replaced = world.item(50, updated=world.clock()), world.item(1, version=2, updated=world.clock())
    assert requests.post(url, json=new, timeout=5).status_code == 201
    assert requests.put(f"{url}/{replaced['id']}", json=replaced, timeout=5).status_code == 200
    for _ in range(9):
        world.clock.forward(minutes=1)
        assert world.poll().admitted == 0
    world.clock.forward(minutes=2)
    assert world.poll().admitted == 2
    assert len(world.states()) == 4


def test_an_item_that_comes_late_is_found_before_anybody_knows_how_late_this_catalog_is(world):
    world.fill(3)
    world.poll()
    world.clock.forward(minutes=1)
    world.store.put(world.item(50, updated=world.clock() - timedelta(minutes=55)))
    assert world.poll().admitted == 1


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        ({}, FIRST_OVERLAP), ({0: 99}, FIRST_OVERLAP), ({0: 100}, SHORTEST_OVERLAP),
        ({0: 10_000}, SHORTEST_OVERLAP), ({0: 10_000, 12: 5}, SHORTEST_OVERLAP),
        ({0: 10_000, 12: 50}, timedelta(seconds=8192)), ({0: 1, 17: 1}, LONGEST_OVERLAP),
    ],
)  # fmt: skip
def test_the_overlap_is_twice_what_all_but_one_in_a_thousand_items_need(late, expected):
    assert auto_overlap(late) == expected


def test_how_late_an_item_is_counts_from_the_cursor(world):
    now = world.clock()
    assert [lateness_bucket(now, now + timedelta(seconds=s)) for s in (5, 0, -1, -2, -1023, -1024)] == [0, 0, 1, 2, 10, 11]
    assert lateness_bucket(now, now - timedelta(days=3)) is None  # back-dated, which the sweep finds


def test_a_stamp_from_the_future_blinds_nobody(world):
    world.fill(3)
    world.poll()
    world.store.put(world.item(50, updated=world.clock() + timedelta(days=365)))
    world.clock.forward(minutes=1)
    assert world.poll().admitted == 1
    world.store.put(world.item(4, updated=world.clock()))
    world.clock.forward(minutes=1)
    assert world.poll().admitted == 1
    assert world.ledger.sources.position("s2:updated") <= world.clock()
    assert world.sweep().admitted == 0
    assert len(world.states()) == 5


@pytest.mark.parametrize("hours", [-5, 5])
def test_clocks_that_are_hours_off_delay_nothing(world, hours):
    """A server that is behind, or a publisher that writes its local time with `Z`: found by the next poll all the same."""
    world.fill(3)
    world.poll()
    world.clock.forward(minutes=1)
    world.store.put(world.item(50, updated=world.clock() - timedelta(hours=hours)))
    if hours < 0:
        assert world.poll().admitted == 1
    else:
        world.clock.forward(hours=-hours)  # the server's clock is set back
        assert world.poll().admitted == 1
    assert len(world.states()) == 4


def test_the_cursor_stays_where_it_was_when_a_window_fails(world):
    world.fill(3)
    world.poll()
    before = world.ledger.sources.position("s2:updated")
    world.clock.forward(hours=3)
    world.store.put(world.item(80, updated=world.clock() - timedelta(hours=2)))
    world.faults.set(wire=("503",) * 8, retry_after=None)
    with pytest.raises(CatalogUnavailable):
        world.poll()
    assert world.ledger.sources.position("s2:updated") == before
    world.faults.set(wire=())
    assert world.poll().admitted == 1


def test_our_own_clock_may_be_wrong(world):
    world.fill(3)
    catalog_time = world.clock
    assert world.poll().admitted == 3
    position = world.ledger.sources.position("s2:updated")
    assert position == catalog_time()


def test_an_archive_is_not_converted_by_accident(world):
    world.settings["poll"] = {"since": "1d"}
    world.fill(100)  # the last of them are of the last day
    recent = sum((world.item(n)["properties"]["updated"] >= "2025-11-23T12:00:00Z") for n in range(100))
    assert 0 < recent < 30
    assert world.poll().admitted == recent
    world.clock.forward(minutes=1)
    assert world.poll().admitted == 0


@pytest.mark.parametrize("order", [("0511", "0512"), ("0512", "0511")])
def test_of_two_processings_of_one_acquisition_the_newest_is_converted(world, order):
    world.settings["reprocessing"] = "newest"
    for baseline in order:
        world.store.put(acquired(world, baseline=f"N{baseline}", updated=world.clock()))
        world.poll()
        world.clock.forward(minutes=1)
    states = {item_id[27:32]: state for item_id, state in world.states().items()}
    assert states == {"N0511": "superseded", "N0512": "queued"}
    world.store.put(acquired(world, baseline="N0512", generation="20251123T000000", updated=world.clock()))
    world.poll()
    assert sorted(world.states().values()) == ["queued", "superseded", "superseded"]
    assert world.poll().admitted == 0


def test_two_processings_in_one_page_are_told_apart_and_other_tiles_are_not_touched(world):
    world.settings["reprocessing"] = "newest"
    other = "S2A_MSIL2A_20251120T100041_N0511_R122_T33TUN_20251120T235959"
    items = [acquired(world, baseline=b, updated=world.clock()) for b in ("N0511", "N0513", "N0512")]
    world.store.put_many([*items, world.item(10, item_id=other, updated=world.clock())])
    world.poll()
    states = world.states()
    assert states.pop(other) == "queued"
    assert {item_id[27:32] for item_id, state in states.items() if state == "queued"} == {"N0513"}


def test_what_runs_already_is_not_superseded_and_a_withdrawn_processing_supersedes_nothing(world):
    world.settings["reprocessing"] = "newest"
    world.store.put(acquired(world, updated=world.clock()))
    world.poll()
    row = world.ledger.conversions.find()[0]
    from stac_watch.ledger.records import Move

    world.ledger.conversions.move(row, Move(Fact.ACCEPTED, "posted"), world.clock())
    world.clock.forward(minutes=1)
    newer = acquired(world, baseline="N0512", updated=world.clock(), properties={"deprecated": True})
    world.store.put(newer)
    world.poll()
    assert sorted(world.states().values()) == ["deprecated", "submitted"]
    world.store.put(acquired(world, baseline="N0513", updated=world.clock()))
    world.poll()
    assert sorted(world.states().values()) == ["deprecated", "queued", "submitted"]


def test_by_default_every_processing_is_converted(world):
    world.store.put_many([acquired(world, baseline=b, updated=world.clock()) for b in ("N0511", "N0512")])
    assert world.poll().admitted == 2


def test_every_no_has_its_name(world, tmp_path):
    area = tmp_path / "aoi.geojson"
    triangle = {"type": "Polygon", "coordinates": [[[10.0, 40.0], [13.0, 40.0], [13.0, 43.0], [10.0, 40.0]]]}
    area.write_text(json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": triangle}]}))
    world.settings["filter"] = {"intersects": str(area), "max_cloud_cover": 50, "cql2": '"sat:relative_orbit" = 122'}
    now = world.clock()
    far = "S2A_MSIL2A_20251120T100041_N0511_R122_T33UUP_20251120T235959"
    documents = {
        "queued": world.item(1, updated=now), "too_cloudy": world.item(2, updated=now, cloud_cover=51),
        "no_cloud_cover": world.item(3, updated=now, cloud_cover=None), "outside_area": world.item(4, item_id=far, updated=now),
        "no_match": world.item(5, updated=now, properties={"sat:relative_orbit": 5}),
        "cannot_match": world.item(6, updated=now, properties={"sat:relative_orbit": None}),
    }  # fmt: skip
    world.store.put_many(documents.values())
    from stac_watch.catalog.client import FIELDS
    from stac_watch.discover.policy import fields_for

    fields = (*FIELDS, *fields_for(world.source().filter))
    world.poll(fields=fields, whole=True)
    states = world.states()
    assert {name: states[d["id"]] for name, d in documents.items()} == {name: name for name in documents}
    skipped = {place.cause: n for place, n in world.ledger.counts.funnel().items() if place.state is State.SKIPPED}
    assert skipped == dict.fromkeys(documents.keys() - {"queued"}, 1)
    # a property that comes later is enough: nothing that matters else changed
    world.clock.forward(minutes=1)
    world.store.put(world.item(3, updated=world.clock(), cloud_cover=10))
    world.poll(fields=fields, whole=True)
    assert world.states()[documents["no_cloud_cover"]["id"]] == "queued"


def test_a_server_s_clock_that_was_wrong_once_blinds_nobody_afterwards(world):
    world.fill(3)
    world.poll()
    world.ledger.sources.set_position("s2:updated", world.clock() + timedelta(days=30), world.clock())  # by a `Date` of then
    world.clock.forward(minutes=1)
    world.store.put(world.item(4, updated=world.clock()))
    assert world.poll().admitted == 1
    assert world.ledger.sources.position("s2:updated") <= world.clock()


def test_a_server_s_clock_that_was_wrong_at_the_very_first_poll_hides_no_news(world):
    world.settings["poll"] = {"since": "1h"}
    world.fill(1)
    right = world.clock.time
    world.clock.forward(days=30)
    poll(replace(world.intake(), now=lambda: right))
    world.clock.forward(days=-30, minutes=30)
    world.poll()
    world.store.put(world.item(4, updated=world.clock() - timedelta(minutes=5)))  # late, as all catalogs are now and then
    world.clock.forward(minutes=1)
    assert world.poll().admitted == 1


def test_a_server_s_clock_that_is_behind_once_takes_the_cursor_nowhere(world):
    world.fill(3)
    world.poll()
    position, right = world.ledger.sources.position("s2:updated"), world.clock.time
    world.clock.forward(days=-300)
    poll(replace(world.intake(), now=lambda: right))
    assert world.ledger.sources.position("s2:updated") == position


def test_a_whole_window_is_not_put_off_by_a_clock_that_was_wrong_once(world):
    """Where an idle query is dear, polls look at recent acquisitions, and at all once per `poll.sweep`."""
    world.settings["poll"] = {"since": "400d", "sweep": "6h", "sweep_back": "14d"}
    world.fill(1)
    world.poll()
    found, at, _ = world.ledger.sources.state("s2", ()).abilities
    world.ledger.sources.note_abilities("s2", found | {"idle": 1.0, "samples": 5}, at)
    world.poll()
    world.ledger.sources.set_position("s2:updated:all", world.clock() + timedelta(days=30), world.clock())
    world.clock.forward(minutes=1)
    world.poll()
    assert world.ledger.sources.position("s2:updated:all") <= world.clock()
    world.clock.forward(hours=6)
    world.store.put(world.item(4, updated=world.clock(), datetime=world.clock() - timedelta(days=99)))
    assert world.poll().admitted == 1
