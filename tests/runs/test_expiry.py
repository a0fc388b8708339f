"""Outputs on the volumes of runs go with them, and are not called done any longer."""

from datetime import timedelta

import pytest
from fakes.kubernetes import CORE

from stac_watch.ledger.records import Move
from stac_watch.model.errors import Refused
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import Fact, State
from stac_watch.runs.expiry import SETTLED, expire

KEEP = timedelta(days=3)


@pytest.fixture
def done(ledger, make):
    """Makes a conversion with that output done; returns its key."""

    def _done(item, output):
        sighting = make.sighting(item_id=item, output_zarr=output)
        ledger.items.commit("s2", [sighting], [], None, make.now)
        row = ledger.conversions.get(sighting.conversion.key)
        outcome = Outcome(code=0, key=row.key, attempt=1)
        ledger.conversions.move(row, Move(Fact.SUCCEEDED, "done", outcome=outcome), make.now)
        return row

    return _done


def test_what_lay_on_a_volume_that_is_gone_is_expired_and_nothing_else(ledger, make, done, consistent):
    kept, gone, stored, odd = (
        done("kept", "/data/kept.zarr"), done("gone", "/data/gone.zarr"), done("stored", "s3://b/data/stored.zarr"),
        done("odd", "/data0/odd.zarr"),
    )  # fmt: skip
    soon = make.now + SETTLED - timedelta(seconds=1)
    assert expire(ledger, {kept.run}, soon, KEEP) == 0, "the volumes were listed before the ledger was read"
    later = make.now + SETTLED
    assert expire(ledger, {kept.run}, later, KEEP) == 1
    states = {row.item_id: ledger.conversions.get(row.key).state for row in (kept, gone, stored, odd)}
    assert states == {"kept": State.DONE, "gone": State.EXPIRED, "stored": State.DONE, "odd": State.DONE}
    assert gone.run in ledger.conversions.get(gone.key).reason
    assert expire(ledger, {kept.run}, later, KEEP) == 0
    consistent()
    again = Move(Fact.REPLAYED, "a person asked for it", lane="replay")
    assert ledger.conversions.move(ledger.conversions.get(gone.key), again, later) is State.QUEUED


def test_an_answer_without_any_volume_is_not_believed_of_what_should_still_be_there(ledger, make, done):
    """A look at the wrong namespace shows none, and would have every output made again."""
    row = done("gone", "/data/gone.zarr")
    assert expire(ledger, set(), make.now + KEEP - timedelta(seconds=1), KEEP) == 0
    assert expire(ledger, set(), make.now + KEEP, KEEP) == 1
    assert ledger.conversions.get(row.key).state is State.EXPIRED


def test_the_volumes_that_are_there_are_asked_of_kubernetes(api, engine):
    api.claim("gz-a")
    api.claim("gz-b", api.run("gz-b"))
    api.claim("the-ledger-s", labels={"app.kubernetes.io/name": "stac-watch"})
    assert engine.volumes() == {"gz-a", "gz-b"}
    assert f"{CORE}/persistentvolumeclaims" in {asked.path for asked in api.asked}
    api.refuse_all(403)
    with pytest.raises(Refused):
        engine.volumes()
