"""A simulated year: the world as planned, and the real watcher in front of it, round after round.

In: a shape and a database URL. Out: the months as they pass, and the world as it is in the end. Never: a judgement (`year_checks`),
or a wait.
"""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

from year_catalog import API, COLLECTION, NATIVES, Catalog, Killed
from year_clock import DAY, HOUR, START, Clock
from year_engine import ANOTHERS, HOPELESS, Cluster
from year_ledger import ledger_mb
from year_native import Stores
from year_plan import Kind, Plan, Shape, is_down, is_native, name_of, plan
from year_report import Month
from year_target import Rounds, Target, rounds

from stac_watch.catalog.abilities import Abilities
from stac_watch.config.model import Limits, Recipe, Source
from stac_watch.discover.intake import Intake
from stac_watch.jobs import audit as auditing
from stac_watch.jobs import replay
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.model.publication import WAITING
from stac_watch.model.states import FINAL, State
from stac_watch.watch.hints import Hints
from stac_watch.watch.loop import Parts, Tick, Watcher

MONTHS = 12  # parts of the span, whatever its length
SLOTS = 100
TICK = 1800.0  # simulated seconds
KILLED = 0.003  # of the rounds
LAGS = 0.3  # of the rounds meet a replica of the catalog that is up to three hours behind
FOR_GOOD = (HOPELESS, ANOTHERS)  # why something failed, where another attempt would change nothing
HINTED = "6h"  # between polls of the collection of finished products, which hints tell of
TOLD = 0.9  # of its publications
DRAIN_DAYS = 30  # at most; a product that is not there is looked for again for days


class Year:
    """The world, and a watcher in front of it."""

    def __init__(self, shape: Shape, url: str, *, tick: float = TICK, page: int = 1000) -> None:
        self.shape, self.url, self.step = shape, url, tick
        self.plan: Plan = plan(shape)
        self.clock = Clock()
        self.rng = random.Random(shape.seed + 1)  # noqa: S311  # a world, not a secret
        self.catalog, self.natives = (Catalog(self.plan, self.clock, collection=name) for name in (COLLECTION, NATIVES))
        self.catalogs = {"s2": self.catalog, "native": self.natives}
        self.natives.current = self.catalog.current
        self.stores, self.hints = Stores(self.catalog), Hints()
        self.target = Target(self.plan, self.clock, random.Random(shape.seed + 3))  # noqa: S311
        self.hinted = 0  # publications whose hints were given, or lost
        dice = random.Random(shape.seed + 2)  # noqa: S311
        self.cluster = Cluster(self.catalog, self.clock, dice, SLOTS, shape.trouble)
        poll = {
            "interval": "60s", "sweep": "24h", "sweep_back": "10d", "sweep_all": f"{max(1, shape.days // MONTHS)}d", "page": page,
        }  # fmt: skip
        self.sources = {
            name: Source.model_validate(
                {"name": name, "api": API, "collection": catalog.collection, "filter": {"max_cloud_cover": 80},
                 "poll": {**poll, "interval": interval}, "allowed_hosts": ["objects.example"]}
            )
            for (name, catalog), interval in zip(self.catalogs.items(), ("60s", HINTED), strict=True)
        }  # fmt: skip
        self.recipe, self.limits = Recipe(output="s3://geozarr/{collection}/{item_id}.zarr"), Limits(max_in_flight=SLOTS)
        self.installation, self.skew = "prod", 0.0
        self._rival: Watcher | None = None
        self._others: Ledger | None = None
        self._folder = tempfile.TemporaryDirectory()
        self._backup: Path | None = None
        self.operator = self._open()  # whoever looks, notes and replays beside the watcher
        self.operator.prepare()
        self.happened: Counter[str] = Counter()
        self.watchers = 0
        self._ledger: Ledger | None = None
        self._watcher: Watcher | None = None
        self._rounds: Rounds | None = None

    def now(self) -> datetime:
        """Returns what the machine takes for the time: somebody may have set its clock."""
        return self.clock() + timedelta(seconds=self.skew)

    def _open(self, url: str = "") -> Ledger:
        return Ledger(open_engine(url or self.url), clock=self.now)

    def _start(self) -> Watcher:
        self.watchers += 1
        self._ledger = self._open()
        return self._watching(self._ledger, self.installation)

    def _watching(self, ledger: Ledger, installation: str) -> Watcher:
        mine = installation == self.installation
        if mine:
            self._rounds = rounds(ledger, self.target, self.cluster, self.recipe, self.now)
        return Watcher(
            Parts(
                sources=tuple(self.sources.values()), recipe=self.recipe, limits=self.limits, ledger=ledger, engine=self.cluster,
                catalogs=self.catalogs,  # type: ignore[arg-type]  # values that answer as Catalog does
                stores={"native": self.stores},  # type: ignore[dict-item]  # the same
                registrar=self._rounds if mine else None,  # type: ignore[arg-type]  # the same
                hints=self.hints if mine else Hints(),
                read_marker=self.cluster.marker, now=self.now, wait=lambda _: False, rng=self.rng, patience=600.0,
                holder=f"{installation}, watcher {self.watchers}", installation=installation,
            )
        )  # fmt: skip

    def _stop(self, why: str) -> None:
        if self._ledger is not None:
            self.happened[why] += 1
            self._ledger.close()
        self._ledger = self._watcher = None

    def turn(self, *, troubled: bool = True) -> Tick:
        """One round: the world goes on, and the watcher looks, unless it is down or is killed in the middle."""
        self.catalog.advance()
        self._hint()
        self._mishaps(troubled=troubled)
        if troubled and is_down(self.plan.down["watcher"], self.clock.seconds):
            self._stop("watcher down")
            return Tick()
        if self._watcher is None:
            self._watcher = self._start()
        if troubled and self.rng.random() < KILLED * self.shape.trouble:
            victim = self.rng.choice((self.cluster, self.cluster, self.catalog, self.natives, self.target, self.target))
            victim.fuse = self.rng.randrange(3)
        try:
            tick = self._watcher.turn()
        except Killed:
            self._killed()
            return Tick()
        if self._rounds is not None:
            self._rounds.idle.wait()
        if any(one.killed for one in self._mortal):  # in a thread
            self._killed()
            return Tick()
        self.happened["answers older than what is known"] += sum(tally.lagging for tally in tick.tallies.values())
        for name in tick.problems:
            self.happened[f"rounds with {name} out"] += 1
        return tick

    @property
    def _mortal(self) -> tuple[Catalog | Target, ...]:
        return self.catalog, self.natives, self.target

    def _killed(self) -> None:
        if self._rounds is not None:
            self._rounds.idle.wait()
        for one in self._mortal:
            one.killed, one.fuse = False, -1
        self.cluster.fuse = -1
        self._stop("watcher killed")

    def _hint(self) -> None:
        """Tells of what came to the collection of finished products, of most of it."""
        p = self.plan
        while self.hinted < len(p.visible) and p.visible[self.hinted] <= self.clock.seconds:
            if is_native(p.item[self.hinted]) and self.rng.random() < TOLD:
                self.hints.give("native")
                self.happened["hints"] += 1
            self.hinted += 1

    # -- what befalls the machine, the ledger and the bucket ---------------------------------------------------------------

    def _mishaps(self, *, troubled: bool) -> None:
        now, down = self.clock.seconds, self.plan.down
        for catalog in self.catalogs.values():
            catalog.lag = self.rng.uniform(60, 3 * HOUR) if troubled and self.rng.random() < LAGS else 0.0
        skew = DAY * (is_down(down["ahead"], now) - is_down(down["behind"], now)) if troubled else 0
        if skew != self.skew:
            self.skew = skew
            self.happened["clock set"] += 1
        self._forget(lost=troubled and is_down(down["lost"], now))
        if troubled and is_down(down["rival"], now):
            self._compete()

    def _forget(self, *, lost: bool) -> None:
        """Keeps a backup when a spell begins, and restores it when it ends; of SQLite, where a ledger is a file."""
        if not self.url.startswith("sqlite:///"):
            return
        file = Path(self.url.removeprefix("sqlite:///"))
        if lost and self._backup is None:
            self._backup = file.with_name(f"{file.name}.backup")
            with closing(sqlite3.connect(file)) as db, closing(sqlite3.connect(self._backup)) as copy:
                db.backup(copy)
        elif not lost and self._backup is not None:
            self._stop("ledger restored")
            self.operator.close()
            for suffix in ("-wal", "-shm"):
                file.with_name(file.name + suffix).unlink(missing_ok=True)
            self._backup.replace(file)
            self._backup = None
            self.operator = self._open()

    def _compete(self) -> None:
        """A round of another installation, with a ledger of its own, that was given the same bucket."""
        if self._rival is None:
            other = self._others = self._open(f"sqlite:///{self._folder.name}/rival.db")
            other.prepare()
            for name in self.sources:
                other.sources.note_abilities(name, asdict(Abilities()), self.clock())
            self._rival = self._watching(other, "rival")
        mortal = self.cluster, self.catalog, self.natives
        fuses = [one.fuse for one in mortal]
        for one in mortal:
            one.fuse = -1  # it is not the one that is killed
        self._rival.turn()
        for one, fuse in zip(mortal, fuses, strict=True):
            one.fuse = fuse
        self.happened["rounds of a rival"] += 1

    def note_abilities(self) -> None:
        """What a probe finds of a good STAC API, every twelve hours: probing is tests/catalog's business."""
        for name in self.sources:
            self.operator.sources.note_abilities(name, asdict(Abilities()), self.now())

    @property
    def intakes(self) -> dict[str, Intake]:
        """What documents of the catalog pass through, by source."""
        return {
            name: Intake(source, self.recipe, self.catalogs[name], self.operator, self.now, self.installation)  # type: ignore[arg-type]
            for name, source in self.sources.items()
        }

    def replay_failed(self) -> int:
        """Does what an operator does: tries again what has failed and is not hopeless."""
        rows = [row for row in self.operator.conversions.find(state=State.FAILED, limit=replay.MOST) if row.reason not in FOR_GOOD]
        targets = [t for t in replay.chosen(rows, self.operator) if t.refusal is None]
        done = replay.execute(targets, self.operator, self.intakes, self.now)
        self.happened["replays"] += len(done)
        return len(done)

    def unregister_gone(self) -> None:
        """Has taken out what the catalog no longer shows: what an operator does of a rolling archive."""
        gone = {
            name_of(self.plan, i) for i, pub in enumerate(self.catalog.current) if pub >= 0 and self.plan.kind[pub] == Kind.GONE
        }
        keys = [one.key for name in sorted(gone) for one in self.operator.publications.of(name)]
        self.happened["items to be taken out"] += self.operator.publications.withdraw(keys, self.now())

    # -- the span --------------------------------------------------------------------------------------------------------

    def months(self) -> Iterator[Month]:
        """Runs the span, month by month."""
        length = self.shape.days * DAY / MONTHS
        noted = float(-DAY)
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
            self.replay_failed()
            self.unregister_gone()
            month.ms_per_tick, month.ms_wall, month.busiest_ms = median(cpu) * 1e3, median(wall) * 1e3, max(cpu) * 1e3
            month.cpu_s = sum(cpu)
            funnel = self.operator.counts.funnel()
            month.items, month.done = sum(funnel.values()), sum(n for p, n in funnel.items() if p.state is State.DONE)
            month.rss_mb, month.ledger_mb = rss_mb(), ledger_mb(self.url)
            yield month

    def drain(self) -> bool:
        """Goes on, without any more trouble, until nothing moves any more and the last days were swept three times."""
        self.plan.down.update({name: [] for name in self.plan.down})
        self.catalog.fuse = self.natives.fuse = self.target.fuse = self.cluster.fuse = -1
        first, noted = self.clock.seconds, float(-DAY)
        while self.clock.seconds - first < DRAIN_DAYS * DAY:
            if self.clock.seconds - noted >= DAY / 2:
                self.note_abilities()
                noted = self.clock.seconds
                if self.clock.seconds - first > 3 * DAY and self.settled():
                    return True
                self.replay_failed()
                self.unregister_gone()
            begun = self.clock.seconds
            self.turn(troubled=False)
            self.clock.forward(max(0.0, begun + self.step - self.clock.seconds))
        return self.settled()

    def settled(self) -> bool:
        """Tells whether nothing waits, runs, or has failed without being hopeless."""
        failed = self.operator.conversions.find(state=State.FAILED, limit=replay.MOST)
        waits = [place for place in self.operator.counts.funnel() if place.state not in FINAL]
        hopeless = all(row.reason in FOR_GOOD or self.operator.conversions.superseded(row) for row in failed)
        swept = [self.operator.sources.state(name, ()).sweeps.get("recent") for name in self.sources]
        looked = not self.operator.restamps.due("native", self.now() + timedelta(days=DRAIN_DAYS), 1)
        told = all(count.state not in WAITING for count in self.operator.publications.counts())
        return not waits and hopeless and looked and told and all(s is not None and s.done_at is not None for s in swept)

    def audits(self) -> list[auditing.Audit]:
        """Compares everything with everything, source by source."""
        evidence = auditing.Evidence(self.cluster, self.cluster.marker, lambda _: True)  # type: ignore[arg-type]
        until = START + timedelta(days=self.shape.days + 1)
        return [auditing.audit(intake, evidence, START, until) for intake in self.intakes.values()]

    def close(self) -> None:
        """Closes what is open."""
        self._stop("end")
        self.operator.close()
        if self._others is not None:
            self._others.close()
        self._folder.cleanup()


def rss_mb() -> float:
    """Returns the memory that this process has now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
