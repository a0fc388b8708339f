"""Items with a start and an end in place of an instant: they lie in every window between, and halving makes them no fewer."""

from datetime import timedelta

import pytest


def lasting(world, count):
    """Items a month long, all of which overlap, under ids that sort by number."""
    items = []
    for n in range(count):
        item = world.item(n)
        start, end = world.clock() - timedelta(days=30), world.clock() - timedelta(days=1)
        item["properties"] |= {"datetime": None, "start_datetime": f"{start:%FT%TZ}", "end_datetime": f"{end:%FT%TZ}"}
        items.append(item)
    world.store.put_many(items)


@pytest.mark.parametrize("faults", [frozenset({"limit"}), frozenset({"limit", "sortby"})], ids=["walked by id", "cannot be walked"])
def test_a_second_that_is_full_of_them_stops_no_sweep(world, faults):
    world.settings["poll"] = {"since": "60d", "sweep": "6h", "sweep_back": "3d", "sweep_all": "off"}
    world.faults.set(ignore=faults)
    lasting(world, 30)
    assert world.poll().admitted == 30
    assert world.sweep().admitted == 0
    world.clock.forward(hours=7)
    late = world.item(105, updated="2025-01-01T00:00:00Z")  # back-dated: a sweep alone finds it
    world.store.put(late)
    world.sweep()
    assert late["id"] in world.states()
    said = [why for _, _, why in world.ledger.absences.unreadable()]
    assert bool(said) == ("sortby" in faults), "what cannot be told apart is said, and once"
