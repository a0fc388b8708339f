"""The fast engine writes what the stock one writes, bit for bit, or steps back; an upgrade of the converter has to pass this."""

from __future__ import annotations

import dataclasses
import errno
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr
from geozarr_runner.convert import adopt, arithmetic, encoding, engine
from geozarr_runner.convert import fast as chunks
from geozarr_runner.convert import stock as convert
from geozarr_runner.source.metadata import parse
from geozarr_runner.source.product import select
from geozarr_runner.verify import expected, verify

from stac_watch.demo.product import write_product
from stac_watch.model.errors import InputError
from stac_watch.model.forms import Encoding

pytestmark = pytest.mark.long

BANDS = "measurements/reflectance"
FAST = engine.Options(engine="fast")
OF_EACH_KIND = f"{BANDS} quality/mask quality/atmosphere/r20m conditions/mask/l2a_classification/r20m"  # of what has pixels
LAYOUTS = {"cpm260": False, "tiled": True}
ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"


def _selection(product: Path, groups: str = ""):
    return select(parse(json.loads((product / ".zmetadata").read_text())["metadata"], "here"), groups)


def _convert(product: Path, folder: Path, asked: str, groups: str, level: str = "L2A", **options):
    options = engine.Options(engine=asked, **options)
    return convert.convert(product, _selection(product, groups), folder, options, level=level)


@pytest.fixture(scope="session")
def with_everything(made_once) -> dict[str, Path]:
    """Both layouts, at a size that leaves remainders in every level, with reflectances around 0 and an absent chunk."""
    return {name: made_once(name, partial(_with_everything, tiled=tiled)) / f"{ITEM_ID}.zarr" for name, tiled in LAYOUTS.items()}


def _with_everything(folder: Path, *, tiled: bool) -> None:
    product = write_product(folder, ITEM_ID, size=1080, tiled=tiled)
    group = zarr.open_group(str(product), mode="r+", use_consolidated=False)
    for path in (f"{BANDS}/r10m/b08", f"{BANDS}/r60m/b01"):
        values = group[path][...]
        values[:60, -60:] = np.random.default_rng(1).integers(990, 1010, (60, 60))  # the offset's DN: sums cancel, nearly
        group[path][...] = values
    if tiled:
        for band in (product / BANDS / "r10m").glob("b*"):
            (band / "0.0").unlink()  # legal when all bands lack it: nodata


@pytest.mark.parametrize(
    ("layout", "encoding", "sharding", "chunk", "groups"),
    [
        ("cpm260", "stock", False, 1024, ""),
        ("cpm260", "stock", False, 200, OF_EACH_KIND),  # chunks that cross the source's, and some without data
        ("tiled", "stock", False, 170, f"{BANDS} quality/atmosphere/r20m"),
        ("tiled", "stock", False, 1024, f"{BANDS}/r10m {BANDS}/r20m conditions/geometry"),  # no r60m: a scaffold is trimmed
        ("cpm260", "packed", False, 200, OF_EACH_KIND),
        ("tiled", "packed", True, 170, f"{BANDS} quality/mask/r20m"),
    ],
)
def test_both_engines_write_the_same_files_with_the_same_bytes(
    with_everything, tree, tmp_path, layout, encoding, sharding, chunk, groups
):
    product, options = with_everything[layout], {"encoding": Encoding(encoding), "sharding": sharding, "spatial_chunk": chunk}
    fast = _convert(product, tmp_path / "fast", "fast", groups, **options)
    stock = _convert(product, tmp_path / "stock", "stock", groups, **options)
    assert (fast.engine, stock.engine) == ("fast", "stock: asked for")
    assert fast.checks == stock.checks
    mine, theirs = tree(tmp_path / "fast"), tree(tmp_path / "stock")
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == []
    assert sum(name.endswith("zarr.json") for name in mine) > 20, "metadata was compared too"
    assert not list(tmp_path.glob("*-chunks"))


def test_both_engines_inject_the_same_bands_into_a_product_of_level_1c(own_product, tree, tmp_path):
    """Every finer band into every coarser group, in the converter's order; packed and in shards it is what its source says."""
    for name in (".zattrs", ".zmetadata"):
        (own_product / name).write_text((own_product / name).read_text().replace("S02MSIL2A", "S02MSIL1C"))
    document = json.loads((own_product / ".zmetadata").read_text())
    own = {"r10m": ("b02", "b03", "b04", "b08"), "r20m": ("b05", "b06", "b07", "b8a", "b11", "b12"), "r60m": ("b01", "b09")}
    spared = [f"{BANDS}/{level}/{band}/" for level, bands in own.items() for band in (*bands, "x", "y")]
    for key in [k for k in document["metadata"] if k.startswith(f"{BANDS}/r") and k.count("/") == 4]:
        if not key.startswith(tuple(spared)):
            del document["metadata"][key]
    (own_product / ".zmetadata").write_text(json.dumps(document))
    for name, options in {"fast": {}, "stock": {}, "packed": {"encoding": Encoding.PACKED, "sharding": True}}.items():
        form = {"encoding": Encoding.STOCK, "spatial_chunk": 200, **options}
        done = _convert(own_product, tmp_path / name, name.replace("packed", "fast"), BANDS, level="L1C", **form)
        assert done.engine == name.replace("packed", "fast").replace("stock", "stock: asked for")
    mine, theirs = tree(tmp_path / "fast"), tree(tmp_path / "stock")
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == []
    found = verify.verify(own_product, _selection(own_product, BANDS), tmp_path / "packed", level="L1C", workers=2)
    assert found.failed == ()
    assert sum(finding.kind == "injected" for finding in found.findings) == 14


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fill_value": 0.0}, "has fill_value 0.0"),
        ({"data_type": "float64"}, 'has data_type "float64"'),
        ({"shape": [1, 1]}, "has shape [1, 1]"),
        ({"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}]}, "has codecs"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [7, 7]}}}, "has chunk_grid"),
        ({"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}}}, "has chunk_key_encoding"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_chunks_are_not_adopted_by_metadata_they_were_not_made_for(converted, tmp_path, change, words):
    path = f"{BANDS}/r60m/b01"
    document = json.loads((converted / path / "zarr.json").read_text())
    document |= encoding.STOCK.words(tuple(document["shape"]), encoding.chunk_shape(document), sharded=False)
    folder, beside = tmp_path / "o", tmp_path / "o-chunks"
    (folder / path).mkdir(parents=True)
    (beside / path / "c").mkdir(parents=True)
    made_for = {path: adopt.Written(tuple(document["shape"]), encoding.chunk_shape(document), encoding.STOCK)}
    (folder / path / "zarr.json").write_text(json.dumps(document | change))
    with pytest.raises(encoding.Unexpected, match=path) as refusal:
        adopt.adopt(beside, folder, made_for)
    assert words in str(refusal.value)
    assert not (folder / path / "c").exists()
    (folder / path / "zarr.json").write_text(json.dumps(document))
    adopt.adopt(beside, folder, made_for)
    assert (folder / path / "c").exists()


def test_an_array_that_the_converter_did_not_write_is_a_refusal_too(tmp_path):
    with pytest.raises(encoding.Unexpected, match="wrote no a/b"):
        adopt.adopt(tmp_path, tmp_path, {"a/b": adopt.Written((1, 1), (1, 1), encoding.STOCK)})


def test_a_failing_metadata_pass_gives_way_to_the_stock_engine(own_product, tmp_path):
    """The fast engine must say so, and `convert` must not take half of its work."""
    selection = _selection(own_product, f"{BANDS}/r60m")
    (own_product / ".zmetadata").write_text("{")
    with pytest.raises(encoding.Unexpected, match="the metadata pass ended with 1"):
        chunks.write(own_product, selection, tmp_path / "o", FAST, level="L2A", advance=lambda _: None)
    assert not (tmp_path / "o-chunks").exists()


def test_a_metadata_pass_that_cannot_write_is_no_reason_for_the_stock_engine(product, tmp_path):
    """A full disk is one for both; here the folder cannot be one."""
    selection = _selection(product, f"{BANDS}/r60m")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file") as failure:
        chunks.write(product, selection, tmp_path / "file", FAST, level="L2A", advance=lambda _: None)
    assert failure.value.errno in (errno.ENOTDIR, errno.EEXIST)
    assert not (tmp_path / "file-chunks").exists()


def _with(array, **changes):
    return dataclasses.replace(array, **changes)


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        (f"{BANDS}/r10m/b02", {"compressor": {"id": "zlib", "level": 1}}),
        (f"{BANDS}/r20m/b05", {"filters": ({"id": "delta", "dtype": "<u2"},)}),
        (f"{BANDS}/r60m/b01", {"dtype": "<f4"}),
        (f"{BANDS}/r10m/b03", {"dtype": ">u2"}),
    ],
    ids=["codec", "filter", "float", "byte-order"],
)
def test_reflectance_in_an_unknown_form_is_left_to_the_stock_engine(product, path, changes):
    selection = _selection(product)
    assert engine.reason_for_stock(selection, FAST, "L2A") == ""
    arrays = tuple(_with(a, **changes) if a.path == path else a for a in selection.arrays)
    assert path in engine.reason_for_stock(dataclasses.replace(selection, arrays=arrays), FAST, "L2A")


def test_the_converters_shards_and_other_products_are_left_to_the_stock_engine_or_refused(product, tmp_path):
    selection = _selection(product)
    theirs = engine.Options(engine="fast", sharding=True, encoding=Encoding.STOCK)
    assert "the converter's own shards" in engine.reason_for_stock(selection, theirs, "L2A")
    assert engine.reason_for_stock(selection, dataclasses.replace(theirs, encoding=Encoding.DECODED), "L2A") == ""
    assert engine.reason_for_stock(selection, FAST, "L1C") == ""
    assert "neither L1C nor L2A" in engine.reason_for_stock(selection, FAST, "L3")
    assert "no array that would be written faster" in engine.reason_for_stock(
        _selection(product, "conditions/geometry"), FAST, "L2A"
    )
    with pytest.raises(InputError, match="the fast engine cannot do this: the converter's own shards"):
        convert.convert(product, selection, tmp_path / "o", theirs, level="L2A")


@pytest.mark.parametrize("holes", [0.3, 0.0])
@pytest.mark.parametrize("factor", [2, 3, 6])
def test_block_means_are_those_of_numpy_to_the_last_bit(factor, holes):
    rng = np.random.default_rng(7)
    for dtype in ("f4", "f8"):
        values = rng.normal(0.1, 0.2, (37, 61)).astype(dtype)
        values[rng.random(values.shape) < holes] = np.nan
        values[:6, :6] = np.nan if holes else values[:6, :6]
        h, w = (n // factor * factor for n in values.shape)
        blocks = values[:h, :w].reshape(h // factor, factor, w // factor, factor)
        empty = np.isnan(blocks).all(axis=(1, 3))
        want = np.where(
            empty, np.nan, np.nansum(blocks, axis=(1, 3)) / np.maximum(1, (~np.isnan(blocks)).sum(axis=(1, 3))).astype(dtype)
        )
        np.testing.assert_array_equal(arithmetic.block_mean(values, factor), want.astype(dtype))
        judged = expected.block_mean(values, factor)  # the judge's own, one rounding later
        np.testing.assert_allclose(judged, want, rtol=1e-6, atol=1e-7)
