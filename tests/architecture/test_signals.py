"""Ctrl-C reaches what tests start, however the tests themselves were started."""

import subprocess
import sys
from pathlib import Path

import pytest

CHILD = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
PARENT = f"""
import subprocess, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from signals import let_children_hear_ctrl_c
if sys.argv[1:]:
    let_children_hear_ctrl_c()
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
"""


def heard(*arguments: str) -> str:
    """What a child of a process in the background says."""
    background = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-c", PARENT, *arguments]
    return subprocess.run(background, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.parametrize(("arguments", "hears"), [((), "False"), (("let",), "True")], ids=["without", "with"])
def test_a_child_of_a_session_in_the_background_hears_ctrl_c(arguments, hears):
    assert heard(*arguments) == hears


def test_a_child_of_this_session_hears_ctrl_c():
    assert subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True).stdout.strip() == "True"
