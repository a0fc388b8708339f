"""The entry of the command line: what goes in, and which code and sentences come out."""

import json
import re
from pathlib import Path

import pytest

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


def test_it_reads_the_environment_that_it_is_given(stac_watch, folder) -> None:
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
    assert "`stac-watch --help`" in said.err
