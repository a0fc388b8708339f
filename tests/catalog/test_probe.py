"""The probe believes what a server does, not what it says; and discovery loses nothing on any of them."""

from dataclasses import asdict
from datetime import timedelta

import pytest

from stac_watch.catalog.abilities import EXPENSIVE, Abilities, restore, words
from stac_watch.catalog.probe import probe
from stac_watch.model.errors import ConfigError

SERVERS = {
    "typed": ({}, {"stamp": "updated", "typed": True, "sorts": True, "fields": True, "product": True}),
    "text": ({"text_updated": True, "id_tokens": True}, {"stamp": "updated", "typed": False, "sorts": True}),
    "no POST": ({"post_search": "405"}, {"method": "GET", "stamp": "updated"}),
    "POST redirected": ({"post_search": "301", "text_updated": True}, {"method": "GET", "stamp": "updated", "typed": False}),
    "no sort": ({"ignore": frozenset({"sortby"})}, {"stamp": "updated", "sorts": False}),
    "no filter": ({"ignore": frozenset({"filter"})}, {"stamp": "datetime", "filters": False}),
    "no fields": ({"ignore": frozenset({"fields"})}, {"fields": False, "max_page": 200}),
    "no limit": ({"ignore": frozenset({"limit"})}, {"max_page": 10}),
    "bare": ({"ignore": frozenset({"sortby", "filter", "fields", "limit"})}, {"stamp": "datetime", "sorts": False}),
}


@pytest.mark.parametrize("name", SERVERS)
def test_what_a_server_does_is_found_out_and_nothing_is_missed(world, name):
    faults, expected = SERVERS[name]
    world.fill(60)
    world.faults.set(**faults)
    found = asdict(probe(world.catalog(), 1000))
    assert {k: found[k] for k in expected} == expected
    assert world.poll().admitted == 60
    world.clock.forward(minutes=1)
    world.store.put(world.item(3, version=2, updated=world.clock()))
    world.store.put(world.item(61, updated=world.clock()))
    world.clock.forward(minutes=1)
    assert world.poll().admitted == (2 if found["stamp"] == "updated" else 1)
    world.sweep()
    assert sum("/v2/" in href for href in world.hrefs()) == 1
    assert len(world.states()) == 61


def test_a_server_that_ignores_time_is_refused(world):
    world.fill(3)
    world.faults.set(ignore=frozenset({"datetime"}))
    with pytest.raises(ConfigError, match="ignores `datetime`"):
        probe(world.catalog(), 1000)


def test_it_is_kept_for_a_day_and_renewed_after_an_error(world):
    world.fill(20)
    world.poll()
    assert world.ledger.sources.state("s2", ()).abilities[0]["typed"] is True
    world.faults.set(text_updated=True)
    world.clock.forward(hours=23)
    world.poll()
    assert world.ledger.sources.state("s2", ()).abilities[0]["typed"] is True
    world.clock.forward(hours=2)
    world.poll()
    assert world.ledger.sources.state("s2", ()).abilities[0]["typed"] is False
    world.faults.set(text_updated=False, wire=("500",) * 200)
    with pytest.raises(Exception, match="500"):
        world.poll()
    assert world.ledger.sources.state("s2", ()).abilities[2] is True
    world.faults.set(wire=())
    world.poll()
    assert world.ledger.sources.state("s2", ()).abilities[0]["typed"] is True


def test_an_empty_collection_is_looked_at_again_soon(world):
    world.store.put_collection({"type": "Collection", "id": "sentinel-2-l2a", "links": []})
    world.faults.set(text_updated=True)
    world.poll()
    assert world.ledger.sources.state("s2", ()).abilities[0]["samples"] == 0
    world.clock.forward(minutes=11)
    world.fill(5, updated=world.clock())
    assert world.poll().admitted == 5
    assert world.ledger.sources.state("s2", ()).abilities[0]["samples"] == 5


def test_items_without_the_usual_stamp_are_watched_by_another(world):
    world.fill(20, properties={"updated": None, "published": None})
    assert world.poll().admitted == 20
    found = world.ledger.sources.state("s2", ()).abilities[0]
    assert (found["stamp"], found["rejected"][0]) == ("created", "`updated` is missing or no time on 20 of 20 items")


def test_what_was_found_is_said_in_words():
    assert words(Abilities(samples=0)) == ["the collection is empty: nothing is known yet, each poll looks again"]
    told = "\n".join(words(Abilities(stamp="datetime", fields=False, sorts=False, honest_next=False, idle=2 * EXPENSIVE)))
    for word in ("no change stamp", "`fields` cannot be used", "`sortby` cannot be used", "`next`", "600 ms", "once per sweep"):
        assert word in told
    assert "as text" in "\n".join(words(Abilities()))
    assert "as time" in "\n".join(words(Abilities(typed=True)))
    assert "`published` and `created` could be used" in "\n".join(words(Abilities(stamps=("updated", "published", "created"))))


def test_abilities_survive_the_ledger_and_those_of_another_version_do_not(world):
    found = Abilities(method="GET", rejected=("`updated` is missing",))
    world.ledger.sources.note_abilities("s2", asdict(found), world.clock())
    assert restore(world.ledger.sources.state("s2", ()).abilities[0]) == found
    assert restore({"method": "GET"}) is None


def test_which_stamps_could_be_used_is_found_for_each_of_them(world):
    world.fill(20, properties={"created": None})
    found = probe(world.catalog(), 1000)
    assert (found.stamps, found.rejected) == (("updated", "published"), ("`created` is missing or no time on 20 of 20 items",))


def test_a_stamp_that_is_not_sorted_cannot_take_the_place_of_another(world):
    world.fill(20)
    world.faults.set(ignore=frozenset({"sortby"}))
    found = probe(world.catalog(), 1000)
    assert found.stamps == ("updated",)
    assert "`published` is ignored by `sortby`" in found.rejected


def test_one_item_without_properties_says_nothing_of_the_others(world):
    wanted = world.fill(20)
    world.faults.set(no_properties=(wanted[19],))
    tally = world.poll()
    assert world.ledger.sources.state("s2", ()).abilities[0]["stamp"] == "updated"
    assert (tally.admitted, tally.unreadable) == (19, 1)


def test_on_a_slow_server_polls_look_at_recent_acquisitions_and_once_per_sweep_at_all_until_it_got_an_index(world):
    world.fill(20)
    world.faults.set(slow=EXPENSIVE + 0.05)

    def slow_ones() -> int:
        taken = world.faults.delivered.count("slow")
        world.faults.delivered.clear()
        return taken

    world.poll()
    assert world.ledger.sources.state("s2", ()).abilities[0]["idle"] > EXPENSIVE
    assert "once per sweep" in "\n".join(words(restore(world.ledger.sources.state("s2", ()).abilities[0])))
    assert slow_ones() > 0  # the probe, and the first poll without the limit
    old = world.clock() - timedelta(days=300)
    world.clock.forward(minutes=5)
    world.store.put(world.item(0, item_id="S2A_MSIL2A_20250101T100041_N0511_R122_T32TQM_20250101T122613", datetime=old,
                               updated=world.clock()))  # fmt: skip
    world.store.put(world.item(30, updated=world.clock()))
    world.clock.forward(minutes=1)
    assert world.poll().admitted == 1
    assert slow_ones() == 0
    world.clock.forward(hours=6)
    assert world.poll().admitted == 1
    assert slow_ones() > 0
    assert len(world.states()) == 22
    # and when it got an index it is asked for everything again
    world.faults.set(slow=0.0)
    world.clock.forward(days=1)
    world.poll()
    assert world.ledger.sources.state("s2", ()).abilities[0]["idle"] < EXPENSIVE
    assert "once per sweep" not in "\n".join(words(restore(world.ledger.sources.state("s2", ()).abilities[0])))


def test_where_the_product_is_asked_for_alone_items_without_one_are_still_read(world):
    world.fill(30)
    world.poll()
    assert world.ledger.sources.state("s2", ()).abilities[0]["product"] is True
    world.clock.forward(minutes=1)
    bare = world.item(40, updated=world.clock())
    store = bare["assets"].pop("product")["href"]
    world.store.put_many([bare, world.item(41, updated=world.clock())])
    assert world.poll().admitted == 2
    assert store in world.hrefs()
    assert world.ledger.absences.unreadable() == []
