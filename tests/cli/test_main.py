"""The entry of the command line: what goes in, and which code and sentences come out."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = """
ledger: sqlite:///ledger.db
sources: [{name: s2, api: "https://stac.example", collection: sentinel-2-l2a}]
engine: {kind: local}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stac-watch.yaml").write_text(CONFIG)
    return tmp_path


def test_without_arguments_it_lists_the_verbs(stac_watch) -> None:
    said = stac_watch()
    assert (said.code, said.err) == (0, "")
    assert said == stac_watch("--help")
    assert said.out.startswith("Usage: stac-watch [OPTIONS] COMMAND [ARGS]...")


def test_it_reads_the_environment_that_it_is_given(stac_watch, folder, open_ledger) -> None:
    open_ledger(folder / "other.db").close()
    said = stac_watch("status", "--json", cwd=folder, STAC_WATCH__LEDGER=f"sqlite:///{folder}/other.db")
    assert (said.code, said.err) == (0, "")
    assert [source["source"] for source in json.loads(said.out)["sources"]] == ["s2"]
    assert sorted(path.name for path in folder.iterdir()) == ["other.db", "stac-watch.yaml"]


def test_an_error_is_one_line_and_a_hint(stac_watch, tmp_path) -> None:
    said = stac_watch("status", cwd=tmp_path)
    assert (said.code, said.out) == (78, "")
    assert re.fullmatch(r"error: no configuration at .*\n  → .*\n", said.err)


def test_debug_adds_the_traceback(stac_watch, tmp_path) -> None:
    said = stac_watch("--debug", "status", cwd=tmp_path)
    assert said.code == 78
    assert said.err.startswith("Traceback")
    assert "ConfigError" in said.err
    assert "error: no configuration" in said.err


@pytest.mark.parametrize("argv", [("nothing",), ("status", "--nothing"), ("backfill",), ("items", "--limit", "0")])
def test_a_wrong_command_line_is_2_and_leads_to_the_help(stac_watch, argv) -> None:
    said = stac_watch(*argv)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert f"`stac-watch{'' if argv[0] == 'nothing' else f' {argv[0]}'} --help`" in said.err


def test_no_message_of_shipped_code_names_make():
    """A pod and a wheel have no make: what is printed there must exist there."""
    shipped = [ROOT / "src" / "stac_watch", ROOT / "runner" / "geozarr_runner"]
    files = [path for folder in shipped for path in folder.rglob("*") if path.suffix in (".py", ".j2", ".js")]
    assert len(files) > 150
    strings = [
        (path, node.value)
        for path in files
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    texts = strings + [(path, path.read_text()) for path in files if path.suffix != ".py"]
    assert [(path.name, text) for path, text in texts if re.search(r"`make [a-z]|\bmake [a-z-]+ [A-Z_]+=", text)] == []
