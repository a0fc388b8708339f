"""What real pgstac does to a poller, both generations: each test shows the trap by the obvious query, and that we are not in it."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pystac_client import ItemSearch
from pystac_client.exceptions import APIError

from stac_watch.catalog.reader import leaves
from stac_watch.catalog.windows import Window, days
from stac_watch.config.model import Recipe
from stac_watch.discover.intake import Intake
from stac_watch.discover.poll import poll as poll_once
from stac_watch.discover.sweep import sweep as sweep_days

THEN = datetime(2026, 3, 1, 12, 0, 13, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def read(catalog, window, limit=1000) -> list[str]:
    return [d["id"] for leaf in leaves(catalog, window, limit) for d in leaf.documents]


def ids(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [feature["id"] for feature in answer.json()["features"]]


def by_token(place, **query) -> ItemSearch:
    """The way of pystac-client: follow `next`."""
    return ItemSearch(f"{place.api.url}/search", collections=[place.collection], limit=5, **query)


def between(low: str, high: str) -> dict:
    prop = {"property": "updated"}
    return {"op": "and", "args": [{"op": ">=", "args": [prop, low]}, {"op": "<", "args": [prop, high]}]}


def poll(place, ledger, now=None):
    now = now or (lambda: datetime.now(UTC))
    return poll_once(Intake(place.source(), Recipe(), place.catalog(probed=False), ledger, now))


def sweep(place, ledger, shift=timedelta()):
    intake = Intake(place.source(sweep="1s"), Recipe(), place.catalog(), ledger, lambda: datetime.now(UTC) + shift)
    before = ledger.sources.state("s2", ()).sweeps.get("recent")
    for _ in range(20):
        sweep_days(intake)
        row = ledger.sources.state("s2", ()).sweeps.get("recent")
        if row.done_at is not None and (before is None or row.number > before.number):
            return row
    raise AssertionError("the sweep does not end")


def test_a_second_is_whole_however_its_stamps_are_written(pgstac):
    stamps = ["2026-03-01T12:00:13Z", "2026-03-01T12:00:13.000001Z", "2026-03-01T14:00:13.5+02:00", "2026-03-01T12:00:13.900000Z"]
    stamps += ["2026-03-01T12:00:12.999999Z", "2026-03-01T12:00:14Z"]
    items = [pgstac.item(n, stamp) for n, stamp in enumerate(stamps)]
    for item in items:
        pgstac.post(item)
    obvious = pgstac.search(filter=between("2026-03-01T12:00:13Z", "2026-03-01T12:00:14Z"), limit=10)
    assert len(ids(obvious)) == 1
    catalog = pgstac.catalog()
    assert not catalog.abilities.typed
    assert sorted(read(catalog, Window("updated", THEN, THEN + SECOND))) == sorted(item["id"] for item in items[:4])


def test_a_declared_stamp_is_asked_for_as_a_time_whatever_the_database_s_time_zone(apis, pgstac):
    items = [pgstac.item(n, THEN + timedelta(milliseconds=500 * n)) for n in range(4)]
    for item in items:
        pgstac.post(item)
    database, name = pgstac.api.postgres, pgstac.api.database
    pgstac.api.declare_updated()
    database.sql(f"ALTER DATABASE {name} SET timezone TO 'Europe/Vienna'", name)
    try:
        catalog = pgstac.catalog()
        assert catalog.abilities.typed
        assert sorted(read(catalog, Window("updated", THEN, THEN + SECOND))) == sorted(item["id"] for item in items[:2])
        assert len(read(catalog, Window("updated", THEN, THEN + 3 * SECOND), limit=1)) == 4
    finally:
        database.sql(f"ALTER DATABASE {name} RESET timezone", name)
        pgstac.api.forget_updated()


def test_a_timestamp_literal_is_a_server_error_and_the_next_request_finds_its_connection_gone(pgstac):
    pgstac.post(pgstac.item(0, THEN))
    prop, time = {"property": "updated"}, {"timestamp": "2026-03-01T00:00:00Z"}
    assert pgstac.search(filter={"op": ">=", "args": [prop, time]}).status_code == 500
    catalog = pgstac.catalog()
    for _ in range(3):
        catalog._http.session.post(f"{pgstac.api.url}/search", json={"filter": {"op": ">=", "args": [prop, time]}}, timeout=5)
        assert len(read(catalog, Window("updated", THEN, THEN + SECOND))) == 1


def test_an_operator_for_times_looks_at_another_property_on_the_older_one_and_is_never_used(pgstac):
    pgstac.post(pgstac.item(0, THEN - timedelta(days=30), sensed=THEN))
    during = {
        "op": "t_intersects",
        "args": [{"property": "updated"}, {"interval": ["2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"]}],
    }
    found = ids(pgstac.search(filter=during, limit=10))
    # it was acquired then, and updated a month before
    assert len(found) == (1 if pgstac.api.generation.startswith("0.9") else 0)
    assert read(pgstac.catalog(), Window("updated", THEN - timedelta(hours=1), THEN + timedelta(hours=1))) == []


def test_a_count_that_the_server_kept_is_not_believed(pgstac):
    items = [pgstac.item(n, THEN + n * SECOND) for n in range(12)]
    for item in items[:5]:
        pgstac.post(item)
    where = {"filter": between("2026-03-01T12:00:00", "2026-03-01T13:00:00"), "limit": 100, "conf": {"context": "on"}}
    assert len(ids(pgstac.search(**where))) == 5
    for item in items[5:]:
        pgstac.post(item)
    page = pgstac.search(**where).json()
    if pgstac.api.generation.startswith("0.10"):
        assert page["numberMatched"] == 5
    assert len(page["features"]) == 12
    assert len(read(pgstac.catalog(), Window("updated", THEN, THEN + timedelta(hours=1)), limit=4)) == 12


def test_a_stamp_that_was_loaded_as_it_was_spelled_is_found_by_the_next_poll(pgstac, ledger, tmp_path):
    """A bulk load keeps `…+02:00`, which as text lies two hours ahead of its time; polls are open to the future."""
    pgstac.post(pgstac.item(0, datetime.now(UTC)))
    poll(pgstac, ledger)
    sweep(pgstac, ledger)
    spelled = datetime.now(timezone(timedelta(hours=2))).isoformat()
    loaded = pgstac.item(1, spelled)
    (tmp_path / "items.ndjson").write_text(json.dumps(loaded) + "\n")
    pgstac.api.load(tmp_path / "items.ndjson")
    assert pgstac.search(ids=[loaded["id"]]).json()["features"][0]["properties"]["updated"] == spelled
    assert poll(pgstac, ledger).admitted == 1
    assert loaded["id"] in ledger.items.known("s2", [loaded["id"]])


def test_an_item_without_an_instant_is_found_by_its_start(pgstac, ledger):
    item = pgstac.item(0, datetime.now(UTC))
    start = datetime.fromisoformat(item["properties"]["start_datetime"])
    item["properties"]["datetime"] = None
    pgstac.post(item)
    assert pgstac.search(ids=[item["id"]]).json()["features"][0]["properties"].get("datetime") is None
    assert poll(pgstac, ledger).admitted == 1
    assert read(pgstac.catalog(), next(days("datetime", start, start + timedelta(hours=1)))) == [item["id"]]
    sweep(pgstac, ledger)
    sweep(pgstac, ledger, timedelta(minutes=1))
    assert ledger.absences.withdrawn("s2") == 0


def test_one_second_with_more_items_than_a_page_is_read_whole(pgstac):
    wanted = [pgstac.item(n, THEN) for n in range(38)]
    for item in wanted:
        pgstac.post(item)
    found = read(pgstac.catalog(), Window("updated", THEN, THEN + SECOND), limit=5)
    assert sorted(found) == sorted(item["id"] for item in wanted)
    if pgstac.api.generation.startswith("0.9"):
        search = by_token(pgstac, sortby="+properties.updated")
        assert len({f["id"] for page in search.pages_as_dicts() for f in page["features"]}) < 38


@pytest.mark.parametrize("what", ["re-published", "deleted"])
def test_what_happens_at_a_page_s_edge_takes_nothing_along(pgstac, what):
    items = [pgstac.item(n, THEN + n * SECOND) for n in range(20)]
    for item in items:
        pgstac.post(item)
    later, edge = THEN + timedelta(hours=1), items[4]

    def meanwhile():
        if what == "deleted":
            pgstac.delete(edge["id"])
        else:
            pgstac.put(pgstac.item(4, later))

    found = []
    reading = leaves(pgstac.catalog(), Window("updated", THEN, later + SECOND), 5)
    for leaf in reading:
        found += [d["id"] for d in leaf.documents]
        if edge["id"] in found and found.count(edge["id"]) == 1 and meanwhile is not None:
            meanwhile()
            meanwhile = None
    assert {item["id"] for item in items} <= set(found)

    # the same by the server's own paging
    for item in items:
        pgstac.delete(item["id"]) if not (what == "deleted" and item is edge) else None
        pgstac.post(item)
    search = by_token(pgstac, sortby=["+properties.updated", "+id"], filter=between("2026", "2027"), filter_lang="cql2-json")
    pages = search.pages_as_dicts()
    found = {f["id"] for f in next(pages)["features"]}
    if what == "deleted":
        pgstac.delete(edge["id"])
        with pytest.raises(APIError):
            list(pages)
    else:
        pgstac.put(pgstac.item(4, later))
        found |= {f["id"] for page in pages for f in page["features"]}
        assert len(found) < 20


def test_the_same_id_in_another_collection_is_another_item(pgstac, apis):
    other = f"{pgstac.collection}-other"
    pgstac.http.post(
        f"{pgstac.api.url}/collections", json={**pgstac.http.get(pgstac.url, timeout=5).json(), "id": other}, timeout=5
    )
    for n in range(3):
        item = pgstac.item(n, THEN)
        pgstac.post(item)
        pgstac.http.post(f"{pgstac.api.url}/collections/{other}/items", json=item | {"collection": other}, timeout=5)
    try:
        found = [d for leaf in leaves(pgstac.catalog(), Window("updated", THEN, THEN + SECOND), 1) for d in leaf.documents]
        assert [d["collection"] for d in found] == [pgstac.collection] * 3
    finally:
        pgstac.http.delete(f"{pgstac.api.url}/collections/{other}", timeout=30)


def test_an_item_without_a_stamp_is_found_by_the_sweep_only(pgstac, ledger):
    pgstac.post(pgstac.item(0, datetime.now(UTC)))
    poll(pgstac, ledger)
    sweep(pgstac, ledger)
    bare = pgstac.item(1, THEN)
    for name in ("updated", "created", "published"):
        del bare["properties"][name]
    pgstac.post(bare)
    poll(pgstac, ledger)
    assert ledger.items.known("s2", [bare["id"]]) == {}
    sweep(pgstac, ledger, timedelta(minutes=1))
    assert bare["id"] in ledger.items.known("s2", [bare["id"]])


def test_a_change_of_the_collection_that_rewrites_every_item_is_no_event(pgstac, ledger):
    for n in range(5):
        pgstac.post(pgstac.item(n, datetime.now(UTC)))
    assert poll(pgstac, ledger).admitted == 5
    collection = pgstac.http.get(pgstac.url, timeout=5).json()
    added = {"title": "Overview", "type": "image/png", "roles": ["overview"]}
    answer = pgstac.http.put(pgstac.url, json={**collection, "item_assets": {"overview": added}}, timeout=5)
    assert answer.status_code == 200
    if pgstac.api.generation.startswith("0.9"):
        served = pgstac.search(limit=1).json()["features"][0]["assets"]
        assert "href" not in served["overview"]  # every item grew an asset that items() of pystac-client dies of
    assert poll(pgstac, ledger).seen == 0
    sweep(pgstac, ledger)
    assert len(ledger.conversions.find()) == 5
    assert ledger.absences.unreadable() == []


def test_days_by_acquisition_time_are_whole_at_any_page_size(pgstac):
    sensed = datetime(2026, 3, 1, 23, 59, 50, tzinfo=UTC)
    items = [pgstac.item(n, THEN, sensed=sensed + timedelta(seconds=n // 3)) for n in range(45)]
    for item in items:
        pgstac.post(item)
    catalog = pgstac.catalog()
    by_day = [read(catalog, day, limit=4) for day in days("datetime", sensed, sensed + timedelta(days=1))]
    assert [len(day) for day in by_day] == [30, 15]
    assert sorted([*by_day[0], *by_day[1]]) == sorted(item["id"] for item in items)


def test_what_is_deleted_is_withdrawn_after_two_sweeps_and_what_comes_back_is_wanted_again(pgstac, ledger):
    items = [pgstac.item(n, datetime.now(UTC)) for n in range(3)]
    for item in items:
        pgstac.post(item)
    poll(pgstac, ledger)
    sweep(pgstac, ledger)
    pgstac.delete(items[1]["id"])
    sweep(pgstac, ledger, timedelta(minutes=1))
    states = {row.item_id: row.state.value for row in ledger.conversions.find()}
    assert set(states.values()) == {"queued"}
    sweep(pgstac, ledger, timedelta(minutes=2))
    states = {row.item_id: (row.state.value, row.reason) for row in ledger.conversions.find()}
    assert states[items[1]["id"]] == ("skipped", "withdrawn")
    assert states[items[0]["id"]] == states[items[2]["id"]] == ("queued", None)
    assert ledger.absences.withdrawn("s2") == 1
    pgstac.post(pgstac.item(1, datetime.now(UTC)))
    poll(pgstac, ledger)
    assert {row.state.value for row in ledger.conversions.find()} == {"queued"}
    sweep(pgstac, ledger, timedelta(minutes=3))
    assert ledger.absences.withdrawn("s2") == 0
