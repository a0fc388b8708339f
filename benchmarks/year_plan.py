"""What will happen in a simulated year: every publication, what is wrong with whose product, and every outage.

In: a shape (items, days, seed). Out: arrays, and items' names. Never: anything that depends on the watcher.

Everything is laid down beforehand in arrays, so that the world's own memory is the same in January and in December: what grows is
the watcher's.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from year_clock import DAY, HOUR, MINUTE, moment

FLOOD = 20  # times a usual day
BULK = 1_200  # items of a campaign under one and the same stamp: more than a page holds
SPELLS = ("ahead", "behind", "lost", "rival", "stores", "target")
"""What lasts for hours as an outage does: the watcher's clock a day ahead, or behind; what a ledger that is restored at the end has
forgotten; another installation that writes to the same bucket; and outages of the products' stores and of the target catalog."""
NATIVE = 5  # one in so many items is a finished GeoZarr in a collection of its own: no checksum, and one href for ever
EVIL = 1_000  # one in so many items has one beside it that is made to do harm
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Kind(IntEnum):
    """What a publication is."""

    USUAL = 0
    UNREADABLE = 1  # its product has no href yet
    DEPRECATED = 2
    GONE = 3  # the item is taken out of the catalog
    RESTAMP = 4  # nothing changes but its stamp; in a plan it is what the item was before


@dataclass(frozen=True)
class Shape:
    """How much happens, and when: floods and campaigns as fractions of the whole span."""

    items: int = 500_000
    days: int = 365
    seed: int = 1
    floods: tuple[float, ...] = (0.42, 0.8)
    campaigns: tuple[float, ...] = (0.3, 0.55, 0.72)
    restamps: tuple[float, ...] = (0.2, 0.62)  # of days of acquisitions, of which nothing else changes
    trouble: float = 1.0  # times as often as usual does the engine do something wrong, and is the watcher killed

    @property
    def reach(self) -> int:
        """Days that a campaign republishes: a twentieth of the span."""
        return max(2, self.days // 20)


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
    down: dict[str, list[tuple[int, int]]]  # outages: catalog, webhook, cluster, watcher; and see `SPELLS`


def plan(shape: Shape) -> Plan:
    """Draws up what happens."""
    rng = random.Random(shape.seed)  # noqa: S311  # a world, not a secret
    sensing, cloudy = array("q", _sensed(shape, rng)), bytearray(shape.items)
    raw: list[tuple[int, int, int, int]] = []  # visible, item, stamp (-1: that of the one before), kind; a negative kind: returns
    for i, sensed in enumerate(sensing):
        cloudy[i] = rng.random() < 0.05
        raw += _life(i, sensed, rng)
    for place in shape.campaigns:
        raw += _campaign(shape, place, sensing, Kind.USUAL)
    for place in shape.restamps:
        raw += _campaign(shape, place, sensing, Kind.RESTAMP)
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
        silent = sensed + int(rng.uniform(2.5, 4) * DAY)
        found.append((silent, i, silent - 5 if is_native(i) else -1, Kind.USUAL))  # of a native one nobody could tell
    elif chance < 0.032:
        found.append((later, i, later - 5, Kind.DEPRECATED))
    elif chance < 0.034:
        found.append((sensed + int(rng.uniform(0.2, 4) * DAY), i, later - 5, Kind.GONE))
    elif chance < 0.035:  # back to the product that it had before
        found += [(later, i, later - 5, Kind.USUAL), (later + 7 * HOUR, i, later + 7 * HOUR - 5, -1)]
    elif chance < 0.06:
        found.append((later, i, later - 5, Kind.RESTAMP))
    return found


def _campaign(shape: Shape, place: float, sensing: array[int], kind: Kind) -> list[tuple[int, int, int, int]]:
    """Returns the publications of a reprocessing, or of new stamps: days of acquisitions, in bulks, within three days."""
    begin = int(place * shape.days * DAY)
    low, high = (bisect_left(sensing, begin - back * DAY) for back in (shape.reach + 5, 5))
    pause = int(min(3, shape.days / 10) * DAY / max(1, math.ceil((high - low) / BULK)))
    bulks = (
        (begin + n * pause, i) for n, first in enumerate(range(low, high, BULK)) for i in range(first, min(first + BULK, high))
    )
    return [(at + 20, i, at, kind) for at, i in bulks]


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
        newest[i] += not returns and what not in (Kind.GONE, Kind.RESTAMP)
        visible[pub], item[pub], before[pub], last[i] = at, i, old, pub
        stamps[pub] = stamps[old] if stamped < 0 else stamped
        version[pub] = version[before[old]] if returns else newest[i]
        ready[pub] = at + int(rng.uniform(0.5, 20) * HOUR) if rng.random() < 0.01 else 0
        hopeless[pub] = rng.random() < 0.0005
        if what == Kind.RESTAMP:  # what it shows is the same product still
            kind[pub], ready[pub], hopeless[pub], version[pub] = kind[old], ready[old], hopeless[old], version[old]
        else:
            kind[pub], gone[i] = max(what, 0), what == Kind.GONE
        pub += 1
    for column in (visible, item, stamps, version, ready, before, by_stamp):
        del column[pub:]
    by_stamp[:] = array("q", sorted(range(pub), key=lambda p: (stamps[p], item[p])))
    ordered = array("q", (stamps[p] for p in by_stamp))
    down = {name: _outages(shape, rng) for name in ("catalog", "webhook", "cluster", "watcher", *SPELLS)}
    return Plan(sensing, cloudy, visible, item, stamps, version, kind[:pub], ready, hopeless[:pub], before, by_stamp, ordered, down)


def _outages(shape: Shape, rng: random.Random) -> list[tuple[int, int]]:
    """Returns about one a month, of one to eight hours."""
    begun = sorted(int(rng.uniform(0.1, 0.97) * shape.days * DAY) for _ in range(max(1, shape.days // 30)))
    return [(at, at + int(rng.uniform(1, 8) * HOUR)) for at in begun]


def is_down(outages: Iterable[tuple[int, int]], seconds: float) -> bool:
    """Tells whether one of the outages is on."""
    return any(start <= seconds < end for start, end in outages)


def is_native(i: int) -> bool:
    """Tells whether an item is of the collection of finished GeoZarr: never one that has an evil one beside it."""
    return i % NATIVE == NATIVE - 2


def has_evil(i: int) -> bool:
    """Tells whether an item has an evil one beside it: of the same stamp and time, for ever."""
    return i % EVIL == 7


def evil_name(plan: Plan, i: int) -> str:
    """Returns its id."""
    return f"{name_of(plan, i)}-EVIL"


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
