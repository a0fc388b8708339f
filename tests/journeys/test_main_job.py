"""The main job with the real runner: from a catalog item to a verified GeoZarr, undisturbed, interrupted, and on real input."""

import gzip
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from command import call
from rich.console import Console
from waiting import until

from stac_watch import app
from stac_watch.config.model import Config
from stac_watch.demo import scenario
from stac_watch.demo.catalog import Server, Store, create_app, make_item
from stac_watch.demo.product import write_product, write_structure
from stac_watch.model.identity import parse_product_id
from stac_watch.runs.local import LocalEngine
from stac_watch.watch.loop import Parts

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "eopf"
COMMAND = Path(sys.executable).parent / "stac-watch"
WATCH = (str(COMMAND), "watch", "-c")
ITEM = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
RESOLUTIONS = ("r10m", "r20m", "r60m")
REFLECTANCE = "measurements/reflectance"  # half of a product's arrays, and all that is compared here


def listed(config: Path) -> list[dict]:
    """What `items --json` says."""
    return json.loads(call("items", "--json", "-c", config).out)


def assert_same(product: Path, output: Path) -> None:
    """Every band at native resolution equals the CF-decoded source, NaN included; nodata stays NaN on every overview level."""
    for resolution in RESOLUTIONS:
        group = f"measurements/reflectance/{resolution}"
        with xr.open_zarr(product, group=group) as source, xr.open_zarr(output, group=group) as made:
            for band in source.data_vars:
                np.testing.assert_allclose(
                    made[band].values, source[band].values, rtol=1e-6, equal_nan=True, err_msg=f"{group}/{band}"
                )
    levels = sorted(int(p.name[1:-1]) for p in (output / "measurements" / "reflectance").glob("r*m"))
    assert {10, 20, 60, 120, 360} <= set(levels)
    for level in levels:
        with xr.open_zarr(output, group=f"measurements/reflectance/r{level}m") as made:
            bands = [name for name in made.data_vars if name.startswith("b")]
            assert "b08" in bands
            for band in bands:
                expected = nodata(product, band, level)
                np.testing.assert_array_equal(np.isnan(made[band].values), expected, err_msg=f"r{level}m/{band}")


def nodata(product: Path, band: str, level: int) -> np.ndarray:
    """Where every source pixel of a block is nodata: there, and only there, an overview has none either."""
    group = Path("measurements/reflectance")
    native = max(r for r in (10, 20, 60) if r <= level and (product / group / f"r{r}m" / band).exists())
    with xr.open_zarr(product, group=str(group / f"r{native}m")) as source:
        empty = np.isnan(source[band].values)
    factor = level // native
    height, width = (n // factor for n in empty.shape)
    blocks = empty[: height * factor, : width * factor].reshape(height, factor, width, factor)
    return blocks.all(axis=(1, 3))


@pytest.fixture
def world(tmp_path):
    """A catalog with its products, and a configuration that watches it."""
    products = tmp_path / "products"
    products.mkdir()
    with Store(None) as store, Server(create_app(store, products=products, now=lambda: datetime.now(UTC))) as server:
        config = tmp_path / "stac-watch.yaml"
        document = {
            "ledger": f"sqlite:///{tmp_path}/ledger.db",
            "sources": [
                {"name": "real", "api": server.url, "collection": "sentinel-2-l2a", "poll": {"interval": "1s", "since": "3650d"}}
            ],
            "recipe": {"output": f"{tmp_path}/outputs/{{item_id}}.zarr", "package": "tar"},
            "engine": {"kind": "local", "folder": f"{tmp_path}/runs", "limits": {"max_in_flight": 2}},
        }
        config.write_text(yaml.safe_dump(document))
        yield tmp_path, store, server.url, config
    LocalEngine(tmp_path / "runs", command=[], max_in_flight=0, environ={}).close(stop_runs=True)


def publish(world, *, seed: int = 0) -> Path:
    place, store, url, _ = world
    folder = place / "products" / f"v{seed}"
    folder.mkdir()
    product = write_product(folder, ITEM, size=360, seed=seed)
    sensed = datetime(2025, 10, 8, 10, 0, 41, tzinfo=UTC)
    href = f"{url}/products/v{seed}/{ITEM}.zarr"
    store.put(make_item(ITEM, catalog_url=url, product_href=href, updated=datetime.now(UTC), datetime=sensed))
    return product


def test_watchers_and_runs_are_killed_in_each_stage_until_it_is_done(world):
    """A run outlives its watcher in two stages, and dies with it in the others; a third attempt is the last that there is."""
    place, _, _, config = world
    product = publish(world)
    environ = os.environ | {"STAC_WATCH__ENGINE__LIMITS__RETRY_AFTER": "0.1s", "STAC_WATCH__RECIPE__GROUPS": REFLECTANCE}
    attempts = []
    for stage, together in (("stage", False), ("convert", True), ("verify", False), ("package", True)):
        watcher = subprocess.Popen([*WATCH, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ)
        run_folder = until(lambda stage=stage: reached(place, stage), by=watcher)
        watcher.kill()
        watcher.wait()
        end_lease(place)
        attempts.append(int(run_folder.name.rpartition("-")[2]))
        if together:
            os.killpg(int((run_folder / "pid").read_text()), signal.SIGKILL)
            (run_folder / "status.json").unlink()  # the next attempt's is waited for
    assert attempts == [1, 1, 2, 2]
    last = subprocess.Popen([*WATCH, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ)
    output = place / "outputs" / f"{ITEM}.zarr"
    until((output / "stac-watch.json").exists, by=last)
    lines = until(lambda: [line for line in listed(config) if line["state"] == "done"], by=last)
    last.send_signal(signal.SIGTERM)
    assert last.wait(timeout=30) == 0
    assert [line["attempt"] for line in lines] == [3]
    assert json.loads((output / "stac-watch.json").read_bytes())["key"] == lines[0]["key"]
    assert_same(product, output)
    outcomes = [json.loads(p.read_bytes()) for p in place.glob("runs/gz-*/outcome.json")]
    assert [o["reason"] for o in outcomes if o["code"] == 0] == ["done"]
    left = [p.name for p in (place / "outputs").iterdir() if not p.name.startswith(ITEM)]
    assert not [name for name in left if "partial" in name]


def end_lease(place: Path) -> None:
    """Ends a killed watcher's lease at once: that the next one waits for its end is what tests/ledger/test_lease.py shows."""
    with closing(sqlite3.connect(place / "ledger.db", timeout=30)) as db, db:
        db.execute("DELETE FROM lease")


def reached(place: Path, stage: str) -> Path | None:
    """The folder of a run that is in that stage."""
    for status in place.glob("runs/gz-*/status.json"):
        if json.loads(status.read_bytes())["stage"] == stage:
            return status.parent
    return None


def test_demo_is_interrupted_and_tells_its_story_the_second_time(tmp_path):
    """The second time with a part of each product: whole ones are the real items' below."""
    folder = tmp_path / "demo"
    command = [str(COMMAND), "demo", "--folder", str(folder), "--size", "72"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: list(folder.glob("runs/gz-*/status.json")))
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=40) == 130
    assert "interrupted" in first.stderr.read()
    assert LocalEngine(folder / "runs", command=[], max_in_flight=9, environ={}).headroom() == 9, "a run outlived Ctrl-C"
    first.stdout.close()
    first.stderr.close()
    said = io.StringIO()
    code = scenario.play(
        folder, port=0, size=72, keep=False, build=in_part, serving=app.serving, lines=app.lines, wait=threading.Event().wait,
        console=Console(file=said, width=120),
    )  # fmt: skip
    assert code == 0, said.getvalue()
    assert "│ NO" not in said.getvalue()
    events = [json.loads(p.read_bytes()) for p in folder.glob("events/*.json")]
    assert len({(e["source"], e["id"]) for e in events}) == len(events) == 7
    assert sorted(e["type"].rpartition(".")[2] for e in events).count("replace") == 1
    reports = next(line.split()[1] for line in said.getvalue().splitlines() if line.startswith("reports"))
    assert len(list(folder.glob(reports.removeprefix(f"{folder}/")))) == 4
    looked_at = [Path(line.strip()) for line in said.getvalue().splitlines() if line.endswith((".quicklook.png", ".report.html"))]
    assert [path.suffix for path in looked_at[-2:]] == [".png", ".html"]
    assert all(path.exists() for path in looked_at[-2:])
    outputs = list(folder.glob("outputs/*/*.zarr/stac-watch.json"))
    assert len(outputs) == 4
    assert "a search of collection sentinel-2-geozarr found 4 items" in said.getvalue()


def in_part(config: Config, wait: Callable[[float], bool]) -> Parts:
    recipe = config.recipe.model_copy(update={"groups": f"{REFLECTANCE}/r20m"})
    return app.build(config.model_copy(update={"recipe": recipe}), os.environ, wait)


@pytest.mark.skipif(not REAL.exists(), reason="the real item documents are not beside the project")
def test_real_items_with_products_of_the_real_structure(world):
    """Real item documents, and products of the real structure at reduced size.

    Hrefs get this host. Where the structure is another scene's the document is made that scene's: a product that is not the item's
    is refused.
    """
    place, store, url, config = world
    dumps = {path.name.partition(".zarr")[0]: path for path in sorted((REAL / "structure").glob("*MSIL2A*.gz"))}
    texts = {path.stem: path.read_text() for path in sorted(REAL.glob("*.json"))}
    items = {name: text for name, text in texts.items() if json.loads(text)["collection"] == "sentinel-2-l2a"}
    for name, text in items.items():
        scene = name if name in dumps else max(dumps)
        item, structure = json.loads(text.replace(name, scene)), json.loads(gzip.decompress(dumps[scene].read_bytes()))
        if scene != name:
            told = structure["attributes"]["stac_discovery"]["properties"]
            item["properties"] |= {"datetime": told["start_datetime"], "grid:code": f"MGRS-{parse_product_id(scene)['tile'][1:]}"}
        root = f"{url}/products/{scene}.zarr"
        for asset in item["assets"].values():
            head, found, tail = asset["href"].partition(".zarr")
            asset["href"] = root + tail if found else f"{url}/products/{Path(head).name}"
        store.put(item)
        write_structure(structure, place / "products" / f"{scene}.zarr", size=360)
    done = call("watch", "--once", "-c", config)
    assert done.code == 0, done.said
    lines = listed(config)
    assert [line["state"] for line in lines] == ["done", "done"]
    for line in lines:
        assert_same(place / "products" / f"{line['item']}.zarr", Path(line["output"]))
