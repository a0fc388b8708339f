"""What `status` says of a source's discovery."""

import io
from dataclasses import asdict
from datetime import timedelta

import pytest
from rich.console import Console

from stac_watch.catalog.abilities import Abilities
from stac_watch.config.model import Limits, Source
from stac_watch.ledger.records import Findings, Move
from stac_watch.model.states import Fact
from stac_watch.report import status


def source(**poll):
    return Source(name="s2", api="https://stac.example", collection="c", poll=poll)


def said(ledger, make, *sources):
    view = status.read(ledger, sources, Limits(), make.now)
    console = Console(width=200, file=io.StringIO())
    console.print(status.render_status(view))
    return {s.source: s for s in view.sources}, console.file.getvalue()


def test_before_anything_is_known_an_hour_is_read_again(ledger, make):
    found, text = said(ledger, make, source())
    assert (found["s2"].catalog, found["s2"].probed) == (None, None)
    assert (found["s2"].overlap, found["s2"].lateness_samples, found["s2"].withdrawn) == (3600, 0, 0)
    assert "its catalog was not asked yet" in text
    assert "60 min (lateness of 0 items)" in text


def test_the_overlap_in_use_and_what_it_is_sized_by_are_said(ledger, make):
    ledger.sources.note_abilities("s2", asdict(Abilities(max_page=500, idle=0.0061, fields=False)), make.now)
    ledger.items.commit("s2", [], [], None, make.now, Findings(lateness={0: 9000, 11: 700}))
    ledger.items.commit("s2", [], [], None, make.now, Findings(lateness={11: 300}))
    found, text = said(ledger, make, source())
    assert (found["s2"].overlap, found["s2"].lateness_samples) == (2 * 2**11, 10_000)
    expected = "search by POST, 500 items a page, windows on `updated` as text, `fields` cannot be used, 6 ms to find nothing"
    assert (found["s2"].catalog, found["s2"].probed) == (expected, make.now)
    assert f"s2: {expected}" in text
    assert "68 min (lateness of 10000 items)" in text


@pytest.mark.parametrize(("stamp", "poll", "overlap"), [("updated", {"overlap": "20m"}, 1200), ("datetime", {}, 3 * 86400)])
def test_an_overlap_that_is_not_measured_says_so(ledger, make, stamp, poll, overlap):
    ledger.sources.note_abilities("s2", asdict(Abilities(stamp=stamp)), make.now)
    ledger.items.commit("s2", [], [], None, make.now, Findings(lateness={3: 50}))
    found, text = said(ledger, make, source(**poll))
    assert (found["s2"].overlap, found["s2"].lateness_samples) == (overlap, None)
    assert f"{overlap // 60} min (as set)" in text


def test_a_source_that_is_no_longer_configured_has_no_overlap(ledger, make):
    ledger.items.commit("old", [make.sighting()], [], None, make.now)
    found, text = said(ledger, make, source())
    assert set(found) == {"s2", "old"}
    assert (found["old"].overlap, found["old"].lateness_samples) == (None, None)
    assert "old" in text


def test_withdrawn_items_are_counted(ledger, make):
    ledger.items.commit("s2", [make.sighting(item_id=i) for i in "abc"], [], None, make.now)
    for number in (1, 2):
        ledger.items.commit("s2", [], [], None, make.now, Findings(missing=["a", "b"], sweep=number))
    assert ledger.absences.withdraw("s2", "a", make.now)
    found, text = said(ledger, make, source())
    assert found["s2"].withdrawn == 1
    assert [line.split("│")[2].strip() for line in text.splitlines() if "withdrawn" in line and "│" in line] == ["1"]


def test_a_wait_is_counted_from_admission_whatever_was_tried_since(ledger, make):
    ledger.items.commit("s2", [make.sighting(item_id=i) for i in ("early", "late")], [], None, make.now)
    rows = {row.item_id: row for row in ledger.conversions.find()}
    hour = timedelta(hours=1)
    ledger.conversions.move(rows["early"], Move(Fact.ACCEPTED, "sent"), make.now + hour)
    sent = ledger.conversions.get(rows["early"].key)
    not_there = Move(Fact.NOT_READY, "not there", reason="not there", due=make.now + 30 * hour)
    ledger.conversions.move(sent, not_there, make.now + 20 * hour)
    now = make.now + 26 * hour
    view = status.read(ledger, [], Limits(), now)
    assert {w.line.item: w.seconds for w in view.waiting} == {"early": 26 * 3600, "late": 26 * 3600}
    [why] = [w.why for w in view.waiting if w.line.item == "early"]
    assert why.endswith(", at 18:00 UTC")
    assert ledger.counts.sums(now).waiting_since == make.now
