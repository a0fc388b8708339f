"""The help: grouped verbs with lines that fit, an example of each; the file that the environment names; completion."""

import re
import shlex
from datetime import timedelta

import pytest
import typer
from command import verbs
from geozarr_runner.options import parser as runner_parser
from typer.main import get_command

from stac_watch.cli import completing
from stac_watch.cli.main import cli
from stac_watch.cli.synopsis import INNER, VERBS
from stac_watch.cli.terminal import Call

KNOWN = {name: said for group in VERBS.values() for name, said in group.items() if name not in INNER}
KNOWN |= {f"{group} {name}": said for group, inner in INNER.items() for name, said in inner.items()}
CONFIG = """
ledger: sqlite:///ledger.db
sources:
  - {name: s2-l2a, api: "https://stac.example", collection: sentinel-2-l2a}
  - {name: other, api: "https://stac.example", collection: other}
"""


def test_every_verb_stands_in_the_help_with_a_line_that_fits(stac_watch):
    assert set(KNOWN) == set(verbs())
    lines = stac_watch("--help").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.rstrip(":") for line in lines if line.rstrip(":") in VERBS] == list(VERBS)
    assert not [line for line in lines if "..." in line and "COMMAND" not in line]
    assert stac_watch("-h") == stac_watch("--help")


@pytest.mark.parametrize("verb", KNOWN)
def test_its_example_can_be_typed(verb):
    command, argv, context = get_command(cli), shlex.split(KNOWN[verb][1].partition(" >")[0]), None
    while hasattr(command, "commands"):
        context = command.make_context("stac-watch", argv, obj=Call({}), parent=context, resilient_parsing=True)
        argv = [*context._protected_args, *context.args]
        command, argv = command.get_command(context, argv[0]), argv[1:]
    command.make_context(verb, list(argv), parent=context)
    assert f"stac-watch {KNOWN[verb][1]}" in command.epilog


def test_a_verb_s_help_has_its_example_and_a_short_name(stac_watch):
    said = stac_watch("items", "-h").out
    assert said.rstrip().endswith("Example:\n    stac-watch items --tile 32TQM --sensed yesterday")


def test_every_value_says_what_it_looks_like():
    """`--since WHEN`, not `--since TEXT`: only numbers with bounds and a choice of words say it by themselves."""
    for verb, command in verbs().items():
        context = typer.Context(command, info_name=verb)
        shapes = [parameter.get_help_record(context)[0] for parameter in command.params]
        assert not [shape for shape in shapes if re.match(r"-.*<(str|path|int|float|list)", shape)], verb
    [choices] = [action for action in runner_parser()._actions if action.dest == "command"]
    for name, command in choices.choices.items():
        assert f"geozarr-runner {name} --stac-url" in command.epilog
        for action in command._actions:
            usual = action.dest in ("help", "groups", "key", "revision")
            assert usual or action.nargs == 0 or action.metavar, f"geozarr-runner {name}: {action.dest}"


def test_the_environment_names_the_configuration_and_the_command_line_another(stac_watch, tmp_path, open_ledger):
    (tmp_path / "here").mkdir()
    (tmp_path / "there.yaml").write_text(CONFIG)
    open_ledger(tmp_path / "ledger.db").close()
    named = {"STAC_WATCH_CONFIG": str(tmp_path / "there.yaml")}
    assert stac_watch("status", "--json", cwd=tmp_path / "here", **named).code == 0
    assert stac_watch("status", "--json", "-c", "stac-watch.yaml", cwd=tmp_path / "here", **named).code == 78


def test_sources_items_and_tiles_are_completed(tmp_path, open_ledger, make):
    (tmp_path / "stac-watch.yaml").write_text(CONFIG)
    ids = [f"S2A_MSIL2A_20260101T10004{n}_N0511_R122_{tile}_20260101T120000" for n, tile in enumerate(("T32TQM", "T33UUP"))]
    ledger = open_ledger(tmp_path / "ledger.db")
    for number, item in enumerate(ids):
        ledger.items.commit("s2-l2a", [make.sighting(item_id=item)], [], None, make.now + timedelta(seconds=number))
    ledger.close()
    command = get_command(cli)
    context = command.make_context("stac-watch", ["items"], obj=Call({"STAC_WATCH_CONFIG": str(tmp_path / "stac-watch.yaml")}))
    assert completing.sources(context, "s2") == ["s2-l2a"]
    assert completing.items(context, ids[0][:26]) == [ids[0]]
    assert completing.items(context, "t33uu") == [ids[1]]
    assert completing.tiles(context, "t32") == ["T32TQM"]
    assert completing.tiles(context, "33U") == ["33UUP"]
    empty = command.make_context("stac-watch", ["items"], obj=Call({"STAC_WATCH_CONFIG": str(tmp_path / "none.yaml")}))
    assert completing.items(empty, "S2") == completing.sources(empty, "") == completing.tiles(empty, "") == []
