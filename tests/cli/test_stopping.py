"""SIGTERM always ends the program: in order where it can, by force where one call of a library does not return."""

import signal
import subprocess
import sys

import pytest

BEGIN = """
import sqlite3, sys
from stac_watch.cli.terminal import stopping
with stopping({grace}) as wait:
    {work}
    print("in order")
"""
ORDERLY = "print('ready', flush=True); wait(60)"
STUCK = """one, other = (sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60) for _ in range(2))
    one.execute("BEGIN EXCLUSIVE")
    print("ready", flush=True)
    other.execute("BEGIN EXCLUSIVE")  # a minute inside SQLite: no handler of Python's is called"""


@pytest.mark.parametrize(
    ("work", "grace", "code", "said"), [(ORDERLY, 30, 0, "in order"), (STUCK, 0.2, 143, "")], ids=["idle", "stuck"]
)
def test_sigterm_ends_what_waits_and_what_is_stuck(tmp_path, work, grace, code, said):
    program = [sys.executable, "-c", BEGIN.format(grace=grace, work=work), str(tmp_path / "db")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == code
        assert child.stdout.read().strip() == said
