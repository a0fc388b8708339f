"""Compares what uv.lock installs with the OSV database of known vulnerabilities, by pip-audit.

In: uv.lock. Out: pip-audit's table; exit 0 nothing known, 1 something is, 69 the database cannot be reached: nothing was checked.
Never: takes silence for an all-clear, or changes what is installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[1]
UV = ROOT / ".tools" / "bin" / "uv"
PIP_AUDIT = "pip-audit==2.10.1"
DATABASE = "https://api.osv.dev/v1/query"
NOTHING_CHECKED = 69  # sysexits.h, EX_UNAVAILABLE


def unreachable(url: str) -> str:
    """Returns why the database does not answer, or an empty string."""
    question = Request(url, data=b'{"package": {"name": "pip", "ecosystem": "PyPI"}, "version": "1.0"}', method="POST")  # noqa: S310
    try:
        with urlopen(question, timeout=20):  # noqa: S310  # an https URL of ours
            return ""
    except HTTPError as error:
        return f"HTTP {error.code}"
    except (URLError, OSError) as error:
        return str(getattr(error, "reason", error))


def main(database: str = DATABASE) -> int:
    """Audits, and says what the result is worth."""
    if why := unreachable(database):
        sys.stderr.write(f"NOTHING WAS CHECKED: the vulnerability database {database} cannot be reached ({why})\n")
        sys.stderr.write("  → run `make audit-deps` where it can; the lock's hashes are checked at every install all the same\n")
        return NOTHING_CHECKED
    with tempfile.TemporaryDirectory() as folder:
        locked = Path(folder) / "requirements.txt"
        export = ["export", "--quiet", "--locked", "--all-packages", "--no-emit-workspace", "--format", "requirements-txt"]
        _uv(*export, "--output-file", str(locked), check=True)
        audit = ["--require-hashes", "--disable-pip", "--vulnerability-service", "osv", "--progress-spinner", "off"]
        return _uv("tool", "run", PIP_AUDIT, "--requirement", str(locked), *audit)


def _uv(*arguments: str, check: bool = False) -> int:
    argv = [str(UV), *arguments]
    return subprocess.run(argv, cwd=ROOT, check=check).returncode  # noqa: S603  # arguments of ours, no shell


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
