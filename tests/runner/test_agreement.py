"""A store whose consolidated metadata and nodes differ on pixels or place is refused; other differences mean nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from geozarr_runner.source import preflight, stage, transcode
from geozarr_runner.source.store import Patience
from pyproj import CRS

from stac_watch.model.errors import InputError

GROUP = "measurements/reflectance/r60m"
BAND = f"{GROUP}/b01"


def _staged(store: Path, folder: Path) -> None:
    off = threading.Event()
    plan = preflight.plan(str(store), GROUP, allowed_hosts=(), patience=Patience(attempts=1), wait=off.wait)
    bring = stage.stage if plan.tree is None else transcode.stage
    bring(plan, folder, advance=lambda _: None, called_off=off)


def _edit(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        (f"{BAND}/.zarray", lambda d: d.update(shape=[2, 2]), "has shape"),
        (f"{BAND}/.zarray", lambda d: d.update(dtype="<i2"), 'has dtype "<i2", the consolidated metadata "<u2"'),
        (f"{BAND}/.zarray", lambda d: d.update(order="F"), "has order"),
        (f"{BAND}/.zarray", lambda d: d.update(fill_value=7), "has fill_value 7"),
        (f"{BAND}/.zattrs", lambda d: d.update(scale_factor=0.001), "has scale_factor 0.001, the consolidated metadata 0.0001"),
        (f"{BAND}/.zattrs", lambda d: d.pop("add_offset"), "has add_offset 0, the consolidated metadata -0.1"),
        (f"{BAND}/.zattrs", lambda d: d.update({"proj:epsg": 32633}), "has EPSG:32633, the consolidated metadata EPSG:32632"),
        (".zattrs", lambda d: d["other_metadata"].update(horizontal_CRS_code="EPSG:32733"), "has EPSG:32733"),
    ],
)
def test_a_contradiction_names_both(own_product, tmp_path, key, change, words):
    _edit(own_product / key, change)
    with pytest.raises(InputError, match="contradicts itself") as said:
        _staged(own_product, tmp_path)
    assert words in said.value.message


def test_what_changes_no_pixel_may_differ(own_product, tmp_path):
    _edit(own_product / BAND / ".zarray", lambda d: d["compressor"].update(clevel=9))
    _edit(own_product / BAND / ".zarray", lambda d: d.update(dtype="uint16"))
    _edit(own_product / BAND / ".zattrs", lambda d: d.update(long_name="coastal", scale_factor=[d["scale_factor"]]))
    (own_product / GROUP / "b02" / ".zarray").unlink()
    (own_product / GROUP / "b03" / ".zattrs").write_text("<html>not found</html>")
    _staged(own_product, tmp_path)


def test_a_finished_geozarr_that_is_converted_is_asked_the_same(own_native, tmp_path):
    _edit(own_native / BAND / "zarr.json", lambda d: d["attributes"].update(scale_factor=0.001))
    with pytest.raises(InputError, match=f"{BAND}/zarr.json has scale_factor 0.001, the consolidated metadata 0.0001"):
        _staged(own_native, tmp_path)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("with_id", [False, True])
def test_projjson_is_a_crs_that_is_understood(own_product, text, with_id):
    crs = CRS.from_epsg(32632).to_json_dict()
    if not with_id:
        crs.pop("id")
    document = json.loads((own_product / ".zmetadata").read_text())
    for key, attributes in document["metadata"].items():
        if key.endswith(".zattrs"):
            attributes.pop("proj:epsg", None)
            attributes.pop("proj:wkt2", None)
    root = document["metadata"][".zattrs"]
    for name in ("horizontal_CRS_code", "horizontal_CRS_name", "horizontal_crs_code"):
        root["other_metadata"].pop(name, None)
    root["stac_discovery"]["properties"].pop("proj:epsg", None)
    root["stac_discovery"]["properties"].pop("proj:code", None)
    root["stac_discovery"]["properties"]["proj:projjson"] = json.dumps(crs) if text else crs
    (own_product / ".zmetadata").write_text(json.dumps(document))
    plan = preflight.plan(str(own_product), GROUP, allowed_hosts=(), patience=Patience(attempts=1), wait=threading.Event().wait)
    assert plan.selection.crs == "EPSG:32632"
