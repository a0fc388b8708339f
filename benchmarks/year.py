"""A year in minutes: 500,000 items on a test clock through the real watcher, with outages, campaigns, floods, kills and losses.

In: how many items and days, which database. Out: a table by month, and with --json and --plot files; exit code 1 when something
that is promised does not hold at the end. Never: the network, or a wait: the catalog is `year_catalog`'s, the engine
`year_engine`'s, all else is what runs in production (discovery, sweeps, dispatch, reconcile, SQLite or PostgreSQL, the lease,
audit, prune).

The watcher's rounds are half a simulated hour apart and not a second: rounds in which nothing happens show nothing. It has more
slots than usual (100), because what a round starts must last for half an hour. The recent days are swept once a day and
everything twelve times a year: with the defaults the sweeps alone would read 40 million items.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

from year_checks import check, foreseen
from year_ledger import ledger_mb, recount, vacuumed_mb
from year_plan import Shape
from year_report import Month, Report, judge, plot, show, sum_up
from year_simulation import DRAIN_DAYS, TICK, Year

from stac_watch.jobs import prune


def live(shape: Shape, url: str, *, tick: float = TICK, page: int = 1000, told: Callable[[Month], None] = lambda _: None) -> Report:
    """Runs the span, drains it, and checks everything."""
    began = time.perf_counter()
    report = Report(shape.items, shape.days, shape.seed, url.partition(":")[0])
    year = Year(shape, url, tick=tick, page=page)
    try:
        for month in year.months():
            report.months.append(month)
            told(month)
        if not year.drain():
            report.wrong.append(f"something still moves {DRAIN_DAYS} days after the end")
        report.wrong += check(year)
        _audited(year, report)
        report.happened = dict(sorted((year.happened + year.cluster.seen + year.target.seen).items()))
        report.happened["looks at stores"] = year.stores.looks
        report.happened["watchers started"] = year.watchers
        counts: Counter[str] = Counter()
        for place, n in year.operator.counts.funnel().items():
            counts[f"{place.state} {place.cause}".strip()] += n
        report.states = dict(counts.most_common())
    finally:
        year.close()
    second, last = report.months[1], report.months[-1]
    half = len(report.months) // 2  # each half has campaigns, which need more than a quiet month; what leaks grows all the time
    first_half, second_half = (max(month.rss_mb for month in some) for some in (report.months[:half], report.months[half:]))
    report.memory_ratio, report.tick_ratio = second_half / first_half, last.ms_per_tick / second.ms_per_tick
    report.ms_per_conversion = sum(m.cpu_s for m in report.months) * 1e3 / max(1, last.items)
    report.wall_s = time.perf_counter() - began
    return report


def _audited(year: Year, report: Report) -> None:
    """Audits, prunes half of the span, and audits again."""
    began = time.perf_counter()
    found = year.audits()
    report.audit_s = time.perf_counter() - began
    report.gaps = dict(sum((Counter(one.kinds) for one in found), Counter[str]()))
    expected = foreseen(year)
    gaps = {(gap.kind.value, gap.item) for one in found for gap in one.gaps}
    report.wrong += [f"the audit finds {kind}: {item}" for kind, item in sorted(gaps - expected)]
    report.wrong += [f"the audit misses {kind}: {item}" for kind, item in sorted(expected - gaps)]
    funnel, report.ledger_mb = year.operator.counts.funnel(), ledger_mb(year.url)
    began = time.perf_counter()
    pruned = prune.prune(year.operator, year.clock() - timedelta(days=year.shape.days / 2), yes=True)
    report.prune_s, report.pruned = time.perf_counter() - began, asdict(pruned)
    again = year.audits()
    if [replace(one, at=year.clock()) for one in again] != [replace(one, at=year.clock()) for one in found]:
        report.wrong.append("the audit says something else after pruning")
    if year.operator.counts.funnel() != funnel or recount(year.url) != funnel:
        report.wrong.append("the funnel says something else after pruning")
    report.vacuumed_mb = vacuumed_mb(year.url)


def main() -> int:
    """Runs, prints and judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=500_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tick", type=float, default=TICK, help="simulated seconds between two rounds")
    parser.add_argument("--ledger", help="database URL of an empty ledger; a temporary SQLite file by default")
    parser.add_argument("--folder", type=Path, help="where that file lies")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        url = given.ledger or f"sqlite:///{folder}/ledger.db"
        report = live(Shape(given.items, given.days, given.seed), url, tick=given.tick, told=show)
    wrong = judge(report, slower=1.5, larger=1.15)
    sum_up(report)
    for sentence in wrong[:30]:
        print(f"WRONG: {sentence}")
    print(f"{len(wrong)} things are wrong" if wrong else "everything that is promised holds")
    for path in (given.json, given.plot):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    if given.json:
        given.json.write_text(json.dumps({**asdict(report), "wrong": wrong}, indent=2, default=str) + "\n")
    if given.plot:
        plot(report, given.plot)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
