"""What a person types about registering, and the watcher's thread that does it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from shop import COLLECTION, Shop, described

from stac_watch.cli.main import main
from stac_watch.config.model import Limits
from stac_watch.demo.items import make_collection
from stac_watch.ledger.records import Move
from stac_watch.model.errors import Exit
from stac_watch.model.outcome import MARKER, Outcome
from stac_watch.model.publication import PublicationState as P
from stac_watch.model.states import Fact
from stac_watch.report import explain
from stac_watch.report.web.page import ItemLinks, ItemStory, render_item
from stac_watch.report.web.query import View
from stac_watch.report.web.site import Site
from stac_watch.watch.aside import Aside
from stac_watch.watch.pulse import Recorder

SENSED = "2026-02-28T12:00:00Z"  # as the ledger has it


@pytest.fixture
def installed(shop: Shop, tmp_path: Path, open_ledger) -> tuple[Shop, str, Path]:
    """A configuration, and one output on this machine that was done before there was a section `register`."""
    file = tmp_path / "stac-watch.yaml"
    file.write_text(f"""
ledger: sqlite:///{tmp_path / "before.db"}
sources: [{{name: s2, api: "{shop.url}", collection: sentinel-2-l2a}}]
recipe: {{output: "{tmp_path}/out/{{item_id}}.zarr"}}
register: {{api: "{shop.url}", collection: {COLLECTION}, href_base: "http://127.0.0.1/out"}}
""")
    ledger = open_ledger(tmp_path / "before.db")
    item_id, output = shop.make.item_id, tmp_path / "out" / f"{shop.make.item_id}.zarr"
    seen = shop.make.sighting(output_zarr=str(output))
    ledger.items.commit("s2", [seen], [], None, shop.clock())
    output.mkdir(parents=True)
    marker = Outcome(code=0, key=seen.conversion.key, item_id=item_id, finished="2026-03-01T12:00:00Z")
    (output / MARKER).write_text(marker.as_json())
    output.with_name(f"{item_id}.zarr.item.json").write_text(json.dumps(described(item_id, marker.finished, datetime=SENSED)))
    row = ledger.conversions.get(marker.key)
    ledger.conversions.move(row, Move(Fact.SUCCEEDED, "done", outcome=marker), shop.clock())
    shop.ledger.close()
    shop.ledger = ledger
    return shop, item_id, file


def test_an_item_is_printed_as_it_is_sent(installed, capsys):
    _, item_id, file = installed
    assert main(["item", item_id, "-c", str(file)], {}) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["assets"]["product"]["href"] == f"http://127.0.0.1/out/{item_id}.zarr"
    assert document["collection"] == COLLECTION
    assert main(["item", "nobody", "-c", str(file)], {}) == 65
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith("register")))
    assert main(["item", item_id, "-c", str(file)], {}) == 78
    assert "has no section `register`" in capsys.readouterr().err


def test_what_was_done_before_is_listed_and_asked_for_only_when_told(installed, capsys):
    shop, item_id, file = installed
    assert main(["register", "--since", "3650d", "-c", str(file)], {}) == 0
    assert "1 would be asked for" in capsys.readouterr().out
    assert shop.ledger.publications.next_due() is None
    assert main(["register", "--since", "3650d", "--yes", "-c", str(file)], {}) == 0
    assert "1 asked for" in capsys.readouterr().out
    assert shop.publication(item_id).state is P.PENDING
    assert main(["explain", item_id, "-c", str(file)], {}) == 0
    assert "pending: nowhere yet" in capsys.readouterr().out
    assert main(["status", "-c", str(file)], {}) == 0
    assert "registered: 1 pending, 0 registered, 0 failed" in " ".join(capsys.readouterr().out.split())
    assert main(["replay", item_id, "--register", "--yes", "-c", str(file)], {}) == 0
    for wrong in (
        ["register"],
        ["register", item_id, "--failed"],
        ["replay", "--register"],
        ["replay", item_id, "--register", "--now"],
    ):
        assert main([*wrong, "-c", str(file)], {}) == 65
    capsys.readouterr()
    assert main(["register", "--failed", "--json", "-c", str(file)], {}) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_items_are_taken_out_only_when_told_and_only_where_they_are(installed, capsys):
    shop, item_id, file = installed
    assert main(["unregister", item_id, "-c", str(file)], {}) == 65
    assert "is registered, or to be" in " ".join(capsys.readouterr().err.split())
    assert main(["register", item_id, "--yes", "-c", str(file)], {}) == 0
    assert main(["unregister", item_id, "-c", str(file)], {}) == 0
    assert "1 would be asked for" in capsys.readouterr().out
    assert shop.publication(item_id).state is P.PENDING
    assert main(["unregister", item_id, "--yes", "-c", str(file)], {}) == 0
    assert "1 asked for; the watcher takes them out" in capsys.readouterr().out
    row = shop.publication(item_id)
    assert row.state is P.WITHDRAWING
    assert main(["status", "-c", str(file)], {}) == 0
    assert "0 failed, 1 withdrawing" in " ".join(capsys.readouterr().out.split())
    shop.ledger.publications.settle(row, replace(row, state=P.WITHDRAWN))
    assert main(["explain", item_id, "-c", str(file)], {}) == 0
    assert "withdrawn: taken out of the catalog" in " ".join(capsys.readouterr().out.split())
    assert main(["register", item_id, "--yes", "-c", str(file)], {}) == 0
    row = shop.publication(item_id)
    shop.ledger.publications.settle(row, replace(row, state=P.REGISTERED, target="https://old.example/collections/x"))
    assert main(["unregister", item_id, "-c", str(file)], {}) == 65
    assert "is registered in https://old.example/collections/x" in " ".join(capsys.readouterr().err.split())


def test_the_watchers_thread_sends_what_is_due_and_says_what_it_did(shop):
    item_id = shop.finish()
    registering = Aside(shop.registrar(), "register")
    did, problem = registering.turn()
    while did is None:
        did, problem = registering.turn()
    assert (did.registered, problem) == (1, None)
    assert shop.publication(item_id).state is P.REGISTERED
    assert not registering.has_work


def test_check_asks_the_target_whether_it_takes_items_and_changes_nothing(installed, tmp_path, capsys):
    shop, _, file = installed
    main(["check", "-c", str(file)], {})
    said = " ".join(capsys.readouterr().out.split())
    assert f"{shop.url}/collections/{COLLECTION} takes items; the collection is made with its first item" in said
    shop.faults.set(wire=("403",) * 20, wire_paths=(f"/collections/{COLLECTION}",))
    assert main(["check", "-c", str(file)], {}) != 0
    assert "the catalog wants credentials" in " ".join(capsys.readouterr().out.split())
    shop.faults.set(wire=("405",) * 20)
    assert main(["check", "-c", str(file)], {}) != 0
    assert "with the extension Transactions" in " ".join(capsys.readouterr().out.split())
    shop.faults.clear()
    (tmp_path / "other.json").write_text('{"type": "Collection", "id": "other"}')
    file.write_text(file.read_text().replace("href_base:", f"collection_file: {tmp_path}/other.json, href_base:"))
    assert main(["check", "-c", str(file)], {}) != 0
    assert "is not the collection" in " ".join(capsys.readouterr().out.split())
    assert shop.store.collection(COLLECTION) is None


@pytest.mark.parametrize(
    ("output", "more", "said"),
    [
        ("/data/{item_id}.zarr", ', href_base: "https://data.example"', "lies on each run's own volume"),
        ("s3://bucket/{item_id}.zarr", "", "'register.href_base' is missing"),
    ],
)
def test_outputs_that_no_reader_reaches_are_refused_when_the_configuration_is_read(tmp_path, capsys, output, more, said):
    file = tmp_path / "stac-watch.yaml"
    file.write_text(f"""
sources: [{{name: s2, api: "https://stac.example", collection: sentinel-2-l2a}}]
engine: {{kind: argo, webhook: "http://x/items"}}
recipe: {{output: "{output}"}}
register: {{api: "https://stac.example", collection: {COLLECTION}{more}}}
""")
    assert main(["items", "-c", str(file)], {}) == 78
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_pages_say_where_registrations_stand(shop):
    item_id, bad = shop.finish(0), shop.finish(1)
    shop.items[f"s3://bucket/scenes/{bad}.zarr"]["geometry"] = None
    site = Site(shop.ledger, (), Limits(), Recorder(shop.clock).read, shop.clock, "1")
    assert "2 pending, 0 registered, 0 failed" in site.content(View())
    shop.registrar().round()
    shop.clock.forward(minutes=1)
    page = site.content(View())
    assert "0 pending, 1 registered, 1 failed" in page
    assert "has no geometry" in page

    def told(name: str) -> str:
        chains = explain.read(shop.ledger, name, Limits(), shop.clock(), lambda _: None)
        return render_item(ItemStory(chains, shop.clock(), {chain.line.key: ItemLinks() for chain in chains}, cluster=False), "1")

    assert f"registered: {shop.url}/collections/{COLLECTION}/items/{item_id}" in told(item_id)
    assert "has no geometry" in told(bad)


def test_an_audit_looks_into_the_catalog_of_outputs(installed, capsys):
    shop, item_id, file = installed
    shop.store.put_collection(make_collection("sentinel-2-l2a"))
    audit = ["audit", "s2", "--start", "2026-02-27", "--end", "2026-03-01", "--json", "-c", str(file)]
    assert main(audit, {}) == 1
    assert [(gap["kind"], gap["item"]) for gap in json.loads(capsys.readouterr().out)["gaps"]] == [("unregistered", item_id)]
    assert main(["item", item_id, "-c", str(file)], {}) == 0
    document = json.loads(capsys.readouterr().out)
    shop.store.put_collection(make_collection(COLLECTION))
    assert main(["register", item_id, "--yes", "-c", str(file)], {}) == 0
    row = shop.publication(item_id)
    shop.store.put(document)
    assert shop.ledger.publications.settle(row, replace(row, state=P.REGISTERED, target=f"{shop.url}/collections/{COLLECTION}"))
    capsys.readouterr()
    assert main(audit, {}) == 0
    assert json.loads(capsys.readouterr().out)["gaps"] == []
    shop.store.put({**document, "id": f"{item_id}_other"})
    assert main(audit, {}) == 1
    assert [gap["kind"] for gap in json.loads(capsys.readouterr().out)["gaps"]] == ["foreign"]
    shop.faults.set(wire=("403",) * 20, wire_paths=(f"/collections/{COLLECTION}",))
    assert main(audit, {}) == Exit.REFUSED
    said = capsys.readouterr()
    assert json.loads(said.out)["retired"] == 1, "what was found of the rest is told"
    assert "the catalog wants credentials" in " ".join(said.err.split())
