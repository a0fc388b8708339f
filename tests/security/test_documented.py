"""docs/security.md and docs/guarantees.md are held to the tests: each line names one, and it is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"
PROMISES = (ROOT / "docs" / "guarantees.md").read_text().partition("| promise |")[2].partition("\n\n")[0].splitlines()[2:]
LINES = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith(("| threat", "| ---"))]


@pytest.mark.parametrize("line", [*LINES, *PROMISES], ids=lambda line: line.split("|")[1].strip()[:60])
def test_a_line_of_defence_names_tests_that_there_are(line):
    threat, defence, held = (cell.strip() for cell in line.strip("|").split(" | "))
    assert threat
    assert defence
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", held)
    assert named, f"no test holds: {threat}"
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not test or test in functions, f"{file} has no {test}"


def test_every_test_of_this_folder_holds_a_line_or_belongs_to_one():
    named = set(re.findall(r"tests/security/(\w+)\.py", PAGE.read_text()))
    assert {path.stem for path in Path(__file__).parent.glob("test_*.py")} - {"test_documented"} == named
