"""A year in minutes: 500,000 items on a test clock through the real watcher, with outages, campaigns, floods, kills and losses.

In: how many items and days, which database. Out: a table by month, and with --json and --plot files; exit code 1 when something
that is promised does not hold at the end. Never: the network, or a wait: the catalogue and the engine are `year_world`'s, all
else is what runs in production (discovery, sweeps, dispatch, reconcile, SQLite or PostgreSQL, the lease, audit, prune).

The watcher's rounds are half a simulated hour apart and not a second: rounds in which nothing happens show nothing. It has more
slots than usual (100), because what a round starts must last for half an hour. The recent days are swept once a day and
everything twelve times a year: with the defaults the sweeps alone would read 40 million items.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from statistics import median

from sqlalchemy import NullPool, create_engine, text
from year_plot import picture
from year_world import (
    API,
    COLLECTION,
    DAY,
    START,
    Catalogue,
    Clock,
    Cluster,
    Killed,
    Kind,
    Plan,
    Shape,
    is_down,
    name_of,
    number_of,
    plan,
)

from stac_watch import audit as auditing
from stac_watch import prune, replay
from stac_watch.catalog import Abilities
from stac_watch.changes import Item, read_item
from stac_watch.config import Limits, Recipe, Source
from stac_watch.database import open_engine
from stac_watch.ledger import Ledger
from stac_watch.policy import SkipReason
from stac_watch.records import ConversionRow, Place
from stac_watch.states import FINAL, State
from stac_watch.watch import Parts, Tick, Watcher

MONTHS = 12  # parts of the span, whatever its length
SLOTS = 100
TICK = 1800.0  # simulated seconds
KILLED = 0.003  # of the rounds
DRAIN_DAYS = 30  # at most; a product that is not there is looked for again for days
RECOUNT = "SELECT source, lane, state, cause, count(*) FROM conversion GROUP BY source, lane, state, cause"
HOPELESS = "the product is corrupt"


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


class Year:
    """The world, and a watcher in front of it."""

    def __init__(self, shape: Shape, url: str, *, tick: float = TICK, page: int = 1000) -> None:
        self.shape, self.url, self.step = shape, url, tick
        self.plan: Plan = plan(shape)
        self.clock = Clock()
        self.rng = random.Random(shape.seed + 1)  # noqa: S311  # a world, not a secret
        self.catalogue = Catalogue(self.plan, self.clock)
        dice = random.Random(shape.seed + 2)  # noqa: S311
        self.cluster = Cluster(self.catalogue, self.clock, dice, SLOTS, shape.trouble)
        poll = {
            "interval": "60s", "sweep": "24h", "sweep_back": "10d", "sweep_all": f"{max(1, shape.days // MONTHS)}d", "page": page,
        }  # fmt: skip
        self.source = Source.model_validate(
            {"name": "s2", "api": API, "collection": COLLECTION, "filter": {"max_cloud_cover": 80}, "poll": poll,
             "allowed_hosts": ["objects.example"]}
        )  # fmt: skip
        self.recipe, self.limits = Recipe(output="s3://geozarr/{collection}/{item_id}.zarr"), Limits(max_in_flight=SLOTS)
        self.operator = self._open()  # whoever looks, notes and replays beside the watcher
        self.operator.prepare()
        self.happened: Counter[str] = Counter()
        self.watchers = 0
        self._ledger: Ledger | None = None
        self._watcher: Watcher | None = None

    def _open(self) -> Ledger:
        return Ledger(open_engine(self.url))

    def _start(self) -> Watcher:
        self.watchers += 1
        self._ledger = self._open()
        return Watcher(
            Parts(
                sources=(self.source,), recipe=self.recipe, limits=self.limits, ledger=self._ledger, engine=self.cluster,
                catalogs={"s2": self.catalogue},  # type: ignore[dict-item]  # a value that answers as Catalog does
                read_marker=self.cluster.marker, now=self.clock, wait=lambda _: False, rng=self.rng, patience=600.0,
                holder=f"watcher {self.watchers}",
            )
        )  # fmt: skip

    def _stop(self, why: str) -> None:
        if self._ledger is not None:
            self.happened[why] += 1
            self._ledger.close()
        self._ledger = self._watcher = None

    def turn(self, *, troubled: bool = True) -> Tick:
        """One round: the world goes on, and the watcher looks, unless it is down or is killed in the middle."""
        self.catalogue.advance()
        if troubled and is_down(self.plan.down["watcher"], self.clock.seconds):
            self._stop("watcher down")
            return Tick()
        if self._watcher is None:
            self._watcher = self._start()
        if troubled and self.rng.random() < KILLED * self.shape.trouble:
            victim = self.cluster if self.rng.random() < 0.7 else self.catalogue
            victim.fuse = self.rng.randrange(3)
        try:
            tick = self._watcher.turn()
        except Killed:
            self._stop("watcher killed")
            return Tick()
        for name in tick.problems:
            self.happened[f"rounds with {name} out"] += 1
        return tick

    def note_abilities(self) -> None:
        """What a probe finds of a good STAC API, every twelve hours: probing is tests/discovery's business."""
        self.operator.note_abilities("s2", asdict(Abilities()), self.clock())

    def replay_dead(self) -> int:
        """Does what an operator does: tries again what is dead and is not hopeless."""
        rows = [row for row in self.operator.conversions(state=State.DEAD, limit=replay.MOST) if row.reason != HOPELESS]
        targets = [t for t in replay.chosen(rows, self.operator) if t.refusal is None]
        sources, catalogs = {"s2": self.source}, {"s2": self.catalogue}
        done = replay.execute(targets, self.operator, sources, self.recipe, catalogs, self.clock)  # type: ignore[arg-type]
        self.happened["replays"] += len(done)
        return len(done)

    # -- the span --------------------------------------------------------------------------------------------------------

    def months(self) -> Iterator[Month]:
        """Runs the span, month by month."""
        length = self.shape.days * DAY / MONTHS
        noted = -DAY
        for number in range(1, MONTHS + 1):
            month, cpu, wall = Month(number), list[float](), list[float]()
            while self.clock.seconds < number * length:
                begun = self.clock.seconds
                if begun - noted >= DAY / 2:
                    self.note_abilities()
                    noted = begun
                cpu_began, wall_began = time.process_time(), time.perf_counter()
                tick = self.turn()
                cpu.append(time.process_time() - cpu_began)
                wall.append(time.perf_counter() - wall_began)
                month.ticks += 1
                month.moved += sum(tick.facts.values())
                self.clock.forward(max(0.0, begun + self.step - self.clock.seconds))
            self.replay_dead()
            month.ms_per_tick, month.ms_wall, month.busiest_ms = median(cpu) * 1e3, median(wall) * 1e3, max(cpu) * 1e3
            month.cpu_s = sum(cpu)
            funnel = self.operator.funnel()
            month.items, month.done = sum(funnel.values()), sum(n for p, n in funnel.items() if p.state is State.DONE)
            month.rss_mb, month.ledger_mb = rss_mb(), ledger_mb(self.url)
            yield month

    def drain(self) -> bool:
        """Goes on, without any more trouble, until nothing moves any more and the last days were swept three times."""
        self.plan.down.update({name: [] for name in self.plan.down})
        self.catalogue.fuse = self.cluster.fuse = -1
        first, noted = self.clock.seconds, -DAY
        while self.clock.seconds - first < DRAIN_DAYS * DAY:
            if self.clock.seconds - noted >= DAY / 2:
                self.note_abilities()
                noted = self.clock.seconds
                if self.clock.seconds - first > 3 * DAY and self.settled():
                    return True
                self.replay_dead()
            begun = self.clock.seconds
            self.turn(troubled=False)
            self.clock.forward(max(0.0, begun + self.step - self.clock.seconds))
        return self.settled()

    def settled(self) -> bool:
        """Tells whether nothing waits, runs, or is dead without being hopeless."""
        dead = self.operator.conversions(state=State.DEAD, limit=replay.MOST)
        waits = [place for place in self.operator.funnel() if place.state not in FINAL]
        hopeless = all(row.reason == HOPELESS or self.operator.superseded(row) for row in dead)
        swept = self.operator.sweep("s2", "recent")
        return not waits and hopeless and swept is not None and swept.done_at is not None

    def audit(self) -> auditing.Audit:
        """Compares everything with everything."""
        context = auditing.Context(
            self.source, self.recipe, self.catalogue, self.operator, self.cluster,  # type: ignore[arg-type]
            self.cluster.marker, lambda _: True,
        )  # fmt: skip
        return auditing.audit(context, START, START + timedelta(days=self.shape.days + 1), self.clock())

    def close(self) -> None:
        """Closes what is open."""
        self._stop("end")
        self.operator.close()


# -- what must hold in the end ---------------------------------------------------------------------------------------------


def check(year: Year) -> list[str]:
    """Returns what does not hold, one sentence each."""
    wrong = [*year.cluster.wrong]
    rows: dict[int, ConversionRow] = {}
    for row in year.operator.within("s2", START, START + timedelta(days=year.shape.days + 1)):
        i = number_of(row.item_id)
        if i in rows:
            wrong.append(f"{row.item_id} is twice in the ledger")
        rows[i] = row
        wrong += _item(year, i, row)
    known = set(rows)
    missing = (i for i in range(year.shape.items) if i not in known and year.catalogue.shows(i) and not unreadable(year, i))
    wrong += [f"{name_of(year.plan, i)} is not in the ledger" for i in missing]
    bad, expected = {item for _, item, _ in year.operator.quarantined()}, {name_of(year.plan, i) for i in quarantined(year)}
    wrong += [f"{item} is wrongly in quarantine, or not" for item in sorted(bad ^ expected)]
    funnel = year.operator.funnel()
    wrong += [f"{n} are {place.state} in the end" for place, n in funnel.items() if place.state not in FINAL]
    counted = recount(year.url)
    if funnel != counted:
        wrong.append(f"the funnel says {funnel}, counted are {counted}")
    return wrong


def _item(year: Year, i: int, row: ConversionRow) -> list[str]:
    """Returns what is wrong with an item's current conversion."""
    p, pub = year.plan, year.catalogue.current[i]
    where = f"{row.item_id} ({row.key}, {row.state}, {row.reason})"
    if p.kind[pub] == Kind.GONE:
        return [] if row.state in (State.DONE, State.SKIPPED) else [f"{where} was withdrawn"]
    item = read_item(year.catalogue.document(i), collection=COLLECTION, api=API, on="content", allowed_hosts=year.source.hosts())
    if not isinstance(item, Item) or item.revision != row.revision:
        return [f"{where} is not of the item's last revision"]
    reason = SkipReason.DEPRECATED if p.kind[pub] == Kind.DEPRECATED else SkipReason.TOO_CLOUDY if p.cloudy[i] else None
    if reason is not None:
        return [] if (row.state, row.reason) == (State.SKIPPED, reason) else [f"{where} should be skipped as {reason}"]
    if p.hopeless[pub]:
        return [] if row.state is State.DEAD else [f"{where} should be dead"]
    found = []
    if row.state is not State.DONE:
        found.append(f"{where} should be done")
    held = year.cluster.holds[i]  # of an earlier publication where the item came back to its product before anybody looked
    if held < 0 or p.version[held] != p.version[pub]:
        found.append(f"{where} is done, and its output is of another revision")
    elif year.cluster.results[held] != 1:
        found.append(f"{where} has {year.cluster.results[held]} results")
    return found


def unreadable(year: Year, i: int) -> bool:
    """Tells whether an item has no product's href in the end."""
    return year.catalogue.shows(i) and year.plan.kind[year.catalogue.current[i]] == Kind.UNREADABLE


def quarantined(year: Year) -> list[int]:
    """Returns the items that must be in quarantine in the end."""
    return [i for i in range(year.shape.items) if unreadable(year, i)]


def foreseen(year: Year) -> set[tuple[str, str]]:
    """Returns the gaps that an audit must find, and no others: what can never be converted, and what is done and was withdrawn."""
    p = year.plan
    found = {(auditing.Kind.UNREADABLE.value, name_of(p, i)) for i in quarantined(year)}
    for row in year.operator.within("s2", START, START + timedelta(days=year.shape.days + 1)):
        i = number_of(row.item_id)
        if p.kind[year.catalogue.current[i]] == Kind.GONE and row.state is not State.SKIPPED:
            found.add((auditing.Kind.GONE.value, row.item_id))
        elif row.state is State.DEAD and p.hopeless[year.catalogue.current[i]]:
            found.add((auditing.Kind.DEAD.value, row.item_id))
    return found


def recount(url: str) -> dict[Place, int]:
    """Counts the conversions by plain SQL."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as db:
        return {Place(r[0], r[1], State(r[2]), r[3]): r[4] for r in db.execute(text(RECOUNT))}


def rss_mb() -> float:
    """Returns the memory that this process has now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def ledger_mb(url: str) -> float:
    """Returns how large the ledger is on disk, MB."""
    engine = create_engine(url, poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        path = engine.url.database or ""
        return sum(os.path.getsize(p) for p in (path, f"{path}-wal") if Path(p).exists()) / 1e6  # noqa: PTH202
    with engine.connect() as db:
        sizes = (
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        return float(db.execute(text(sizes)).scalar() or 0) / 1e6


# -- running it ------------------------------------------------------------------------------------------------------------


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
        report.happened = dict(sorted((year.happened + year.cluster.seen).items()))
        report.happened["watchers started"] = year.watchers
        counts: Counter[str] = Counter()
        for place, n in year.operator.funnel().items():
            counts[f"{place.state} {place.cause}".strip()] += n
        report.states = dict(counts.most_common())
    finally:
        year.close()
    second, last = report.months[1], report.months[-1]
    report.memory_ratio, report.tick_ratio = last.rss_mb / second.rss_mb, last.ms_per_tick / second.ms_per_tick
    report.ms_per_conversion = sum(m.cpu_s for m in report.months) * 1e3 / max(1, last.items)
    report.wall_s = time.perf_counter() - began
    return report


def _audited(year: Year, report: Report) -> None:
    """Audits, prunes half of the span, and audits again."""
    began = time.perf_counter()
    found = year.audit()
    report.audit_s, report.gaps = time.perf_counter() - began, found.kinds
    expected = foreseen(year)
    gaps = {(gap.kind.value, gap.item) for gap in found.gaps}
    report.wrong += [f"the audit finds {kind}: {item}" for kind, item in sorted(gaps - expected)]
    report.wrong += [f"the audit misses {kind}: {item}" for kind, item in sorted(expected - gaps)]
    funnel, report.ledger_mb = year.operator.funnel(), ledger_mb(year.url)
    began = time.perf_counter()
    pruned = prune.prune(year.operator, year.clock() - timedelta(days=year.shape.days / 2), yes=True)
    report.prune_s, report.pruned = time.perf_counter() - began, asdict(pruned)
    again = year.audit()
    if replace(again, at=found.at) != found:
        report.wrong.append("the audit says something else after pruning")
    if year.operator.funnel() != funnel or recount(year.url) != funnel:
        report.wrong.append("the funnel says something else after pruning")
    report.vacuumed_mb = _vacuumed(year.url)


def _vacuumed(url: str) -> float:
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(text("VACUUM FULL" if engine.dialect.name != "sqlite" else "VACUUM"))
        if engine.dialect.name == "sqlite":
            db.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    return ledger_mb(url)


def plot(report: Report, path: Path) -> None:
    """Draws cost, memory and size by month."""
    rows = (
        ("processor time of a round, median, ms", [m.ms_per_tick for m in report.months]),
        ("memory of the process, MB", [m.rss_mb for m in report.months]),
        ("ledger on disk, MB", [m.ledger_mb for m in report.months]),
    )
    path.write_text(picture(f"{report.items:,} items in {report.days} simulated days", rows), encoding="utf-8")


def show(month: Month) -> None:
    """Prints a line of the table."""
    m = month
    if m.month == 1:
        names = ("conversions", "done", "rounds", "ms/round", "wall ms", "worst ms", "facts", "RSS MB", "ledger MB")
        print("month", *(f"{name:>11}" for name in names))
    cells = (m.items, m.done, m.ticks, m.ms_per_tick, m.ms_wall, m.busiest_ms, m.moved, m.rss_mb, m.ledger_mb)
    print(f"{m.month:5}", *(f"{n:11,.1f}" if isinstance(n, float) else f"{n:11,}" for n in cells), flush=True)


def judge(report: Report, *, slower: float, larger: float) -> list[str]:
    """Returns what is wrong, what was measured included."""
    wrong = list(report.wrong)
    if report.tick_ratio > slower:
        wrong.append(f"a round costs {report.tick_ratio:.2f} times as much in month 12 as in month 2, allowed are {slower}")
    if report.memory_ratio > larger:
        wrong.append(f"the process has {report.memory_ratio:.2f} times the memory of month 2, allowed are {larger}")
    return wrong


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
    r = report
    print(f"\n{r.wall_s / 60:.1f} min; month 12 to month 2: {r.tick_ratio:.2f} for a round, {r.memory_ratio:.2f} for the memory")
    print(
        f"{r.ms_per_conversion:.1f} ms of processor time for a conversion, sweeps included; audit of everything {r.audit_s:.0f} s"
    )
    print(f"ledger {r.ledger_mb:.1f} MB; {r.vacuumed_mb:.1f} MB after a prune of one half, {r.prune_s:.0f} s, and VACUUM")
    for title, counts in (("states", report.states), ("what happened", report.happened), ("gaps, all foreseen", report.gaps)):
        print(f"{title}: " + ", ".join(f"{n:,} {name}" for name, n in counts.items()))
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
