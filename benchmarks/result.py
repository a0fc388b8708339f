"""What a benchmark found, in one form for all: a table, what was to be reached, and the machine that it ran on.

In: figures. Out: a table on the terminal, and a JSON document that `performance.py` makes a page of. Never: a figure that this run
did not measure.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parents[1] / "build" / "bench"


@dataclass(frozen=True)
class Goal:
    """What was to be reached: a ratio within this run, or a bound."""

    what: str
    value: float
    at_most: float

    @property
    def reached(self) -> bool:
        """Whether it was."""
        return self.value <= self.at_most


@dataclass(frozen=True)
class Result:
    """One benchmark's."""

    name: str  # of the file
    title: str
    command: str  # that makes it again
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = ()
    goals: Sequence[Goal] = ()
    plot: dict[str, Any] = field(default_factory=dict)  # title, x, y, log, series: name -> [[x, y], …]
    machine: dict[str, Any] = field(default_factory=lambda: machine())

    def keep(self, folder: Path = FOLDER) -> None:
        """Prints the table, and writes the document."""
        table = Table(*self.columns, title=self.title, title_justify="left")
        for row in self.rows:
            table.add_row(*(shown(value) for value in row))
        console = Console(width=150)
        console.print(table)
        for goal in self.goals:
            verdict = "reached" if goal.reached else "MISSED"
            console.print(f"{goal.what}: {goal.value:.3g}, at most {goal.at_most:g}: {verdict}", markup=False, highlight=False)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(json.dumps(asdict(self), indent=1) + "\n")


def shown(value: Any) -> str:  # noqa: ANN401  # a cell
    """Returns a cell as text: three significant digits, and whole numbers whole."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def machine() -> dict[str, Any]:
    """Returns what the figures depend on besides the code: processor, memory, versions, and how busy it is."""
    info = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), platform.machine()
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    return {
        "when": datetime.now(UTC).isoformat(timespec="minutes"), "processor": model, "processors": os.cpu_count(),
        "memory_gb": round(memory / 1e9), "kernel": platform.release(), "python": platform.python_version(),
        "commit": commit.stdout.strip(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
