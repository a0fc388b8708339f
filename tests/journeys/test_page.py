"""What the status page shows of a part of the ledger, how it stays true, and what an item's page leads to."""

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
    assert site.rows(of_all, "Where conversions are")[1][2:8] == ["0", "0", "0", "2", "0", "0"]
    assert site.rows(of_day, "Where conversions are")[1][2:8] == ["0", "0", "0", "1", "0", "0"]
    assert '<a href="?period=day" aria-current="true">the last day</a>' in of_day
    assert '<a href="?period=day&amp;source=demo">demo</a>' in of_day
    assert site.rows(site.read("/?lane=backfill"), "Where conversions are")[1:] == []
    assert old in of_all


@pytest.mark.parametrize(("asked", "said"), [
    ("period=week", "no period 'week'"), ("lane=fast", "no lane 'fast'"), ("source=%3Cb%3E", "no source '<b>'"),
    ("page=2", "no parameter 'page'"),
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
    assert row[8].startswith("2026-03-01T1")
    site.turn(20)
    [row] = site.rows(site.read("/"), "Backfills")[1:]
    assert (row[4], row[8]) == ("6", "nothing more moves")


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
    groups = {int(row[0]): row[4] for row in site.rows(site.read("/"), "What failed alike")[1:]}
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


def test_what_runs_is_shown_with_its_progress(site):
    site.world.plant.progress = (37, 120)
    item = site.world.publish(1)
    site.turn(3)
    [row] = [r for r in site.rows(site.read("/"), "In flight")[1:] if r[0] == item]
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
