"""What is installed is what was locked: every file by its hash, here and in the images."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_of_every_package_in_the_lock_has_its_hash():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    ours = {p["name"] for p in lock["package"] if "registry" not in p["source"]}
    assert ours == {"stac-watch", "geozarr-runner"}, "no package from a URL or a repository: such a source has no registry's hash"
    files = [(p["name"], f) for p in lock["package"] for f in [*p.get("wheels", []), *([p["sdist"]] if "sdist" in p else [])]]
    assert len(files) > 100
    assert [name for name, file in files if not re.fullmatch(r"sha256:[0-9a-f]{64}", file.get("hash", ""))] == []


def test_nothing_is_installed_past_the_lock():
    """uv refuses a lock that does not fit (`--locked`) and a file whose hash differs; pip checks hashes where it is told to."""
    recipes = [ROOT / "Makefile", ROOT / "Dockerfile", ROOT / "runner" / "Dockerfile", *(ROOT / "runner").rglob("*.sh")]
    found = []
    for path in recipes:
        text = re.sub(r"\\\n\s*", " ", path.read_text())
        for line in text.splitlines():
            command = line.split("#")[0]
            if re.search(r"\buv(\)|\})? (sync|run)\b|\$\(UV\) sync", command):
                found.append(path.name)
                assert "--locked" in command or "--frozen" in command, (path, line)
            if re.search(r"\b(uv pip|pip3?) install\b", command) and "--no-deps" not in command:
                found.append(path.name)
                assert "--require-hashes" in command or re.search(r"install [^|;&]*uv==", command), (path, line)
    assert "Makefile" in found
    assert "Dockerfile" in found


def test_an_audit_without_its_database_says_that_nothing_was_checked():
    """An exit code of its own, in capitals: silence must not be taken for an all-clear."""
    argv = [sys.executable, "tools/audit_dependencies.py", "http://127.0.0.1:9/v1/query"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 69
    assert "NOTHING WAS CHECKED" in done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert done.stdout == ""
