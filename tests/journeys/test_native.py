"""New acquisitions from item to output: real items of both generations, in each of three modes, at reduced size."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401  # gives datasets `.rio`
import xarray as xr
import yaml
from command import call

from stac_watch.catalog.stores import Stores
from stac_watch.demo.catalog import Server, Store, create_app
from stac_watch.demo.items import make_item
from stac_watch.demo.native import write_native
from stac_watch.discover.restamps import is_same
from stac_watch.runs.local import LocalEngine

pytestmark = pytest.mark.long

REAL = Path(__file__).parents[3] / "shared" / "data" / "eopf"
COLLECTION = "sentinel-2-l2a-zarr3"
IDS = (
    "S2B_MSIL2A_20260907T130029_N0512_R138_T26TLL_20260907T145009", "S2C_MSIL2A_20260927T133931_N0513_R067_T28WDE_20260927T170511",
)  # fmt: skip
BANDS = "measurements/reflectance"
SIZE = 216


def item_of(item_id: str, url: str) -> dict:
    """The published item with its hrefs on this host; one of its shape where it does not lie beside the project."""
    path = REAL / f"{item_id}.json"
    if not path.exists():
        return make_item(
            item_id, catalog_url=url, product_href=f"{url}/products/{item_id}.zarr", updated=datetime.now(UTC),
            collection=COLLECTION, native=True,
        )  # fmt: skip
    document = json.loads(path.read_text())
    for asset in document["assets"].values():
        asset["href"] = f"{url}/products/{item_id}{asset['href'].rpartition(item_id)[2]}"
    return document


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The stores, made once."""
    folder = tmp_path_factory.mktemp("published")
    for number, item_id in enumerate(IDS):
        write_native(folder, item_id, size=SIZE, seed=number, chunk=72)
    return folder


@pytest.fixture
def world(tmp_path, published):
    """A catalog with both items, and a configuration that watches it."""
    with Store(None) as store, Server(create_app(store, products=published, now=lambda: datetime.now(UTC))) as server:
        store.put_many([item_of(item_id, server.url) for item_id in IDS])
        document = {
            "ledger": f"sqlite:///{tmp_path}/ledger.db",
            "sources": [
                {"name": "new", "api": server.url, "collection": COLLECTION, "poll": {"interval": "1s", "since": "3650d"}}
            ],
            "recipe": {"output": f"{tmp_path}/outputs/{{item_id}}.zarr"},
            "engine": {"kind": "local", "folder": f"{tmp_path}/runs", "limits": {"max_in_flight": 2, "retry_after": "0.1s"}},
        }  # fmt: skip
        config = tmp_path / "stac-watch.yaml"
        config.write_text(yaml.safe_dump(document))
        yield tmp_path, store, server.url, config
    LocalEngine(tmp_path / "runs", command=[], max_in_flight=0, environ={}).close(stop_runs=True)


def once(config: Path, **environ: str) -> list[dict]:
    """One round of the watcher to its end; what `items` says then."""
    done = call("watch", "--once", "-c", config, **environ)
    assert done.code == 0, done.said
    return json.loads(call("items", "--json", "-c", config).out)


def marker(line: dict) -> dict:
    return json.loads(Path(line["output"], "stac-watch.json").read_text())


def physical(store: Path, level: str, band: str) -> np.ndarray:
    with xr.open_dataset(store, engine="zarr", group=f"{BANDS}/{level}", decode_coords="all") as found:
        assert found.rio.crs is not None
        assert found.rio.transform()[0] == float(level.strip("rm"))
        values: np.ndarray = found[band].values.astype("f8")
        return values


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("mode", ["mirror", "convert", "reference"])
def test_both_real_items_are_done_in_each_mode_and_open(world, published, mode):
    _, _, url, config = world
    groups = {"STAC_WATCH__RECIPE__GROUPS": BANDS} if mode == "convert" else {}
    lines = once(config, STAC_WATCH__RECIPE__NATIVE=mode, **groups)
    assert {line["item"]: line["state"] for line in lines} == dict.fromkeys(IDS, "done")
    for line in lines:
        source, output = published / f"{line['item']}.zarr", Path(line["output"])
        told = marker(line)
        assert (told["form"], told["item_id"]) == ("geozarr-v3", line["item"])
        look = Stores(("127.0.0.1",), rate=20.0, sleep=lambda _: None)
        href = f"{url}/products/{line['item']}.zarr"
        assert is_same(look, href, told["fingerprint"]), "what a run noted is what the watcher sees"
        assert not is_same(look, f"{url}/products/{IDS[line['item'] == IDS[0]]}.zarr", told["fingerprint"])
        assert look.asked < 300, "the root and each object of one, the root of the other"
        if mode == "reference":
            said = json.loads((output / "reference.json").read_text())
            assert said["href"] == href
            assert not list(output.glob("**/c/*"))
            continue
        for level, band in (("r10m", "b02"), ("r20m", "b05"), ("r60m", "b01"), ("r120m", "b04"), ("r360m", "b08")):
            expected, found = physical(source, level, band), physical(output, level, band)
            assert found.shape == expected.shape
            if mode == "mirror" or level in ("r10m", "r20m", "r60m"):
                np.testing.assert_allclose(found, expected, rtol=1e-6, equal_nan=True, err_msg=f"{level}/{band}")
            assert 0 <= np.nanmean(found) < 2, "scaled once, in both generations"
