"""A catalog behind replicas of which one lags: its older answers are neither news nor a return."""

from datetime import timedelta

from stac_watch.model.states import Fact


def show(world, version, updated):
    item = world.item(0, version=version, updated=updated)
    world.store.put(item)
    return world.poll()


def test_a_replica_that_lags_moves_nothing_and_is_counted(world):
    first, second = world.clock() - timedelta(minutes=9), world.clock() - timedelta(minutes=4)
    assert show(world, 1, first).admitted == 1
    assert show(world, 2, second).admitted == 1
    newest = world.ledger.items.current("s2", [world.item(0)["id"]])
    for version, updated in ((1, first), (2, second)) * 3:
        tally = show(world, version, updated)
        assert (tally.admitted, tally.lagging) == (0, int(version == 1))
    assert world.ledger.items.current("s2", [world.item(0)["id"]]) == newest
    facts = [h.fact for row in world.ledger.conversions.find() for h in world.ledger.conversions.history(row.key)]
    assert sorted(facts) == sorted([Fact.ADMITTED, Fact.ADMITTED, Fact.SUPERSEDED])


def test_a_return_is_one_where_it_is_stamped_anew(world):
    show(world, 1, world.clock() - timedelta(minutes=9))
    show(world, 2, world.clock() - timedelta(minutes=4))
    assert show(world, 1, world.clock() - timedelta(minutes=1)).admitted == 1
    (row,) = world.ledger.items.current("s2", [world.item(0)["id"]]).values()
    assert row.fence == (world.clock() - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_a_stamp_from_the_future_can_be_corrected(world):
    show(world, 1, world.clock() + timedelta(days=900))
    tally = show(world, 2, world.clock() - timedelta(minutes=4))
    assert (tally.admitted, tally.lagging) == (1, 0)
