"""What a verb waits for before it does anything: the packages that it imports. A new one here is a decision, not an accident."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TYPER = {"annotated_doc", "shellingham", "typer"}
CONFIG = {"annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection", "yaml"}
TERMINAL = {"markdown_it", "mdurl", "pygments", "rich"}
LEDGER = {"greenlet", "sqlalchemy"}
SETTINGS = """
ledger: sqlite:///ledger.db
sources: [{name: s2, api: "https://stac.example", collection: c}]
"""
PROGRAM = """
import json, sys
from stac_watch.cli.main import main
code = main(sys.argv[1:])
places = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
third = {name.partition(".")[0] for name, place in places.items() if "site-packages" in place}
print(json.dumps({"code": code, "third": sorted(third), "all": sorted(sys.modules)}), file=sys.stderr)
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


def test_status_asks_the_ledger_and_needs_no_client_of_anything(tmp_path):
    found = imported(tmp_path, "status")
    assert found["code"] == 0
    assert set(found["third"]) <= TYPER | CONFIG | TERMINAL | LEDGER
    assert "sqlalchemy.dialects.postgresql" not in found["all"]


@pytest.mark.parametrize("argv", [("cluster", "runs", "--nothing"), ("nothing",), ("backfill", "--start")])
def test_a_wrong_command_line_is_told_at_once(tmp_path, argv):
    assert not {"kubernetes", "pystac_client", "shapely", "numpy"} & set(imported(tmp_path, *argv)["third"])
