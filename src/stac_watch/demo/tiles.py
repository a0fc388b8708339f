"""Where a Sentinel-2 tile lies, from its MGRS name alone: the grid follows from the rule that real tiles obey.

Source: NGA.STND.0037 (MGRS lettering); Sentinel-2 tiles start at the 100 km square's upper left corner, moved outwards to the
next multiple of 60 m so that the 10, 20 and 60 m grids share it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil, floor

import utm

from stac_watch.model.errors import InputError

TILE_SIZE = 109_800  # metres
_COLUMNS = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")  # by zone modulo 3
_ROWS = "ABCDEFGHJKLMNPQRSTUV"  # every 2,000 km again; in even zones shifted by five
_BANDS = "CDEFGHJKLMNPQRSTUVWX"  # 8 degrees each, from 80 S
_QUARTER_MERIDIAN = 10_001_965.729  # metres, WGS 84
_UTM_SCALE = 0.9996


@dataclass(frozen=True)
class Tile:
    """One tile's place: UTM zone, hemisphere, and its upper left corner in metres."""

    name: str
    zone: int
    north: bool
    left: int
    top: int

    @property
    def epsg(self) -> int:
        """EPSG code of the tile's projection (WGS 84 / UTM)."""
        return (32600 if self.north else 32700) + self.zone

    @property
    def crs_name(self) -> str:
        """`WGS 84 / UTM zone 32N`."""
        return f"WGS 84 / UTM zone {self.zone}{'N' if self.north else 'S'}"

    @property
    def wkt(self) -> str:
        """The projection as WKT 1, as EOPF products carry it in `proj:wkt2`."""
        meridian, northing = self.zone * 6 - 183, 0 if self.north else 10_000_000
        return (
            f'PROJCS["{self.crs_name}",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,'
            'AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],'
            'UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],AUTHORITY["EPSG","4326"]],'
            f'PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",{meridian}],'
            f'PARAMETER["scale_factor",{_UTM_SCALE}],PARAMETER["false_easting",500000],PARAMETER["false_northing",{northing}],'
            'UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["Easting",EAST],AXIS["Northing",NORTH],'
            f'AUTHORITY["EPSG","{self.epsg}"]]'
        )

    def ring(self) -> list[list[float]]:
        """Returns the footprint's closed ring of (longitude, latitude) degrees, from the upper left corner clockwise."""
        right, bottom = self.left + TILE_SIZE, self.top - TILE_SIZE
        corners = ((self.left, self.top), (right, self.top), (right, bottom), (self.left, bottom), (self.left, self.top))
        ring = []
        for x, y in corners:
            # strict=False: a tile's edge may lie a few metres outside the zone's nominal 100-1,000 km
            latitude, longitude = utm.to_latlon(x, y, self.zone, northern=self.north, strict=False)
            ring.append([float(longitude), float(latitude)])
        return ring

    def bbox(self) -> list[float]:
        """Returns west, south, east, north in degrees."""
        longitudes, latitudes = zip(*self.ring(), strict=True)
        return [min(longitudes), min(latitudes), max(longitudes), max(latitudes)]


def parse_tile(name: str) -> Tile:
    """Returns the place of `T32TQM`.

    Raises:
        InputError: not the name of an MGRS 100 km square.
    """
    match = re.fullmatch(r"T(\d{2})([C-HJ-NP-X])([A-HJ-NP-Z])([A-HJ-NP-V])", name)
    zone = int(match[1]) if match else 0
    columns = _COLUMNS[zone % 3]
    if not match or not 1 <= zone <= 60 or match[3] not in columns:
        raise InputError(f"tile {name!r} is not the name of an MGRS square", hint="a right one looks like T32TQM")
    band = _BANDS.index(match[2])
    north = band >= _BANDS.index("N")
    easting = (columns.index(match[3]) + 1) * 100_000
    row = (_ROWS.index(match[4]) - (5 if zone % 2 == 0 else 0)) % len(_ROWS) * 100_000
    south_edge = (band * 8 - 80) / 90 * _QUARTER_MERIDIAN * _UTM_SCALE + (0 if north else 10_000_000)
    lowest = floor(south_edge / 100_000) * 100_000 - 100_000  # the arc is not quite linear in latitude: one square of slack
    northing = row + ceil((lowest - row) / 2_000_000) * 2_000_000
    return Tile(name, zone, north, floor(easting / 60) * 60, ceil((northing + 100_000) / 60) * 60)
