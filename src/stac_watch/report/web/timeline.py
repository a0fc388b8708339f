"""How long each step takes: publication, seen, accepted, running, done; as figures and as what an SVG draws.

A step counts where both of its ends are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from stac_watch.ledger.records import Journey

WIDTH = 1000  # of the drawn scale
LONGEST = 30 * 86_400.0  # seconds at its right end; its left end is one second
MARKS = ((1.0, "1 s"), (10.0, "10 s"), (60.0, "1 min"), (600.0, "10 min"), (3600.0, "1 h"), (86_400.0, "1 d"), (604_800.0, "7 d"))
type Ends = Callable[[Journey], tuple[datetime | None, datetime | None]]
STEPS: tuple[tuple[str, Ends], ...] = (
    ("published → seen", lambda j: (j.published, j.seen)),
    ("seen → accepted", lambda j: (j.seen, j.accepted)),
    ("accepted → running", lambda j: (j.accepted, j.running)),
    ("running → done", lambda j: (j.running, j.done)),
    ("published → done", lambda j: (j.published, j.done)),
)


@dataclass(frozen=True)
class StepTime:
    """How long one step took."""

    name: str
    n: int
    p50: float | None  # seconds
    p95: float | None
    ticks: list[float]  # where each lies on the scale
    low: float  # where the median and the 95th percentile lie
    high: float


def timeline(journeys: Sequence[Journey]) -> list[StepTime]:
    """Returns the steps of these journeys, in their order; a step that nobody took has no figures."""
    return [_step(name, [s for j in journeys if (s := _seconds(*ends(j))) is not None]) for name, ends in STEPS]


def _step(name: str, seconds: list[float]) -> StepTime:
    p50, p95 = (percentile(seconds, share) for share in (0.5, 0.95))
    ticks = sorted({place(s) for s in seconds})
    return StepTime(name, len(seconds), p50, p95, ticks, place(p50 or 0.0), place(p95 or 0.0))


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    if start is None or end is None or end < start:  # stamped again since, or a run that was seen before its post was answered
        return None
    return (end - start).total_seconds()


def percentile(values: Sequence[float], share: float) -> float | None:
    """Returns the smallest value that at least this share of the values does not exceed; None of none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


def place(seconds: float) -> float:
    """Returns where a duration lies on the scale: logarithmic, 0 = a second or less, WIDTH = a month or more."""
    return round(WIDTH * math.log(min(max(seconds, 1.0), LONGEST)) / math.log(LONGEST), 1)
