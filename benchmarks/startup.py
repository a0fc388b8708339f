"""How long people wait before anything happens: the verbs, beside an interpreter that does nothing, and the whole demo.

In: how often (7 by default). Out: a table; build/bench/startup.json. Never: part of the tests. Images: `make bench-images`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from result import Goal, Result

BINARIES = Path(sys.executable).parent
CONFIG = """
ledger: sqlite:///ledger.db
sources: [{name: s2, api: "https://stac.example", collection: sentinel-2-l2a}]
engine: {kind: local}
"""


def seconds(command: list[str], folder: Path) -> float:
    """Returns the wall time of one run."""
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)  # noqa: S603  # commands of this file
    return time.perf_counter() - began


def main() -> None:
    """Measures, prints, keeps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=7)
    given = parser.parse_args()
    ours, runner = str(BINARIES / "stac-watch"), str(BINARIES / "geozarr-runner")
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "stac-watch --help": [ours, "--help"],
        "stac-watch status": [ours, "status"],
        "geozarr-runner --help": [runner, "--help"],
        "eopf-geozarr --help": [str(BINARIES / "eopf-geozarr"), "--help"],
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "stac-watch.yaml").write_text(CONFIG)
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(given.times):  # in turns: what else the machine does meets all alike
            for name, command in commands.items():
                taken[name].append(seconds(command, folder))
        demo = seconds([ours, "demo", "--folder", str(folder / "demo")], folder)
    bare, theirs = median(taken["python -c pass"]), median(taken["eopf-geozarr --help"])
    rows = [[name, median(values), min(values), median(values) / bare] for name, values in taken.items()]
    Result(
        "startup", "Start-up", "make bench-startup", ["command", "median, s", "fastest, s", "x an interpreter that does nothing"],
        [*rows, ["stac-watch demo", demo, demo, demo / bare]],
        goals=[Goal("geozarr-runner --help / eopf-geozarr --help", median(taken["geozarr-runner --help"]) / theirs, 1.0)],
    ).keep()  # fmt: skip


if __name__ == "__main__":
    main()
