"""The STAC item of an output, written beside it: what it is, where it came from, how it was made.

What the product does not say is left out; what can be computed is checked and set right. Hrefs are relative, so that output and
companions can be moved together; whoever registers the item makes them absolute.

Sources: STAC 1.1.0; extensions as `stac_watch.model.extensions` has them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pystac

from geozarr_runner.publish import arrays
from geozarr_runner.request import Service
from geozarr_runner.source.metadata import strict
from geozarr_runner.source.preflight import Plan
from geozarr_runner.source.product import REFLECTANCE, ZarrArray
from stac_watch.model.acquired import Acquired, checked, gathered
from stac_watch.model.extensions import used
from stac_watch.model.forms import Native
from stac_watch.model.outcome import Outcome
from stac_watch.model.signatures import unsigned
from stac_watch.model.stamps import stamp

SUFFIX = ".item.json"
ZARR = "application/vnd.zarr; version=3"
_SHA256 = "1220"
"""Multihash prefix: SHA-256, 32 bytes (file extension, `file:checksum`)."""
_BESIDE = {
    "thumbnail": ("thumbnail", "Thumbnail", "image/webp", ["thumbnail"]),
    "quicklook": ("overview", "Quicklook", "image/png", ["overview"]),
    "report": ("report", "Report of the conversion", "text/html", ["metadata"]),
    "report_json": ("report_json", "Report of the conversion", "application/json", ["metadata"]),
    "checksums": ("checksums", "SHA-256 of each object", "text/plain", ["metadata"]),
    "dask_report": ("dask_report", "Dask's performance report", "text/html", ["metadata"]),
}
"""Name in the outcome -> the asset's name, title, media type and roles."""
_LAYERS = {
    "scl": ("SCL", "Scene classification map (SCL)", ["data", "classification"]),
    "aot": ("AOT", "Aerosol optical thickness (AOT)", ["data"]),
    "wvp": ("WVP", "Water vapour (WVP)", ["data"]),
}


def acquired(plan: Plan) -> Acquired:
    """Returns what is known of the acquisition, from the product and the item that led to it, and what was set right."""
    known, angles = plan.product.properties, plan.product.attributes.get("other_metadata")
    angles = angles if isinstance(angles, Mapping) else {}
    zenith = angles.get("mean_sun_zenith_angle_in_deg_for_all_bands_all_detectors")
    sun = {"view:sun_azimuth": angles.get("mean_sun_azimuth_angle_in_deg_for_all_bands_all_detectors")}
    if isinstance(zenith, int | float):
        sun["view:sun_elevation"] = 90 - zenith
    led = plan.item.get("properties")
    said = gathered(sun, led if isinstance(led, Mapping) else {}, known)
    finest = min(_reflectance(plan), key=metres, default=None)
    said.pop("gsd", None)
    said |= {"gsd": metres(finest)} if finest is not None else {}
    extent_of = finest.attributes.get("proj:bbox") if finest is not None else None
    return checked(
        said, plan.item_id, sensed=plan.sensed, bbox=extent(_geometry(plan)), crs=plan.selection.crs,
        metres=extent_of if isinstance(extent_of, list) and all(isinstance(n, int | float) for n in extent_of) else (),
    )  # fmt: skip


def describe(
    outcome: Outcome, plan: Plan, stac_url: str, store: Path, companions: Mapping[str, Path], *, name: str, service: Service | None
) -> str:
    """Returns the item as JSON.

    Args:
        outcome: what the marker says.
        plan: the product.
        stac_url: what was asked for: an item, which it is derived from, or the product itself.
        store: the output, wherever it lies now.
        companions: files that will lie beside the output, by their name in the outcome.
        name: of the output's folder.
        service: where the S3 client sends its requests; None for other outputs.
    """
    geometry = _geometry(plan)
    said = acquired(plan).properties
    software = {**_software(plan.product.properties.get("processing:software")), **outcome.versions}
    made: dict[str, Any] = {"created": outcome.finished, "updated": outcome.finished, "processing:datetime": outcome.finished}
    made |= {"processing:software": software, "processing:facility": "stac-watch"}
    item = pystac.Item(outcome.item_id, geometry, extent(geometry), plan.sensed, properties=strict(said) | made)
    if plan.sensed is not None:
        item.properties["datetime"] = stamp(plan.sensed)
    _add_assets(item, outcome, plan, store, name, companions)
    remote = stac_url.startswith(("http://", "https://", "s3://"))
    if plan.item and remote:
        item.add_link(pystac.Link("derived_from", unsigned(stac_url), "application/geo+json"))
    item.add_link(pystac.Link("via", unsigned(outcome.source), "application/vnd.zarr"))
    if service is not None:
        _add_storage(item, outcome.output_zarr, service)
    document = strict(item.to_dict(include_self_link=False, transform_hrefs=False))
    document["properties"]["datetime"] = item.properties.get("datetime")
    document["stac_extensions"] = used(document)
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _geometry(plan: Plan) -> Any:  # noqa: ANN401  # GeoJSON
    """Returns the footprint, of the product or of the item that led to it; None where neither is a polygon."""
    discovery = plan.product.attributes.get("stac_discovery", {})
    return next((given for given in (discovery.get("geometry"), plan.item.get("geometry")) if extent(given)), None)


def _software(given: object) -> dict[str, str]:
    """Returns what made the product, where it says so."""
    known = given.items() if isinstance(given, Mapping) else ()
    return {str(name): version for name, version in known if isinstance(version, str) and version.strip()}


def _reflectance(plan: Plan) -> list[ZarrArray]:
    chosen = plan.selection.groups
    return [a for a in plan.selection.arrays if a.group in chosen and a.group.startswith(REFLECTANCE)]


def _add_assets(item: pystac.Item, outcome: Outcome, plan: Plan, store: Path, name: str, companions: Mapping[str, Path]) -> None:
    base = plan.source.url if plan.native is Native.REFERENCE else f"./{name}"
    item.add_asset("product", pystac.Asset(base, title="GeoZarr", media_type=ZARR, roles=["data"]))
    reflectance = _reflectance(plan)
    if reflectance:
        finest = min(reflectance, key=metres)
        kind = f"{ZARR}; profile=multiscales"
        asset = pystac.Asset(f"{base}/{REFLECTANCE}", title="Reflectance", media_type=kind, roles=["data", "reflectance"])
        grid = arrays.projection(store, finest)
        bands = {a.name: min(metres(b) for b in reflectance if b.name == a.name) for a in reflectance if not a.is_coordinate}
        asset.extra_fields |= grid | {"gsd": metres(finest), "bands": arrays.bands(plan.product, bands)}
        asset.extra_fields |= arrays.numbers(store, finest, native=plan.native)
        item.add_asset("reflectance", asset)
        for key, band in _band_assets(reflectance, asset.extra_fields["bands"], store, base, plan.native):
            item.add_asset(key, band)
        item.properties |= {key: grid[key] for key in ("proj:code", "proj:bbox") if key in grid}
    for found in sorted(plan.selection.arrays, key=metres):
        key, title, roles = _LAYERS.get(found.name, ("", "", []))
        if found.group in outcome.groups and key and not any(known.startswith(f"{key}_") for known in item.assets):
            layer = pystac.Asset(f"{base}/{found.path}", title=title, media_type=ZARR, roles=roles)
            layer.extra_fields = {"gsd": metres(found), **arrays.numbers(store, found, native=plan.native)}
            layer.extra_fields |= arrays.projection(store, found)
            item.add_asset(f"{key}_{metres(found)}m", layer)
    if outcome.package is not None:
        package = outcome.package
        kind = "application/gzip" if package.href.endswith("gz") else "application/x-tar"
        asset = pystac.Asset(f"./{package.href.rpartition('/')[2]}", title="The same, packed", media_type=kind, roles=["archive"])
        asset.extra_fields = {"file:size": package.bytes, "file:checksum": _SHA256 + package.sha256}
        item.add_asset("package", asset)
    for key, asset in _beside(companions):
        item.add_asset(key, asset)


def _band_assets(
    reflectance: Sequence[ZarrArray], bands: Sequence[Mapping[str, Any]], store: Path, base: str, native: Native
) -> Iterator[tuple[str, pystac.Asset]]:
    """Yields each band at its finest pixels as an asset of its own: odc-stac, stackstac and GDAL read arrays, and no groups."""
    said = {str(band["name"]): band for band in bands}
    for array in sorted(reflectance, key=lambda one: (one.name, metres(one))):
        band = said.pop(array.name, None)
        if band is not None:  # the others are the same band, coarser, or coordinates
            asset = pystac.Asset(f"{base}/{array.path}", title=_title(band), media_type=ZARR, roles=["data", "reflectance"])
            asset.extra_fields = {"gsd": metres(array), "bands": [dict(band)], **arrays.projection(store, array)}
            asset.extra_fields |= arrays.numbers(store, array, native=native)
            yield f"{array.name.upper()}_{metres(array)}m", asset


def _title(band: Mapping[str, Any]) -> str:
    common = band.get("eo:common_name")
    return str(band["name"]).upper() + (f" ({common})" if common else "")


def _beside(companions: Mapping[str, Path]) -> Iterator[tuple[str, pystac.Asset]]:
    for named, (key, title, kind, roles) in _BESIDE.items():
        if named in companions:
            content = companions[named].read_bytes()
            asset = pystac.Asset(f"./{companions[named].name}", title=title, media_type=kind, roles=roles)
            asset.extra_fields = {"file:size": len(content), "file:checksum": _SHA256 + hashlib.sha256(content).hexdigest()}
            yield key, asset


def _add_storage(item: pystac.Item, output: str, service: Service) -> None:
    scheme = {"bucket": urlsplit(output).netloc}
    if (urlsplit(service.endpoint).hostname or "").endswith(".amazonaws.com"):
        scheme |= {"type": "aws-s3", "platform": "https://{bucket}.s3.{region}.amazonaws.com", "region": service.region}
    else:  # buckets in the path: every S3 service understands that
        scheme |= {"type": "custom-s3", "platform": f"{service.endpoint}/{{bucket}}"}
        scheme |= {"region": service.region} if service.region else {}
    item.properties["storage:schemes"] = {"output": scheme}
    for asset in item.assets.values():
        asset.extra_fields["storage:refs"] = ["output"]


def extent(geometry: Any) -> list[float] | None:  # noqa: ANN401  # whatever the product says
    """Returns a polygon's bounding box: west, south, east, north; west > east across 180 degrees. None when it is no polygon.

    Not the product's own bbox: EOPF products have east and west the wrong way round there.
    """
    try:
        polygons = {"Polygon": [geometry["coordinates"]], "MultiPolygon": geometry["coordinates"]}[geometry["type"]]
        x, y = zip(*((float(p[0]), float(p[1])) for polygon in polygons for ring in polygon for p in ring), strict=True)
    except (TypeError, KeyError, ValueError, IndexError, OverflowError):
        return None
    if not all(map(math.isfinite, (*x, *y))):
        return None
    if max(x) - min(x) > 180:  # degrees; no scene is so wide
        return [min(lon for lon in x if lon >= 0), min(y), max(lon for lon in x if lon < 0), max(y)]
    return [min(x), min(y), max(x), max(y)]


def metres(array: ZarrArray) -> int:
    """Returns the pixel size that an array's group is named for (`r10m`); a very large one where it is named for none."""
    level = array.group.rpartition("/")[2].strip("rm")
    return int(level) if level.isdigit() else 10**6
