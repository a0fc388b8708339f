"""Readers of other people open what a conversion leaves: GDAL, rioxarray, rio-tiler. They see CRS, transform and nodata."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  # gives datasets `.rio`
import xarray as xr
import zarr
from command_line import arguments
from geozarr_runner.cli import main
from rio_tiler.io.xarray import XarrayReader

BANDS = "measurements/reflectance"
GROUPS = {
    f"{BANDS}/r10m": "b02", f"{BANDS}/r20m": "b08", f"{BANDS}/r60m": "b01", f"{BANDS}/r120m": "b02", f"{BANDS}/r720m": "b08",
    "quality/mask/r10m": "b02", "conditions/mask/l2a_classification/r20m": "scl", "quality/atmosphere/r60m": "aot",
}  # fmt: skip


ROOT = Path(__file__).parents[2]
LINES = [
    pytest.param(text, id=f"{page.name} {number}")
    for page in (ROOT / "README.md", ROOT / "docs" / "cookbook.md")
    for number, text in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))
    if "OUTPUT.zarr" in text
]


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("lines", LINES)
def test_the_lines_that_the_documents_show_open_an_output(converted, capsys, lines):
    exec(lines.replace("OUTPUT.zarr", str(converted)), {})  # our own pages
    assert capsys.readouterr().out.strip() not in ("", "nan")


def test_the_documents_show_such_lines():
    assert len(LINES) == 4


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize(("group", "band"), GROUPS.items())
def test_rioxarray_reads_crs_transform_and_nodata(converted, group, band):
    attributes = zarr.open_group(str(converted), mode="r")[group].attrs
    with xr.open_dataset(converted, engine="zarr", group=group, decode_coords="all") as found:
        assert found.rio.crs.to_epsg() == 32632
        assert list(found.rio.transform())[:6] == attributes["spatial:transform"]
        assert list(found[band].rio.bounds()) == attributes["spatial:bbox"]
        array = zarr.open_group(str(converted), mode="r")[f"{group}/{band}"]
        encoded = np.nan if array.dtype.kind == "f" else array.attrs.get("_FillValue")  # of packed numbers; flags have none
        assert encoded is None or np.isclose(found[band].rio.encoded_nodata, encoded, equal_nan=True)
        assert encoded is None or np.isnan(found[band].rio.nodata)
        if group == f"{BANDS}/r10m":
            assert 0.05 < float(found[band].isnull().mean()) < 0.1  # the edge of the swath


@pytest.mark.filterwarnings("ignore")  # of GDAL, that the root is no raster
@pytest.mark.parametrize(("group", "band"), GROUPS.items())
def test_gdal_reads_crs_transform_pixels_and_nodata(converted, group, band):
    found = zarr.open_group(str(converted), mode="r")[group]
    with rasterio.open(f'ZARR:"{converted}":/{group}/{band}') as raster:
        assert raster.crs.to_epsg() == 32632
        assert list(raster.transform)[:6] == pytest.approx(found.attrs["spatial:transform"])
        assert np.isclose(raster.nodata, found[band].fill_value, equal_nan=True), "of the numbers as they are stored"
        np.testing.assert_array_equal(raster.read(1), found[band][...])


@pytest.fixture(scope="module")
def others(product, native, tmp_path_factory):
    """Outputs that are not one file for each chunk of decoded values: sharded ones, and a mirror, which is packed as well."""
    folder = tmp_path_factory.mktemp("others")
    options = {"groups": f"{BANDS}/r60m", "sharding": "true", "spatial_chunk": 42}
    assert main(arguments(product, folder / "sharded", package="none", encoding="decoded", **options)) == 0
    assert main(arguments(product, folder / "packed", package="none", encoding="packed", **options)) == 0
    assert main(arguments(native, folder / "mirror", package="none")) == 0
    return folder


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize(
    ("store", "level", "band"),
    [
        ("sharded", "r60m", "b01"),
        ("packed", "r60m", "b01"),
        ("mirror", "r10m", "b02"),
        ("mirror", "r20m", "b05"),
        ("mirror", "r120m", "b02"),
    ],
)
def test_rioxarray_reads_sharded_and_packed_outputs(others, product, native, store, level, band):
    """GDAL does not yet: 3.12 knows no codec `sharding_indexed`."""
    group = f"{BANDS}/{level}"
    array = zarr.open_group(str(others / store), mode="r")[group][band]
    assert array.shards is not None
    with xr.open_dataset(native if store == "mirror" else product, engine="zarr", group=group) as source:
        want = source[band].values
    with xr.open_dataset(others / store, engine="zarr", group=group, decode_coords="all") as found:
        assert found.rio.crs.to_epsg() == 32632
        attributes = zarr.open_group(str(others / store), mode="r")[group].attrs
        assert list(found.rio.transform())[:6] == pytest.approx(attributes["spatial:transform"])
        np.testing.assert_allclose(found[band].values, want, rtol=1e-6)
        assert 0 < float(found[band].isnull().mean()) < 0.5


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize(
    ("store", "level", "band"),
    [
        ("chunks", "r10m", "b02"),
        ("chunks", "r720m", "b08"),
        ("sharded", "r60m", "b01"),
        ("mirror", "r10m", "b02"),
        ("mirror", "r120m", "b02"),
    ],
)
def test_rio_tiler_reads_pixels_and_masks_nodata(converted, others, store, level, band):
    """What tile servers read with: a part in the store's own CRS, and the pixel under a point."""
    path = converted if store == "chunks" else others / store
    with xr.open_dataset(path, engine="zarr", group=f"{BANDS}/{level}", decode_coords="all") as found:
        values = found[band].values
        with XarrayReader(found[band]) as reader:
            assert reader.crs.to_epsg() == 32632
            part = reader.part(reader.bounds, bounds_crs=reader.crs, dst_crs=reader.crs)
            assert part.data.shape[1:] == values.shape
            np.testing.assert_array_equal(part.array.mask[0], np.isnan(values))
            np.testing.assert_allclose(part.array[0].compressed(), values[~np.isnan(values)], rtol=1e-6)
            row, column = np.argwhere(~np.isnan(values))[-1]
            at = reader.point(float(found.x[column]), float(found.y[row]), coord_crs=reader.crs)
            assert float(at.data[0]) == pytest.approx(float(values[row, column]))
