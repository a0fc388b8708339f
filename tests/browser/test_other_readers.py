"""OpenLayers draws each kind of output in Chromium, level by level, and zarrita reads it: CRS, pixels, transparent nodata."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from geozarr_runner.cli import main
from other_readers import Readers, reading

from stac_watch.demo.native import write_native
from stac_watch.demo.product import write_product

BANDS = "measurements/reflectance"
OLD = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
NEW = "S2C_MSIL2A_20260927T133931_N0513_R067_T32TQM_20260927T170511"
RGB = ("b04", "b03", "b02")
LEVELS = (10, 20, 60, 120, 360, 720)
KINDS = {
    "chunks": {"groups": BANDS, "spatial-chunk": 132},
    "shards": {"groups": BANDS, "spatial-chunk": 66, "sharding": "true"},
    "mirror": {},
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("read")
    product = write_product(folder, OLD, size=396)  # 5.5 pixels of r720m: the remainder that a real tile has, too
    native = write_native(folder, NEW, size=360, chunk=120)  # none: such stores name no box for all levels, see cookbook.md
    made = {}
    for name, options in KINDS.items():
        made[name] = folder / "outputs" / name
        asked = {"stac-url": native if name == "mirror" else product, "output-zarr": made[name], "package": "none", **options}
        assert main(["run", *(word for key, value in asked.items() for word in (f"--{key}", str(value)))]) == 0
    return made


@pytest.fixture(scope="module")
def readers(stores, browser) -> Readers:
    with reading(browser, stores) as page:
        yield page


def _level(store: Path, metres: int, **how: object) -> xr.Dataset:
    with xr.open_dataset(store, engine="zarr", group=f"{BANDS}/r{metres}m", **how) as level:
        return level.load()


def _places(level: xr.Dataset) -> list[tuple[int, int]]:
    """Rows and columns of pixels inside and outside of what the sensor saw, never at the tile's edge."""
    seen = ~np.isnan(level["b04"].values)
    inner = np.zeros_like(seen)
    inner[1:-1, 1:-1] = True
    return [tuple(np.argwhere(part & inner)[n]) for part in (seen, ~seen) for n in (0, -1) if (part & inner).any()]


@pytest.mark.parametrize("kind", KINDS)
def test_openlayers_draws_every_level(readers, stores, kind):
    """As they are stored: it knows neither scale nor offset. What is nodata is transparent."""
    left, top = (f(_level(stores[kind], 10)[axis].values) for f, axis in ((np.min, "x"), (np.max, "y")))
    for metres in LEVELS:
        level, packed = _level(stores[kind], metres), _level(stores[kind], metres, mask_and_scale=False)
        pixels = _places(level)
        places = [[float(level.x[column]), float(level.y[row])] for row, column in pixels]
        shown = readers.draw(f"{kind}/{BANDS}", bands=list(RGB), resolution=metres, places=places, least=0, most=1)
        assert (shown["projection"], sorted(shown["resolutions"])) == ("EPSG:32632", list(expected(stores[kind])))
        assert (shown["extent"][0] + 5, shown["extent"][3] - 5) == (left, top)
        for (row, column), values in zip(pixels, shown["seen"], strict=True):
            if np.isnan(float(level["b04"][row, column])):
                assert values[-1] == 0
            else:
                assert values == pytest.approx([*(float(packed[band][row, column]) for band in RGB), 1], rel=1e-6)


def expected(store: Path) -> list[float]:
    """Pixel sizes as OpenLayers computes them, from one box and each level's shape: r720m is wider where it has a remainder."""
    finest = _level(store, 10)
    return [10 * finest.x.size / _level(store, metres).x.size for metres in LEVELS]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metres", [10, 720])
def test_zarrita_reads_the_same_numbers(readers, stores, kind, metres):
    stored = _level(stores[kind], metres, mask_and_scale=False)["b04"].values
    places = [[int(a), int(b)] for a, b in itertools.product((0, stored.shape[0] // 2, stored.shape[0] - 1), repeat=2)]
    found = readers.read(kind, f"{BANDS}/r{metres}m/b04", places)
    assert found["shape"] == list(stored.shape)
    assert found["values"] == [None if np.isnan(stored[a, b]) else pytest.approx(float(stored[a, b])) for a, b in places]
