"""What a check of overviews says of single pixels: of each kind of number, with nodata named or not, and at a ragged edge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from geozarr_runner.verify.pyramid import overviews

from stac_watch.model.zarr3 import StoredTree, tree_of

BANDS = "measurements/reflectance"


def _store(folder: Path, fine: np.ndarray, coarse: np.ndarray, attributes: dict[str, object]) -> StoredTree:
    """A level and its overview, in chunks of one object; written without the code that reads them."""
    nodes: dict[str, object] = {"": {"zarr_format": 3, "node_type": "group"}}
    for level, values in (("r60m", fine), ("r120m", coarse)):
        path = f"{BANDS}/{level}/b02"
        nodes[path] = {
            "zarr_format": 3, "node_type": "array", "shape": list(values.shape), "data_type": values.dtype.name, "fill_value": 0,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(values.shape)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}], "attributes": attributes,
        }  # fmt: skip
        target = folder / path / "c" / "0" / "0"
        target.parent.mkdir(parents=True)
        target.write_bytes(np.ascontiguousarray(values).tobytes())
    return tree_of(nodes, str(folder))


FINE = np.array([[10, 20, 0, 0, 9], [30, 40, 0, 0, 9], [0, 10, 8, 8, 9], [20, 30, 8, 8, 9], [7, 7, 7, 7, 7]], np.uint16)


@pytest.mark.parametrize(("change", "verdict", "said"), [
    ({}, "passed", "4 pixels"),
    ({(1, 0): 15}, "passed", "1 of them with nodata averaged in"),
    ({(1, 0): 32}, "failed", "at [1, 0] has 32.0"),  # more than any of its pixels, and than rounding
    ({(1, 0): 0}, "passed", "4 pixels"),  # nothing at all where some is seen is a matter of taste
    ({(0, 1): 1}, "failed", "at [0, 1]"),  # a value where nothing is
    ({(0, 0): 27}, "failed", "at [0, 0]"),
    ({(0, 0): 26}, "passed", "4 pixels"),  # rounding
])  # fmt: skip
def test_a_block_has_its_mean_and_nothing_where_there_is_nothing(tmp_path, change, verdict, said):
    coarse = np.array([[25, 0], [20, 8]], np.uint16)
    for at, value in change.items():
        coarse[at] = value
    check = overviews(_store(tmp_path, FINE, coarse, {"_FillValue": 0}), tmp_path)
    assert (check.verdict, said in check.detail) == (verdict, True), check.detail


def test_floats_have_nan_for_nothing_and_are_compared_more_closely(tmp_path):
    fine = np.where(FINE == 0, np.nan, FINE / 100).astype(np.float32)
    coarse = np.array([[0.25, np.nan], [0.2, 0.08]], np.float32)
    tree = _store(tmp_path, fine, coarse, {})
    assert overviews(tree, tmp_path).verdict == "passed"
    coarse[0, 0] = 0.251
    (tmp_path / BANDS / "r120m" / "b02" / "c" / "0" / "0").write_bytes(coarse.tobytes())
    assert overviews(tree, tmp_path).verdict == "failed"
