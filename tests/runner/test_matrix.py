"""Every legal form of a product against both engines: each pixel of each level is what xarray decodes of the source.

One product has another form in each of its bands, so that one conversion by the fast engine and two by the other try them all. The
expectation is computed here, by xarray and numpy alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from geozarr_runner.convert import engine, stock
from geozarr_runner.source.metadata import parse
from geozarr_runner.source.product import select
from geozarr_runner.verify import verify

from stac_watch.demo.product import write_product
from stac_watch.model.forms import Encoding

pytestmark = pytest.mark.long

BANDS = "measurements/reflectance"
ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
SIZE = 180  # 30, 15, 5, 2 pixels from 60 m on: the remainder of a real tile, whose levels have 1830, 915, 305, 152
OVERVIEWS = {"r120m": ("r60m", 2), "r360m": ("r120m", 3), "r720m": ("r360m", 2)}

type Edit = Callable[[dict[str, Any], dict[str, Any], np.ndarray], np.ndarray]
"""Changes `.zarray` and `.zattrs`, and returns the values to store."""


def _form(attributes: dict[str, Any] | None = None, drop: tuple[str, ...] = (), cast: str = "", **zarray: Any) -> Edit:
    def edit(document: dict[str, Any], attrs: dict[str, Any], values: np.ndarray) -> np.ndarray:
        for name in drop:
            attrs.pop(name, None)
        attrs.update(attributes or {})
        document.update(zarray)
        if cast:
            document["dtype"] = cast
            values = values.astype(cast)
        return values

    return edit


def _decoded(document: dict[str, Any], attrs: dict[str, Any], values: np.ndarray) -> np.ndarray:
    """As products are that hold reflectances, not counts."""
    for name in ("scale_factor", "add_offset"):
        attrs.pop(name)
    document.update(dtype="<f4", fill_value="NaN")
    return np.where(values == 0, np.nan, values * 1e-4 - 0.1).astype("<f4")


def _large(document: dict[str, Any], attrs: dict[str, Any], values: np.ndarray) -> np.ndarray:
    """Counts beyond the half of their range, where a signed number is negative."""
    document.update(dtype="<i2")
    attrs.update(_Unsigned="true")
    return (values + np.where(values > 0, 40_000, 0)).astype("<u2").view("<i2")


SIMPLE: dict[str, Edit] = {
    "plain": _form(),
    "blosc-lz4": _form(compressor={"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}),
    "slash": _form(dimension_separator="/"),
    "no-separator": lambda document, _attrs, values: document.pop("dimension_separator") and values,
    "no-offset": _form(drop=("add_offset",)),
    "no-scale": _form(drop=("scale_factor", "add_offset")),
    "null-fill": _form(fill_value=None),
    "nothing": _form(fill_value=None, drop=("scale_factor", "add_offset")),
    "other-fill": _form(fill_value=65535),
    "same-fill-twice": _form({"_FillValue": 0, "missing_value": 0}),
    "whole-offset": _form({"add_offset": -1}),
    "byte": _form(cast="|u1"),
    "scale-list": _form({"scale_factor": [0.0001], "add_offset": [-0.1]}),
}
ODD: dict[str, Edit] = {
    "order-f": _form(order="F"),
    "fill-attribute": _form({"_FillValue": 0}, fill_value=None),
    "missing-value": _form({"missing_value": 0}, fill_value=None),
    "missing-value-besides": _form({"missing_value": 1500}),
    "missing-values": _form({"missing_value": [0, 1500]}),
    "whole-scale": _form({"scale_factor": 2, "add_offset": 0.5}),
    "unsigned": _large,
    "big-endian": _form(cast=">u2"),
    "uint32": _form(cast="<u4"),
    "float": _decoded,
    "zlib": _form(compressor={"id": "zlib", "level": 1}),
    "gzip": _form(compressor={"id": "gzip", "level": 1}),
    "zstd": _form(compressor={"id": "zstd", "level": 1}),
    "lz4": _form(compressor={"id": "lz4", "acceleration": 1}),
    "uncompressed": _form(compressor=None),
    "delta": _form(filters=[{"id": "delta", "dtype": "<u2"}]),
}


TILED = " tiled"
"""After a form's name: in small chunks, those without data omitted. Else there are one or four, all of them there."""
PRODUCTS: dict[str, tuple[str, ...]] = {
    "simple": (*SIMPLE, *(name + TILED for name in list(SIMPLE)[1:])),  # there are 25 bands; plain in tiles: test_engines.py
    "odd": (*ODD, *(name + TILED for name in list(ODD)[:9])),
    "mixed": (*(name + TILED for name in SIMPLE), *(name + TILED for name in list(ODD)[9:])),
}
"""What the bands of each product are, in turn."""


def _edit(product: Path, forms: tuple[str, ...]) -> dict[str, str]:
    """Gives the bands of the product the forms, in turn, and returns which band has which."""
    document = json.loads((product / ".zmetadata").read_text())
    metadata = document["metadata"]
    bands = sorted(k.removesuffix("/.zarray") for k in metadata if k.startswith(BANDS) and len(metadata[k].get("shape", "")) == 2)
    given = {}
    for number, path in enumerate(bands):
        name = forms[number % len(forms)]
        values = zarr.open_array(str(product / path), mode="r")[...]
        zarray, zattrs = metadata[f"{path}/.zarray"], metadata[f"{path}/.zattrs"]
        if name.endswith(TILED):
            zarray["chunks"] = [n // 6 for n in zarray["shape"]]
        values = (SIMPLE | ODD)[name.removesuffix(TILED)](zarray, zattrs, values)
        for chunk in (product / path).glob("[0-9]*"):
            chunk.unlink()
        (product / path / ".zarray").write_text(json.dumps(zarray))
        (product / path / ".zattrs").write_text(json.dumps(zattrs))
        zarr.open_array(str(product / path), mode="r+", config={"write_empty_chunks": not name.endswith(TILED)})[...] = values
        given[path] = name
    (product / ".zmetadata").write_text(json.dumps(document))
    return given


def _make(folder: Path, *, forms: tuple[str, ...]) -> None:
    product = write_product(folder, ITEM_ID, size=SIZE)
    (folder / "given.json").write_text(json.dumps(_edit(product, forms)))


def _block_mean(values: np.ndarray, factor: int) -> np.ndarray:
    h, w = (n // factor * factor for n in values.shape)
    blocks = values[:h, :w].astype("f8").reshape(h // factor, factor, w // factor, factor)
    number = (~np.isnan(blocks)).sum(axis=(1, 3))
    return np.where(number == 0, np.nan, np.nansum(blocks, axis=(1, 3)) / np.maximum(1, number))


def _read(store: Path, levels: Iterable[str]) -> dict[str, dict[str, np.ndarray]]:
    return {
        level: {name: v.values for name, v in xr.open_dataset(store, engine="zarr", group=f"{BANDS}/{level}").data_vars.items()}
        for level in levels
    }


def _expected(product: Path, made: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """What each level has to be: native bands as xarray decodes them, others of the level that they are made of."""
    want = _read(product, ("r10m", "r20m", "r60m"))
    for level, factor in (("r20m", 2), ("r60m", 6)):
        want[level]["b08"] = _block_mean(want["r10m"]["b08"], factor)
    for level, (parent, factor) in OVERVIEWS.items():
        want[level] = {name: _block_mean(values, factor) for name, values in made[parent].items() if values.ndim == 2}
    return want


def _step(array: zarr.Array) -> float:
    """How far a mean may be from what an array stores; one whole step where "no data" is a number amid the others."""
    if array.dtype.kind == "f":
        return 1e-6
    amid = array.attrs.get("_FillValue", 0) not in (0, np.iinfo(array.dtype).max)
    return (1.001 if amid else 0.501) * abs(array.attrs.get("scale_factor", 1.0))


FORMS = [
    ("fast", "simple", 50, Encoding.DECODED, True), ("fast", "simple", 50, Encoding.PACKED, False),
    ("stock", "mixed", 50, Encoding.STOCK, False), ("stock", "mixed", 50, Encoding.PACKED, True),
    ("stock", "odd", 1024, Encoding.STOCK, True), ("stock", "odd", 1024, Encoding.PACKED, False),
]  # fmt: skip
"""Engine, forms of bands, chunk edge, encoding, sharding."""
UNPACKED = {"missing-value-besides", "missing-values", "unsigned", "uint32", "float"}
"""Forms that stay decoded: floats, wide numbers, and what says more than scale, offset and one missing value."""


@pytest.mark.filterwarnings("ignore:.*has multiple fill values.*")
@pytest.mark.parametrize(("asked", "name", "chunk", "encoding", "sharding"), FORMS)
def test_every_pixel_of_every_level_is_what_xarray_decodes(made_once, tmp_path, asked, name, chunk, encoding, sharding):
    folder = made_once(f"matrix-{name}", partial(_make, forms=PRODUCTS[name]))
    product, given = folder / f"{ITEM_ID}.zarr", json.loads((folder / "given.json").read_text())
    selection = select(parse(json.loads((product / ".zmetadata").read_text())["metadata"], "here"), BANDS)
    output, options = tmp_path / "o", engine.Options(chunk, sharding=sharding, encoding=encoding, engine=asked)
    done = stock.convert(product, selection, output, options, level="L2A")
    assert done.engine.startswith(asked)
    got, wrong = _read(output, ("r10m", "r20m", "r60m", *OVERVIEWS)), {}
    for level, bands in _expected(product, got).items():
        for band, want in bands.items():
            path = f"{BANDS}/{level}/{band}"
            array = zarr.open_array(str(output / path), mode="r")
            assert (array.shards is not None) == sharding
            native = path in given
            if native:
                packed = encoding is Encoding.PACKED and given[path].removesuffix(TILED) not in UNPACKED
                assert (array.dtype.kind in "iu") == packed, given[path]
            close = {"rtol": 1e-6, "atol": 0.0} if native else {"rtol": 1e-5, "atol": _step(array)}
            if not np.allclose(got[level][band], want, **close, equal_nan=True):
                wrong[path] = given.get(path, "made")
    assert wrong == {}
    assert set(given.values()) == set(PRODUCTS[name])
    assert verify.verify(product, selection, output, level="L2A", workers=2).failed == ()


@pytest.mark.parametrize("name", [*SIMPLE, *ODD])
def test_the_fast_engine_takes_no_form_that_it_does_not_know(product, name):
    """A band in any of the other forms leaves the product to the stock engine, which reads with zarr-python and xarray."""
    metadata = json.loads((product / ".zmetadata").read_text())["metadata"]
    path = f"{BANDS}/r20m/b05"
    ({**SIMPLE, **ODD}[name])(metadata[f"{path}/.zarray"], metadata[f"{path}/.zattrs"], np.ones((2, 2), "<u2"))
    reason = engine.reason_for_stock(select(parse(metadata, "here"), BANDS), engine.Options(engine="fast"), "L2A")
    assert (path in reason) == (name in ODD)


def test_an_unknown_key_of_the_format_is_no_form_to_guess(product):
    metadata = json.loads((product / ".zmetadata").read_text())["metadata"]
    metadata[f"{BANDS}/r20m/b05/.zarray"]["storage_transformers"] = [{"id": "rot13"}]
    reason = engine.reason_for_stock(select(parse(metadata, "here"), BANDS), engine.Options(engine="fast"), "L2A")
    assert "b05" in reason
