"""A malicious item, from a catalog to what a person sees: it does nothing but a named skip, and its neighbour is converted."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stac_watch.catalog.client import Catalog
from stac_watch.catalog.http import CatalogHttp
from stac_watch.config.model import Limits, Recipe, Source
from stac_watch.demo.catalog import Server, Store, create_app, make_item
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.model.outcome import Outcome
from stac_watch.report import status
from stac_watch.report.as_json import as_json
from stac_watch.runs.engine import Answer, Phase, Receipt, Run
from stac_watch.watch.loop import Parts, Watcher

COMMAND = Path(sys.executable).parent / "stac-watch"
GOOD = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
NOW = datetime(2025, 10, 9, tzinfo=UTC)
MALICIOUS = {  # id, href (empty: the good one's)
    "shell in the id": ("S2A_$(touch /tmp/pwned);`id`", ""),
    "Argo's template in the id": ("S2A_{{workflow.name}}", ""),
    "path in the id": ("../../../etc/cron.d/x", ""),
    "1 MB id": ("S" * 1_000_000, ""),
    "markup in the id": ("<script>alert(1)</script>", ""),
    "rich's markup in the id": ("S2A[/x]", ""),
    "file href": ("S2A_FILE", "file:///etc/passwd"),
    "metadata service": ("S2A_LINKLOCAL", "http://169.254.169.254/latest/meta-data/x.zarr"),
    "loopback by another name": ("S2A_LOOPBACK", "http://0x7f.1/x.zarr"),
    "another host": ("S2A_ELSEWHERE", "https://evil.example/x.zarr"),
    "credentials": ("S2A_USER", "http://user:secret@127.0.0.1/x.zarr"),
    "template in the href": ("S2A_BRACES", "http://127.0.0.1/{{workflow.name}}.zarr"),
}


class Plant:
    """An engine that takes every event and has converted it at once."""

    def __init__(self) -> None:
        self.events = {}

    def submit(self, event):
        data = json.loads(event)["data"]
        self.events[data["key"]] = data
        return Receipt(Answer.ACCEPTED)

    def runs(self, keys):
        done = [self.events[key] for key in keys if key in self.events]
        return [
            Run(d["run"], d["key"], d["attempt"], Phase.SUCCEEDED, outcome=Outcome(code=0, key=d["key"]), started=NOW) for d in done
        ]

    def marker(self, output):
        """What lies in an output of one of the events."""
        [data] = [data for data in self.events.values() if data["output_zarr"] == output] or [None]
        if data is None:
            return None
        return Outcome(code=0, key=data["key"], attempt=data["attempt"], installation=data["installation"])

    def headroom(self):
        return 100

    def close(self, *, stop_runs):
        pass


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One tick to its end over a catalog with one good item and all the others."""
    import random

    folder, plant = tmp_path_factory.mktemp("malicious"), Plant()
    with Store() as store, Server(create_app(store, now=lambda: NOW)) as server:
        href = f"{server.url}/products/x.zarr"
        common = {"catalog_url": server.url, "updated": NOW, "datetime": datetime(2025, 10, 8, 10, 0, 41, tzinfo=UTC)}
        store.put(make_item(GOOD, product_href=href, **common))
        for item_id, evil in MALICIOUS.values():
            item = make_item(GOOD, product_href=evil or href, **common)
            item["id"] = item_id
            store.put(item)
        ledger = Ledger(open_engine(f"sqlite:///{folder}/ledger.db"))
        ledger.prepare()
        source = Source(name="s2", api=server.url, collection="sentinel-2-l2a", poll={"since": "3650d"})
        rng = random.Random(1)
        catalog = Catalog(CatalogHttp(source.api, now=lambda: NOW, sleep=lambda _: None, rng=rng), source.collection)
        parts = Parts(
            sources=(source,), recipe=Recipe(output="/data/{item_id}.zarr"), limits=Limits(), ledger=ledger, engine=plant,
            catalogs={"s2": catalog}, read_marker=plant.marker, now=lambda: NOW, wait=lambda _: False, rng=rng, holder="test",
        )  # fmt: skip
        watcher = Watcher(parts)
        watcher.tick(to_the_end=True)
        watcher.turn()
        document = {
            "ledger": f"sqlite:///{folder}/ledger.db", "recipe": {"output": f"{folder}/outputs/{{item_id}}.zarr"},
            "sources": [{"name": "s2", "api": server.url, "collection": source.collection}],
            "engine": {"kind": "local", "folder": f"{folder}/runs"},
        }  # fmt: skip
        (folder / "stac-watch.yaml").write_text(json.dumps(document))
        yield plant, ledger, as_json(status.read(ledger, (source,), Limits(), NOW)), folder / "stac-watch.yaml"
        ledger.close()


def test_only_its_good_neighbour_became_an_event_and_was_converted(world):
    plant, ledger, _, _ = world
    assert [data["item_id"] for data in plant.events.values()] == [GOOD]
    assert [(row.item_id, row.state.value) for row in ledger.conversions.find()] == [(GOOD, "done")]


def test_each_of_them_is_kept_under_a_short_name_with_the_reason(world):
    _, ledger, shown, _ = world
    bad = ledger.absences.unreadable()
    assert len(bad) == len(MALICIOUS)
    for source, item_id, why in bad:
        assert source == "s2"
        assert why
        assert len(item_id) <= 200
        assert len(why) < 500
    assert json.loads(shown)["unreadable"] == len(MALICIOUS)
    words = " ".join(why for _, _, why in bad)
    for reason in (
        "not usable as a name",
        "scheme 'file'",
        "is not allowed",
        "carries credentials",
        "characters that a URL must not have",
    ):
        assert reason in words
    assert "secret" not in words


def say(config, *argv):
    """What the command says, and the code with which it ends."""
    argv = [str(COMMAND), *argv, "-c", str(config)]
    return subprocess.run(argv, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, timeout=60, check=False)


def test_an_id_that_is_markup_to_rich_is_shown_and_hides_no_other_gap(world):
    _, ledger, _, config = world
    listed = say(config, "items", "--unreadable")
    assert (listed.returncode, listed.stderr) == (0, "")
    audited = say(config, "audit", "s2", "--start=2025-10-07", "--end=2025-10-09")
    assert (audited.returncode, audited.stderr) == (1, "")
    for shown in (listed.stdout, audited.stdout):
        assert "S2A[/x]" in shown
        assert "S2A_FILE" in shown
    assert GOOD in audited.stdout
    assert ledger.sources.remembered(()).audits["s2"].gaps["unreadable"] == len(MALICIOUS)


def test_an_audit_is_noted_also_when_what_it_found_cannot_be_kept(world, tmp_path):
    _, ledger, _, config = world
    before = ledger.sources.remembered(()).audits.get("s2")
    ended = say(config, "audit", "s2", "--start=2025-10-07", "--end=2025-10-09", f"--file={tmp_path}")
    assert ended.returncode == 73, ended.stderr
    assert ledger.sources.remembered(()).audits["s2"] != before
