"""What a verb waits for before it does anything: the packages that it imports. A new one here is a decision, not an accident."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from stac_watch.cli.main import cli
from stac_watch.cli.terminal import alone

TYPER = {"annotated_doc", "shellingham", "typer"}
CONFIG = {"annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection", "yaml"}
TERMINAL = {"markdown_it", "mdurl", "pygments", "rich"}
LEDGER = {"greenlet", "sqlalchemy"}
SETTINGS = """
ledger: sqlite:///ledger.db
sources: [{name: s2, api: "https://stac.example", collection: c}]
"""
PROGRAM = """
import gc, json, sys
from stac_watch.cli.program import program
code = program()
places = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
third = {name.partition(".")[0] for name, place in places.items() if "site-packages" in place}
print(json.dumps({"code": code, "third": sorted(third), "all": sorted(sys.modules), "gc": gc.isenabled()}), file=sys.stderr)
"""


def imported(folder: Path, *argv: str) -> dict:
    (folder / "stac-watch.yaml").write_text(SETTINGS)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    ("argv", "more"), [(("--help",), set()), (("cluster", "--help"), CONFIG), (("backfill", "--help"), CONFIG)]
)
def test_help_imports_typer_and_nothing_else(tmp_path, argv, more):
    found = imported(tmp_path, *argv)
    assert found["code"] == 0
    assert set(found["third"]) <= TYPER | more  # Typer itself takes pydantic for the arguments of a verb
    ours = {name for name in found["all"] if name.startswith("stac_watch.") and name.count(".") == 1}
    assert ours == {"stac_watch.cli", "stac_watch.model"}


def test_status_asks_the_ledger_and_needs_no_client_of_anything(tmp_path, open_ledger):
    open_ledger(tmp_path / "ledger.db").close()
    found = imported(tmp_path, "status")
    assert (found["code"], found["gc"]) == (0, False)  # nor does it search for garbage that goes with the process
    assert set(found["third"]) <= TYPER | CONFIG | TERMINAL | LEDGER
    assert "sqlalchemy.dialects.postgresql" not in found["all"]


def test_what_may_go_on_for_long_searches_for_garbage(tmp_path):
    found = imported(tmp_path, "ledger", "copy", "sqlite:///ledger.db", "sqlite:///other.db")
    assert found["gc"] is True


@pytest.mark.parametrize("verb", ["status", "replay", "cluster"])
def test_a_verb_is_made_without_the_others_and_is_the_same(verb):
    made, whole = get_command(alone(cli, verb)), get_command(cli)
    assert list(made.commands) == [verb]
    assert [p.name for p in made.params] == [p.name for p in whole.params]
    assert [p.opts for p in made.commands[verb].params] == [p.opts for p in whole.commands[verb].params]


def test_without_a_verb_in_front_there_are_all(stac_watch):
    assert alone(cli, "--debug") is cli
    assert alone(cli, "nothing") is cli
    assert stac_watch("--help", "status").out == stac_watch("--help").out


@pytest.mark.parametrize("argv", [("cluster", "runs", "--nothing"), ("nothing",), ("backfill", "--start")])
def test_a_wrong_command_line_is_told_at_once(tmp_path, argv):
    assert not {"kubernetes", "pystac_client", "shapely", "numpy"} & set(imported(tmp_path, *argv)["third"])
