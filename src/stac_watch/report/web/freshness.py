"""What `report` publishes: a page, JSON and an Atom feed (RFC 4287) that any web server can hand out as files.

They load nothing and run nothing, and every value is escaped: ids and errors come from other people's catalogs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from stac_watch.report.as_json import as_json
from stac_watch.report.freshness import HOURS, DayFreshness, Freshness, Missing, SourceFreshness, Sum, kept, share
from stac_watch.report.web.page import beside, template

WIDTH, HEIGHT = 1000, 120  # of a plot
LISTED = 200  # missing items that the page shows; the JSON has all of them
NAMED = 20  # in an entry of the feed
CONTENT = {
    "index.html": "text/html; charset=utf-8", "freshness.json": "application/json", "feed.atom": "application/atom+xml",
    "icon.svg": "image/svg+xml",
}  # fmt: skip
"""The files, and what they are."""


@dataclass(frozen=True)
class Piece:
    """A piece of a column."""

    kind: str  # h1, h6, h24, later, missing
    y: float
    height: float


@dataclass(frozen=True)
class Column:
    """One day of a plot."""

    x: float
    width: float
    title: str
    parts: list[Piece]


@dataclass(frozen=True)
class Entry:
    """One day of the feed."""

    day: str
    title: str
    updated: datetime
    lines: list[str]


def pages(found: Freshness, version: str, *, home: str = "") -> dict[str, str]:
    """Returns the files by their names; `home` leads to a watcher's status page, where they are served by one."""
    shown = {"found": found, "version": version, "home": home}
    return {
        "icon.svg": beside("icon.svg"),
        "freshness.json": as_json(found) + "\n",
        "feed.atom": template("feed.atom.j2").render(**shown, entries=list(_entries(found))),
        "index.html": template("freshness.html.j2").render(
            **shown, hours=HOURS, listed=found.missing[:LISTED], plots={s.source: columns(s) for s in found.sources},
            width=WIDTH, height=HEIGHT, share=share, kept=kept, root="",
        ),
    }  # fmt: skip


def columns(source: SourceFreshness) -> list[Column]:
    """Returns a column for each day; from below: available within 1, 6 and 24 h, later, missing."""
    most = max((day.sums.announced for day in source.days), default=0) or 1
    step = WIDTH / max(1, len(source.days))
    return [Column(round(n * step, 1), round(step * 0.8, 1), _said(d), _parts(d.sums, most)) for n, d in enumerate(source.days)]


def _parts(sums: Sum, most: int) -> list[Piece]:
    parts, base, before = [], float(HEIGHT), 0
    for kind, n in (*((f"h{w.hours:g}", w.met) for w in sums.within), ("later", sums.available), ("missing", sums.announced)):
        height = round((n - before) * HEIGHT / most, 2)
        if height > 0:
            base -= height
            parts.append(Piece(kind, round(base, 2), height))
        before = n
    return parts


def _said(day: DayFreshness) -> str:
    met = ", ".join(f"{w.met} within {w.hours:g} h" for w in day.sums.within)
    return f"{day.day}: {day.sums.announced} announced, {met}, {day.sums.available} by now, {day.sums.missing} missing"


def _entries(found: Freshness) -> Iterator[Entry]:
    """Yields the days that have ended, the last first. What is still missing may come, so such a day is new with each report."""
    for number in range(len(found.sources[0].days) - 2, -1, -1) if found.sources else ():
        days = [(source.source, source.days[number]) for source in found.sources]
        day = days[0][1].day
        end = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=2)  # the last item of it has had its 24 h
        announced, missing = sum(d.sums.announced for _, d in days), sum(d.sums.missing for _, d in days)
        gone = [m for m in found.missing if m.announced.astimezone(UTC).strftime("%Y-%m-%d") == day]
        lines = [f"{name}: {_said(d).partition(': ')[2]}" for name, d in days]
        lines += [f"missing: {_one(m)}" for m in gone[:NAMED]]
        lines += [f"and {len(gone) - NAMED} more"] if len(gone) > NAMED else []
        title = f"{day}: {announced} announced, {missing or 'none'} missing"
        yield Entry(day, title, found.at if missing or found.at < end else end, lines)


def _one(missing: Missing) -> str:
    return f"{missing.source} {missing.item}: {missing.reason}"
