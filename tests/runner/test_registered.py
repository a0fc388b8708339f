"""A registered item opens where the catalog says: odc-stac loads its bands, titiler draws them, pixel by pixel on their ground."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import loopback
import numpy as np
import pytest
import zarr
from command_line import arguments
from geozarr_runner.cli import main

from stac_watch.config.register import Register
from stac_watch.demo.catalog import Server, Store, create_app
from stac_watch.register.collection import default, widened
from stac_watch.register.item import outputs_of, postable

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "services"))  # test folders are no packages

from pgstac_servers import MissingServiceError, environment  # noqa: E402  # it stands there

COLLECTION = "sentinel-2-geozarr"
BANDS, CLASSES = "measurements/reflectance/r10m", "conditions/mask/l2a_classification/r20m"
SHOWN = """
import json, numpy
numpy.savez("scene.npz", **{name: scene[name].values[0] for name in bands})
print(json.dumps([list(scene.odc.geobox.transform)[:6], scene.odc.geobox.crs.to_epsg()]))
"""
DRAWN = """
import asyncio, io, sys
import httpx2, numpy
from titiler.xarray.main import app

async def get(path, **asked):
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://titiler") as client:
        return (await client.get(path, params=asked)).raise_for_status().content

store, _, path = sys.argv[1].partition(".zarr/")
group, _, name = path.rpartition("/")
place = {"url": f"{store}.zarr", "group": group, "variable": name}
box = f"/bbox/{sys.argv[2]}/{sys.argv[3]}"
numpy.save("drawn.npy", numpy.load(io.BytesIO(asyncio.run(
    get(f"{box}.npy", coord_crs="EPSG:32632", dst_crs="EPSG:32632", **place)))))
open("drawn.png", "wb").write(asyncio.run(get(f"{box}.png", coord_crs="EPSG:32632", dst_crs="EPSG:32632", rescale="0,1", **place)))
"""


@pytest.fixture(scope="module")
def client() -> Callable[[str], Path]:
    """The Python of somebody who has one of the readers, and nothing of ours."""

    def found(name: str) -> Path:
        try:
            return environment(name)
        except MissingServiceError as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error))
            pytest.skip(str(error))

    return found


@pytest.fixture(scope="module", params=["off", "on"], ids=["chunks", "shards"])
def output(request, product, converted, made_once) -> Path:
    """A packed output, with an object for each chunk or in shards, as an object store gets it."""
    if request.param == "off":
        return converted

    def convert(folder: Path) -> None:
        assert main(arguments(product, folder / product.name, key="000000000001", package="none", sharding="true")) == 0

    found = made_once("sharded", convert) / product.name
    assert zarr.open_array(str(found / BANDS / "b04"), mode="r").shards
    return found


def registered(converted: Path, api: str, base: str) -> dict:
    """The item of an output as the catalog gets it; `base` is where its folder is served."""
    described = json.loads(converted.with_name(f"{converted.name}.item.json").read_text())
    register = Register(api=api, collection=COLLECTION, href_base=base)
    where = outputs_of(f"{converted.parent}/{{item_id}}.zarr", register.href_base)
    return postable(described, register, where, output=str(converted), item_href="", source=None).document


def decoded(store: Path, band: str) -> np.ndarray:
    """What a band is, by its own metadata and without a reader."""
    array = zarr.open_array(str(store / BANDS / band), mode="r")
    said = {"scale_factor": 1, "add_offset": 0, **array.attrs}
    packed = array[:].astype(float)
    return np.where(packed == said.get("_FillValue", np.nan), np.nan, packed * said["scale_factor"] + said["add_offset"])


def ran(python: Path, program: str, *arguments: str, cwd: Path, **environ: str) -> str:
    there = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")} | environ
    argv = [str(python), "-c", program, *arguments]
    done = subprocess.run(argv, cwd=cwd, env=there, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.services
def test_the_lines_of_the_docs_search_an_item_and_load_its_pixels(output, client, tmp_path):
    page = (ROOT / "docs" / "registering.md").read_text(encoding="utf-8")
    [lines] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    with Store() as store, Server(create_app(store, outputs=output.parent, now=lambda: datetime.now(UTC))) as server:
        document = registered(output, server.url, f"{server.url}/outputs")
        store.put_collection(widened(default(COLLECTION), [document]))
        store.put(document)
        program = lines.replace("https://stac.mine.example", server.url) + SHOWN
        said = ran(client("odc-stac-0.5.3"), program, cwd=tmp_path)
    group = zarr.open_group(str(output), mode="r")[BANDS]
    assert json.loads(said.splitlines()[-1]) == [group.attrs["spatial:transform"], 32632]
    with np.load(tmp_path / "scene.npz") as scene:
        for key, band in (("B04_10m", "b04"), ("B08_10m", "b08")):
            np.testing.assert_allclose(scene[key], decoded(output, band), atol=1e-6)
        classes = zarr.open_array(str(output / CLASSES / "scl"), mode="r")[:]
        np.testing.assert_array_equal(np.nan_to_num(scene["SCL_20m"]), np.kron(np.nan_to_num(classes), np.ones((2, 2))))


@pytest.mark.services
def test_titiler_draws_a_band_where_its_asset_leads(output, client, tmp_path):
    handler = partial(_Quiet, directory=str(output.parent))
    with loopback.serving(handler, tls=certified(tmp_path)) as url:
        asset = registered(output, url, url)["assets"]["B04_10m"]
        rows, columns = asset["proj:shape"]
        step, _, left, _, _, top = asset["proj:transform"]
        box = f"{left},{top - step * rows},{left + step * columns},{top}"
        program = (asset["href"], box, f"{columns}x{rows}")
        ran(client("titiler-xarray-2.4.0"), DRAWN, *program, cwd=tmp_path, SSL_CERT_FILE=str(tmp_path / "ca.crt"))
    pixels, seen = np.load(tmp_path / "drawn.npy")
    wanted = decoded(output, "b04")
    np.testing.assert_array_equal(seen != seen.min(), ~np.isnan(wanted))
    np.testing.assert_allclose(np.where(seen == seen.min(), np.nan, pixels), wanted, atol=1e-6)
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def certified(folder: Path) -> ssl.SSLContext:
    """What a server needs that readers are to trust: `ca.crt` in the folder says so."""
    ask = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    authority = ("-x509", "-subj", "/CN=tests", *usage, "-keyout", "ca.key", "-out", "ca.crt")
    leaf = ("-x509", "-CA", "ca.crt", "-CAkey", "ca.key", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    plain = ("-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "tls.key", "-out", "tls.crt")
    for rest in (authority, (*leaf, *plain)):
        subprocess.run([*ask, *rest], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context
