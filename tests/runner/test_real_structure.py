"""Products with the verbatim structure of real ones, of which two are older than the demo's: L1C, and small chunks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from stac_watch.demo.product import write_structure

STRUCTURES = Path(__file__).parents[2].parent / "shared" / "data" / "eopf" / "structure"
BANDS = "measurements/reflectance"
L1C = "S2B_MSIL1C_20250113T103309_N0511_R108_T32TLQ_20250113T122458"
L2A = "S2C_MSIL2A_20250811T112131_N0511_R037_T29TPF_20250811T152216"


def _product(name: str, folder: Path) -> Path:
    file = STRUCTURES / f"{name}.zarr-structure.json.gz"
    if not file.exists():
        pytest.skip(f"the structure of {name} is not at hand")
    return write_structure(json.loads(gzip.decompress(file.read_bytes())), folder / f"{name}.zarr", size=756)


@pytest.mark.parametrize(("name", "injected"), [(L1C, 14), (L2A, 2)])
def test_a_real_structure_converts_and_is_verified_whole(runner, tmp_path, name, injected):
    groups = f"{BANDS} conditions/geometry"
    ended = runner(_product(name, tmp_path), tmp_path / "o.zarr", groups=groups, engine="fast")
    assert ended.code == 0, ended.stderr
    assert ended.outcome["engine"] == "fast"
    checks = {check["name"]: check for check in ended.outcome["checks"]}
    assert {check["verdict"] for check in checks.values()} == {"passed"}
    assert checks["injected bands"]["detail"].startswith(f"{injected} arrays")
    item = json.loads((tmp_path / "o.zarr.item.json").read_text())
    west, south, east, north = item["bbox"]
    assert (west < east, south < north) == (True, True)
    assert item["properties"]["datetime"].startswith(f"{name[11:15]}-")
