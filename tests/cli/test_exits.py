"""The program as it is installed ends with the code that `main` returns: a process for each (1 is in test_malicious_item)."""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stac_watch.cli.main import _said

COMMAND = Path(sys.executable).parent / "stac-watch"
SETTINGS = """
ledger: sqlite:///ledger.db
sources: [{name: s2, api: "http://127.0.0.1:9", collection: sentinel-2-l2a}]
recipe: {output: "outputs/{item_id}.zarr"}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "stac-watch.yaml").write_text(SETTINGS)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("precious")
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "code", "word"),
    [
        (["--version"], 0, ""),
        (["wach"], 2, "wach"),
        (["explain", "S2A_NOWHERE"], 65, "S2A_NOWHERE"),
        (["demo", "--folder=thesis"], 69, "not a demo's folder"),
        (["watch", "--once"], 75, "http://127.0.0.1:9 cannot be reached (connection refused)"),
        (["status", "--config=other.yaml"], 78, "other.yaml"),
    ],
)
def test_a_process_ends_with_the_code(folder, open_ledger, argv, code, word):
    open_ledger(folder / "ledger.db").close()
    done = subprocess.run([str(COMMAND), *argv], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    assert word in done.stderr
    if code:
        error, hint = done.stderr.strip().splitlines()[-2:]
        assert error.startswith("error: ")
        assert hint.startswith("  → ")
    assert "Traceback" not in done.stderr


def test_an_argument_that_is_no_text_is_misuse(folder):
    done = subprocess.run(
        [str(COMMAND).encode(), b"explain", b"T32\xff"], cwd=folder, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert rb"error: an argument is not UTF-8: 'T32\udcff'" in done.stderr


def test_what_cannot_be_written_is_73(folder):
    (folder / "outputs").write_text("a file where the folder should be")
    done = subprocess.run([str(COMMAND), "watch", "--once"], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 73, done.stderr


def test_a_place_without_rights_or_room_is_73_and_no_bug(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "deep" / "file"))
    said, hint, code = _said(error)
    assert (said, code) == (f"no space left while writing {tmp_path}/deep/file", 73)
    assert re.search(r"^\d+ MB \(\d+ bytes\) are free there", hint)
    said, hint, code = _said(PermissionError(errno.EACCES, "Permission denied", "/somewhere"))
    assert (said, code) == ("cannot use /somewhere: Permission denied", 73)
