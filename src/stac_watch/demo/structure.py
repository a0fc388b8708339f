"""The structure document of an EOPF Sentinel-2 L2A Zarr v2 product at its real size (10,980 px), written from rules.

It has the JSON form in which consolidated structures of real products are dumped (`members`, `attributes`, `.zarray` fields);
`product` reduces and writes it.

Source: names, dtypes, chunks, fill values and attributes of EOPF CPM 2.6 L2A products (EOPF Sentinel Zarr Samples, 2025).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from stac_watch.demo.tiles import TILE_SIZE, Tile, parse_tile
from stac_watch.model.errors import InputError
from stac_watch.model.identity import parse_product_id
from stac_watch.model.stamps import stamp

Node = dict[str, Any]

SIZES = {10: 10_980, 20: 5_490, 60: 1_830}
TILED_CHUNKS = {10: 1_830, 20: 915, 60: 305}  # what products of early 2025 have; those of CPM 2.6 hold one or four chunks
BANDS: dict[str, tuple[float, float, str]] = {  # centre and width in nm, common name
    "b01": (442.7, 20, "coastal"), "b02": (492.7, 65, "blue"), "b03": (559.8, 35, "green"), "b04": (664.6, 30, "red"),
    "b05": (704.1, 15, "rededge"), "b06": (740.5, 15, "rededge"), "b07": (782.8, 20, "rededge"), "b08": (832.8, 105, "nir"),
    "b8a": (864.7, 20, "nir08"), "b09": (945.1, 20, "nir09"), "b10": (1373.5, 30, "cirrus"), "b11": (1613.7, 90, "swir16"),
    "b12": (2202.4, 180, "swir22"),
}  # fmt: skip
NATIVE = {10: ("b02", "b03", "b04", "b08"), 20: ("b05", "b06", "b07", "b11", "b12", "b8a"), 60: ("b01", "b09", "b10")}
REFLECTANCE = {
    10: NATIVE[10],
    20: ("b01", "b02", "b03", "b04", *NATIVE[20]),
    60: ("b01", "b02", "b03", "b04", "b05", "b06", "b07", "b09", "b11", "b12", "b8a"),
}
_QUALITY_FLAGS = (
    "ANC_LOST", "ANC_DEG", "MSI_LOST", "MSI_DEG",
    "QT_DEFECTIVE_PIXELS", "QT_NODATA_PIXELS", "QT_PARTIALLY_CORRECTED_PIXELS", "QT_SATURATED_PIXELS_L1A",
)  # fmt: skip
_CLASSIFICATION_FLAGS = ("OPAQUE", "CIRRUS", "SNOW_ICE")
_AEROSOLS = {
    "duaod550": "Dust", "omaod550": "Organic Matter", "bcaod550": "Black Carbon", "ssaod550": "Sea Salt", "suaod550": "Sulphate",
}  # fmt: skip
CAMS = {
    **{f"aod{nm}": (f"Total Aerosol Optical Depth at {nm}nm", "~", "unknown") for nm in (469, 550, 670, 865, 1240)},
    **{name: (f"{what} Aerosol Optical Depth at 550nm", "~", "unknown") for name, what in _AEROSOLS.items()},
    "z": ("Geopotential", "m**2 s**-2", "geopotential"),
}
ECMWF = {
    "msl": ("Mean sea level pressure", "Pa", "air_pressure_at_mean_sea_level"),
    "r": ("Relative humidity", "%", "relative_humidity"),
    "tco3": ("Total column ozone", "kg m**-2", "atmosphere_mass_content_of_ozone"),
    "tcwv": (
        "Total column vertically-integrated water vapour",
        "kg m**-2",
        "lwe_thickness_of_atmosphere_mass_content_of_water_vapor",
    ),
    "u10": ("10 metre U wind component", "m s**-1", "unknown"),
    "v10": ("10 metre V wind component", "m s**-1", "unknown"),
}
_METEO_COORDINATES = "isobaricInhPa number step surface time valid_time"


def l2a_structure(item_id: str, *, tiled: bool = False) -> Node:
    """Returns the structure of the L2A product `item_id`, in pixels and chunks of the real size.

    Raises:
        InputError: `item_id` is not the id of a Sentinel-2 product.
    """
    parts = parse_product_id(item_id)
    if parts is None:
        raise InputError(
            f"item id {item_id!r} is not a Sentinel-2 product id",
            hint="a right one looks like S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613",
        )
    tile, sensed = parse_tile(parts["tile"]), datetime.strptime(parts["sensing"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    grid = _Grid(tile, tiled=tiled)
    root = _group(
        conditions=_group(geometry=_geometry(), mask=_masks(grid), meteorology=_meteorology(tile, sensed)),
        measurements=_group(reflectance=_group(**{f"r{gsd}m": grid.level(gsd, _reflectance, *REFLECTANCE[gsd]) for gsd in SIZES})),
        quality=_quality(grid),
    )
    root["attributes"] = {
        "other_metadata": _other_metadata(item_id, parts, tile),
        "stac_discovery": _discovery(item_id, parts, tile),
    }
    return root


class _Grid:
    """Builds the 2-D arrays of one tile: shape, chunks and projection follow from the ground sampling distance."""

    def __init__(self, tile: Tile, *, tiled: bool) -> None:
        self.tile, self.tiled = tile, tiled

    def array(self, gsd: int, dtype: str, attributes: Node, *, chunk: int | None = None, fill: Any = None) -> Node:  # noqa: ANN401  # a Zarr fill value is any JSON scalar
        size = SIZES[gsd]
        edge = TILED_CHUNKS[gsd] if self.tiled else chunk or size
        projection = {
            "proj:bbox": [float(v) for v in self.extent()],
            "proj:epsg": self.tile.epsg,
            "proj:shape": [size, size],
            "proj:transform": [float(gsd), 0.0, float(self.tile.left), 0.0, float(-gsd), float(self.tile.top), 0.0, 0.0, 1.0],
            "proj:wkt2": self.tile.wkt,
        }
        return _array(dtype, ("y", "x"), (size, size), {**_with_eopf(attributes), **projection}, chunks=(edge, edge), fill=fill)

    def extent(self) -> tuple[int, int, int, int]:
        return self.tile.left, self.tile.top - TILE_SIZE, self.tile.left + TILE_SIZE, self.tile.top

    def level(self, gsd: int, make: Any, *names: str) -> Node:  # noqa: ANN401  # one of the three makers below
        """Returns the group of one resolution: an array per name, and its x and y."""
        return _group(**{name: make(self, gsd, name) for name in names}, **axes(SIZES[gsd]))


def axes(size: int) -> Node:
    """Returns the coordinate arrays x and y of a group."""
    return {name: _array("<i8", (name,), (size,), {}) for name in ("x", "y")}


def _reflectance(grid: _Grid, gsd: int, band: str) -> Node:
    attributes = {
        "add_offset": -0.1, "dtype": "<u2", "eopf_is_masked": True, "eopf_target_dtype": "<f8", "fill_value": 0,
        "long_name": f"BOA reflectance from MSI acquisition at spectral band {band} {BANDS[band][0]} nm",
        "scale_factor": 0.0001, "units": "digital_counts", "valid_max": 65535, "valid_min": 1,
    }  # fmt: skip
    return grid.array(gsd, "<u2", attributes, chunk=5_490 if gsd == 10 else None, fill=0)


def _footprint(grid: _Grid, gsd: int, _band: str) -> Node:
    name = "detector footprint mask provided in the final reference frame (ground geometry). 0 = no detector, 1-12 = detector 1-12"
    return grid.array(gsd, "|u1", {"dtype": "<u1", "long_name": name})


def _flags(grid: _Grid, gsd: int, name: str, flags: tuple[str, ...]) -> Node:
    attributes = {
        "dtype": "<u1", "flag_masks": [1 << bit for bit in range(len(flags))], "flag_meanings": list(flags),
        "long_name": f"{name} mask provided in the final reference frame (ground geometry)",
    }  # fmt: skip
    return grid.array(gsd, "|u1", attributes)


def _quality_mask(grid: _Grid, gsd: int, _band: str) -> Node:
    return _flags(grid, gsd, "quality", _QUALITY_FLAGS)


def _plain(dtype: str) -> Any:  # noqa: ANN401  # a maker for _Grid.level
    return lambda grid, gsd, _name: grid.array(gsd, dtype, {})


def _masks(grid: _Grid) -> Node:
    def l1c(grid: _Grid, gsd: int, _name: str) -> Node:
        return _flags(grid, gsd, "cloud classification", _CLASSIFICATION_FLAGS)

    return _group(
        detector_footprint=_group(**{f"r{gsd}m": grid.level(gsd, _footprint, *NATIVE[gsd]) for gsd in SIZES}),
        l1c_classification=_group(r60m=grid.level(60, l1c, "b00")),
        l2a_classification=_group(**{f"r{gsd}m": grid.level(gsd, _plain("|u1"), "scl") for gsd in (20, 60)}),
    )


def _quality(grid: _Grid) -> Node:
    def tci(grid: _Grid, gsd: int, _name: str) -> Node:
        node = grid.array(gsd, "|u1", {})
        node["attributes"] |= {
            "_ARRAY_DIMENSIONS": ["band", "y", "x"],
            "_eopf_attrs": {"coordinates": ["band", "x", "y"], "dimensions": ["band", "y", "x"]},
        }
        return node | {"shape": [3, *node["shape"]], "chunks": [1 if grid.tiled else 3, *node["chunks"]]}

    def probability(grid: _Grid, gsd: int, _name: str) -> Node:
        node = grid.array(gsd, "|u1", {"coordinates": "band"})
        node["attributes"]["_eopf_attrs"] = {"coordinates": ["x", "y", "band"], "dimensions": ["y", "x"]}
        return node

    quicklook = {f"r{gsd}m": grid.level(gsd, tci, "tci") for gsd in SIZES}
    for group in quicklook.values():
        group["members"]["band"] = _array("<i8", ("band",), (3,), {})
    probabilities = grid.level(20, probability, "cld", "snw")
    probabilities["members"]["band"] = _array("<i8", (), (), {})
    return _group(
        atmosphere=_group(**{f"r{gsd}m": grid.level(gsd, _plain("<u2"), "aot", "wvp") for gsd in SIZES}),
        l2a_quicklook=_group(**quicklook),
        mask=_group(**{f"r{gsd}m": grid.level(gsd, _quality_mask, *NATIVE[gsd]) for gsd in SIZES}),
        probability=_group(r20m=probabilities),
    )


def _geometry() -> Node:
    def angles(dims: tuple[str, ...], shape: tuple[int, ...], chunks: tuple[int, ...] | None = None, **extra: str) -> Node:
        attributes = {"eopf_is_masked": True, "fill_value": "NaN"}
        eopf = {"_eopf_attrs": {**attributes, "coordinates": sorted(dims), "dimensions": list(dims)}}
        return _array("<f8", dims, shape, {**eopf, **extra}, chunks=chunks, fill="NaN")

    return _group(
        angle=_array("<U7", ("angle",), (2,), {}),
        band=_array("<U3", ("band",), (13,), {}),
        detector=_array("<i8", ("detector",), (6,), {}),
        mean_sun_angles=angles(("angle",), (2,), unit="deg"),
        mean_viewing_incidence_angles=angles(("band", "angle"), (13, 2), unit="deg"),
        sun_angles=angles(("angle", "y", "x"), (2, 23, 23)),
        viewing_incidence_angles=angles(("band", "detector", "angle", "y", "x"), (13, 6, 2, 23, 23), (7, 3, 2, 23, 23)),
        **axes(23),
    )


def _meteorology(tile: Tile, sensed: datetime) -> Node:
    west, south, east, north = tile.bbox()
    grid = {
        "GRIB_Nx": 9, "GRIB_Ny": 9, "GRIB_gridType": "regular_ll", "GRIB_numberOfPoints": 81,
        "GRIB_latitudeOfFirstGridPointInDegrees": round(north, 3), "GRIB_latitudeOfLastGridPointInDegrees": round(south, 3),
        "GRIB_longitudeOfFirstGridPointInDegrees": round(west, 3), "GRIB_longitudeOfLastGridPointInDegrees": round(east, 3),
    }  # fmt: skip

    def forecast(variables: dict[str, tuple[str, str, str]]) -> Node:
        members = {name: _forecast_field(name, facts, grid) for name, facts in variables.items()}
        group = _group(**members, **_forecast_coordinates(sensed))
        group["attributes"] = {
            "Conventions": "CF-1.7", "GRIB_centre": "ecmf", "GRIB_edition": 1, "GRIB_subCentre": 0,
            "institution": "European Centre for Medium-Range Weather Forecasts",
        }  # fmt: skip
        return group

    return _group(cams=forecast(CAMS), ecmwf=forecast(ECMWF))


def _forecast_field(name: str, facts: tuple[str, str, str], grid: Node) -> Node:
    long_name, units, standard_name = facts
    described = {"long_name": long_name, "standard_name": standard_name, "units": units}
    dims = ["latitude", "longitude"]
    eopf = {
        **described,
        "coordinates": [
            *dims,
            "number",
            "time",
            "step",
            "isobaricInhPa" if name in ("r", "duaod550") else "surface",
            "valid_time",
        ],
        "dimensions": dims,
        "eopf_is_masked": True,
        "fill_value": "NaN",
    }
    attributes = {
        **grid, **described, "GRIB_cfVarName": name, "GRIB_dataType": "fc", "GRIB_name": long_name, "GRIB_units": units,
        "_eopf_attrs": eopf, "coordinates": _METEO_COORDINATES,
    }  # fmt: skip
    return _array("<f4", tuple(dims), (9, 9), attributes, fill="NaN")


def _forecast_coordinates(sensed: datetime) -> Node:
    day, minute = sensed.strftime("%Y-%m-%d 00:00:00"), sensed.strftime("%Y-%m-%d %H:%M:00")
    scalars: dict[str, tuple[str, Node]] = {
        "isobaricInhPa": (
            "<f8",
            {"long_name": "pressure", "standard_name": "air_pressure", "units": "hPa", "positive": "down"},
        ),
        "number": ("<i8", {"long_name": "ensemble member numerical id", "standard_name": "realization", "units": "1"}),
        "step": (
            "<i8",
            {"long_name": "time since forecast_reference_time", "standard_name": "forecast_period", "units": "minutes"},
        ),
        "surface": ("<f8", {"long_name": "original GRIB coordinate for key: level(surface)", "units": "1"}),
        "time": ("<i8", {"standard_name": "forecast_reference_time", "units": f"days since {day}"}),
        "valid_time": ("<i8", {"standard_name": "time", "units": f"days since {minute}"}),
    }
    members = {
        name: _array(dtype, (), (), attrs, fill="NaN" if dtype == "<f8" else None) for name, (dtype, attrs) in scalars.items()
    }
    for name in ("time", "valid_time"):
        members[name]["attributes"]["calendar"] = "proleptic_gregorian"
    for name, units in (("latitude", "degrees_north"), ("longitude", "degrees_east")):
        members[name] = _array("<f8", (name,), (9,), {"long_name": name, "standard_name": name, "units": units}, fill="NaN")
    return members


def _other_metadata(item_id: str, parts: dict[str, str], tile: Tile) -> Node:
    return {
        "AOT_retrieval_model": "SEN2COR_DDV",
        "UTM_zone_identification": f"{parts['platform']}_OPER_MSI_{parts['level']}_TL_{parts['generation']}_{parts['tile']}",
        "band_description": {
            name.removeprefix("b").upper(): {"bandwidth": str(width), "central_wavelength": centre, "units": "nm"}
            for name, (centre, width, _) in BANDS.items()
        },
        "eopf_category": "eoproduct",
        "history": [{"inputs": item_id, "output": f"{item_id}.zarr", "processor": "stac-watch demo", "type": "Level-2A Product"}],
        "horizontal_CRS_code": f"EPSG:{tile.epsg}",
        "horizontal_CRS_name": tile.crs_name.replace("WGS 84", "WGS84"),
        "meteo": {"source": "ECMWF", "type": "FORECAST"},
        "percentage_of_degraded_MSI_data": 0.0,
        "product_quality_status": "PASSED",
    }


def _discovery(item_id: str, parts: dict[str, str], tile: Tile) -> Node:
    sensed = datetime.strptime(parts["sensing"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    bands = [
        {"name": n, "center_wavelength": c, "full_width_half_max": w / 1000, "common_name": k} for n, (c, w, k) in BANDS.items()
    ]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/eo/v1.1.0/schema.json"],
        "id": f"{item_id}.SAFE",
        "geometry": {"type": "Polygon", "coordinates": [tile.ring()]},
        "bbox": tile.bbox(),
        "properties": {
            "bands": bands, "constellation": "sentinel-2", "datetime": None, "start_datetime": stamp(sensed),
            "end_datetime": stamp(sensed), "instrument": "msi", "mission": "copernicus", "platform": platform(parts),
            "processing:level": parts["level"], "product:type": f"S02MSI{parts['level']}", "proj:epsg": tile.epsg,
            "sat:relative_orbit": int(parts["orbit"]),
        },
        "links": [{"href": "./.zattrs.json", "rel": "self", "type": "application/json"}],
        "assets": {},
    }  # fmt: skip


def platform(parts: dict[str, str]) -> str:
    """Returns `sentinel-2a` for `S2A`."""
    return f"sentinel-{parts['platform'][1:].lower()}"


def _with_eopf(attributes: Node) -> Node:
    """Repeats an array's attributes under `_eopf_attrs`, as EOPF writes them; the flags meant for readers stay on one side."""
    inside = {k: v for k, v in attributes.items() if k not in ("valid_min", "valid_max")}
    outside = {k: v for k, v in attributes.items() if k not in ("eopf_is_masked", "eopf_target_dtype")}
    return {**outside, "_eopf_attrs": {**inside, "coordinates": ["x", "y"], "dimensions": ["y", "x"]}}


def _group(**members: Node) -> Node:
    return {"zarr_format": 2, "attributes": {}, "members": members}


def _array(
    dtype: str,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    attributes: Node,
    *,
    chunks: tuple[int, ...] | None = None,
    fill: Any = None,  # noqa: ANN401  # a Zarr fill value is any JSON scalar
) -> Node:
    compressor = {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 2, "blocksize": 0} if shape else None
    return {
        "zarr_format": 2, "shape": list(shape), "chunks": list(chunks or shape), "dtype": dtype, "compressor": compressor,
        "fill_value": fill, "order": "C", "filters": None, "dimension_separator": ".",
        "attributes": {"_ARRAY_DIMENSIONS": list(dims), **attributes},
    }  # fmt: skip
