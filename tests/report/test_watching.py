"""What a watcher says of trouble: once when it begins or changes, once when it is over; and what is no news."""

import io
import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
from rich.console import Console

from stac_watch.cli.rounds import _lines, print_tick, write_news
from stac_watch.ledger.records import Move, Place, Tally
from stac_watch.model.errors import Refused, Temporary
from stac_watch.model.states import Fact, State
from stac_watch.report.lines import Line
from stac_watch.report.watching import Troubles, ended, total, trouble, watching
from stac_watch.watch.loop import Tick

AWAY, AGAIN, OTHER = Temporary("away since 1 s"), Temporary("away since 2 s"), Temporary("HTTP 500")


def test_a_trouble_is_said_when_it_begins_or_changes_and_when_it_is_over():
    troubles, rounds = Troubles(), [{"engine": AWAY}, {"engine": AGAIN}, {"engine": OTHER}, {}, {}]
    said = [(news.begun, news.ended) for news in map(troubles.news, rounds)]
    assert said == [({"engine": AWAY}, []), ({}, []), ({"engine": OTHER}, []), ({}, ["engine"]), ({}, [])]


def test_an_hour_of_trouble_is_two_lines(capsys):
    troubles = Troubles()
    for tick in [*[Tick(ailing={"engine": AWAY})] * 3600, *[Tick()] * 10]:
        print_tick(tick, troubles.news(tick.ailing, tick.standby))
    assert capsys.readouterr().out.splitlines() == ["engine: away since 1 s; asked again", "engine: answers again"]


def test_machines_are_told_the_same(capsys, make):
    troubles = Troubles()
    for tick in (Tick(ailing={"s2": AWAY}), Tick(ailing={"s2": AWAY}), Tick(standby="b"), Tick(standby="b"), Tick()):
        write_news(troubles.news(tick.ailing, tick.standby), make.now)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["trouble", "standby", "over"]


def shown(number: int, state: State, make) -> Line:
    item = f"S2A_MSIL2A_20261130T1000{number:02}_N0511_R122_T32TQM_20261130T122613"
    why = f"source not there yet: no product at http://127.0.0.1/products/{item}.zarr: it has neither .zmetadata nor zarr.json"
    return Line(item, f"k{number}", "r", "s2", "live", state, why, 1, 20.0, None, "o", why, None, None, None, make.now)


@pytest.mark.parametrize("width", [80, 200])
def test_the_picture_of_a_watcher_fits_a_small_terminal_with_what_runs_and_waits_first(make, width):
    states = [State.DONE, State.QUEUED, State.RUNNING] * 5
    lines = [shown(number, state, make) for number, state in enumerate(states)]
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(watching(lines, {"s2": AWAY}, totals=["s2: 5 running · 5 queued · 5 done · asked every 60 s"]))
    said = console.file.getvalue().splitlines()
    assert len(said) <= 24
    assert said[0].startswith("s2: 5 running")
    assert [state for line in said for state in ("running", "queued", "done") if f" {state} " in line and "│" in line] == [
        *["running"] * 5, *["queued"] * 5, *["done"] * 5,
    ]  # fmt: skip
    assert "T32TQM 30 Nov 10:00 · S2A L2A" in said[5]
    assert all("source not there" in line for line in said[5:-1])


def test_whatever_is_wrong_with_a_source_has_its_remedy():
    said = trouble("s2", Refused("HTTP 401", hint="ask its operator"))
    assert said == "source s2: HTTP 401 (ask its operator); asked again"
    assert trouble("ledger", AWAY).startswith("ledger: away")


def test_skipped_items_that_every_poll_sees_again_are_no_news():
    assert Tick(tallies={"s2": Tally(seen=7)}).idle
    assert not Tick(tallies={"s2": Tally(seen=1, admitted=1)}).idle


class Away:
    """An engine that cannot be asked for its runs."""

    def __init__(self, error):
        self.error = error

    def runs(self, _keys):
        raise self.error


@pytest.mark.parametrize("error", [AWAY, Refused("not allowed")])
def test_a_live_table_outlives_an_engine_that_does_not_answer(ledger, make, error):
    ledger.items.commit("s2", [make.sighting()], [], None, make.now)
    row = ledger.conversions.get(make.conversion().key)
    ledger.conversions.move(row, Move(Fact.ACCEPTED, "submitted"), make.now)
    assert _lines(SimpleNamespace(ledger=ledger, engine=Away(error), now=lambda: make.now)) == []


def moved(**counts):
    """A funnel of one source; a skip reason is a cause."""
    return {Place("s2", "live", State(name.partition("__")[0]), name.partition("__")[2]): n for name, n in counts.items()}


@pytest.mark.parametrize(
    ("counts", "failed", "said"),
    [
        ({}, None, "asked 1 source: nothing new"),
        ({"skipped__outside_area": 380, "skipped__too_cloudy": 2}, None, "asked 1 source: 382 skipped (outside_area, too_cloudy)"),
        (
            {"done": 20, "skipped__outside_area": 380},
            None,
            "asked 1 source: 20 done, 380 skipped (outside_area)\n  → `stac-watch items --state done` lists the outputs",
        ),
        (
            {"done": 1, "failed__boom": 2},
            "S2A_X",
            (
                "asked 1 source: 1 done, 2 failed\n"
                "  → `stac-watch explain S2A_X` says why; `stac-watch status` groups failures by cause"
            ),
        ),
    ],
)
def test_a_round_ends_with_what_became_of_it_and_the_next_command(counts, failed, said):
    assert ended(1, moved(**counts), failed) == said


def test_the_live_picture_begins_with_where_everything_is():
    funnel = moved(done=6, running=2, queued=14, skipped__outside_area=416) | {Place("other", "live", State.DONE, ""): 1}
    assert (
        total("s2", funnel, timedelta(seconds=60))
        == "s2: 14 queued · 2 running · 6 done · 416 skipped (outside_area) · asked every 60 s"
    )
    assert total("new", funnel, timedelta(minutes=5)) == "new: nothing yet · asked every 5 min"
