"""What discovery remembers of items and sources, on both databases."""

import json
from datetime import timedelta

from stac_watch.ledger.records import Findings, Move, Place
from stac_watch.model.item import Unreadable
from stac_watch.model.states import Fact, State

COLLECTION = "https://stac.example/collections/sentinel-2-l2a"


def test_a_renamed_source_takes_along_what_there_is_beside_what_it_has_already(ledger, make, consistent):
    early, late = make.now, make.now + timedelta(hours=1)
    ledger.items.commit(
        "old", [make.sighting(item_id=name) for name in "ab"], [Unreadable("odd", "no asset")], ("old:updated", early), early
    )
    ledger.items.commit("new", [make.sighting(item_id="c")], [Unreadable("odd", "no asset")], ("new:updated", late), late)
    ledger.items.commit("old", [], [], ("old:datetime", early), early, Findings(preexisting={"x": "trace", "y": "trace"}))
    ledger.items.commit("new", [], [], None, late, Findings(preexisting={"x": "other"}))
    (done,) = ledger.conversions.find(item_id="a")
    ledger.conversions.move(done, Move(Fact.SUCCEEDED, "as a test"), early)
    assert ledger.renaming.orphans({COLLECTION: "new"}) == {"old": "new"}
    assert ledger.renaming.orphans({COLLECTION: "old", "https://elsewhere.example/c": "new"}) == {}
    assert ledger.renaming.rename("old", "new") == 2
    assert {row.source for row in ledger.conversions.find()} == {"new"}
    assert ledger.counts.funnel() == {Place("new", "live", State.QUEUED, ""): 2, Place("new", "live", State.DONE, ""): 1}
    assert ledger.items.known("new", ["a", "b", "c"]).keys() == {"a", "b", "c"}
    assert ledger.absences.unreadable() == [("new", "odd", "no asset")]
    assert ledger.absences.preexisting("new", ["x", "y"]) == {"x": "other", "y": "trace"}
    state = ledger.sources.state("new", ("updated", "datetime"))
    assert state.positions == {"updated": early, "datetime": early}
    assert {row.key for row in ledger.outbox.due(late, 9)} == {row.key for row in ledger.conversions.find(state=State.QUEUED)}
    assert ledger.renaming.orphans({COLLECTION: "new"}) == {}
    consistent()


def test_an_event_that_was_never_posted_names_the_place_where_its_product_is_now(ledger, make, consistent):
    ledger.items.commit("s2", [make.sighting(item_id=name) for name in "ab"], [], None, make.now)
    posted = ledger.outbox.due(make.now, 9)[0]
    ledger.outbox.note_post(posted, make.now)
    href = "https://data.example/x.zarr?sig=fresh"
    ledger.items.commit("s2", [], [], None, make.now, Findings(places={"a": href, "b": href, "unknown": href}, moved=["a"]))
    for row in ledger.conversions.find():
        data = json.loads(ledger.conversions.events(row.key)[0])["data"]
        assert (data["product_href"], data["stac_url"]) == ((make.href,) * 2 if row.key == posted.key else (href,) * 2)
    assert ledger.absences.moved("s2", make.now) == {"a"}
    assert ledger.absences.moved("s2", make.now + timedelta(seconds=1)) == set()
    consistent()
