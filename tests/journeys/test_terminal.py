"""What the verbs print reads well at 80 columns, in colour on a terminal, plain in a pipe and where NO_COLOR asks for it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import call

from stac_watch.ledger.records import Move
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import Fact
from stac_watch.watch.loop import Watcher

COMMAND = Path(sys.executable).parent / "stac-watch"
LONG = "chunk 3.7 of measurements/reflectance/r10m/b02 is corrupt: /data/stage/0123456789ab/product.zarr (blosc: -1)"
DAYS = "--start=2026-02-20 --end=2026-03-02"
VERBS = ("status", "items", "explain ITEM", f"backfill demo {DAYS}", f"audit demo {DAYS}", "replay ITEM")


@pytest.fixture
def say(build, tmp_path):
    world = build()
    items = [world.publish(n) for n in range(4)]
    watcher = Watcher(world.parts)
    watcher.turn(to_the_end=True)
    [row] = world.ledger.conversions.find(item_id=items[0])
    world.ledger.conversions.move(
        row, Move(Fact.FAILED_PERMANENT, LONG, reason=LONG, outcome=Outcome(code=65, hint="look at it")), world.clock()
    )
    config = world.configure(tmp_path)

    def _say(verb, **environ):
        argv = [str(COMMAND), *verb.replace("ITEM", items[0]).split(), "-c", str(config)]
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
        done = subprocess.run(argv, capture_output=True, text=True, env=clean | environ, timeout=60, check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    def _call(verb):
        done = call(*verb.replace("ITEM", items[0]).split(), "-c", config)
        assert done.code in (0, 1), done.said
        return done.out

    _say.call = _call
    return _say


def test_lines_fit_eighty_columns_and_a_pipe_gets_no_escape(say, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for verb in VERBS:  # one as a process, into a pipe; a call writes into what is no terminal either
        text = say(verb, COLUMNS="80") if verb == "status" else say.call(verb)
        assert "\x1b" not in text, verb
        if verb == "items":  # one line for each, for other programs: nothing of it is cut
            assert [line.count("\t") for line in text.splitlines()] == [7] * 4
            assert [line.split("\t")[2] for line in text.splitlines()] == ["T32TQM"] * 4
        else:
            assert [line for line in text.splitlines() if len(line) > 80] == [], verb
        assert len(text.splitlines()) > 3, verb


def test_a_terminal_gets_colours_unless_it_asks_for_none(say):
    assert re.search(r"\x1b\[[\d;]*3[1-6]m", say("status", FORCE_COLOR="1", COLUMNS="80"))
    plain = say("status", FORCE_COLOR="1", NO_COLOR="1", COLUMNS="80")
    assert not re.search(r"\x1b\[[\d;]*3[1-6]m", plain)
    assert "failed" in plain


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_it(shell):
    environ = os.environ | {"_STAC_WATCH_COMPLETE": f"complete_{shell}", "COMP_WORDS": "stac-watch expl", "COMP_CWORD": "1",
                            "_TYPER_COMPLETE_ARGS": "stac-watch expl", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}  # fmt: skip
    done = subprocess.run([str(COMMAND)], capture_output=True, text=True, env=environ, timeout=60, check=False)
    assert "explain" in done.stdout, done.stderr


def test_logs_prints_what_the_last_run_of_an_item_wrote(build, tmp_path, stac_watch):
    world = build()
    item = world.publish(1)
    Watcher(world.parts).turn(to_the_end=True)
    config = world.configure(tmp_path)
    none = stac_watch("logs", item, "-c", config)
    assert (none.code, none.out) == (65, "")
    assert f"no run of {item} wrote a log here" in none.err
    [row] = world.ledger.conversions.find(item_id=item)
    log = tmp_path / "runs" / row.run / "runner.log"
    log.parent.mkdir(parents=True)
    log.write_text("staged 3 chunks\n\x1b[31mred\n")
    said = stac_watch("logs", "T32TQM", "-c", config)
    assert (said.code, said.out) == (0, "staged 3 chunks\n\\x1b[31mred\n")
