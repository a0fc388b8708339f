"""The product is what a real one is: same tree, same encoding, a picture that hangs together. tests/runner convert it."""

from __future__ import annotations

import hashlib
import json
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stac_watch.demo.product import write_product, write_structure
from stac_watch.demo.structure import SIZES, l2a_structure
from stac_watch.demo.tiles import parse_tile
from stac_watch.model.errors import CannotWrite, InputError

from .conftest import PRODUCT, real_structure, walk_nodes

SIZE = 360


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_product(tmp_path_factory.mktemp("products"), PRODUCT, size=SIZE)


@pytest.fixture(scope="module")
def tree(product: Path) -> xr.DataTree:
    """Opened by other code than wrote it; pytest turns every warning into an error."""
    with xr.open_datatree(product, engine="zarr") as opened:
        return opened.load()


def digest(folder: Path) -> str:
    parts = [
        f"{p.relative_to(folder)} {hashlib.sha256(p.read_bytes()).hexdigest()}" for p in sorted(folder.rglob("*")) if p.is_file()
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def test_same_arguments_same_bytes_and_each_argument_counts(tmp_path: Path) -> None:
    def of(name: str, item_id: str = PRODUCT, **changes) -> str:
        return digest(write_product(tmp_path / name, item_id, **({"size": 144} | changes)))

    first = of("a")
    assert of("b") == first
    others = {of("c", seed=1), of("d", PRODUCT.replace("20251008T1000", "20251011T1000")), of("e", tiled=True)}
    assert len(others | {first}) == 4


def test_reprocessing_shows_the_same_ground_on_another_day(tmp_path: Path, tree: xr.DataTree) -> None:
    with xr.open_datatree(write_product(tmp_path, PRODUCT, size=SIZE, seed=1), engine="zarr") as again:
        first, second = (t["conditions/mask/l2a_classification/r20m"].scl.values for t in (tree, again))
        clear = np.isin(first, (4, 5, 6)) & np.isin(second, (4, 5, 6))
        assert (first[clear] == second[clear]).mean() > 0.95
        assert (first != second).mean() > 0.1, "clouds moved"
        red = [t["measurements/reflectance/r20m"].b04.values[clear] for t in (tree, again)]
        assert (red[0] != red[1]).mean() > 0.5


@pytest.mark.parametrize("name", ["S2A_MSIL2A", "S2C_MSIL2A"])
def test_structure_is_that_of_a_real_product(name: str) -> None:
    real = real_structure(name)
    item_id = real["attributes"]["stac_discovery"]["id"].removesuffix(".SAFE")
    ours, theirs = dict(walk_nodes(l2a_structure(item_id))), dict(walk_nodes(real))
    assert ours.keys() == theirs.keys()
    encoding = ("dtype", "shape", "chunks", "fill_value", "compressor", "order", "filters", "dimension_separator", "zarr_format")
    for path, node in theirs.items():
        assert {k: ours[path].get(k) for k in encoding} == {k: node.get(k) for k in encoding}, path
        if "/r10m/" in path or "/r20m/" in path or "/r60m/" in path:
            # The three satellites differ by a few nanometres, which is all that a long name tells.
            wavelength = {"long_name": None, "_eopf_attrs": None} if "/reflectance/" in path else {}
            assert ours[path]["attributes"] | wavelength == node["attributes"] | wavelength, path
        assert ours[path]["attributes"].get("_ARRAY_DIMENSIONS") == node["attributes"].get("_ARRAY_DIMENSIONS"), path


@pytest.mark.parametrize("name", ["S2A_MSIL2A", "S2C_MSIL2A", "S2B_MSIL1C"])
def test_tile_lies_where_the_real_one_does(name: str) -> None:
    real = real_structure(name)
    band = dict(walk_nodes(real))["/measurements/reflectance/r10m/b02"]["attributes"]
    tile = parse_tile(real["attributes"]["stac_discovery"]["id"].split("_")[5])
    assert [float(tile.left), float(tile.top)] == [band["proj:transform"][2], band["proj:transform"][5]]
    assert (tile.epsg, tile.wkt) == (band["proj:epsg"], band["proj:wkt2"])


@pytest.mark.parametrize("name", ["T61AAA", "T32TZZ", "32TQM", "T32IQM", "T00TQM", ""])
def test_what_is_no_tile_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="not the name of an MGRS square"):
        parse_tile(name)


@pytest.mark.parametrize("name", ["S2A_MSIL2A", "S2C_MSIL2A", "S2B_MSIL1C"])
def test_real_structure_is_reduced_in_proportion(name: str, tmp_path: Path) -> None:
    real = real_structure(name)
    written = json.loads((write_structure(real, tmp_path / "x.zarr", size=SIZE) / ".zmetadata").read_text())["metadata"]
    for path, node in walk_nodes(real):
        if "members" in node:
            assert f"{path}/.zgroup".lstrip("/") in written
            continue
        array = written[f"{path}/.zarray".lstrip("/")]
        level = next((gsd for gsd in SIZES if f"/r{gsd}m/" in path), None)
        full = [dim == SIZES[level] if level else False for dim in node["shape"]]
        ratio = SIZE / SIZES[10]
        for kind in ("shape", "chunks"):
            wanted = [ceil(round(value * ratio, 6)) if is_full else value for value, is_full in zip(node[kind], full, strict=True)]
            assert array[kind] == wanted, (path, kind)
        assert array["dtype"] == node["dtype"]
    with xr.open_datatree(tmp_path / "x.zarr", engine="zarr") as opened:
        assert opened["measurements/reflectance/r10m"].b02.shape == (SIZE, SIZE)


def test_every_chunk_is_there(product: Path) -> None:
    metadata = json.loads((product / ".zmetadata").read_text())["metadata"]
    arrays = {path.removesuffix("/.zarray"): node for path, node in metadata.items() if path.endswith("/.zarray")}
    assert len(arrays) > 140
    for path, node in arrays.items():
        expected = np.prod([ceil(s / c) for s, c in zip(node["shape"], node["chunks"], strict=True)], dtype=int)
        assert len([p for p in (product / path).iterdir() if not p.name.startswith(".")]) == expected, path


def test_nodata_wedge_is_raw_zero_and_the_same_at_every_resolution(product: Path, tree: xr.DataTree) -> None:
    raw = xr.open_zarr(product, group="measurements/reflectance/r10m", mask_and_scale=False).b02.values
    outside = raw == 0
    assert 0.04 < outside.mean() < 0.10
    assert np.array_equal(outside, np.isnan(tree["measurements/reflectance/r10m"].b08.values))
    for gsd, factor in ((20, 2), (60, 6)):
        coarse = np.isnan(tree[f"measurements/reflectance/r{gsd}m"].b11.values)
        touched = outside.reshape(SIZE // factor, factor, SIZE // factor, factor).any(axis=(1, 3))
        assert np.array_equal(coarse, touched)
    assert np.array_equal(
        tree["conditions/mask/l2a_classification/r20m"].scl.values == 0, np.isnan(tree["measurements/reflectance/r20m"].b11)
    )


def test_classification_agrees_with_the_spectra(tree: xr.DataTree) -> None:
    bands = tree["measurements/reflectance/r20m"].ds
    scl = tree["conditions/mask/l2a_classification/r20m"].scl.values
    ndvi = ((bands.b8a - bands.b04) / (bands.b8a + bands.b04)).values
    mean = {
        int(code): (float(ndvi[scl == code].mean()), float(bands.b02.values[scl == code].mean())) for code in np.unique(scl) if code
    }
    assert mean[4][0] > 0.5 > mean[5][0] > 0 > mean[6][0], "vegetation, soil, water"
    assert mean[9][1] > 0.4 > mean[8][1] > mean[10][1] > mean[4][1], "cloud, thinner cloud, cirrus, ground in blue"
    assert 0.05 < np.isin(scl, (8, 9, 10)).mean() < 0.5


def test_picture_is_smooth_like_ground_and_not_noise(tree: xr.DataTree) -> None:
    values = tree["measurements/reflectance/r10m"].b04.values
    both = ~np.isnan(values[:, 1:]) & ~np.isnan(values[:, :-1])
    assert np.corrcoef(values[:, 1:][both], values[:, :-1][both])[0, 1] > 0.95
    mean = values.reshape(SIZE // 2, 2, SIZE // 2, 2).mean(axis=(1, 3))
    coarse = tree["measurements/reflectance/r20m"].b04.values
    seen = ~np.isnan(coarse)
    assert np.abs(mean[seen] - coarse[seen]).max() < 0.005


def test_coordinates_are_pixel_centres_in_metres(tree: xr.DataTree) -> None:
    tile = parse_tile("T32TQM")
    for gsd in SIZES:
        group = tree[f"measurements/reflectance/r{gsd}m"]
        assert (float(group.x[0]), float(group.y[0])) == (tile.left + gsd / 2, tile.top - gsd / 2)
        assert set(np.diff(group.x)) == {gsd}
        assert set(np.diff(group.y)) == {-gsd}
        transform = group["b02" if gsd == 10 else "b11"].attrs["proj:transform"]
        assert transform[:6] == [gsd, 0, tile.left, 0, -gsd, tile.top]


def test_angles_and_weather_are_finite_where_real_ones_are(tree: xr.DataTree) -> None:
    geometry = tree["conditions/geometry"]
    assert list(geometry.angle.values) == ["zenith", "azimuth"]
    assert geometry.sun_angles.notnull().all()
    assert 0.7 < float(geometry.viewing_incidence_angles.isnull().mean()) < 0.9  # each of six detectors sees a sixth
    for name in ("cams", "ecmwf"):
        assert all(variable.notnull().all() for variable in tree[f"conditions/meteorology/{name}"].data_vars.values())


@pytest.mark.parametrize("size", [0, 60, 100, 721])
def test_a_size_that_breaks_the_pyramid_is_refused(size: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiple of 12"):
        write_product(tmp_path, PRODUCT, size=size)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_product_is_left_alone(tmp_path: Path) -> None:
    path = write_product(tmp_path, PRODUCT, size=72)
    before = digest(path)
    with pytest.raises(InputError, match="exists already"):
        write_product(tmp_path, PRODUCT, size=72, seed=1)
    assert digest(path) == before


def test_an_id_that_is_no_product_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a Sentinel-2 product id"):
        write_product(tmp_path, "S3A_OLCI", size=72)


def test_a_folder_that_cannot_be_written_says_so_and_stays_clean(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotWrite, match="file"):
        write_product(tmp_path / "file", PRODUCT, size=72)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
