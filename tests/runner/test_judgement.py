"""Checks that need no conversion: checksums of chunks, ground that resolutions share, and what follows from a verdict."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from geozarr_runner.verify import frames, sight, verdict

from stac_watch.model.errors import Defect, InputError
from stac_watch.model.outcome import Check

BANDS = "measurements/reflectance"


def test_a_chunk_that_is_not_as_it_was_encoded_is_named(tmp_path):
    taken = {}
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
        taken[name] = frames.checksum(name.encode() * 1000)
    assert frames.check(tmp_path, taken, 2).verdict == "passed"
    (tmp_path / "b").write_bytes(b"b" * 999 + b"c")
    (tmp_path / "c").unlink()
    found = frames.check(tmp_path, taken, 2)
    assert (found.verdict, found.detail) == ("failed", "2 of 3 chunks are not as encoded, first b")
    assert "all values were compared" in frames.check(tmp_path, {}, 2).detail


def test_the_checksum_is_that_of_the_standard():
    assert frames.checksum(b"123456789") == 0xE3069283


def _tile(edge: int, nodata: float = 0.0, *, rows: slice | None = None, ragged: int = 0) -> np.ndarray:
    """Reflectance with a share of nodata on the left, and rows without data."""
    values = np.full((edge, edge), 0.2, "f4")
    values[:, : round(edge * nodata) + ragged] = np.nan
    if rows is not None:
        values[rows] = np.nan
    return values


def _there(**bands: np.ndarray) -> dict:
    return {
        f"{BANDS}/{name.replace('_', '/')}": zarr.create_array({}, data=values, chunks=values.shape)
        for name, values in bands.items()
    }


@pytest.mark.parametrize(
    ("bands", "verdict_", "words"),
    [
        ({"r10m_b02": _tile(360), "r20m_b05": _tile(180), "r60m_b01": _tile(60)}, "passed", "r10m, r20m, r60m have data"),
        ({"r10m_b02": _tile(360, 0.3, ragged=3), "r20m_b05": _tile(180, 0.31), "r60m_b01": _tile(60, 0.3)}, "passed", ""),
        ({"r10m_b02": _tile(360, 1), "r60m_b01": _tile(60, 1)}, "passed", ""),
        ({"r10m_b02": _tile(360, rows=slice(180, 360)), "r60m_b01": _tile(60)}, "failed", "r10m has no data on 50.0%"),
        ({"r10m_b02": _tile(360), "r20m_b05": _tile(180, rows=slice(0, 30)), "r60m_b01": _tile(60)}, "failed", "r20m has no"),
        ({"r10m_b02": _tile(360, rows=slice(0, 99)), "r10m_b03": _tile(360), "r60m_b01": _tile(60)}, "passed", ""),
        ({"r10m_b02": _tile(360)}, "skipped", "one resolution"),
    ],
    ids=["alike", "ragged", "nodata", "half-of-10-m", "a-sixth-of-20-m", "one-band-was-lost", "one-resolution"],
)  # fmt: skip
def test_no_resolution_may_lack_ground_that_another_saw(bands, verdict_, words):
    found = sight.check(_there(**bands), allowed=False)
    assert (found.verdict, words in found.detail) == (verdict_, True)
    assert sight.check(_there(**bands), allowed=True).verdict != "failed"


def test_a_product_that_contradicts_itself_is_bad_input_and_everything_else_a_defect():
    ground, values = Check("ground", "failed", "r10m has no data"), Check("native values", "failed", "b02")
    with pytest.raises(InputError, match="r10m has no data") as bad:
        verdict.require([Check("nodata", "passed"), ground], "here")
    assert "--allow-empty" in bad.value.hint
    with pytest.raises(Defect, match="native values"):
        verdict.require([ground, values], "here")
    verdict.require([Check("minispec", "skipped")], "here")
