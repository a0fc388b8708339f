"""How long people wait before anything happens: the verbs, beside an interpreter that does nothing, and the whole demo.

In: how often (7 by default). Out: a table; build/bench/startup.json. Never: part of the tests. Images: `make bench-images`.
"""

from __future__ import annotations

import argparse
import resource
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


def seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """Returns the wall time of one run, and its processor time."""
    began, before = time.perf_counter(), _processor()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)  # noqa: S603  # commands of this file
    return time.perf_counter() - began, _processor() - before


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measures, prints, keeps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=7)
    given = parser.parse_args()
    ours, converter = str(BINARIES / "stac-watch"), str(BINARIES / "geozarr-runner")
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "stac-watch --help": [ours, "--help"],
        "stac-watch status": [ours, "status"],
        "geozarr-runner --help": [converter, "--help"],
        "eopf-geozarr --help": [str(BINARIES / "eopf-geozarr"), "--help"],
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "stac-watch.yaml").write_text(CONFIG)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(given.times):  # in turns: what else the machine does meets all alike
            for name, command in commands.items():
                taken[name].append(seconds(command, folder))
        demo = seconds([ours, "demo", "--folder", str(folder / "demo")], folder)
    wall = {name: [w for w, _ in values] for name, values in taken.items()}
    used = {name: median(p for _, p in values) for name, values in taken.items()}
    bare, runner, theirs = "python -c pass", "geozarr-runner --help", "eopf-geozarr --help"
    rows = [[n, median(w), min(w), median(w) / median(wall[bare]), used[n], used[n] / used[bare]] for n, w in wall.items()]
    last = ["stac-watch demo", demo[0], demo[0], demo[0] / median(wall[bare]), demo[1], demo[1] / used[bare]]
    Result(
        "startup", "Start-up", "make bench-startup",
        ["command", "median, s", "fastest, s", "x an interpreter that does nothing", "processor, s", "x its processor"],
        [*rows, last],
        goals=[
            Goal(f"{runner} / {theirs}", median(wall[runner]) / median(wall[theirs]), 1.0),
            Goal("stac-watch --help, processor", used["stac-watch --help"], 0.15),
            Goal("stac-watch status, processor", used["stac-watch status"], 0.4),
        ],
    ).keep()  # fmt: skip


if __name__ == "__main__":
    main()
