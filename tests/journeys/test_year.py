"""A short span of `benchmarks/year.py`: what that shows of half a million items must hold of a thousand, whatever the dice say."""

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import year
from year_plan import Kind, Shape, name_of, number_of, plan

pytestmark = pytest.mark.long

SEEDS = (4, 7)
SHAPE = {"items": 400, "days": 6, "floods": (0.4,), "campaigns": (0.9,), "restamps": (0.6,), "trouble": 8}
HOUR = 3600.0  # between rounds
HAPPENED = (  # in some of the runs: a simulation in which nothing goes wrong shows nothing
    "rounds with engine out", "rounds with s2 out", "watcher killed", "watcher down", "runs vanished", "events lost after 200",
    "answers lost", "exit 66", "exit 75", "exit 137", "posts into an outage", "second starts of a run, which are none",
    "events delivered when they were given up", "runs that met a later revision's output", "answers older than what is known",
    "clock set", "ledger restored", "rounds of a rival", "runs that met another installation's output",
    "hints", "looks at stores", "items replaced", "items taken out", "registrations again", "registrations into an outage",
    "answers of the target lost",
)  # fmt: skip


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """Lives a span once for each seed."""
    known = {}

    def _live(seed):
        if seed not in known:
            folder = tmp_path_factory.mktemp(f"year-{seed}")
            known[seed] = year.live(Shape(seed=seed, **SHAPE), f"sqlite:///{folder / 'ledger.db'}", tick=HOUR, page=40)
        return known[seed]

    return _live


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_every_item_ends_in_one_state_and_has_one_result(seed, lives):
    report = lives(seed)
    assert report.wrong == []
    assert report.states["done"] > SHAPE["items"] * 0.8
    assert report.pruned["complete"]
    assert report.pruned["moves"] > 0


def test_everything_that_can_go_wrong_did(lives):
    assert set(HAPPENED) - {name for seed in SEEDS for name in lives(seed).happened} == set()


@pytest.mark.services
def test_a_ledger_on_postgresql_ends_the_same(postgres):
    postgres.sql("CREATE SCHEMA year")
    shape = Shape(items=150, days=4, seed=4, floods=(), campaigns=(0.8,))
    assert year.live(shape, postgres.url(schema="year"), tick=HOUR, page=40).wrong == []


def test_the_world_has_everything_in_it():
    world = plan(Shape(items=40_000, days=60))
    kinds = set(world.kind)
    assert kinds == {Kind.USUAL, Kind.UNREADABLE, Kind.DEPRECATED, Kind.GONE}
    backdated = sum(v - s > 86_400 for v, s in zip(world.visible, world.stamp, strict=True))
    assert backdated > 100  # seen by sweeps only
    assert any(world.version[p] < world.version[world.before[p]] for p in range(len(world.item)) if world.before[p] >= 0)
    assert max(Counter(world.stamp).values()) > 1000  # more under one stamp than a page holds
    assert [number_of(name_of(world, i)) for i in (0, 26, 39_999)] == [0, 26, 39_999]
