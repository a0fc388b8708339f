"""A plausible Sentinel-2 scene as arrays: terrain, water, fields, forest, snow, clouds and their spectra.

The tile's name decides the ground, item and seed the day.

How: multi-octave value noise gives height and moisture; they decide what covers the ground; each cover has a spectrum. Mixing is
linear, so a coarser resolution is the block mean of the finer one and all bands and resolutions agree with each other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Bottom-of-atmosphere reflectance of each cover per band, after typical Sentinel-2 signatures.
_SPECTRA: dict[str, tuple[float, ...]] = {
    #         water  forest crop   soil   rock   snow   cloud
    "b01": (0.055, 0.022, 0.035, 0.070, 0.120, 0.880, 0.550),
    "b02": (0.050, 0.024, 0.040, 0.090, 0.130, 0.900, 0.560),
    "b03": (0.045, 0.042, 0.078, 0.130, 0.150, 0.890, 0.570),
    "b04": (0.028, 0.026, 0.045, 0.180, 0.165, 0.870, 0.580),
    "b05": (0.022, 0.065, 0.120, 0.205, 0.175, 0.860, 0.590),
    "b06": (0.018, 0.170, 0.330, 0.225, 0.180, 0.840, 0.610),
    "b07": (0.016, 0.210, 0.420, 0.240, 0.185, 0.820, 0.620),
    "b08": (0.014, 0.225, 0.450, 0.255, 0.190, 0.800, 0.630),
    "b8a": (0.012, 0.240, 0.470, 0.270, 0.195, 0.780, 0.630),
    "b09": (0.010, 0.240, 0.470, 0.275, 0.195, 0.700, 0.550),
    "b10": (0.002, 0.003, 0.003, 0.003, 0.003, 0.010, 0.040),
    "b11": (0.006, 0.120, 0.200, 0.340, 0.230, 0.120, 0.450),
    "b12": (0.004, 0.055, 0.100, 0.290, 0.210, 0.090, 0.350),
}
_SNOW, _CLOUD = 5, 6
SENSOR_NOISE = 0.0006  # one sigma, about six digital counts


@dataclass(frozen=True)
class Cover:
    """What one resolution sees: shares per cover (7, y, x), already lit; and the masks of the day."""

    shares: Floats
    light: Floats
    shadow: Floats
    nodata: NDArray[np.bool_]

    def coarser(self, factor: int) -> Cover:
        """Returns the block mean; a pixel is nodata as soon as any of its parts is."""
        mean = block_mean
        return Cover(
            mean(self.shares, factor), mean(self.light, factor), mean(self.shadow, factor),
            mean(self.nodata.astype(np.float32), factor) > 0,
        )  # fmt: skip


class Scene:
    """One acquisition over one tile: the ground comes from `ground`, weather and swath edge from `day`."""

    def __init__(self, size: int, ground: str, day: str) -> None:
        self.size = size
        self._ground, self._day = ground, day

    @cached_property
    def fine(self) -> Cover:
        """The scene at 10 m."""
        size, ground, day = self.size, self._rng("ground"), self._rng("day")
        height, moisture = _noise(ground, size, 3), _noise(ground, size, 4)
        parcels = _parcels(ground, size)
        cloud_threshold = float(np.quantile(sky := _noise(day, size, 5), 1 - day.uniform(0.08, 0.25)))
        clouds = _step(sky, cloud_threshold - 0.02, cloud_threshold + 0.12)
        shadow = _shifted(clouds, size // 45 + 1)
        light = _relief(height, size) * (1 + 0.25 * (_noise(ground, size, size // 24 + 2) - 0.5)) * (1 - 0.6 * shadow)
        shares = _covers(height, moisture, parcels) * (light * (1 - clouds))
        shares[_CLOUD] = clouds
        return Cover(shares, light, shadow, _outside_swath(day, size))

    @cached_property
    def medium(self) -> Cover:
        """The scene at 20 m."""
        return self.fine.coarser(2)

    @cached_property
    def coarse(self) -> Cover:
        """The scene at 60 m."""
        return self.medium.coarser(3)

    def cover(self, gsd: int) -> Cover:
        """Returns the scene at 10, 20 or 60 m."""
        return {10: self.fine, 20: self.medium, 60: self.coarse}[gsd]

    def reflectance(self, gsd: int, band: str) -> Floats:
        """Returns one band's reflectance, shape (y, x); what lies outside the swath is NaN."""
        cover = self.cover(gsd)
        values = np.tensordot(np.array(_SPECTRA[band], np.float32), cover.shares, axes=1)
        values += self._rng(f"{band}/{gsd}").standard_normal(values.shape, np.float32) * np.float32(SENSOR_NOISE)
        values[cover.nodata] = np.nan
        return values.astype(np.float32, copy=False)

    def clouds(self, gsd: int) -> Floats:
        """Returns the share of cloud, 0 to 1."""
        share: Floats = self.cover(gsd).shares[_CLOUD]
        return share

    def snow(self, gsd: int) -> Floats:
        """Returns the share of snow, 0 to 1, as far as it is lit and not under cloud."""
        share: Floats = np.clip(self.cover(gsd).shares[_SNOW], 0, 1)
        return share

    @cached_property
    def classification(self) -> Bytes:
        """The scene classification (SCL) at 20 m with Sen2Cor's classes: 0 nodata, 3 shadow, 4 vegetation, 6 water, 9 cloud."""
        cover = self.medium
        red, nir = (np.tensordot(np.array(_SPECTRA[b], np.float32), cover.shares, axes=1) for b in ("b04", "b8a"))
        surface = cover.shares[:_CLOUD]
        scl = np.where((nir - red) > 0.4 * (nir + red), 4, 5).astype(np.uint8)
        total = np.maximum(surface.sum(axis=0), 1e-6)
        scl[surface[0] > 0.6 * total] = 6
        scl[surface[_SNOW] > 0.5 * total] = 11
        scl[(cover.light < 0.45) & (scl != 6)] = 2
        scl[cover.shadow > 0.4] = 3
        for least, code in ((0.12, 10), (0.35, 8), (0.65, 9)):
            scl[cover.shares[_CLOUD] > least] = code
        scl[cover.nodata] = 0
        return scl

    def smooth(self, name: str, size: int) -> Floats:
        """Returns a smooth field of the day in 0 to 1, shape (size, size): aerosol, water vapour, weather."""
        return _noise(self._rng(name), size, 2, octaves=2)

    def _rng(self, purpose: str) -> np.random.Generator:
        what = self._ground if purpose == "ground" else f"{self._ground}/{self._day}/{purpose}"
        return np.random.default_rng(int.from_bytes(hashlib.sha256(what.encode()).digest()[:8]))


def block_mean(values: Floats, factor: int) -> Floats:
    """Returns the mean over blocks of factor x factor of the last two axes."""
    *lead, rows, columns = values.shape
    blocks = values.reshape(*lead, rows // factor, factor, columns // factor, factor)
    mean: Floats = blocks.mean(axis=(-3, -1), dtype=np.float32)
    return mean


def _noise(rng: np.random.Generator, size: int, cells: int, octaves: int | None = None) -> Floats:
    """Value noise in 0 to 1: octaves from `cells` per edge down to about four pixels, each half as strong as the one before."""
    total = np.zeros((size, size), np.float32)
    weight, left = 1.0, octaves if octaves is not None else 12
    while left and (cells <= size // 4 or weight == 1.0):
        grid = rng.random((cells + 2, cells + 2), np.float32)
        at, part = np.divmod(np.linspace(0, cells, size, endpoint=False, dtype=np.float32), 1)
        i, t = at.astype(np.intp), part * part * (3 - 2 * part)
        rows = grid[i] + (grid[i + 1] - grid[i]) * t[:, None]
        columns = rows.T  # a gather along the first axis is several times faster
        columns = columns[i] + (columns[i + 1] - columns[i]) * t[:, None]
        total += np.float32(weight) * columns.T
        weight, cells, left = weight * 0.5, cells * 2, left - 1
    low, high = float(total.min()), float(total.max())
    scaled: Floats = (total - low) / np.float32(max(high - low, 1e-6))
    return scaled


def _parcels(rng: np.random.Generator, size: int) -> Floats:
    """Fields: a bent, rotated grid of parcels of about 220 x 340 m, each with a greenness in 0 to 1."""
    bend = _noise(rng, size, 3, octaves=2) * 60
    angle = rng.uniform(0.2, 1.2)
    y, x = np.ogrid[:size, :size]
    across = np.floor((x * np.cos(angle) + y * np.sin(angle) + bend) / 22).astype(np.int64)
    along = np.floor((y * np.cos(angle) - x * np.sin(angle) + bend) / 34).astype(np.int64)
    greenness = rng.random(4096, np.float32) ** np.float32(0.6)
    picked: Floats = greenness[(across * 2654435761 ^ along * 40503) % 4096]
    return picked


def _covers(height: Floats, moisture: Floats, parcels: Floats) -> Floats:
    """Shares of the seven covers, summing to 1; cloud stays 0 here."""
    sea = float(np.quantile(height, 0.14))
    river = 1 - _step(np.abs(moisture - 0.5), 0.004, 0.009)
    water = np.maximum(1 - _step(height, sea - 0.004, sea + 0.004), river * (height < 0.5))
    snow = _step(height, 0.88, 0.93)
    rock = _step(height, 0.70, 0.82) * (1 - snow)
    forest = np.maximum(_step(moisture, 0.52, 0.58), _step(height, 0.55, 0.65)) * (1 - rock - snow)
    farm = np.clip(1 - rock - snow - forest, 0, 1)
    land = np.stack([water, forest, farm * parcels, farm * (1 - parcels), rock, snow, np.zeros_like(water)])
    land[1:] *= 1 - water
    return land.astype(np.float32)


def _relief(height: Floats, size: int) -> Floats:
    """Hill shading around 1 for a sun in the south-east; the gradient is per scene, so it does not depend on its size."""
    down, right = np.gradient(height, np.float32(1 / size))
    slope: Floats = np.asarray(down + right, np.float32)
    slope *= np.float32(0.045)
    light: Floats = np.clip(slope + np.float32(1), np.float32(0.35), np.float32(1.5))
    return light


def _shifted(clouds: Floats, pixels: int) -> Floats:
    """The clouds' shadows: thrown to the north-west, and not upon clouds."""
    shadow = np.zeros_like(clouds)
    shadow[:-pixels, :-pixels] = clouds[pixels:, pixels:]
    shadow *= 1 - clouds
    return shadow


def _outside_swath(rng: np.random.Generator, size: int) -> NDArray[np.bool_]:
    """The nodata wedge: 5 to 9 % of the scene beyond the edge of the swath, tilted like a descending orbit."""
    y, x = np.ogrid[:size, :size]
    x = x if rng.random() < 0.5 else size - 1 - x
    outside: NDArray[np.bool_] = (x + 0.22 * y) > rng.uniform(1.025, 1.06) * size
    return outside


def _step(values: Floats, low: float, high: float) -> Floats:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    eased: Floats = (t * t * (3 - 2 * t)).astype(np.float32)
    return eased
