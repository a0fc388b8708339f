"""A registered item opens where the catalog says: searched by pystac-client, loaded by odc-stac, pixel by pixel on its ground."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import zarr

from stac_watch.config.register import Register
from stac_watch.demo.catalog import Server, Store, create_app
from stac_watch.register.collection import default, widened
from stac_watch.register.item import outputs_of, postable

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "services"))  # test folders are no packages

from pgstac_servers import MissingServiceError, environment  # noqa: E402  # it stands there

COLLECTION = "sentinel-2-geozarr"
SHOWN = """
import json, numpy
numpy.save("scl.npy", scl.values[0])
print(json.dumps([list(scl.odc.geobox.transform)[:6], scl.odc.geobox.crs.to_epsg()]))
"""


@pytest.fixture(scope="module")
def client() -> Path:
    """The Python of somebody who has odc-stac and pystac-client, and nothing of ours."""
    try:
        return environment("odc-stac-0.5.3")
    except MissingServiceError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.mark.services
def test_the_lines_of_the_docs_search_an_item_and_load_its_pixels(converted, client, tmp_path):
    page = (ROOT / "docs" / "registering.md").read_text(encoding="utf-8")
    [lines] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    described = json.loads(converted.with_name(f"{converted.name}.item.json").read_text())
    with Store() as store, Server(create_app(store, outputs=converted.parent, now=lambda: datetime.now(UTC))) as server:
        register = Register(api=server.url, collection=COLLECTION, href_base=f"{server.url}/outputs")
        where = outputs_of(f"{converted.parent}/{{item_id}}.zarr", register.href_base)
        document = postable(described, register, where, output=str(converted), item_href="", source=None).document
        store.put_collection(widened(default(COLLECTION), [document]))
        store.put(document)
        program = lines.replace("https://stac.mine.example", server.url) + SHOWN
        ran = subprocess.run([str(client), "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    transform, code = json.loads(ran.stdout.splitlines()[-1])
    array = zarr.open_array(str(converted / "conditions/mask/l2a_classification/r20m/scl"), mode="r")
    group = zarr.open_group(str(converted), mode="r")["conditions/mask/l2a_classification/r20m"]
    assert (transform, code) == (group.attrs["spatial:transform"], 32632)
    np.testing.assert_array_equal(np.nan_to_num(np.load(tmp_path / "scl.npy")), np.nan_to_num(array[:]))
