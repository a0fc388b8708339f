"""What was there before the watch is no news until it changes, and what comes late is, whatever is said of its time."""

from datetime import timedelta

import pytest

STAMPS = ("updated", "created", "published")


@pytest.fixture
def archive(world):
    """Fifty items that were there before the watch began an hour ago."""
    world.settings["poll"] = {"since": "1h", "sweep_all": "off"}
    world.fill(50)
    assert world.poll().admitted == 0
    return world


def restamp(world, count=50, *, only=STAMPS, **changes):
    old = [world.item(n) for n in range(count)]
    new = [world.item(n, updated=world.clock(), **changes) for n in range(count)]
    for before, after in zip(old, new, strict=True):
        after["properties"] |= {name: before["properties"][name] for name in STAMPS if name not in only}
    world.store.put_many(new)


def test_a_mass_re_stamp_after_the_first_sweep_is_no_news(archive):
    archive.sweep()
    archive.clock.forward(minutes=5)
    restamp(archive)
    assert archive.poll().admitted == 0
    archive.clock.forward(hours=6)
    assert archive.sweep().admitted == 0
    assert archive.states() == {}


def test_an_archive_that_was_re_stamped_just_before_the_watch_began_is_no_news(world):
    world.settings["poll"] = {"since": "1d", "sweep_all": "off"}
    restamp(world, only=("updated",))
    world.store.put(world.item(60, updated=world.clock() - timedelta(hours=1)))
    assert world.poll().admitted == 1
    world.clock.forward(minutes=5)
    restamp(world, only=("updated",))
    assert world.poll().admitted == world.sweep().admitted == 0


def test_a_mass_re_stamp_before_the_first_sweep_is_told_by_when_items_were_first_there(archive):
    archive.clock.forward(minutes=5)
    restamp(archive, only=("updated",))
    assert archive.poll().admitted == 0
    assert archive.sweep().admitted == 0
    archive.clock.forward(hours=6)
    restamp(archive)
    assert archive.poll().admitted == archive.sweep().admitted == 0


@pytest.mark.parametrize("found_by", ["poll", "sweep"])
def test_what_was_there_and_changes_is_news(archive, found_by):
    archive.sweep()
    archive.clock.forward(minutes=5)
    archive.store.put(archive.item(7, version=2, **({"updated": archive.clock()} if found_by == "poll" else {})))
    assert archive.poll().admitted == (found_by == "poll")
    archive.clock.forward(hours=6)
    assert archive.sweep().admitted == (found_by == "sweep")
    restamp(archive, 8, version=2)
    assert archive.poll().admitted == 7  # the other seven have changed now, too
    assert len(archive.ledger.conversions.find()) == 8


def test_what_was_there_is_no_news_under_another_signature_or_host(archive):
    archive.settings["allowed_hosts"] = ["127.0.0.1", "data.example.org"]
    archive.sweep()
    for change in ("?sig=1&se=2", "?sig=2&se=3", "data.example.org"):
        items = [archive.item(n, updated=archive.clock() + timedelta(minutes=1)) for n in range(50)]
        for asset in (asset for item in items for asset in item["assets"].values()):
            asset["href"] = asset["href"] + change if "?" in change else asset["href"].replace(archive.url, f"https://{change}")
        archive.store.put_many(items)
        archive.clock.forward(minutes=2)
        assert archive.poll().admitted == 0
        archive.clock.forward(hours=6)
        assert archive.sweep().admitted == 0


def test_an_old_acquisition_that_is_published_now_is_new_where_polls_go_by_acquisition_time(world):
    """Its stamp says so, though the catalog cannot be asked for stamps; also where its day was never swept."""
    world.settings["poll"] = {"since": "1h", "sweep": "6h", "sweep_back": "2d", "sweep_all": "8h"}
    world.fill(50)
    catalog = world.catalog()
    world.poll()
    world.sweep()
    state = world.ledger.sources.state("s2", ()).abilities
    world.ledger.sources.note_abilities("s2", {**state[0], "stamp": "datetime", "stamps": []}, world.clock())
    world.clock.forward(minutes=5)
    late = world.item(-700, updated=world.clock())  # a month before
    world.store.put(late)
    del catalog
    assert world.poll().admitted == 0
    world.clock.forward(hours=9)
    world.sweep()
    assert late["id"] in world.states()
    assert len(world.states()) == 1


def test_what_a_swept_day_shows_later_is_new_though_it_says_that_it_is_old(archive):
    archive.sweep()
    archive.clock.forward(hours=6)
    loaded = archive.item(60, updated="2025-11-01T00:00:00Z")
    bare = archive.item(61, properties=dict.fromkeys(STAMPS))
    archive.store.put_many([loaded, bare])
    assert archive.sweep().admitted == 2


def test_a_note_without_a_revision_is_amended_by_the_next_sweep(archive):
    """Ledgers of earlier versions noted that an item was there, and no more."""
    archive.sweep()
    with archive.ledger._session.write() as tx:
        tx.exec_driver_sql("UPDATE baseline SET revision = NULL")
    archive.clock.forward(hours=6)
    assert archive.sweep().admitted == 0
    restamp(archive)
    assert archive.poll().admitted == 0


def bare(world, number):
    """An item that says nothing of when it came."""
    return world.item(number, properties=dict.fromkeys(STAMPS))


def zero(world, number, time="1970-01-01T00:00:00Z"):
    """An item with the zero time of the program that wrote it."""
    return world.item(number, properties=dict.fromkeys(STAMPS, time))


def year_one(world, number):
    return zero(world, number, "0001-01-01T00:00:00Z")


@pytest.mark.parametrize("unknown", [bare, zero, year_one])
def test_one_without_stamps_among_others_is_new_unless_it_was_acquired_days_before_the_watch(world, unknown):
    """Nobody can tell when it was published; that may be days after its acquisition, so what may be new is converted."""
    world.settings["poll"] = {"since": "1h", "sweep_all": "off"}
    world.fill(80)
    yesterday, last_week = unknown(world, 85), unknown(world, -60)
    world.store.put_many([yesterday, last_week])
    assert world.poll().admitted == 0  # the clock stands at hour 108: all were published before the watch
    assert world.sweep().admitted == 1
    assert list(world.states()) == [yesterday["id"]]
    world.clock.forward(hours=6)
    assert world.sweep().admitted == 0


def test_where_nothing_is_stamped_the_whole_archive_is_looked_at_first_so_that_what_comes_late_is_new(world):
    """Else an acquisition of a month ago, published on the second day, would be taken for what was there before."""
    world.settings["poll"] = {"since": "1h", "sweep_back": "2d", "sweep_all": "7d"}
    world.store.put_many([bare(world, n) for n in range(-800, 80, 40)])
    assert world.poll().admitted == 0
    assert world.sweep().admitted == 0
    world.clock.forward(days=2)
    late = bare(world, -701)
    world.store.put(late)
    assert world.poll().admitted == world.sweep().admitted == 0  # its day is not swept every day
    world.clock.forward(days=6)
    world.sweep()
    assert list(world.states()) == [late["id"]]
