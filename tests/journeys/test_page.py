"""What the status page shows of a part of the ledger, how it stays true, and what an item's page leads to."""

import html
import shlex
import threading
import time
import urllib.request
from datetime import timedelta
from functools import partial

import pytest
from status_page import serve

from stac_watch.config.model import Config, Recipe
from stac_watch.jobs import backfill
from stac_watch.ledger.records import Move
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import Fact, State
from stac_watch.report.links import file_of
from stac_watch.report.web.answers import READERS


@pytest.fixture
def site(build):
    with serve(build()) as site:
        yield site


def test_a_period_a_source_and_a_lane_narrow_what_is_counted(site):
    old = site.world.publish(1)
    site.turn(12)
    site.world.clock.time += timedelta(days=2)
    site.world.publish(2)
    site.turn(12)
    of_all, of_day = site.read("/"), site.read("/?period=day")
    assert site.rows(of_all, "By source")[1][2:8] == ["0", "0", "0", "2", "0", "0"]
    assert site.rows(of_day, "By source")[1][2:8] == ["0", "0", "0", "1", "0", "0"]
    assert '<a href="?period=day" aria-current="true">the last day</a>' in of_day
    assert '<a href="?period=day&amp;source=demo">demo</a>' in of_day
    assert site.rows(site.read("/?lane=backfill"), "By source")[1:] == []
    assert old in of_all


@pytest.mark.parametrize(("asked", "said"), [
    ("period=week", "no period 'week'"), ("lane=fast", "no lane 'fast'"), ("source=%3Cb%3E", "no source '<b>'"),
    ("side=2", "no parameter 'side'"), ("page=0", "page '0' is not"), ("page=x", "page 'x' is not"),
    ("sort=size", "no sort 'size'"),
    ("source=nope", "no source 'nope'"), ("tile=foo", "'foo' is no MGRS tile"), ("state=lost", "no state 'lost'"),
    ("text=%00", "no text of at most"), ("text=" + "x" * 201, "no text of at most"),
])  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/events"])
def test_an_address_that_asks_for_what_there_is_not_is_told_what_there_is(site, path, asked, said):
    status, text, headers = site.ask(f"{path}?{asked}")
    assert status == 400
    assert said in text
    assert headers["Content-Type"].startswith("text/plain")


def test_how_long_steps_take_is_shown_and_measured(site):
    site.world.publish(1, minutes_ago=30)
    site.turn(12)
    steps = {row[0]: row[1:4] for row in site.rows(site.read("/"), "How long steps take")[1:]}
    assert steps["published → seen"] == ["1", "30 min", "30 min"]
    assert steps["running → done"][0] == "1"
    assert steps["published → done"][1] == "35 min"
    metrics = site.read("/metrics")
    told = {
        line.split(" ")[0]: float(line.split(" ")[1]) for line in metrics.splitlines() if "step_seconds" in line and line[0] != "#"
    }

    def value(kind, step, le=""):
        [found] = [v for k, v in told.items() if f"_{kind}{{" in k and f'step="{step}"' in k and (not le or f'le="{le}"' in k)]
        return found

    assert value("count", "seen") == 1
    assert value("sum", "seen") == 1800
    assert value("bucket", "seen", "600") == 0
    assert value("bucket", "seen", "1800") == 1
    assert value("count", "done") == 1
    assert value("bucket", "done", "+Inf") == 1


def test_a_backfill_shows_how_far_it_is_and_when_it_is_ready(site):
    world = site.world
    for number in range(6):
        world.publish(number, days=200, minutes_ago=200 * 24 * 60)
    site.turn()
    request = backfill.check_range(
        backfill.BackfillRequest(world.clock() - timedelta(days=203), world.clock() - timedelta(days=197)), world.clock()
    )
    backfill.begin(world.intake, request)
    assert [n for _, n in backfill.admit(world.intake, request)][-1] == 6
    site.turn(9)
    [row] = site.rows(site.read("/"), "Backfills")[1:]
    assert row[0] == "demo"
    done, total, failed = (int(cell) for cell in row[4:7])
    assert (total, failed) == (6, 0)
    assert 0 < done < 6
    assert row[8].startswith("1")  # today, in the afternoon
    site.turn(20)
    [row] = site.rows(site.read("/"), "Backfills")[1:]
    assert (row[4], row[8]) == ("6", "finished")


def test_a_failure_comes_with_the_command_that_tries_exactly_its_group_again(site, tmp_path, stac_watch):
    world = site.world
    alike = [world.publish(n) for n in range(3)]
    other = world.publish(9)
    site.turn()
    for item in (*alike, other):
        [row] = world.ledger.conversions.find(item_id=item)
        reason = f"chunk {row.key} of 'b02' is corrupt: /data/{item}.zarr" if item in alike else "no such group"
        world.ledger.conversions.move(row, Move(Fact.FAILED_PERMANENT, reason, reason=reason), world.clock())
    world.clock.time += timedelta(seconds=3)
    groups = {int(row[0]): row[4] for row in site.rows(site.read("/"), "Failures, grouped")[1:]}
    command = shlex.split(groups[3].replace("&#39;", "'").replace("&#34;", '"'))
    assert command[:3] == ["stac-watch", "replay", "--error"]
    config = world.configure(tmp_path)
    assert "3 queued, 0 refused" in stac_watch(*command[1:], "-c", config).out
    assert {row.item_id for row in world.ledger.conversions.find(state=State.QUEUED)} == set(alike)


def test_the_stream_sends_the_page_again_when_it_has_changed(site):
    site.turn()
    events = site.events("/events?period=day")
    name, first = next(events)
    assert name == "page"
    assert first.splitlines()[0].startswith('<p class="state" data-title="stac-watch · 0 failed')
    item = site.world.publish(1, minutes_ago=0)
    site.turn(2)
    assert item not in first
    assert next(name for name, text in events if item in text) == "page"
    events.close()


def test_a_stream_ends_with_the_watcher_and_does_not_hold_it_up(build):
    with serve(build()) as site:
        events = site.events()
        next(events)
        reader = threading.Thread(target=lambda: list(events))
        reader.start()
        began = time.monotonic()
    assert time.monotonic() - began < 2.5  # the server's patience with answers under way is 3 s
    reader.join(5)
    assert not reader.is_alive()


def test_more_readers_than_it_keeps_up_with_are_told_to_reload(site):
    streams = [site.events() for _ in range(READERS)]
    assert [next(stream)[0] for stream in streams] == ["page"] * READERS
    assert list(site.events()) == [("busy", "")]
    for stream in streams:
        stream.close()


def test_an_items_page_leads_to_its_run_its_report_and_its_picture(build, tmp_path):
    world, beside = build(), tmp_path / "outputs"
    world.recipe = Recipe(output=f"{beside}/{{item_id}}.zarr")
    document = {"sources": [{"name": "demo", "api": world.url, "collection": "c"}], "engine": {"kind": "local"}}
    beside.mkdir()
    (beside / "x.report.html").write_text("<p>report</p>")
    (beside / "x.quicklook.png").write_bytes(b"\x89PNG")
    (tmp_path / "secret.html").write_text("not beside the output")
    (beside / "link.html").symlink_to(tmp_path / "secret.html")
    page_of_run = "https://argo.example/workflows/geozarr/{}".format
    with serve(world, file_of=partial(file_of, Config.model_validate(document)), run_page=page_of_run) as site:
        item = world.publish(1)
        site.turn()
        [row] = world.ledger.conversions.find(item_id=item)
        files = {
            "report": f"{beside}/x.report.html", "quicklook": f"{beside}/x.quicklook.png", "report_json": f"{beside}/gone.json",
            "item": "https://objects.example/x.item.json", "dask_report": f"{beside}/x.report.html",
        }  # fmt: skip
        outcome = Outcome(code=0, key=row.key, files=files)
        world.ledger.conversions.move(row, Move(Fact.SUCCEEDED, "done", outcome=outcome), world.clock())
        page = site.read(f"/items/{item}")
        assert f'<a href="https://argo.example/workflows/geozarr/{row.run}" rel="noreferrer">{row.run}</a>' in page
        assert f'<a href="{item}/report">report</a>' in page
        assert f'<img class="quicklook" src="{item}/quicklook"' in page
        assert "report as JSON" not in page
        assert '<a href="https://objects.example/x.item.json"' in page
        status, text, headers = site.ask(f"/items/{item}/report")
        assert (status, text) == (200, "<p>report</p>")
        assert "sandbox" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        with urllib.request.urlopen(f"{site.url}items/{item}/quicklook", timeout=20) as answer:
            assert answer.headers["Content-Type"] == "image/png"
        refused = [f"items/{item}/{name}" for name in ("report_json", "item", "dask_report", "..%2Fx")]
        for path in (*refused, "items/unknown/report"):
            assert site.ask(f"/{path}")[0] == 404


@pytest.mark.parametrize("href", ["{tmp}/secret.html", "{tmp}/outputs/link.html", "{tmp}/outputs/../secret.html", "secret.html"])
def test_a_file_that_does_not_lie_beside_the_output_is_not_shown(build, tmp_path, href):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "secret.html").write_text("not beside the output")
    (tmp_path / "outputs" / "link.html").symlink_to(tmp_path / "secret.html")
    document = {"sources": [{"name": "demo", "api": "https://stac.example", "collection": "c"}], "engine": {"kind": "local"}}
    found = file_of(Config.model_validate(document), f"{tmp_path}/outputs/x.zarr", href.format(tmp=tmp_path))
    assert found is None


@pytest.fixture
def listed(site):
    """Five items of a page's list, of which the last one failed."""
    items = [site.world.publish(n) for n in range(4)]
    site.turn(12)
    last = site.world.publish(5)
    site.turn()
    [row] = site.world.ledger.conversions.find(item_id=last)
    site.world.ledger.conversions.move(row, Move(Fact.FAILED_PERMANENT, "no", reason="no such group"), site.world.clock())
    site.world.clock.time += timedelta(seconds=3)
    return site, items, last


def listing(site, query=""):
    return [row[3] for row in site.rows(site.read(f"/{query}"), "Items")[1:]]


def test_the_list_is_searched_sorted_and_narrowed(listed):
    site, items, last = listed
    assert listing(site)[0] == last
    assert set(listing(site)) == {*items, last}
    assert listing(site, "?state=failed") == listing(site, "?error=no+such+group") == [last]
    assert listing(site, "?sort=oldest")[-1] == last
    assert listing(site, "?sort=item") == sorted([*items, last])
    assert len(listing(site, "?sort=acquired")) == 5
    [row] = site.world.ledger.conversions.find(item_id=items[0])
    for name in (items[0].lower(), items[0][3:], row.key[:8], row.run):
        assert items[0] in listing(site, f"?text={name}"), name
    assert set(listing(site, "?tile=32tqm")) == set(listing(site, "?text=T32TQM")) == {*items, last}
    assert listing(site, "?tile=T33UUP&text=&state=&sort=changed") == []  # as a form sends what is empty
    assert "No item matches what is searched for" in site.read("/?text=nothing-like-it")
    assert "of 5</span>" in site.read("/")


def test_the_list_has_pages_and_each_keeps_what_was_asked_for(site):
    for number in range(30):
        site.world.publish(number)
    site.turn()
    first, second = site.read("/?sort=item"), site.read("/?sort=item&page=2")
    assert '<a rel="next" href="?sort=item&amp;page=2#items">' in first
    assert "1 to 25 of 30" in first
    assert "26 to 30 of 30" in second
    assert 'rel="next"' not in second
    assert not set(listing(site, "?sort=item")) & set(listing(site, "?sort=item&page=2"))
    assert "No item matches" in site.read("/?page=9")


def test_figures_and_groups_lead_to_what_they_count(listed):
    site, _, last = listed
    page = site.read("/?source=demo")
    assert '<a class="figure failed" href="?source=demo&amp;state=failed#items">' in page
    [group] = [part for part in page.split('<a href="') if "error=no" in part]
    assert listing(site, html.unescape(group.partition('"')[0]).replace("#items", "")) == [last]


def test_filters_filter_everything_on_the_page(listed):
    site, items, last = listed
    nothing = site.read("/?lane=replay")
    assert not [item for item in (*items, last) if item in nothing]
    assert ">Map</h" not in nothing
    site.world.clock.time += timedelta(days=2)
    later = site.read("/?period=day")
    assert not [item for item in (*items, last) if item in later]


def test_the_page_opens_with_what_needs_attention(listed):
    site, _, _ = listed
    page = site.read("/")
    assert page.index(">Needs attention</h2>") < page.index(">Failures, grouped</h3>") < page.index('class="figures"')
    site.world.clock.time += timedelta(minutes=1)
    page = site.read("/")
    assert "No watcher holds the ledger. Nothing moves until <code>stac-watch watch</code> runs." in page
    assert ">stands still</span>" in page
    site.world.clock.time += timedelta(hours=1)
    assert "The watcher hangs: last round ended 3" in site.read("/")


def test_before_anything_was_seen_it_says_what_happens_next(site):
    page = site.read("/")
    assert "demo: its first look at http://127.0.0.1" in page
    assert ">starting</span>" in page
    site.turn()
    assert "answered 60 s ago and has nothing new; it is asked every 60 s" in site.read("/")


def test_an_items_page_says_how_it_is_replayed_and_stays_true(site):
    item = site.world.publish(1)
    site.turn()
    page = site.read(f"/items/{item}")
    assert f"<code>stac-watch replay {item} --yes</code>" in page
    assert '<a href="../#items" data-back>' in page
    events = site.events(f"/items/{item}/events")
    assert "submitted" in next(events)[1]
    site.turn(8)
    assert next(name for name, text in events if f'data-title="{item} · done"' in text) == "page"
    events.close()
    assert site.ask("/items/unknown/events")[0] == 404


def test_a_replaced_revision_says_so_and_leads_to_nothing_of_the_other(site):
    item = site.world.publish(1)
    site.turn(12)
    [old] = site.world.ledger.conversions.find(item_id=item)
    site.world.publish(1, version=2, minutes_ago=0)
    site.turn(12)
    new, before = site.world.ledger.conversions.find(item_id=item)
    assert before.key == old.key
    page = site.read(f"/items/{item}")
    earlier = page.partition("Earlier revision")[2]
    assert f"replaced by revision {new.revision} at " in earlier
    assert "its own output is gone" in earlier
    assert "<th>output</th>" not in earlier
    assert "<th>output</th>" in page
    assert site.read("/").count(f"replaced by revision {new.revision}") == 1, "in the list it is not called verified"


def test_what_was_skipped_at_once_has_neither_run_nor_event_nor_output(build):
    with serve(build(filter={"tiles": ["T33UUP"]})) as site:
        item = site.world.publish(1)
        site.turn()
        page = site.read(f"/items/{item}")
        assert "other_tile" in page
        assert not [word for word in ("<th>run</th>", "<th>output</th>", "<summary>event") if word in page]


def test_what_runs_is_shown_with_its_progress(site):
    site.world.plant.progress = (37, 120)
    item = site.world.publish(1)
    site.turn(3)
    [row] = [r for r in site.rows(site.read("/"), "Running")[1:] if r[1] == item]
    assert row[4] == "converting 37/120"


def test_a_ledger_that_does_not_answer_is_said_in_the_stream(site, tmp_path):
    site.turn()
    events = site.events()
    next(events)
    for table in ("funnel", "unreadable"):
        with site.world.ledger._engine.begin() as tx:
            tx.exec_driver_sql(f"DROP TABLE {table}")
    site.world.clock.time += timedelta(seconds=5)
    name, said = next(events)
    assert name == "trouble"
    assert "the ledger sqlite:///" in said
    events.close()
