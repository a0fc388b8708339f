"""What was announced, when it was available, and what is missing: from the ledger's own times, and on the published pages."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import requests

from stac_watch.config.model import Limits, Source
from stac_watch.config.objective import Objective
from stac_watch.jobs.publish import publish
from stac_watch.ledger.records import Move
from stac_watch.model.errors import CannotWrite
from stac_watch.model.item import SkipReason
from stac_watch.model.states import Fact
from stac_watch.report import freshness
from stac_watch.report.web.answers import serving
from stac_watch.report.web.freshness import CONTENT, pages
from stac_watch.report.web.site import Site
from stac_watch.watch.pulse import Recorder

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Year:
    """A ledger in which things happen at times that a test names."""

    def __init__(self, ledger, make):
        self.ledger, self.make, self.now = ledger, make, make.now

    def found(self, item_id, seen, *, stamped=None, skip=None, source="s2", **over):
        """An item that the catalog stamped, by default an hour before it was seen."""
        over = {"time": stamped or seen - HOUR, "datetime": seen - 9 * DAY, "item_id": item_id} | over
        self.ledger.items.commit(source, [self.make.sighting(skip, **over)], [], None, seen)

    def row(self, item_id):
        return self.ledger.conversions.find(item_id=item_id)[0]

    def told(self, item_id, fact, at, **more):
        self.ledger.conversions.move(self.row(item_id), Move(fact, "so it was", **more), at)

    def done(self, item_id, seen, after, **over):
        self.found(item_id, seen, **over)
        self.told(item_id, Fact.SUCCEEDED, seen + after)

    def read(self, days=30, **more):
        return freshness.read(self.ledger, ["s2"], self.now, days, **more)

    def sums(self, **more):
        return self.read(**more).sources[0].whole


@pytest.fixture
def year(ledger, make):
    made = Year(ledger, make)
    made.found("unwanted", make.now - 40 * DAY, skip=SkipReason.TOO_CLOUDY)  # the watch began then
    return made


def within(sums):
    return {w.hours: (w.met, w.due) for w in sums.within}


def test_an_item_counts_from_its_stamp_to_its_first_output(year):
    year.done("quick", year.now - 2 * DAY, timedelta(minutes=-30) + HOUR, stamped=year.now - 2 * DAY)
    year.done("slow", year.now - 2 * DAY, 4 * HOUR)  # five hours after its stamp
    year.done("late", year.now - 3 * DAY, 2 * DAY)
    sums = year.sums()
    assert (sums.announced, sums.available, sums.missing) == (3, 3, 0)
    assert within(sums) == {1: (1, 3), 6: (2, 3), 24: (2, 3)}
    assert (sums.median, sums.p95) == (5 * 3600, 49 * 3600)


def test_a_watcher_that_was_away_does_not_make_it_fresh(year):
    """What was found after an outage was announced before it."""
    year.done("x", year.now - DAY, timedelta(minutes=5), stamped=year.now - 3 * DAY)
    assert within(year.sums()) == {1: (0, 1), 6: (0, 1), 24: (0, 1)}


def test_an_item_without_a_stamp_counts_from_when_it_was_found_and_so_does_one_of_the_future(year):
    seen = year.now - DAY
    year.done("none", seen, HOUR, stamped=seen - 9 * DAY)  # as the event of an item has it that has no stamp: its acquisition
    year.done("future", seen, HOUR, stamped=seen + 5 * HOUR)
    assert within(year.sums())[1] == (2, 2)


def test_nothing_counts_from_before_its_source_was_watched(ledger, make):
    year = Year(ledger, make)
    year.done("x", make.now - DAY, HOUR, stamped=make.now - 2 * DAY)
    assert within(year.sums())[1] == (1, 1)


def test_a_limit_says_nothing_of_what_is_younger_than_it(year):
    year.found("young", year.now - HOUR, stamped=year.now - 2 * HOUR)
    assert within(year.sums()) == {1: (0, 1), 6: (0, 0), 24: (0, 0)}
    assert year.sums().missing == 1


def test_a_second_conversion_does_not_make_it_late_and_a_lost_one_does_not_make_it_missing(year):
    year.done("again", year.now - 9 * DAY, timedelta(0))
    year.told("again", Fact.REPLAYED, year.now - DAY, lane="replay")
    assert within(year.sums())[1] == (1, 1)
    year.told("again", Fact.FAILED_PERMANENT, year.now - HOUR, reason="it broke")
    assert (year.sums().available, year.sums().missing) == (1, 0)


def test_what_is_missing_says_why(year):
    seen = year.now - 2 * DAY
    for item in ("broken", "absent", "sent", "fresh"):
        year.found(item, seen)
    year.told("broken", Fact.FAILED_PERMANENT, seen, reason="bad chunk 3/4")
    year.told("absent", Fact.NOT_READY, seen, reason="not there", due=year.now)
    year.told("sent", Fact.ACCEPTED, seen)
    found = year.read()
    [reasons] = [s.whole.reasons for s in found.sources]
    assert reasons == {
        f"failed: {year.row('broken').cause}": 1, "its product is not there yet": 1, "under way": 1, "waits to be sent": 1,
    }  # fmt: skip
    assert {m.item: m.reason for m in found.missing}["broken"] == "bad chunk 3/4"
    assert {m.seconds for m in found.missing} == {49 * 3600.0}


def test_what_is_not_counted_is_said(year):
    seen = year.now - DAY
    year.found("cloudy", seen, skip=SkipReason.TOO_CLOUDY)
    year.found("old", seen, lane="backfill", reason="backfill")
    year.found("asked", seen, lane="backfill", reason="backfill")
    year.told("asked", Fact.FAILED_PERMANENT, seen, reason="it broke")
    year.told("asked", Fact.REPLAYED, seen, lane="replay")
    year.found("backdated", seen, stamped=year.now - 35 * DAY)
    year.found("twice", seen)
    year.found("twice", seen + HOUR, revision="rev-b")
    [source] = year.read().sources
    assert (source.whole.announced, source.whole.dropped) == (1, {"superseded": 1})
    assert (source.skipped, source.backdated) == (1, 1)


def test_what_a_backfill_brought_back_was_announced_all_the_same(year):
    seen = year.now - DAY
    year.found("back", seen)
    year.told("back", Fact.WITHDRAWN, seen, reason="withdrawn")
    year.told("back", Fact.ADMITTED, seen + HOUR, lane="backfill")
    assert (year.row("back").lane, year.sums().missing) == ("backfill", 1)


def test_days_are_days_of_the_announcement_and_none_is_left_out(year):
    year.done("x", year.now - 3 * DAY, 2 * DAY)
    days = year.read(days=5).sources[0].days
    assert [d.day for d in days] == ["2026-02-25", "2026-02-26", "2026-02-27", "2026-02-28", "2026-03-01"]
    assert [d.sums.announced for d in days] == [0, 1, 0, 0, 0]


def test_the_objective_is_measured_by_what_is_due(year):
    year.done("good", year.now - 2 * DAY, HOUR)
    year.found("bad", year.now - 2 * DAY)
    found = year.read(objective=Objective(within=timedelta(hours=6)))
    assert (found.sources[0].objective.met, found.sources[0].objective.due) == (1, 2)


def test_the_error_budget_burns_by_what_became_due_in_each_window(year):
    promised = Objective(within=timedelta(hours=6), share=0.9)
    for n, ago in enumerate((6.5, 8, 8, 30)):  # hours since the stamp: due half an hour, two hours, and a day ago
        year.found(f"late-{n}", year.now - ago * HOUR + HOUR, stamped=year.now - ago * HOUR)
    year.done("kept", year.now - 8 * HOUR, HOUR, stamped=year.now - 8 * HOUR)
    year.found("young", year.now - HOUR)
    found = {b.window: b for b in freshness.burns(year.ledger, ["s2", "other"], promised, year.now) if b.source == "s2"}
    assert {w: (b.due, b.late) for w, b in found.items()} == {"1h": (1, 1), "6h": (4, 3), "3d": (5, 4)}
    assert found["6h"].rate == pytest.approx(7.5)
    other = [b for b in freshness.burns(year.ledger, ["other"], promised, year.now) if b.source == "other"]
    assert {(b.due, b.rate) for b in other} == {(0, 0.0)}


def test_pages_have_each_figure_escape_everything_and_load_nothing(year, tmp_path):
    year.done("good", year.now - 2 * DAY, HOUR)
    year.found("bad", year.now - 2 * DAY)
    year.told("bad", Fact.FAILED_PERMANENT, year.now - DAY, reason='<script>alert("&")</script>')
    found = year.read(objective=Objective(), installation="prod")
    publish(str(tmp_path / "out"), pages(found, "1.0"), CONTENT)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    document = json.loads((tmp_path / "out" / "freshness.json").read_text())
    assert document["sources"][0]["whole"]["within"][0] == {"hours": 1.0, "due": 2, "met": 0}
    feed = ET.fromstring((tmp_path / "out" / "feed.atom").read_text())
    atom = {"a": "http://www.w3.org/2005/Atom"}
    entries = feed.findall("a:entry", atom)
    assert len(entries) == 29
    assert len({e.find("a:id", atom).text for e in entries}) == 29
    with_one = next(e for e in entries if "1 missing" in e.find("a:title", atom).text)
    assert "bad: <script>" in with_one.find("a:content", atom).text
    assert all(datetime.fromisoformat(e.find("a:updated", atom).text) for e in entries)


def test_a_watcher_serves_the_same_files_with_ways_to_its_other_pages(year):
    year.found("bad", year.now - DAY)
    given = (Source(name="s2", api="https://stac.example", collection="c"),)
    site = Site(year.ledger, given, Limits(), Recorder(lambda: year.now).read, lambda: year.now, "1")
    with serving(site, "127.0.0.1", 0) as url, requests.Session() as session:
        session.trust_env = False
        page = session.get(f"{url}freshness/", timeout=20)
        assert page.status_code == 200
        assert '<a href="../items/bad">bad</a>' in page.text
        assert session.get(f"{url}freshness/freshness.json", timeout=20).json()["sources"][0]["whole"]["missing"] == 1
        assert session.get(f"{url}freshness/feed.atom", timeout=20).headers["Content-Type"].startswith("application/atom+xml")
        assert session.get(f"{url}freshness/other", timeout=20).status_code == 404


def test_a_share_is_never_rounded_up_to_all():
    assert freshness.share(freshness.Within(1, 10_000, 9_999)) == "99.9 %"
    assert freshness.share(freshness.Within(1, 3, 3)) == "100 %"
    assert freshness.share(freshness.Within(1, 0, 0)) == "-"


def test_a_place_that_cannot_be_written_is_named(year, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="file"):
        publish(str(tmp_path / "file" / "below"), {"index.html": ""}, CONTENT)
    with pytest.raises(CannotWrite, match="nowhere://x"):
        publish("nowhere://x", {"index.html": ""}, CONTENT)


def test_no_source_and_no_item_make_a_page(ledger, make):
    found = freshness.read(ledger, ["s2"], make.now, 1)
    assert "Nothing: all that was announced is available." in pages(found, "1")["index.html"]
    assert ET.fromstring(pages(replace(found, sources=[]), "1")["feed.atom"]) is not None
