"""The values of every array of a product, by what its path says it is.

An array that no rule knows is filled with its fill value, so that a newer product's structure still works.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stac_watch.demo.scene import Scene
from stac_watch.demo.tiles import Tile

Array = NDArray[Any]

_BAND_ORDER = ("b01", "b02", "b03", "b04", "b05", "b06", "b07", "b08", "b8a", "b09", "b10", "b11", "b12")
_LEVEL = re.compile(r"/r(10|20|60)m/")
_METEO: dict[str, tuple[float, float]] = {  # typical value and spread over a tile
    "msl": (101_500, 300), "r": (55, 12), "tco3": (0.006, 0.0002), "tcwv": (15, 3), "u10": (2, 1.5), "v10": (-1, 1.5),
    "z": (3_000, 2_000),
}  # fmt: skip
_AEROSOL = (0.08, 0.03)


def values(scene: Scene, tile: Tile, path: str, node: dict[str, Any]) -> Array:
    """Returns the pixels of the array at `path` (`/measurements/reflectance/r10m/b02`).

    Args:
        scene: the acquisition; its size is that of r10m.
        tile: where coordinates start.
        path: the array's absolute path in the product.
        node: its Zarr v2 metadata; `shape` and `dtype` are obeyed.
    """
    shape, dtype = tuple(node["shape"]), np.dtype(node["dtype"])
    group, _, name = path.rpartition("/")
    level = _LEVEL.search(path)
    made: Array | None = None
    if level and name in ("x", "y"):
        made = _axis(tile, name, shape[0], int(level[1]), offset=0.5)
    elif level and len(shape) >= 2:
        made = _raster(scene, group, name, int(level[1]))
    elif "/geometry/" in path:
        made = _geometry(tile, name, shape)
    elif "/meteorology/" in path:
        made = _meteorology(scene, tile, path, name, shape)
    elif name == "band" and shape:
        made = np.arange(1, shape[0] + 1)
    if made is None:
        fill = 0 if node["fill_value"] is None else node["fill_value"]
        return np.full(shape, float(fill) if dtype.kind == "f" else fill, dtype)
    return np.broadcast_to(made, shape).astype(dtype)


def _axis(tile: Tile, name: str, count: int, spacing: int, *, offset: float) -> Array:
    """Coordinates in metres from the tile's upper left corner; offset 0.5 gives pixel centres."""
    steps = (np.arange(count) + offset) * spacing
    return tile.left + steps if name == "x" else tile.top - steps


def _raster(scene: Scene, group: str, name: str, gsd: int) -> Array | None:  # one line per kind of layer
    cover = scene.cover(gsd)
    if "/reflectance/" in group:
        counts: Array = np.nan_to_num(np.clip(np.rint(scene.reflectance(gsd, name) * 10_000) + 1_000, 1, 65_535), nan=0)
        return counts
    if "/l2a_quicklook/" in group or "/l1c_quicklook/" in group:
        return np.stack([_screen(scene.reflectance(gsd, band)) for band in ("b04", "b03", "b02")])
    if name == "scl":
        return scene.classification if gsd == 20 else scene.classification[1::3, 1::3]
    if name in ("cld", "snw"):
        share = scene.clouds(gsd) if name == "cld" else scene.snow(gsd)
        return np.where(cover.nodata, 0, np.rint(share * 100))
    if name in ("aot", "wvp"):
        low, high = (60, 140) if name == "aot" else (900, 2_200)
        return np.where(cover.nodata, 0, np.rint(low + (high - low) * scene.smooth(name, cover.nodata.shape[0])))
    if "/detector_footprint/" in group:
        return np.where(cover.nodata, 0, 4 + np.arange(cover.nodata.shape[1]) * 3 // cover.nodata.shape[1])
    if "/l1c_classification/" in group:
        clouds = scene.clouds(gsd)
        return (
            np.where(clouds > 0.5, 1, 0) | np.where((clouds > 0.12) & (clouds <= 0.5), 2, 0) | np.where(scene.snow(gsd) > 0.5, 4, 0)
        )
    if "/quality/mask/" in group:
        return np.where(cover.nodata, 32, 0)  # QT_NODATA_PIXELS
    return None


def _screen(reflectance: Array) -> Array:
    """True colour as products carry it: 0 is nodata, 255 is a reflectance of 0.28 and more."""
    shown: Array = np.nan_to_num(np.clip(np.rint(reflectance / 0.28 * 254) + 1, 1, 255), nan=0)
    return shown


def _geometry(tile: Tile, name: str, shape: tuple[int, ...]) -> Array | None:
    steps = np.linspace(0, 1, 23)
    sun = np.stack([49.0 + 0.9 * np.add.outer(steps, -0.1 * steps), 163.5 + 1.4 * np.add.outer(0.2 * steps, steps)])
    view = np.stack([2.0 + 6.0 * np.add.outer(0.1 * steps, steps), 105.0 + 8.0 * np.add.outer(steps, 0.3 * steps)])
    made: dict[str, Array] = {
        "angle": np.array(["zenith", "azimuth"]),
        "band": np.array(_BAND_ORDER),
        "x": _axis(tile, "x", 23, 5_000, offset=0),
        "y": _axis(tile, "y", 23, 5_000, offset=0),
        "sun_angles": sun,
        "mean_sun_angles": sun.mean(axis=(1, 2)),
        "mean_viewing_incidence_angles": np.tile(view.mean(axis=(1, 2)), (13, 1)),
    }
    if name == "detector":
        return np.arange(4, 4 + shape[0])
    if name == "viewing_incidence_angles":
        return _detector_strips(view, shape[1])
    return made.get(name)


def _detector_strips(view: Array, detectors: int) -> Array:
    """Viewing angles per detector: NaN outside its strip of the swath, as in real products."""
    strips = np.arange(23) * detectors // 23
    seen = strips[None, :] == np.arange(detectors)[:, None]  # detector, x
    return np.where(seen[:, None, None, :], view[None], np.nan)  # detector, angle, y, x; the same for each band


def _meteorology(scene: Scene, tile: Tile, path: str, name: str, shape: tuple[int, ...]) -> Array | None:
    west, south, east, north = tile.bbox()
    if name in ("latitude", "longitude"):
        return np.linspace(north, south, shape[0]) if name == "latitude" else np.linspace(west, east, shape[0])
    if len(shape) != 2:
        return np.array({"isobaricInhPa": 1_000.0, "step": 600.0}.get(name, 0.0))
    typical, spread = _METEO.get(name, _AEROSOL)
    field: Array = typical + spread * (2 * scene.smooth(path, 9) - 1)
    return field
