"""What the judge takes stored numbers for is what xarray takes them for, whichever of the two reads the words."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from geozarr_runner.verify.rules import rule_of
from xarray.conventions import decode_cf_variable

WORDS = [
    {},
    {"scale_factor": 0.0001, "add_offset": -0.1, "_FillValue": 0},
    {"scale_factor": 0.001, "_FillValue": np.uint16(7)},
    {"add_offset": -1000.0},
    {"missing_value": 3, "scale_factor": 0.5},
    {"_FillValue": 0, "missing_value": 255},
    {"_FillValue": 70_000},
    {"_FillValue": 2.0},
    {"scale_factor": 2, "add_offset": 1},
    {"scale_factor": 2, "_FillValue": 1.0, "add_offset": 0.5},
    {"_FillValue": [0, 5]},
    {"_Unsigned": "true", "_FillValue": 255},
    {"_Unsigned": "false"},
    {"dtype": "bool"},
    {"dtype": "<u2", "_FillValue": 1},
    {"_FillValue": float("nan")},
]


def _numbers(dtype: str) -> np.ndarray:
    """Every number of two bytes, or as many of others; by their bits."""
    kind = np.dtype(dtype)
    values = np.arange(200 * 200) % (2 ** min(8 * kind.itemsize, 16))
    if kind.kind not in "iu":
        return values.astype(kind)
    return values.astype(f"u{kind.itemsize}").view(kind.newbyteorder("=")).astype(kind)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">u2", "i2", "u4", "i8", "f4", "f8", "?"])
def test_numbers_say_what_xarray_says(dtype):
    """Plain words are read without xarray, odd ones by it, and numbers of few values by a table."""
    packed = _numbers(dtype).reshape(200, 200)
    for words in WORDS:
        if packed.dtype.kind in "fb" and words.keys() & {"_Unsigned", "dtype"}:
            continue  # of integers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                raw = xr.Variable(("y", "x"), packed, dict(words))
                want = np.asarray(decode_cf_variable("v", raw, decode_times=False, decode_timedelta=False).values)
            except (TypeError, ValueError, OverflowError):
                continue  # what xarray cannot read, preflight does not let pass
            rule = rule_of(packed.dtype, words)
            got = rule.values(packed)
            np.testing.assert_array_equal(got, want.astype(got.dtype), err_msg=f"{dtype} {words}")
            np.testing.assert_array_equal(rule.absent(packed), np.isnan(want.astype("f8")), err_msg=f"{dtype} {words}")
            np.testing.assert_array_equal(rule.values(packed[:3, :3]), got[:3, :3])


def test_equal_numbers_are_only_equal_by_rules_that_say_the_same():
    two, other = np.dtype("u2"), {"scale_factor": 0.0001, "add_offset": 0.0, "_FillValue": 0}
    plain = {"scale_factor": 0.0001, "add_offset": -0.1, "_FillValue": 0}
    rule = rule_of(two, plain)
    assert rule.equals(rule_of(np.dtype(">u2"), plain | {"long_name": "b02", "missing_value": 0}))
    assert not rule.equals(rule_of(two, other))
    assert not rule.equals(rule_of(two, {name: plain[name] for name in ("scale_factor", "add_offset")}))
    assert not rule.equals(rule_of(np.dtype("i2"), plain))
    assert not rule.equals(None)
    assert rule_of(np.dtype("M8[ns]"), {}) is None
