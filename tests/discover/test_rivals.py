"""Two collections that have the same acquisitions under the same ids: one output of each scene, of the source that is preferred."""

import json
import threading

import pytest

from stac_watch.catalog.client import Catalog
from stac_watch.catalog.http import CatalogHttp
from stac_watch.config.load import load
from stac_watch.config.model import Limits, Recipe, Source
from stac_watch.demo.catalog import COLLECTION, Server, Store, create_app
from stac_watch.discover.intake import Intake
from stac_watch.discover.poll import poll
from stac_watch.discover.sweep import sweep
from stac_watch.jobs import audit, backfill
from stac_watch.ledger.records import NO_RIVALS, Move, Rivals
from stac_watch.model.errors import ConfigError
from stac_watch.model.item import SkipReason
from stac_watch.model.states import Fact, State


class Pair:
    """One catalog as the source `v2` sees it, and one that stands for its other collection, `v3`."""

    def __init__(self, world, url: str, other: Store) -> None:
        self.world, self.other = world, other
        self.urls = {"v2": world.url, "v3": url}
        self.rivals = {"v3": Rivals(behind=frozenset({"v2"})), "v2": Rivals(ahead=frozenset({"v3"}))}

    def put(self, *numbers: int) -> None:
        self.world.store.put_many([self.world.item(n, updated=self.world.clock()) for n in numbers])

    def put_other(self, *numbers: int) -> None:
        self.other.put_many([self.world.item(n, updated=self.world.clock()) for n in numbers])

    def intake(self, name: str) -> Intake:
        http = CatalogHttp(self.urls[name], now=self.world.clock, sleep=lambda _: None, rng=None)
        source = Source(name=name, api=self.urls[name], collection=COLLECTION, poll={"since": "30d"}, allowed_hosts=("127.0.0.1",))
        return Intake(source, Recipe(), Catalog(http, COLLECTION), self.world.ledger, self.world.clock, "", self.rivals[name])

    def poll(self, name: str):
        self.world.clock.forward(minutes=1)
        return poll(self.intake(name))

    def states(self) -> list[tuple[str, str]]:
        rows = self.world.ledger.conversions.find(limit=99)
        return sorted((row.source, row.reason if row.state is State.SKIPPED else row.state.value) for row in rows)

    def move(self, source: str, *facts: Fact) -> None:
        for row in self.world.ledger.conversions.find(source=source):
            for fact in facts:
                now = self.world.ledger.conversions.get(row.key)
                self.world.ledger.conversions.move(now, Move(fact, "x", reason="x"), self.world.clock())


@pytest.fixture
def pair(world):
    with Store() as store, Server(create_app(store, now=world.clock)) as server:
        found = Pair(world, server.url, store)
        found.put(1)
        found.put_other(1)
        yield found


ONE = [("v2", "other_source"), ("v3", "queued")]


@pytest.mark.parametrize("first", ["v2", "v3"])
def test_the_preferred_one_converts_whichever_was_seen_first(pair, first, invariants, tmp_path):
    second = "v3" if first == "v2" else "v2"
    for _ in range(3):
        pair.poll(first)
        pair.poll(second)
    assert pair.states() == ONE
    invariants(tmp_path / "ledger.db")


@pytest.mark.parametrize("begun", [(Fact.ACCEPTED,), (Fact.ACCEPTED, Fact.RUN_SEEN), (Fact.SUCCEEDED,)])
def test_what_has_begun_is_not_made_a_second_time(pair, begun):
    pair.poll("v2")
    pair.move("v2", *begun)
    state = {Fact.ACCEPTED: "submitted", Fact.RUN_SEEN: "running", Fact.SUCCEEDED: "done"}[begun[-1]]
    for _ in range(2):
        pair.poll("v3")
        pair.poll("v2")
    assert pair.states() == [("v2", state), ("v3", "other_source")]


@pytest.mark.parametrize("lost", [(Fact.FAILED_PERMANENT,), (Fact.WITHDRAWN,)])
def test_the_other_takes_what_the_preferred_one_cannot_make(pair, lost):
    pair.poll("v3")
    pair.poll("v2")
    (row,) = pair.world.ledger.conversions.find(source="v3")
    reason = SkipReason.WITHDRAWN if lost[0] is Fact.WITHDRAWN else "it is corrupt"
    pair.world.ledger.conversions.move(row, Move(lost[0], "x", reason=reason), pair.world.clock())
    pair.world.clock.forward(hours=7)
    while sweep(pair.intake("v2")) is not None:
        pass
    assert ("v2", "queued") in pair.states()


def test_a_new_revision_of_what_one_converted_stays_its_own(pair):
    pair.poll("v2")
    pair.move("v2", Fact.SUCCEEDED)
    pair.poll("v3")
    pair.world.store.put(pair.world.item(1, version=2, updated=pair.world.clock()))
    pair.poll("v2")
    assert pair.states() == [("v2", "done"), ("v2", "queued"), ("v3", "other_source")]


def test_two_sources_that_see_it_at_the_same_moment_make_one_output(pair):
    seen = {}
    for name in ("v2", "v3"):  # both compare before either writes
        intake = pair.intake(name)
        intake.ensure_abilities()
        documents = [pair.world.item(n) for n in range(1, 40)]
        seen[name] = (intake, intake.compare(documents, "live"))
    threads = [threading.Thread(target=intake.commit, args=(found,)) for intake, found in seen.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pair.states() == [("v2", "other_source")] * 39 + [("v3", "queued")] * 39


def test_a_person_who_asks_by_name_gets_both(pair):
    pair.poll("v3")
    intake = pair.intake("v2")
    intake.ensure_abilities()
    intake.commit(intake.compare([pair.world.item(1)], "replay"))
    assert pair.states() == [("v2", "queued"), ("v3", "queued")]


def test_without_a_policy_each_converts_what_it_has(pair):
    pair.rivals = {"v2": NO_RIVALS, "v3": NO_RIVALS}
    pair.poll("v2")
    pair.poll("v3")
    assert pair.states() == [("v2", "queued"), ("v3", "queued")]


def test_a_backfill_and_an_audit_know_whose_it_is(pair):
    pair.poll("v3")
    pair.move("v3", Fact.SUCCEEDED)
    intake = pair.intake("v2")
    day = pair.world.clock()
    request = backfill.BackfillRequest(day.replace(day=20, hour=0), day)
    assert backfill.plan(intake, Limits(), request).to_do == 0
    pair.poll("v2")

    class Nothing:
        def runs(self, keys):
            return []

    evidence = audit.Evidence(Nothing(), lambda _: None, lambda _: False)
    found = audit.audit(intake, evidence, request.start, request.end)
    assert (found.kinds, found.skipped) == ({}, 1)


SOURCES = [
    {"name": "v2", "api": "https://stac.example", "collection": "a"},
    {"name": "v3", "api": "https://stac.example", "collection": "b"},
    {"name": "far", "api": "https://far.example", "collection": "a"},
    {"name": "same", "api": "https://stac.example", "collection": "a"},
]


def configured(tmp_path, **over):
    path = tmp_path / "c.json"
    output = f"{tmp_path}/{{catalog}}/{{collection}}/{{item_id}}.zarr"
    path.write_text(json.dumps({"sources": SOURCES, "recipe": {"output": output}, **over}))
    return load(path, {})


def test_who_is_preferred_follows_from_the_configuration(tmp_path):
    config = configured(tmp_path)
    assert config.rivals("v2") == (frozenset(), {"v3"})
    assert config.rivals("v3") == ({"v2"}, {"same"})
    assert config.rivals("far") == (frozenset(), frozenset())
    config = configured(tmp_path, prefer=["far", "v3"])
    assert config.rivals("v2") == ({"v3"}, frozenset())
    assert config.rivals("v3") == ({"far"}, {"v2", "same"})
    assert config.rivals("far") == (frozenset(), {"v3"})
    assert configured(tmp_path, prefer="all").rivals("v3") == (frozenset(), frozenset())
    with pytest.raises(ConfigError, match="no source"):
        configured(tmp_path, prefer=["v4"])
