"""A person asks for what is done already: it is converted again, and until then the old output stays whole."""

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from command import call

from stac_watch.demo.catalog import Server, Store, create_app, make_item
from stac_watch.demo.product import write_product

BIN = Path(sys.executable).parent
ITEM = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"

GROUP = "/measurements/reflectance/r20m"  # one is converted in half the time of three


def stac_watch(config: Path, *arguments: str) -> str:
    said = call(*arguments, "--config", config)
    assert said.code == 0, said.said
    return said.out


@pytest.fixture
def converted(tmp_path):
    """One item, converted by the real runner."""
    products = tmp_path / "products"
    products.mkdir()
    write_product(products, ITEM, size=360)
    with Store(None) as store, Server(create_app(store, products=products, now=lambda: datetime.now(UTC))) as server:
        href = f"{server.url}/products/{ITEM}.zarr"
        sensed = datetime(2025, 10, 8, 10, 0, 41, tzinfo=UTC)
        store.put(make_item(ITEM, catalog_url=server.url, product_href=href, updated=datetime.now(UTC), datetime=sensed))
        config = tmp_path / "stac-watch.yaml"
        document = {
            "ledger": f"sqlite:///{tmp_path}/ledger.db",
            "sources": [{"name": "s2", "api": server.url, "collection": "sentinel-2-l2a", "poll": {"since": "3650d"}}],
            "recipe": {"output": f"{tmp_path}/outputs/{{item_id}}.zarr", "package": "none", "groups": GROUP},
            "engine": {"kind": "local", "folder": f"{tmp_path}/runs"},
        }
        config.write_text(yaml.safe_dump(document))
        stac_watch(config, "watch", "--once")
        yield config, tmp_path / "outputs" / f"{ITEM}.zarr"


def outcome(config: Path) -> dict:
    [chain] = json.loads(stac_watch(config, "explain", ITEM, "--json"))
    return chain["outcome"] | {"state": chain["line"]["state"], "attempt": chain["line"]["attempt"]}


def test_a_replay_of_what_is_done_converts_again_and_the_old_output_stays_until_then(converted):
    config, output = converted
    marker = output / "stac-watch.json"
    first = json.loads(marker.read_bytes())
    assert (first["attempt"], first["reason"], outcome(config)["state"]) == (1, "done", "done")
    assert "converts again" in stac_watch(config, "replay", ITEM)
    assert outcome(config)["attempt"] == 1, "without --yes nothing happens"
    stac_watch(config, "replay", ITEM, "--yes")

    seen, ended = set(), threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            seen.add(json.loads(marker.read_bytes())["attempt"])  # raises when there is no whole output for a moment

    looker = threading.Thread(target=look)
    looker.start()
    try:
        stac_watch(config, "watch", "--once")
    finally:
        ended.set()
        looker.join()
    second = outcome(config)
    assert (second["state"], second["attempt"], second["reason"], second["code"]) == ("done", 2, "done", 0)
    assert second["counts"]["bytes_read"] > 0
    now = json.loads(marker.read_bytes())
    assert (now["attempt"], now["key"], now["run"]) == (2, first["key"], first["run"].removesuffix("1") + "2")
    assert seen | {2} == {1, 2}
    assert [p.name for p in output.parent.iterdir() if p.name.startswith(f".{output.name}")] == []

    again = rerun(config, second["run"])  # the pod is killed after its work, and Kubernetes starts it again
    assert (again["reason"], again["attempt"]) == ("already done", 2)
    late = rerun(config, first["run"])  # an event that the bus delivers once more, after all
    assert late["reason"] == "already done"
    assert json.loads(marker.read_bytes()) == now


def rerun(config: Path, run: str) -> dict:
    """Starts a run's own command once more, as an engine would; returns its outcome."""
    folder = config.parent / "runs" / run
    data = json.loads((folder / "event.json").read_bytes())["data"]
    given = {
        "stac-url": data["stac_url"], "output-zarr": data["output_zarr"], "key": data["key"], "run": run,
        "groups": data["groups"], "attempt": str(data["attempt"]), "overwrite": data["options"]["overwrite"], "package": "none",
        "fence": data["fence"], "installation": data["installation"],
    }  # fmt: skip
    options = [f"--{name}={value}" for name, value in given.items()]
    target = folder / "again.json"
    done = subprocess.run(
        [str(BIN / "geozarr-runner"), "run", *options, "--outcome", str(target)], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(target.read_bytes())
