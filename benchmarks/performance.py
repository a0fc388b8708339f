"""Makes docs/performance.md of what the benchmarks found last: `make bench` runs them, this writes the page and its plots.

In: build/bench/*.json, and the page as it is. Out: the page, docs/pictures/performance-*.png. Never: a figure that no benchmark
wrote. A section whose benchmark was not run again stays as it is, with its day; one that never ran is named as that.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from result import FOLDER, shown

DOCS = Path(__file__).parents[1] / "docs"
ORDER = (
    "loss", "freshness", "idle", "sweep-0.9.11", "sweep-0.10.0", "ledger", "rebuild",
    "conversion", "conversion-fetched", "conversion-stages", "mirror", "publishing",
    "cluster", "cluster-scratch", "cluster-submissions", "cluster-poller", "soak", "startup", "images",
)  # fmt: skip
HEAD = """# Performance

Measured by the benchmarks that are in the project, each beside what a user would take instead, in the same run on the same machine:
what counts is the ratio. `make bench` runs them and writes this page; nobody edits a figure by hand.

<!-- written by benchmarks/performance.py -->
"""
UNMEASURED = "\n## Not measured\n"
MARK = r"\n?<!-- ([a-z0-9.-]+) -->(?=\n)"


def page(results: list[dict[str, Any]], before: str) -> str:
    """Returns the page.

    Args:
        results: what was found now.
        before: the page as it is.
    """
    kept = re.split(MARK, before.partition(UNMEASURED)[0])
    sections = dict(zip(kept[1::2], kept[2::2], strict=True)) | {result["name"]: _section(result) for result in results}
    parts = [HEAD, *(f"\n<!-- {name} -->{sections[name]}" for name in ORDER if name in sections)]
    if missing := [name for name in ORDER if name not in sections]:
        parts.append(f"{UNMEASURED}\nNo result of: {', '.join(missing)}.\n")
    return "".join(parts)


def _section(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        f"\n## {result['title']}\n",
        f"`{result['command']}`\n",
        _row(result["columns"]),
        _row(["---"] * len(result["columns"])),
    ]
    lines += [_row([shown(value) for value in row]) for row in result["rows"]]
    if result["goals"]:
        lines += ["", "| to reach | measured | at most | |", "| --- | --- | --- | --- |"]
        for goal in result["goals"]:
            verdict = "reached" if goal["value"] <= goal["at_most"] else "**missed**"
            lines.append(_row([goal["what"], shown(goal["value"]), shown(goal["at_most"]), verdict]))
    lines += ["", *result["notes"]] if result["notes"] else []
    if result["plot"]:
        lines += ["", f"![{result['plot']['title']}](pictures/performance-{result['name']}.png)"]
    where = f"{machine['processors']} processors ({machine['processor']}), {machine['memory_gb']} GB, Linux {machine['kernel']}"
    lines += [
        "",
        f"{machine['when']} at {machine['commit']}: {where}, Python {machine['python']}, load {machine['load']} at the end.",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def draw(result: dict[str, Any], folder: Path) -> None:
    """Draws a result's plot: both axes logarithmic, because sizes and times are."""
    from matplotlib.figure import Figure

    plot = result["plot"]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in plot["series"].items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel=plot["x"], ylabel=plot["y"], title=plot["title"])
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend()
    figure.savefig(folder / f"performance-{result['name']}.png", dpi=110)


def main() -> None:
    """Writes page and plots."""
    found = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
    results = [found[name] for name in ORDER if name in found]
    if not results:
        sys.exit(f"no results in {FOLDER}: run `make bench`, or one of its parts")
    for result in results:
        if result["plot"]:
            draw(result, DOCS / "pictures")
    there = DOCS / "performance.md"
    there.write_text(page(results, there.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
