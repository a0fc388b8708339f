"""What came of a simulated year: by month and in the end, printed, drawn, and judged.

In: numbers. Out: lines on the terminal, a picture, and what is wrong. Never: a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from year_plot import picture


@dataclass
class Month:
    """What a twelfth of the span was like."""

    month: int
    items: int = 0  # known in the end
    done: int = 0
    ticks: int = 0
    ms_per_tick: float = 0.0  # median, processor time of this process
    ms_wall: float = 0.0  # median, by the wall
    busiest_ms: float = 0.0
    cpu_s: float = 0.0  # of all rounds
    moved: int = 0  # facts
    rss_mb: float = 0.0
    ledger_mb: float = 0.0


@dataclass
class Report:
    """What came of it."""

    items: int
    days: int
    seed: int
    ledger: str
    months: list[Month] = field(default_factory=list)
    happened: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    gaps: dict[str, int] = field(default_factory=dict)  # of the audit, all of them foreseen
    wall_s: float = 0.0
    audit_s: float = 0.0
    memory_ratio: float = 0.0
    tick_ratio: float = 0.0
    ms_per_conversion: float = 0.0  # processor time of all rounds, sweeps included
    ledger_mb: float = 0.0
    pruned: dict[str, object] = field(default_factory=dict)
    prune_s: float = 0.0
    vacuumed_mb: float = 0.0
    wrong: list[str] = field(default_factory=list)


def show(month: Month) -> None:
    """Prints a line of the table."""
    m = month
    if m.month == 1:
        names = ("conversions", "done", "rounds", "ms/round", "wall ms", "worst ms", "facts", "RSS MB", "ledger MB")
        print("month", *(f"{name:>11}" for name in names))
    cells = (m.items, m.done, m.ticks, m.ms_per_tick, m.ms_wall, m.busiest_ms, m.moved, m.rss_mb, m.ledger_mb)
    print(f"{m.month:5}", *(f"{n:11,.1f}" if isinstance(n, float) else f"{n:11,}" for n in cells), flush=True)


def sum_up(r: Report) -> None:
    """Prints what follows the table."""
    print(f"\n{r.wall_s / 60:.1f} min; a round of month 12 to one of month 2: {r.tick_ratio:.2f}")
    print(f"most memory in the second half to most in the first: {r.memory_ratio:.2f}")
    print(
        f"{r.ms_per_conversion:.1f} ms of processor time for a conversion, sweeps included; audit of everything {r.audit_s:.0f} s"
    )
    print(f"ledger {r.ledger_mb:.1f} MB; {r.vacuumed_mb:.1f} MB after a prune of one half, {r.prune_s:.0f} s, and VACUUM")
    for title, counts in (("states", r.states), ("what happened", r.happened), ("gaps, all foreseen", r.gaps)):
        print(f"{title}: " + ", ".join(f"{n:,} {name}" for name, n in counts.items()))


def plot(report: Report, path: Path) -> None:
    """Draws cost, memory and size by month."""
    rows = (
        ("processor time of a round, median, ms", [m.ms_per_tick for m in report.months]),
        ("memory of the process, MB", [m.rss_mb for m in report.months]),
        ("ledger on disk, MB", [m.ledger_mb for m in report.months]),
    )
    path.write_text(picture(f"{report.items:,} items in {report.days} simulated days", rows), encoding="utf-8")


def judge(report: Report, *, slower: float, larger: float) -> list[str]:
    """Returns what is wrong, what was measured included."""
    wrong = list(report.wrong)
    if report.tick_ratio > slower:
        wrong.append(f"a round costs {report.tick_ratio:.2f} times as much in month 12 as in month 2, allowed are {slower}")
    if report.memory_ratio > larger:
        wrong.append(f"the second half takes {report.memory_ratio:.2f} times the memory of the first, allowed are {larger}")
    return wrong
