"""A ledger that was restored from a backup: nothing is lost, nothing doubled, and no older product replaces a newer one."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Move
from stac_watch.model.errors import Temporary
from stac_watch.model.states import Fact, State
from stac_watch.watch.loop import Watcher


def snapshot(world, path):
    """Copies the ledger as `ledger backup` and every tool for SQLite would."""
    source = world.ledger._engine.url.database
    with closing(sqlite3.connect(source)) as db, closing(sqlite3.connect(path)) as copy:
        db.backup(copy)


def restored(world, path):
    """Lets the world go on with an older ledger."""
    world.ledger.close()
    world.ledger = Ledger(open_engine(f"sqlite:///{path}"))
    world.ledger.prepare()
    return world


def watch(world, hours):
    """A watcher that asks the catalog, too, until nothing moves any more."""
    watcher, until = Watcher(world.parts), world.clock() + timedelta(hours=hours)
    while world.clock() < until:
        watcher.turn(to_the_end=True)
        world.clock.time += timedelta(minutes=3)
    return watcher


def outputs(world):
    return {made.key for made in world.plant.outputs.values()}


@pytest.fixture
def drill(build, tmp_path):
    """Six items; the backup was made when two were done, one was replayed and the rest waited."""
    world = build()
    world.items = [world.publish(n) for n in range(2)]
    watch(world, 0.3)
    assert {row.state for row in world.ledger.conversions.find()} == {State.DONE}
    (row,) = world.ledger.conversions.find(item_id=world.items[0])
    world.ledger.conversions.move(row, Move(Fact.REPLAYED, "again", lane="replay", overwrite=True), world.clock())
    world.items += [world.publish(n, minutes_ago=0) for n in range(2, 6)]
    world.plant.fault = "full"
    world.discover()
    world.plant.fault = ""
    snapshot(world, tmp_path / "backup.db")
    yield world
    world.ledger.close()


def test_the_drill(drill, tmp_path, invariants):
    watch(drill, 1)  # what the backup does not know of: all done, one replayed twice, a newer revision, one item more
    newer = drill.publish(3, version=2, minutes_ago=0)
    later = drill.publish(6, minutes_ago=0)
    watch(drill, 0.5)
    current = {row.item_id: row.key for row in drill.ledger.conversions.find(state=State.DONE)}
    keys, posts = outputs(drill), len(drill.plant.posts)
    marked = {place: made.key for place, made in drill.plant.outputs.items()}
    drill.clock.time += timedelta(hours=20)
    restored(drill, tmp_path / "backup.db")
    watch(drill, 1)
    rows = {row.key: row.state for row in drill.ledger.conversions.find()}
    done = {key for key, state in rows.items() if state is State.DONE}
    assert State.QUEUED not in rows.values()
    assert keys <= done, "nothing is lost"
    assert {place: made.key for place, made in drill.plant.outputs.items()} == marked, "no older product replaced a newer one"
    names = drill.plant.posts[posts:]
    assert len(set(names)) == len(names)
    assert {newer, later} <= set(current)
    assert not drill.audit().gaps
    invariants(tmp_path / "backup.db")


def test_nothing_is_sent_of_a_source_before_it_has_answered_once(drill, tmp_path):
    drill.clock.time += timedelta(hours=20)
    restored(drill, tmp_path / "backup.db")
    search = drill.catalog.search

    def down(*_arguments, **_options):
        raise Temporary("the catalog is down", hint="it is asked again")

    drill.catalog.search = down
    posts, watcher = len(drill.plant.posts), Watcher(drill.parts)
    for _ in range(5):
        watcher.turn(to_the_end=True)
        drill.clock.time += timedelta(minutes=5)
    assert len(drill.plant.posts) == posts, "what waits may have a newer revision by now"
    drill.catalog.search = search
    watcher.turn(to_the_end=True)
    assert len(drill.plant.posts) > posts


def test_a_watcher_that_starts_again_does_not_wait_for_a_catalog_that_was_just_asked(drill):
    def down(*_arguments, **_options):
        raise Temporary("the catalog is down", hint="it is asked again")

    drill.catalog.search = down
    drill.clock.time += timedelta(minutes=5)
    posts = len(drill.plant.posts)
    Watcher(drill.parts).turn(to_the_end=True)
    assert len(drill.plant.posts) > posts
