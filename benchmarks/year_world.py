"""What `year` runs against: a plan of everything that will happen, a catalogue and an engine that follow it, and their clock.

In: a shape (items, days, seed). Out: values that stand where `Catalog` and `Engine` stand. Never: HTTP. A year is some hundred
thousand requests of 6 to 2,300 ms each, and what goes wrong on their way is the business of tests/discovery and of
`make test-services`. What is left is what discovery makes of the answers.

Everything that will ever be published is laid down beforehand in arrays, so that the world's own memory is the same in January and
in December: what grows is the watcher's.
"""

from __future__ import annotations

import heapq
import json
import math
import random
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

from stac_watch.catalog import Abilities, Page
from stac_watch.engines import Answer, Phase, Receipt, Run
from stac_watch.errors import CatalogUnavailable, Temporary
from stac_watch.events import stamp
from stac_watch.windows import Window

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY, HOUR, MINUTE = 86_400, 3_600, 60
API, COLLECTION = "https://stac.example", "sentinel-2-l2a"
FLOOD = 20  # times a usual day
BULK = 1_200  # items of a campaign under one and the same stamp: more than a page holds
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Killed(BaseException):
    """The watcher's process ends here, between one instruction and the next."""


class Kind(IntEnum):
    """What a publication is."""

    USUAL = 0
    UNREADABLE = 1  # its product has no href yet
    DEPRECATED = 2
    GONE = 3  # the item is taken out of the catalogue


@dataclass(frozen=True)
class Shape:
    """How much happens, and when: floods and campaigns as fractions of the whole span."""

    items: int = 500_000
    days: int = 365
    seed: int = 1
    floods: tuple[float, ...] = (0.42, 0.8)
    campaigns: tuple[float, ...] = (0.3, 0.55, 0.72)
    trouble: float = 1.0  # times as often as usual does the engine do something wrong, and is the watcher killed

    @property
    def reach(self) -> int:
        """Days that a campaign republishes: a twentieth of the span."""
        return max(2, self.days // 20)


@dataclass
class Clock:
    """The only time there is."""

    time: datetime = START

    def __call__(self) -> datetime:
        """Returns it."""
        return self.time

    @property
    def seconds(self) -> float:
        """Since the start."""
        return (self.time - START).total_seconds()

    def forward(self, seconds: float) -> None:
        """Turns it."""
        self.time += timedelta(seconds=seconds)


def moment(seconds: float) -> datetime:
    """Returns the time so many seconds after the start."""
    return START + timedelta(seconds=seconds)


@dataclass
class Plan:
    """Every publication there will be, the first visible one first; and what is wrong with whose product."""

    sensing: array[int]  # by item, ascending
    cloudy: bytearray  # by item
    visible: array[int]  # by publication, ascending, as are all below
    item: array[int]
    stamp: array[int]
    version: array[int]
    kind: bytearray
    ready: array[int]  # when its product is there
    hopeless: bytearray  # it can never be converted
    before: array[int]  # the item's publication before it, -1 = none
    by_stamp: array[int]  # publications by stamp and item
    stamps: array[int]  # their stamps
    down: dict[str, list[tuple[int, int]]]  # outages: catalogue, webhook, cluster, watcher


def plan(shape: Shape) -> Plan:
    """Draws up what happens."""
    rng = random.Random(shape.seed)  # noqa: S311  # a world, not a secret
    sensing, cloudy = array("q", _sensed(shape, rng)), bytearray(shape.items)
    raw: list[tuple[int, int, int, int]] = []  # visible, item, stamp (-1: that of the one before), kind; a negative kind: returns
    for i, sensed in enumerate(sensing):
        cloudy[i] = rng.random() < 0.05
        raw += _life(i, sensed, rng)
    for place in shape.campaigns:
        raw += _campaign(shape, place, sensing)
    raw = [entry for entry in raw if entry[0] < shape.days * DAY]
    raw.sort()
    return _laid_down(shape, rng, sensing, cloudy, raw)


def _sensed(shape: Shape, rng: random.Random) -> list[int]:
    floods = {int(place * shape.days) for place in shape.floods}
    usual = shape.items / (shape.days + (FLOOD - 1) * len(floods))
    weights = [usual * (FLOOD if day in floods else 1) for day in range(shape.days)]
    # nothing is sensed so late that it could not be published within the span
    return sorted(int(day * DAY + rng.random() * DAY * 0.75) for day in rng.choices(range(shape.days), weights, k=shape.items))


def _life(i: int, sensed: int, rng: random.Random) -> list[tuple[int, int, int, int]]:
    """Returns the publications of one item, campaigns apart."""
    chance = rng.random()
    late = rng.random()
    first = sensed + int(rng.lognormvariate(math.log(1.5 * HOUR), 0.5))
    # most are stamped within a minute of being visible, some up to eight minutes before
    stamped = first - int(rng.uniform(0, MINUTE) if late < 0.97 else rng.uniform(MINUTE, 8 * MINUTE))
    if chance < 0.003:  # back-dated: visible days after what its stamp says; only a sweep sees it
        return [(sensed + int(rng.uniform(2.5, 4) * DAY), i, sensed + HOUR, Kind.USUAL)]
    found = [(first, i, stamped, int(Kind.USUAL))]
    later = first + int(rng.uniform(0.2, 60) * HOUR)
    if chance < 0.004:
        return [(first, i, stamped, Kind.UNREADABLE), (later, i, later - 5, Kind.USUAL)]
    if chance < 0.024:  # a new product under the same id
        found.append((later, i, later - 5, Kind.USUAL))
    elif chance >= 0.98:  # and soon: a run of the first one may still be on its way
        soon = first + int(rng.uniform(0.5, 3) * HOUR)
        found.append((soon, i, soon - 5, Kind.USUAL))
    elif chance < 0.029:  # a new product, and not a word about it
        found.append((sensed + int(rng.uniform(2.5, 4) * DAY), i, -1, Kind.USUAL))
    elif chance < 0.032:
        found.append((later, i, later - 5, Kind.DEPRECATED))
    elif chance < 0.034:
        found.append((sensed + int(rng.uniform(0.2, 4) * DAY), i, later - 5, Kind.GONE))
    elif chance < 0.035:  # back to the product that it had before
        found += [(later, i, later - 5, Kind.USUAL), (later + 7 * HOUR, i, later + 7 * HOUR - 5, -1)]
    return found


def _campaign(shape: Shape, place: float, sensing: array[int]) -> list[tuple[int, int, int, int]]:
    """Returns the publications of a reprocessing: days of acquisitions, in bulks, within three days."""
    begin = int(place * shape.days * DAY)
    low, high = (bisect_left(sensing, begin - back * DAY) for back in (shape.reach + 5, 5))
    pause = int(min(3, shape.days / 10) * DAY / max(1, math.ceil((high - low) / BULK)))
    bulks = (
        (begin + n * pause, i) for n, first in enumerate(range(low, high, BULK)) for i in range(first, min(first + BULK, high))
    )
    return [(at + 20, i, at, Kind.USUAL) for at, i in bulks]


def _laid_down(
    shape: Shape, rng: random.Random, sensing: array[int], cloudy: bytearray, raw: list[tuple[int, int, int, int]]
) -> Plan:
    n = len(raw)
    columns: list[array[int]] = [array("q", bytes(8 * n)) for _ in range(7)]
    visible, item, stamps, version, ready, before, by_stamp = columns
    kind, hopeless = bytearray(n), bytearray(n)
    last, gone = array("q", [-1]) * shape.items, bytearray(shape.items)
    newest = bytearray(shape.items)
    pub = 0
    for at, i, stamped, what in raw:
        old = last[i]
        if gone[i] or (old < 0 and what not in (Kind.USUAL, Kind.UNREADABLE)) or (old < 0 and stamped < 0):
            continue  # a campaign has no product for what was withdrawn, nor for what is not there yet
        returns = what < 0 and old >= 0 and before[old] >= 0
        newest[i] += not returns and what != Kind.GONE
        visible[pub], item[pub], before[pub], last[i] = at, i, old, pub
        stamps[pub] = stamps[old] if stamped < 0 else stamped
        version[pub] = version[before[old]] if returns else newest[i]
        kind[pub], gone[i] = max(what, 0), what == Kind.GONE
        ready[pub] = at + int(rng.uniform(0.5, 20) * HOUR) if rng.random() < 0.01 else 0
        hopeless[pub] = rng.random() < 0.0005
        pub += 1
    for column in (visible, item, stamps, version, ready, before, by_stamp):
        del column[pub:]
    by_stamp[:] = array("q", sorted(range(pub), key=lambda p: (stamps[p], item[p])))
    ordered = array("q", (stamps[p] for p in by_stamp))
    down = {name: _outages(shape, rng) for name in ("catalogue", "webhook", "cluster", "watcher")}
    return Plan(sensing, cloudy, visible, item, stamps, version, kind[:pub], ready, hopeless[:pub], before, by_stamp, ordered, down)


def _outages(shape: Shape, rng: random.Random) -> list[tuple[int, int]]:
    """Returns about one a month, of one to eight hours."""
    begun = sorted(int(rng.uniform(0.1, 0.97) * shape.days * DAY) for _ in range(max(1, shape.days // 30)))
    return [(at, at + int(rng.uniform(1, 8) * HOUR)) for at in begun]


def is_down(outages: Iterable[tuple[int, int]], seconds: float) -> bool:
    """Tells whether one of the outages is on."""
    return any(start <= seconds < end for start, end in outages)


def name_of(plan: Plan, i: int) -> str:
    """Returns an item's id, which holds its number: a thousand orbits with 17,576 tiles each."""
    orbit, tile = divmod(i, 26**3)
    letters = LETTERS[tile // 676] + LETTERS[tile // 26 % 26] + LETTERS[tile % 26]
    sensed = moment(plan.sensing[i])
    return f"S2A_MSIL2A_{sensed:%Y%m%dT%H%M%S}_N0511_R{orbit:03}_T32{letters}_{sensed:%Y%m%d}T235959"


def number_of(item_id: str) -> int:
    """Returns an item's number from its id."""
    parts = item_id.split("_")
    a, b, c = (LETTERS.index(letter) for letter in parts[5][3:])
    return int(parts[4][1:]) * 26**3 + a * 676 + b * 26 + c


@dataclass
class Catalogue:
    """One collection that changes as planned; what `Catalog` is to the stages. Its server's clock is ours."""

    plan: Plan
    clock: Clock
    api: str = API
    collection: str = COLLECTION
    abilities: Abilities = field(default_factory=Abilities)
    fuse: int = -1  # so many searches until the watcher is killed in one; negative = it is not
    asked: int = 0

    def __post_init__(self) -> None:
        self.current = array("q", [-1]) * len(self.plan.sensing)  # by item: what it shows now
        self._next = 0

    def advance(self) -> None:
        """Publishes what has become visible."""
        p, now = self.plan, self.clock.seconds
        while self._next < len(p.visible) and p.visible[self._next] <= now:
            self.current[p.item[self._next]] = self._next
            self._next += 1

    def shows(self, i: int) -> bool:
        """Tells whether an item is there now."""
        return self.current[i] >= 0 and self.plan.kind[self.current[i]] != Kind.GONE

    def _answer(self) -> datetime:
        self.asked += 1
        if is_down(self.plan.down["catalogue"], self.clock.seconds):
            raise CatalogUnavailable(f"catalogue {API} answers 503", hint="it is asked again")
        if self.fuse >= 0:
            self.fuse -= 1
            if self.fuse < 0:
                raise Killed
        return self.clock()

    # -- what the stages ask -------------------------------------------------------------------------------------------

    def search(self, window: Window, *, limit: int, extra: dict[str, Any] | None = None, **_: object) -> Page:
        """Returns a window's first items, by what the window is about, and by id."""
        now, p = self._answer(), self.plan
        start, end = ((m - START).total_seconds() for m in (window.start, window.end))
        if window.field == "datetime":
            span = range(bisect_left(p.sensing, start), bisect_left(p.sensing, end))
            found = [(p.sensing[i], name_of(p, i), i) for i in span if self.shows(i)]
        else:
            span = range(bisect_left(p.stamps, start), bisect_left(p.stamps, end))
            pubs = [pub for pub in (p.by_stamp[n] for n in span) if self.current[p.item[pub]] == pub]
            found = [(p.stamp[pub], name_of(p, p.item[pub]), p.item[pub]) for pub in pubs if p.kind[pub] != Kind.GONE]
        found.sort()
        if extra is not None:  # windows.after: this value and a greater id, or a greater value
            _, either = extra["args"]
            value, ident = either["args"][0]["args"][1], either["args"][1]["args"][1]
            found = [f for f in found if (stamp(moment(f[0])), f[1]) > (value, ident)]
        documents = [self.document(i) for _, _, i in found[:limit]]
        return Page(documents, len(found) >= limit, now, has_next=len(found) > limit)

    def item(self, item_id: str) -> dict[str, Any] | None:
        """Returns one item; None where there is none."""
        self._answer()
        i = number_of(item_id)
        return self.document(i) if self.shows(i) else None

    def fetch(self, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Returns those of the items that are there."""
        return [document for item_id in item_ids if (document := self.item(item_id)) is not None]

    def first(self) -> datetime | None:
        """Returns when the first item was acquired."""
        self._answer()
        return moment(self.plan.sensing[0])

    def document(self, i: int) -> dict[str, Any]:
        """Returns an item as it is now."""
        p, pub, name = self.plan, self.current[i], name_of(self.plan, i)
        properties: dict[str, Any] = {
            "datetime": stamp(moment(p.sensing[i])), "updated": stamp(moment(p.stamp[pub])), "grid:code": f"MGRS-{name[39:44]}",
            "eo:cloud_cover": 95.0 if p.cloudy[i] else 12.5, "processing:version": "05.11",
        }  # fmt: skip
        if p.kind[pub] == Kind.DEPRECATED:
            properties["deprecated"] = True
        product = {"type": "application/vnd+zarr"}
        if p.kind[pub] != Kind.UNREADABLE:
            product["href"] = f"https://objects.example/v{p.version[pub]}/{name}.zarr"
        return {
            "type": "Feature", "id": name, "collection": COLLECTION, "bbox": [11.4, 41.4, 12.8, 42.5], "properties": properties,
            "assets": {"product": product},
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
    begin: float
    end: float
    code: int | None  # None: it vanishes without a word
    writes: bool  # it finishes its work before its end, whatever that is
    outcome: dict[str, Any] | None = None


@dataclass
class Cluster:
    """An engine that loses, repeats, delays and forgets; and a record of every result, by publication."""

    catalogue: Catalogue
    clock: Clock
    rng: random.Random
    slots: int
    trouble: float = 1.0
    fuse: int = -1  # so many posts until the watcher is killed in one, the event having arrived
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.catalogue.plan.sensing)
        self.results = bytearray(len(self.catalogue.plan.visible))
        self.holds = array("q", [-1]) * n  # by item: the publication whose product its output was made of
        self._marker, self._attempt = array("Q", bytes(8 * n)), array("H", bytes(2 * n))
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
        if is_down(self.catalogue.plan.down["webhook"], now):
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
        self._take(event, now)
        if chance < 0.004:
            self.seen["events delivered twice"] += 1
            heapq.heappush(self._bus, (now + self.rng.uniform(5, 9 * MINUTE), event))
        if self.fuse >= 0:
            self.fuse -= 1
            if self.fuse < 0:
                raise Killed
        if chance < 0.009:
            self.seen["answers lost"] += 1
            return Receipt(Answer.UNKNOWN, "time-out")
        return Receipt(Answer.ACCEPTED)

    def runs(self, keys: Sequence[str]) -> list[Run]:
        """Returns the runs of these keys that exist."""
        self._reach()
        return [self._shown(run) for key in keys for run in self._runs.get(key, {}).values()]

    def close(self, *, stop_runs: bool) -> None:
        """Has nothing to let go."""

    def marker(self, output: str) -> dict[str, Any] | None:
        """Returns the marker of an output, None where there is no output."""
        i = number_of(output.rpartition("/")[2].removesuffix(".zarr"))
        if self.holds[i] < 0:
            return None
        return {"key": f"{self._marker[i]:012x}", "attempt": self._attempt[i], "code": 0, "revision": str(self.holds[i])}

    # -- what becomes of events ----------------------------------------------------------------------------------------

    def _take(self, event: bytes, now: float) -> None:
        """Puts an event on the bus; it is a run at once, or in some minutes, but before it would be given up for lost."""
        delay = self.rng.uniform(0, 2) if self.rng.random() < 0.98 else self.rng.uniform(2, 9 * MINUTE)
        heapq.heappush(self._bus, (now + delay, event))

    def _reach(self) -> None:
        """Lets everything happen that has happened by now."""
        now = self.clock.seconds
        if is_down(self.catalogue.plan.down["cluster"], now):
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
        i, version = number_of(data["item_id"]), int(data["product_href"].split("/")[3][1:])
        begin = at + self.rng.uniform(5, 60)
        if self.rng.random() < 0.03 * self.trouble:  # no node is free
            begin += self.rng.uniform(0.2, 4) * HOUR
            self.seen["runs that waited for a node"] += 1
        end = begin + min(2 * HOUR, self.rng.lognormvariate(math.log(280), 0.4))
        code, writes = self._fate(i, version, begin)
        overwrite = data["options"].get("overwrite") == "true"
        run = _Run(data["run"], key, attempt, i, version, overwrite, begin, end, code, writes)
        self._runs.setdefault(key, {})[attempt] = run
        heapq.heappush(self._ends, (end, key, attempt))
        self._active += 1
        self.seen["runs"] += 1

    def _fate(self, i: int, version: int, begin: float) -> tuple[int | None, bool]:
        p, pub = self.catalogue.plan, self._publication(i, version)
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
            self._write(run)
        if run.code is None:
            self.seen["runs vanished"] += 1
            self._drop(run.key, run.attempt)
            return
        self.seen[f"exit {run.code}"] += 1
        run.outcome = {"code": run.code, "key": run.key, "attempt": run.attempt, "reason": REASONS[run.code], "hint": "see its log",
                       "source": f"https://objects.example/v{run.version}.zarr", "run": run.name, "groups": ["measurements"],
                       "checks": [{"name": name, "verdict": "passed", "detail": "as the source has it"} for name in CHECKS],
                       "counts": {"bytes_read": 1_260_000_000, "bytes_written": 1_100_000_000, "files": 390},
                       "seconds": {"stage": 41.0, "convert": 190.5, "verify": 22.1, "package": 14.9}}  # fmt: skip
        # the template's times to live: three days after a success, fourteen after a failure
        heapq.heappush(self._forget, (at + (14 if run.code else 3) * DAY, run.key, run.attempt))

    def _write(self, run: _Run) -> None:
        """Does what the runner does: nothing where the output carries the key already."""
        i, key = run.item, int(run.key, 16)
        if self.holds[i] >= 0 and self._marker[i] == key and not run.overwrite:
            self.seen["runs that found their work done"] += 1
            return
        pub = self._publication(i, run.version)
        if self.holds[i] > pub:
            self.wrong.append(f"{name_of(self.catalogue.plan, i)}: version {run.version} took the place of a newer one")
        if self.results[pub]:
            self.wrong.append(f"{name_of(self.catalogue.plan, i)}: version {run.version} has a second result")
        self.results[pub] = min(255, self.results[pub] + 1)
        self.holds[i], self._marker[i], self._attempt[i] = pub, key, run.attempt

    def _publication(self, i: int, version: int) -> int:
        """Returns the last publication so far of an item's product of that version."""
        pub, p = self.catalogue.current[i], self.catalogue.plan
        while pub >= 0 and p.version[pub] != version:
            pub = p.before[pub]
        if pub < 0:
            raise AssertionError((i, version))
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


CHECKS = ("values", "nodata", "chunks", "pyramid")
REASONS = {
    0: "", 65: "the product is corrupt", 66: "HTTP 404", 75: "HTTP 503 from objects.example", 137: "killed (OOMKilled)",
    143: "SIGTERM",
}  # fmt: skip
