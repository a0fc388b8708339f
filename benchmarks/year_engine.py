"""The engine that converts in a simulated year: it loses, repeats, delays and forgets, and keeps a record of every result.

In: events, the catalog's plan, the clock, dice. Out: a value that stands where `Engine` stands, the outputs' markers, and what
should never have happened. Never: a process, or HTTP.
"""

from __future__ import annotations

import heapq
import json
import math
import random
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from year_catalog import Catalog, Killed
from year_clock import DAY, HOUR, MINUTE, Clock, moment
from year_native import fingerprint_of
from year_plan import is_down, is_native, name_of, number_of

from stac_watch.model.errors import Exit, Temporary
from stac_watch.model.outcome import Check, Counts, Outcome
from stac_watch.model.stamps import stamp
from stac_watch.runs.engine import Answer, Phase, Receipt, Run

HOPELESS = "the product is corrupt"
ANOTHERS = "it is an output of another installation"
CHECKS = ("values", "nodata", "chunks", "pyramid")
REASONS = {
    0: "", 65: HOPELESS, 66: "HTTP 404", 75: "HTTP 503 from objects.example", 137: "killed (OOMKilled)", 143: "SIGTERM",
    73: ANOTHERS, 79: "a later revision is there",
}  # fmt: skip


@dataclass
class _Run:
    """A run, and what its end will be; decided when it starts, as weather is."""

    name: str
    key: str
    attempt: int
    item: int
    version: int
    overwrite: bool
    fence: str
    installation: str
    href: str
    begin: float
    end: float
    code: int | None  # None: it vanishes without a word
    writes: bool  # it finishes its work before its end, whatever that is
    outcome: Outcome | None = None


@dataclass
class Cluster:
    """An engine that loses, repeats, delays and forgets; and a record of every result, by publication."""

    catalog: Catalog
    clock: Clock
    rng: random.Random
    slots: int
    trouble: float = 1.0
    fuse: int = -1  # so many posts until the watcher is killed in one, the event having arrived
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.catalog.plan.sensing)
        self.results = bytearray(len(self.catalog.plan.visible))
        self.holds = array("q", [-1]) * n  # by item: the publication whose product its output was made of
        self._marker, self._attempt = [""] * n, array("H", bytes(2 * n))
        self._fence, self.owner = [""] * n, [""] * n
        self._finished = array("q", bytes(8 * n))
        self._after = array("q", [-1]) * len(self.results)  # by publication: the item's next one
        for pub, before in enumerate(self.catalog.plan.before):
            if before >= 0:
                self._after[before] = pub
        self._runs: dict[str, dict[int, _Run]] = {}
        self._ends: list[tuple[float, str, int]] = []
        self._forget: list[tuple[float, str, int]] = []
        self._bus: list[tuple[float, bytes]] = []
        self._active = 0

    # -- the engine's interface ----------------------------------------------------------------------------------------

    def headroom(self) -> int:
        """Returns how much room there is."""
        self._reach()
        return max(0, self.slots - self._active)

    def submit(self, event: bytes) -> Receipt:
        """Takes an event: now, in a while, twice, or not at all; and says so, or nothing, or the wrong thing."""
        self.clock.forward(0.5)  # what a post takes
        chance, now = self.rng.random() / self.trouble, self.clock.seconds
        if is_down(self.catalog.plan.down["webhook"], now):
            self.seen["posts into an outage"] += 1
            if chance < 0.1:
                self._take(event, now)
            return Receipt(Answer.UNKNOWN, "time-out")
        if chance < 0.0002:
            self.seen["events refused"] += 1
            return Receipt(Answer.REFUSED, "HTTP 400")
        if chance < 0.001:
            self.seen["events lost after 200"] += 1
            return Receipt(Answer.ACCEPTED)
        if (late := self._delay(event, chance)) > 0:
            self.seen["events delivered when they were given up"] += 1
            heapq.heappush(self._bus, (now + late, event))
            return Receipt(Answer.ACCEPTED)
        self._take(event, now)
        if chance < 0.005:
            self.seen["events delivered twice"] += 1
            heapq.heappush(self._bus, (now + self.rng.uniform(5, 9 * MINUTE), event))
        if self.fuse >= 0:
            self.fuse -= 1
            if self.fuse < 0:
                raise Killed
        if chance < 0.010:
            self.seen["answers lost"] += 1
            return Receipt(Answer.UNKNOWN, "time-out")
        return Receipt(Answer.ACCEPTED)

    def _delay(self, event: bytes, chance: float) -> float:
        """Returns the seconds until an event comes that everybody takes for lost: a Sensor was down, or a bus delivers it again.

        Most of all, where a newer revision is soon there: its run may be done when the older one's begins.
        """
        i, p, now = number_of(json.loads(event)["data"]["item_id"]), self.catalog.plan, self.clock.seconds
        newer = self._after[self.catalog.current[i]]
        if newer >= 0 and 0 < p.visible[newer] - now < DAY and self.rng.random() < 0.05 * self.trouble:
            return p.visible[newer] - now + self.rng.uniform(HOUR, 8 * HOUR)
        return self.rng.uniform(20 * MINUTE, 2 * DAY) if chance < 0.0015 else 0.0

    def runs(self, keys: Sequence[str]) -> list[Run]:
        """Returns the runs of these keys that exist."""
        self._reach()
        return [self._shown(run) for key in keys for run in self._runs.get(key, {}).values()]

    def close(self, *, stop_runs: bool) -> None:
        """Has nothing to let go."""

    def marker(self, output: str) -> Outcome | None:
        """Returns the marker of an output, None where there is no output."""
        i = number_of(output.rpartition("/")[2].removesuffix(".zarr"))
        if self.holds[i] < 0:
            return None
        return Outcome(
            code=0, key=self._marker[i], attempt=self._attempt[i], revision=str(self.holds[i]), fence=self._fence[i],
            installation=self.owner[i], finished=self.finished(i), fingerprint=self._fingerprint(i),
        )  # fmt: skip

    def finished(self, i: int) -> str:
        """Returns when an item's output was made."""
        return stamp(moment(self._finished[i]))

    def _fingerprint(self, i: int) -> str:
        held = self.holds[i]
        return fingerprint_of(self.catalog.plan.version[held]) if is_native(i) and held >= 0 else ""

    # -- what becomes of events ----------------------------------------------------------------------------------------

    def _take(self, event: bytes, now: float) -> None:
        """Puts an event on the bus; it is a run at once, or in some minutes, but before it would be given up for lost."""
        delay = self.rng.uniform(0, 2) if self.rng.random() < 0.98 else self.rng.uniform(2, 9 * MINUTE)
        heapq.heappush(self._bus, (now + delay, event))

    def _reach(self) -> None:
        """Lets everything happen that has happened by now."""
        now = self.clock.seconds
        if is_down(self.catalog.plan.down["cluster"], now):
            raise Temporary("the API server answers 503", hint="it is asked again")
        while self._bus and self._bus[0][0] <= now:
            self._start(*heapq.heappop(self._bus))
        while self._ends and self._ends[0][0] <= now:
            at, key, attempt = heapq.heappop(self._ends)
            self._end(self._runs[key][attempt], at)
        while self._forget and self._forget[0][0] <= now:
            _, key, attempt = heapq.heappop(self._forget)
            self._drop(key, attempt)

    def _start(self, at: float, event: bytes) -> None:
        data = json.loads(event)["data"]
        key, attempt = data["key"], data["attempt"]
        if attempt in self._runs.get(key, {}):
            self.seen["second starts of a run, which are none"] += 1
            return
        i = number_of(data["item_id"])
        if is_native(i):  # whatever lies under its name now
            version = self.catalog.plan.version[self.catalog.current[i]]
        else:
            version = int(data["product_href"].split("/")[3][1:])
        begin = at + self.rng.uniform(5, 60)
        if self.rng.random() < 0.03 * self.trouble:  # no node is free
            begin += self.rng.uniform(0.2, 4) * HOUR
            self.seen["runs that waited for a node"] += 1
        end = begin + min(2 * HOUR, self.rng.lognormvariate(math.log(280), 0.4))
        code, writes = self._fate(i, version, begin)
        overwrite = data["options"].get("overwrite") == "true"
        asks = overwrite, data["fence"], data["installation"], data["product_href"]
        run = _Run(data["run"], key, attempt, i, version, *asks, begin, end, code, writes)
        self._runs.setdefault(key, {})[attempt] = run
        heapq.heappush(self._ends, (end, key, attempt))
        self._active += 1
        self.seen["runs"] += 1

    def _fate(self, i: int, version: int, begin: float) -> tuple[int | None, bool]:
        p, pub = self.catalog.plan, self._publication(i, version)
        if p.hopeless[pub]:
            return 65, False
        if p.ready[pub] > begin:
            return 66, False
        chance = self.rng.random() / self.trouble
        for code, limit in ((75, 0.015), (137, 0.02), (143, 0.023), (None, 0.026)):
            if chance < limit:
                return code, code != 75 and self.rng.random() < 0.3
        return 0, True

    def _end(self, run: _Run, at: float) -> None:
        self._active -= 1
        if run.writes:
            run.code = self._write(run, at) or run.code
        if run.code is None:
            self.seen["runs vanished"] += 1
            self._drop(run.key, run.attempt)
            return
        self.seen[f"exit {run.code}"] += 1
        run.outcome = Outcome(
            code=run.code, key=run.key, attempt=run.attempt, reason=REASONS[run.code], hint="see its log",
            source=run.href, run=run.name, fence=run.fence, installation=run.installation, groups=("measurements",),
            checks=tuple(Check(name, "passed", "as the source has it") for name in CHECKS),
            counts=Counts(bytes_read=1_260_000_000, bytes_written=1_100_000_000, files=390),
            seconds={"stage": 41.0, "convert": 190.5, "verify": 22.1, "package": 14.9},
            finished=self.finished(run.item) if run.code == 0 else "", fingerprint="" if run.code else self._fingerprint(run.item),
        )  # fmt: skip
        # the template's times to live: three days after a success, fourteen after a failure
        heapq.heappush(self._forget, (at + (14 if run.code else 3) * DAY, run.key, run.attempt))

    def _write(self, run: _Run, at: float) -> int:
        """Does what the runner does: nothing where the output carries the key already, or may not be replaced; returns its code."""
        i, key = run.item, run.key
        if self.owner[i] not in ("", run.installation):
            self.seen["runs that met another installation's output"] += 1
            return Exit.CANNOT_WRITE
        if self._marker[i] != key and self._fence[i] > run.fence:
            self.seen["runs that met a later revision's output"] += 1
            return Exit.SUPERSEDED
        if self.holds[i] >= 0 and self._marker[i] == key and (not run.overwrite or self._attempt[i] > run.attempt):
            self.seen["runs that found their work done"] += 1
            return 0
        pub = self._publication(i, run.version)
        if self.holds[i] > pub:
            self.wrong.append(f"{name_of(self.catalog.plan, i)}: version {run.version} took the place of a newer one")
        if self.results[pub]:
            self.wrong.append(f"{name_of(self.catalog.plan, i)}: version {run.version} has a second result")
        self.results[pub] = min(255, self.results[pub] + 1)
        self.holds[i], self._marker[i], self._attempt[i] = pub, key, run.attempt
        self._fence[i], self.owner[i], self._finished[i] = run.fence, run.installation, int(at)
        return 0

    def _publication(self, i: int, version: int) -> int:
        """Returns the last publication so far of an item's product of that version; new stamps alone are none."""
        pub, p = self.catalog.current[i], self.catalog.plan
        while pub >= 0 and p.version[pub] != version:
            pub = p.before[pub]
        if pub < 0:
            raise AssertionError((i, version))
        while (before := p.before[pub]) >= 0 and p.version[before] == version:
            pub = before
        return pub

    def _drop(self, key: str, attempt: int) -> None:
        attempts = self._runs.get(key, {})
        attempts.pop(attempt, None)
        if not attempts:
            self._runs.pop(key, None)

    def _shown(self, run: _Run) -> Run:
        now = self.clock.seconds
        phase = Phase.PENDING if now < run.begin else Phase.RUNNING
        if run.outcome is not None:
            phase = Phase.FAILED if run.code else Phase.SUCCEEDED
        return Run(run.name, run.key, run.attempt, phase, "convert", None, run.outcome, moment(run.begin))
