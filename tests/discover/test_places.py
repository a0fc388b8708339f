"""A product is not its URL's spelling: signatures, other names of a host, and stores that moved."""

import json

import pytest
from command import call

from stac_watch.ledger.records import Move
from stac_watch.model.states import Fact

OLD, NEW = "objects.example.org", "data.example.org"


def place(world, number, host, *, query="", checksum=None, **changes):
    """Item `number` with its product on a host."""
    item = world.item(number, **changes)
    for asset in item["assets"].values():
        asset.pop("file:checksum", None)
        asset["href"] = asset["href"].replace(world.url, f"https://{host}") + query
    if checksum:
        item["assets"]["product"]["file:checksum"] = checksum
    return item


@pytest.fixture
def on_two_hosts(world):
    world.settings |= {"allowed_hosts": [OLD, NEW], "poll": {"since": "30d", "sweep": "6h", "sweep_all": "off"}}
    return world


def show(world, count, host, **changes):
    world.store.put_many([place(world, n, host, **changes) for n in range(count)])


def rounds(world, **stamps):
    """A poll after a minute, and a sweep after six hours."""
    world.clock.forward(minutes=1)
    polled = world.poll()
    world.clock.forward(hours=6)
    return polled.admitted + world.sweep().admitted


def test_a_product_under_another_signature_is_no_news_and_waits_under_the_fresh_one(on_two_hosts):
    world = on_two_hosts
    show(world, 3, OLD, query="?se=1&sp=r&sig=first")
    assert world.poll().admitted == 3
    sent = world.ledger.outbox.due(world.clock(), 1)[0]
    world.ledger.outbox.note_post(sent, world.clock())
    world.clock.forward(minutes=1)
    show(world, 3, OLD, query="?se=2&sp=r&sig=second", updated=world.clock())
    assert rounds(world) == 0
    rows = world.ledger.conversions.find()
    assert len(rows) == 3
    signed = {row.key: json.loads(world.ledger.conversions.events(row.key)[0])["data"] for row in rows}
    assert signed[sent.key]["product_href"].endswith("sig=first")  # it is out: the same again must be the same
    assert all(data["product_href"].endswith("sig=second") for key, data in signed.items() if key != sent.key)
    assert all(data["stac_url"] == data["product_href"] for data in signed.values())


def test_a_version_in_the_query_is_news(on_two_hosts):
    world = on_two_hosts
    show(world, 1, OLD, query="?versionId=1")
    world.poll()
    world.clock.forward(minutes=1)
    show(world, 1, OLD, query="?versionId=2", updated=world.clock())
    assert rounds(world) == 1


@pytest.mark.parametrize("known", ["by its checksum", "by the configuration", "by the configuration, the other way round"])
def test_a_store_under_another_name_is_recognised(on_two_hosts, known):
    world = on_two_hosts
    if known != "by its checksum":
        world.settings["same_as"] = [[OLD, NEW] if known.endswith("configuration") else [NEW, OLD]]
    checksum = "1220ab" if known == "by its checksum" else None
    show(world, 12, OLD, checksum=checksum)
    assert world.poll().admitted == 12
    world.clock.forward(minutes=1)
    show(world, 12, NEW, checksum=checksum, updated=world.clock())
    assert rounds(world) == 0
    assert world.ledger.absences.unreadable() == []
    assert {href.split("/")[2] for href in world.hrefs()} == {NEW}  # what waits is to be had there now
    show(world, 12, OLD, checksum=checksum, updated=world.clock())
    assert rounds(world) == 0


def test_a_new_name_in_the_configuration_is_no_news_of_what_is_known(on_two_hosts):
    """The ledger knows revisions from before the name was written down, and under either host."""
    world = on_two_hosts
    show(world, 4, NEW)
    world.poll()
    world.settings["same_as"] = [[OLD, NEW]]
    assert rounds(world) == 0
    show(world, 4, OLD, updated=world.clock())
    assert rounds(world) == 0
    show(world, 4, OLD, version=2, updated=world.clock())
    assert rounds(world) == 4


def test_another_checksum_on_another_host_is_news(on_two_hosts):
    world = on_two_hosts
    show(world, 3, OLD, checksum="1220ab")
    world.poll()
    world.clock.forward(minutes=1)
    show(world, 3, NEW, checksum="1220cd", updated=world.clock())
    assert rounds(world) == 3


@pytest.mark.parametrize("found_by", ["poll", "sweep"])
def test_a_store_that_moved_is_held_and_says_what_to_write(on_two_hosts, found_by):
    world = on_two_hosts
    show(world, 60, OLD)
    assert world.poll().admitted == 60
    world.clock.forward(minutes=1)
    show(world, 60, NEW, **({"updated": world.clock()} if found_by == "poll" else {}))
    world.store.put(place(world, 90, NEW, updated=world.clock()))
    assert rounds(world) == 1  # what is new goes on
    held = {item_id: why for _, item_id, why in world.ledger.absences.unreadable()}
    assert len(held) == 60
    why = next(iter(held.values()))
    assert "same_as: [[objects.example.org, data.example.org]]" in why
    assert "moved: convert" in why
    world.settings["same_as"] = [[OLD, NEW]]
    assert rounds(world) == 0
    assert world.ledger.absences.unreadable() == []


def test_a_person_may_have_a_store_that_moved_converted_again(on_two_hosts):
    world = on_two_hosts
    show(world, 8, OLD)
    world.poll()
    world.settings["moved"] = "convert"
    world.clock.forward(minutes=1)
    show(world, 8, NEW, updated=world.clock())
    assert rounds(world) == 8


def test_what_is_held_is_converted_again_once_a_person_says_so(on_two_hosts, tmp_path):
    world = on_two_hosts
    show(world, 60, OLD)
    world.poll()
    world.clock.forward(minutes=1)
    show(world, 60, NEW, updated=world.clock())
    world.poll()
    (why,) = {why for _, _, why in world.ledger.absences.unreadable()}
    assert "`stac-watch replay --held s2 --yes`" in why
    config = tmp_path / "held.yaml"
    source = {"name": "s2", "api": world.url, "collection": "sentinel-2-l2a", **world.settings}
    config.write_text(
        json.dumps({"ledger": f"sqlite:///{tmp_path}/ledger.db", "sources": [source], "recipe": {"output": "o/{key}"}})
    )
    shown = call("replay", "--held", "s2", "--config", config)
    assert "60 would be queued (--yes does it), 0 refused" in shown.out
    assert len(world.ledger.absences.unreadable()) == 60
    done = call("replay", "--held", "s2", "--yes", "--config", config)
    assert (done.code, "60 queued, 0 refused" in done.out) == (0, True)
    assert world.ledger.absences.unreadable() == []
    assert rounds(world) == 0
    assert "0 would be queued" in call("replay", "--held", "s2", "--config", config).out


def test_few_items_of_another_host_are_news_until_they_are_many(on_two_hosts):
    world = on_two_hosts
    show(world, 60, OLD)
    world.poll()
    announced = 0
    for n in range(12):  # one after the other
        world.clock.forward(minutes=1)
        world.store.put(place(world, n, NEW, updated=world.clock()))
        announced += world.poll().admitted
    assert announced == 5
    assert len(world.ledger.absences.unreadable()) == 7


def test_what_is_done_stays_done_when_its_store_moves(on_two_hosts):
    world = on_two_hosts
    show(world, 12, OLD)
    world.poll()
    for row in world.ledger.conversions.find():
        world.ledger.conversions.move(row, Move(Fact.SUCCEEDED, "as a test"), world.clock())
    world.clock.forward(minutes=1)
    show(world, 12, NEW, updated=world.clock())
    rounds(world)
    assert set(world.states().values()) == {"done"}


def test_nothing_that_is_kept_for_people_shows_a_signature(on_two_hosts):
    world = on_two_hosts
    world.store.put(place(world, 1, "elsewhere.example", query="?sig=S3cret"))  # not allowed: its href is in the reason
    world.store.put(place(world, 2, OLD, query="?sig=S3cret"))
    world.poll()
    (row,) = world.ledger.conversions.find()
    world.ledger.conversions.move(
        row, Move(Fact.FAILED_PERMANENT, "no https://h/x?sig=S3cret", reason="https://h/x?sig=S3cret"), world.clock()
    )
    kept = f"{world.ledger.absences.unreadable()} {world.ledger.conversions.find()} {world.ledger.conversions.history(row.key)}"
    assert "elsewhere.example" in kept
    assert "S3cret" not in kept
    assert "sig=S3cret" in world.hrefs()[0]  # a run must be able to read it


@pytest.mark.parametrize("checksum", [None, "1220ab"])
def test_what_an_older_ledger_knows_is_told_by_where_it_was_asked_for(on_two_hosts, checksum):
    world = on_two_hosts
    show(world, 12, OLD, checksum=checksum)
    world.poll()
    with world.ledger._session.write() as tx:
        tx.exec_driver_sql("UPDATE item SET trace = NULL")
    show(world, 12, NEW, checksum=checksum, updated=world.clock())
    assert rounds(world) == 0
    assert len(world.ledger.absences.unreadable()) == (0 if checksum else 12)
    show(world, 12, NEW, version=2, updated=world.clock())
    assert rounds(world) == 12
