"""STAC documents of the demo catalog, in the shape of the EOPF Sentinel Zarr Samples catalog: 15 KB like the real ones.

An item may point to a product that is not there, as in real catalogs.

Sources: items of the EOPF catalog of November 2025 (properties, the 22 assets, and their inconsistent media types), and of its
collection sentinel-2-l2a-zarr3 of September 2026.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from stac_watch.demo.structure import platform
from stac_watch.demo.tiles import Tile, parse_tile
from stac_watch.model.errors import InputError
from stac_watch.model.identity import parse_product_id
from stac_watch.model.stamps import stamp

Document = dict[str, Any]

COLLECTION = "sentinel-2-l2a"
ZARR = "application/vnd.zarr"
ZARR_3 = "application/vnd.zarr; version=3"
ZARR_PLUS = "application/vnd+zarr"  # the real catalog uses both in one item
_BANDS: dict[str, tuple[str, str, float, float]] = {  # description, common name, centre and width in micrometres
    "B01": ("Coastal aerosol (band 1)", "coastal", 0.443, 0.027), "B02": ("Blue (band 2)", "blue", 0.49, 0.098),
    "B03": ("Green (band 3)", "green", 0.56, 0.045), "B04": ("Red (band 4)", "red", 0.665, 0.038),
    "B05": ("Red edge 1 (band 5)", "rededge071", 0.704, 0.019), "B06": ("Red edge 2 (band 6)", "rededge075", 0.74, 0.018),
    "B07": ("Red edge 3 (band 7)", "rededge078", 0.783, 0.028), "B08": ("NIR 1 (band 8)", "nir", 0.842, 0.145),
    "B8A": ("NIR 2 (band 8A)", "nir08", 0.865, 0.033), "B09": ("NIR 3 (band 9)", "nir09", 0.945, 0.026),
    "B11": ("SWIR 1 (band 11)", "swir16", 1.61, 0.143), "B12": ("SWIR 2 (band 12)", "swir22", 2.19, 0.242),
}  # fmt: skip
_SURFACE = {
    10: ("B02", "B03", "B04", "B08"),
    20: tuple(b for b in _BANDS if b not in ("B08", "B09")),
    60: tuple(b for b in _BANDS if b != "B08"),
}
_SINGLE = {b: 10 if b in _SURFACE[10] else 60 if b == "B09" else 20 for b in _BANDS}
_LAYERS: dict[str, tuple[str, str, str, int, float]] = {  # path, media type, title, gsd, scale
    "AOT_10m": ("quality/atmosphere/r10m/aot", ZARR_PLUS, "Aerosol optical thickness (AOT)", 10, 0.001),
    "WVP_10m": ("quality/atmosphere/r10m/wvp", ZARR_PLUS, "Water vapour (WVP)", 10, 0.001),
    "SCL_20m": ("conditions/mask/l2a_classification/r20m/scl", ZARR_PLUS, "Scene classification map (SCL)", 20, 1),
}
_EXTENSIONS = (
    "timestamps/v1.1.0", "eo/v2.0.0", "sat/v1.0.0", "projection/v2.0.0", "mgrs/v1.0.0", "grid/v1.1.0",
    "processing/v1.2.0", "product/v0.1.0", "version/v1.2.0", "raster/v2.0.0",
)  # fmt: skip


def make_item(
    item_id: str,
    *,
    catalog_url: str,
    product_href: str,
    updated: dt.datetime | str,
    datetime: dt.datetime | None = None,
    collection: str = COLLECTION,
    cloud_cover: float | None = 12.5,
    properties: Document | None = None,
    native: bool = False,
) -> Document:
    """Returns the item of a Sentinel-2 L2A product.

    Args:
        item_id: the product's id; tile, platform, orbit and baseline are read from it.
        catalog_url: the catalog's root, for the links.
        product_href: URL of the Zarr root, the `product` asset.
        updated: the change stamp; a string is taken as it is, so that every spelling of a time can be tested.
        datetime: sensing time; by default the one in the id.
        collection: the collection's id.
        cloud_cover: per cent; None leaves the property out.
        properties: what else to set; None as a value removes a property.
        native: its product is finished GeoZarr in Zarr v3, as new acquisitions are since July 2026.

    Raises:
        InputError: `item_id` is not the id of a Sentinel-2 product.
    """
    parts = parse_product_id(item_id)
    if parts is None:
        raise InputError(f"item id {item_id!r} is not a Sentinel-2 product id")
    sensed = datetime or dt.datetime.strptime(parts["sensing"], "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
    changed = updated if isinstance(updated, str) else stamp(updated)
    tile = parse_tile(parts["tile"])
    merged = _properties(parts, tile, sensed, changed) | {"eo:cloud_cover": cloud_cover}
    merged |= ({"processing:software": {"EOPF_CPM": "3.0.0", "EOPF_MODEL": "1.0.0"}} if native else {}) | (properties or {})
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in _EXTENSIONS],
        "id": item_id,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [tile.ring()]},
        "bbox": tile.bbox(),
        "properties": {k: v for k, v in merged.items() if v is not None},
        "links": item_links(catalog_url, collection, item_id),
        "assets": (_native_assets if native else _assets)(product_href.rstrip("/"), parts["baseline"]),
    }


def item_links(catalog_url: str, collection: str, item_id: str) -> list[Document]:
    """Returns the links that every item of a STAC API has."""
    root = catalog_url.rstrip("/")
    parent = f"{root}/collections/{collection}"
    return [
        {"rel": "collection", "type": "application/json", "href": parent},
        {"rel": "parent", "type": "application/json", "href": parent},
        {"rel": "root", "type": "application/json", "href": f"{root}/"},
        {"rel": "self", "type": "application/geo+json", "href": f"{parent}/items/{item_id}"},
    ]


def make_collection(collection: str = COLLECTION, *, title: str = "Sentinel-2 Level-2A (demo)") -> Document:
    """Returns a collection without links; the API adds them."""
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "id": collection,
        "title": title,
        "description": "Small Sentinel-2-like Zarr products, made on this machine.",
        "license": "other",
        "extent": {"spatial": {"bbox": [[-180.0, -90.0, 180.0, 90.0]]}, "temporal": {"interval": [["2015-06-27T00:00:00Z", None]]}},
        "links": [],
    }


def _properties(parts: dict[str, str], tile: Tile, sensed: dt.datetime, changed: str) -> Document:
    baseline = f"{parts['baseline'][:2]}.{parts['baseline'][2:]}"
    return {
        "gsd": 10.0, "mission": "Sentinel-2", "constellation": "sentinel-2", "platform": platform(parts), "instruments": ["msi"],
        "datetime": stamp(sensed), "start_datetime": stamp(sensed), "end_datetime": stamp(sensed),
        "created": changed, "updated": changed, "published": changed, "deprecated": False,
        "grid:code": f"MGRS-{tile.name[1:]}", "mgrs:utm_zone": tile.zone, "mgrs:latitude_band": tile.name[3],
        "mgrs:grid_square": tile.name[4:], "proj:code": f"EPSG:{tile.epsg}", "proj:bbox": tile.bbox(),
        "processing:level": parts["level"], "processing:version": baseline, "processing:lineage": "systematic",
        "processing:facility": "ESA", "processing:software": {"EOPF-CPM": "2.6.2"},
        "product:type": f"S02MSI{parts['level']}", "product:timeliness": "PT3H", "product:timeliness_category": "NRT",
        "sat:orbit_state": "descending", "sat:relative_orbit": int(parts["orbit"]), "eo:snow_cover": 0.0,
        "eopf:datatake_id": f"G{parts['platform']}_{parts['sensing']}_{int(parts['orbit']):06d}_N{baseline}",
        "eopf:instrument_mode": "INS-NOBS", "sci:doi": "10.5270/S2_-znk9xsj",
        "providers": [{"name": "stac-watch demo", "roles": ["producer", "processor", "host"]}],
    }  # fmt: skip


def _assets(product: str, baseline: str) -> Document:
    assets: Document = {}
    for gsd, names in _SURFACE.items():
        assets[f"SR_{gsd}m"] = {
            "gsd": gsd, "href": f"{product}/measurements/reflectance/r{gsd}m", "type": ZARR, "bands": [_band(b) for b in names],
            "roles": ["data", "reflectance", "dataset"], "title": f"Surface Reflectance - {gsd}m", **_opening("dataset"),
        }  # fmt: skip
    for name, gsd in _SINGLE.items():
        assets[f"{name}_{gsd}m"] = {
            "gsd": gsd, "href": f"{product}/measurements/reflectance/r{gsd}m/{name.lower()}", "type": ZARR, "bands": [_band(name)],
            "roles": ["data", "reflectance"], "title": f"{_BANDS[name][0]} - {gsd}m", "nodata": 0, "data_type": "uint16",
            "raster:scale": 0.0001, "raster:offset": -0.1 if baseline >= "0400" else 0,
        }  # fmt: skip
    for key, (path, media, title, gsd, scale) in _LAYERS.items():
        assets[key] = {
            "gsd": gsd, "href": f"{product}/{path}", "type": media, "roles": ["data"], "title": title, "nodata": 0,
            "raster:scale": scale, "raster:offset": 0,
        }  # fmt: skip
    tci = {"href": f"{product}/quality/l2a_quicklook/r10m/tci", "type": ZARR, "roles": ["data"], "title": "True color image"}
    assets["TCI_10m"] = {**tci, "bands": [_band(b) for b in ("B04", "B03", "B02")]}
    whole = {"href": product, "type": ZARR, "roles": ["data", "metadata"], "title": "EOPF Product"}
    assets["product"] = {**whole, "description": "The full Zarr store of the EOPF product", **_opening("datatree")}
    assets["product_metadata"] = {
        "href": f"{product}/.zmetadata", "type": "application/json", "roles": ["metadata"], "title": "Consolidated Metadata",
    }  # fmt: skip
    return assets


def _native_assets(product: str, baseline: str) -> Document:
    """Returns the assets of a finished GeoZarr: groups, no bands; N0512 says scale and offset, N0513 leaves them to the store."""
    numbers = {"raster:scale": 0.0001, "raster:offset": -0.1} if baseline < "0513" else {}
    assets: Document = {
        f"SR_{gsd}m": {
            "gsd": gsd, "href": f"{product}/measurements/reflectance/r{gsd}m", "type": ZARR_3, "roles": ["data", "reflectance"],
            "title": f"Surface Reflectance - {gsd}m", "bands": [_band(b) | {"name": b.lower()} for b in names], "nodata": 0,
            "data_type": "uint16", "zarr:node_type": "group", "raster:spatial_resolution": gsd, **numbers,
        }
        for gsd, names in _SURFACE.items()
    }  # fmt: skip
    whole = {"href": product, "type": ZARR_3, "roles": ["data", "metadata"], "title": "EOPF Product"}
    assets["product"] = {**whole, "zarr:node_type": "group", "zarr:consolidated": True}
    archive = {"href": f"{product}.zip", "type": "application/zip", "roles": ["data", "metadata", "archive"]}
    assets["zipped_product"] = {**archive, "title": "Zipped EOPF Product"}
    return assets


def _band(name: str) -> Document:
    description, common, centre, width = _BANDS[name]
    return {
        "name": name, "description": description, "eo:common_name": common,
        "eo:center_wavelength": centre, "eo:full_width_half_max": width,
    }  # fmt: skip


def _opening(kind: str) -> Document:
    return {f"xarray:open_{kind}_kwargs": {"chunks": {}, "engine": "eopf-zarr", "op_mode": "native"}}
