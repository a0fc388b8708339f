"""What people call a conversion leads to it, or to those that it may be."""

from dataclasses import replace
from datetime import timedelta

import pytest

from stac_watch.ledger.records import Where
from stac_watch.model.errors import InputError

ROME = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
VIENNA = "S2B_MSIL2A_20251009T095029_N0511_R079_T33UXP_20251009T121212"
AGAIN = "S2C_MSIL2A_20251010T095029_N0511_R079_T33UXP_20251010T121212"


@pytest.fixture
def seen(ledger, make):
    """Three items on two tiles, and the keys of their conversions by id."""
    keys = {}
    for day, (item_id, tile) in enumerate(((ROME, "T32TQM"), (VIENNA, "T33UXP"), (AGAIN, "T33UXP"))):
        sighting = make.sighting(item_id=item_id)
        sensed = make.now - timedelta(days=3 - day)
        sighting = replace(sighting, item=replace(sighting.item, tile=tile, datetime=sensed))
        ledger.items.commit("s2", [sighting], [], None, make.now + timedelta(minutes=day))
        keys[item_id] = sighting.conversion.key
    return keys


def ids(rows):
    return [row.item_id for row in rows]


@pytest.mark.parametrize(
    "name", [ROME, "T32TQM", "32TQM", "t32tqm", " T32TQM ", "20251008T100041", "n0511_r122", f"{ROME}.SAFE", f"{ROME}.zarr"]
)
def test_an_id_a_tile_and_a_part_that_one_item_has_name_it(ledger, seen, name):
    assert ids(ledger.conversions.called(name)) == [ROME]


def test_so_do_a_key_its_start_and_the_name_of_a_run(ledger, seen):
    key = seen[VIENNA]
    run = ledger.conversions.called(key)[0].run
    assert run is not None
    for name in (key, key.upper(), key[:6], run, run[:-2]):
        assert ids(ledger.conversions.called(name)) == [VIENNA]


def test_what_several_items_have_names_them_and_leads_to_the_list(ledger, seen):
    with pytest.raises(InputError) as refusal:
        ledger.conversions.called("T33UXP")
    assert (VIENNA in refusal.value.message, AGAIN in refusal.value.message, ROME in refusal.value.message) == (True, True, False)
    assert "stac-watch items --text T33UXP" in refusal.value.hint


def test_a_name_that_is_whole_goes_before_what_contains_it(ledger, make, seen):
    longer = make.sighting(item_id=f"{ROME}_v2")
    ledger.items.commit("s2", [longer], [], None, make.now)
    assert ids(ledger.conversions.called(ROME)) == [ROME]


@pytest.mark.parametrize("name", ["", "S2", "T31UFU", "nothing of that", "%", "____", "' or 1=1 --"])
def test_what_nothing_is_called_finds_nothing(ledger, seen, name):
    assert ledger.conversions.called(name) == []


def test_items_are_found_by_tile_day_and_text_together(ledger, make, seen):
    day = (make.now - timedelta(days=2), make.now - timedelta(days=1))
    assert ids(ledger.conversions.find(place=Where(tile="T33UXP"))) == [AGAIN, VIENNA]
    assert ids(ledger.conversions.find(place=Where(tile="T33UXP", sensed=day))) == [VIENNA]
    assert ids(ledger.conversions.find(place=Where(text="s2a_"))) == [ROME]
    assert ledger.conversions.find(place=Where(tile="T32TQM", sensed=day)) == []
