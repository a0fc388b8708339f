"""The STAC item of an output, written beside it: what it is, where it came from, how it was made.

What the product does not say is left out. Hrefs are relative, so that output and companions can be moved together.

Sources: STAC 1.1.0; extensions projection 2.0, raster 2.0, file 2.1, processing 1.2, storage 2.0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pystac

from geozarr_runner.request import Service
from geozarr_runner.source.metadata import strict
from geozarr_runner.source.preflight import Plan
from geozarr_runner.source.product import REFLECTANCE, ZarrArray
from stac_watch.model.forms import Native
from stac_watch.model.outcome import Outcome
from stac_watch.model.signatures import unsigned

SUFFIX = ".item.json"
_EXTENSIONS = {
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "processing": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "proj": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "storage": "https://stac-extensions.github.io/storage/v2.0.0/schema.json",
}
_ZARR = "application/vnd.zarr; version=3"
_SHA256 = "1220"
"""Multihash prefix: SHA-256, 32 bytes (file extension, `file:checksum`)."""
_KEPT = ("platform", "instruments", "constellation", "mission", "gsd", "eo:cloud_cover", "product:type", "sat:relative_orbit")


def describe(
    outcome: Outcome, plan: Plan, stac_url: str, store: Path, companions: Mapping[str, str], *, name: str, service: Service | None
) -> str:
    """Returns the item as JSON.

    Args:
        outcome: what the marker says.
        plan: the product.
        stac_url: what was asked for; the item's `derived_from`.
        store: the output, wherever it lies now.
        companions: `report`, `report_json`, `quicklook`, `checksums`, `dask_report` -> file names beside the output.
        name: of the output's folder.
        service: where the S3 client sends its requests; None for other outputs.
    """
    discovery = plan.product.attributes.get("stac_discovery", {})
    known = plan.product.properties
    geometry = next((given for given in (discovery.get("geometry"), plan.item.get("geometry")) if extent(given)), None)
    bbox = extent(geometry)
    item = pystac.Item(
        id=outcome.item_id,
        geometry=geometry,
        bbox=bbox,
        datetime=plan.sensed,
        properties={key: value for key in _KEPT if (value := strict(known.get(key))) is not None},
        stac_extensions=[_EXTENSIONS["processing"]],
    )
    item.properties |= {
        "created": outcome.finished,
        "processing:datetime": outcome.finished,
        "processing:software": outcome.versions,
        "processing:facility": "stac-watch",
    }
    _add_assets(item, outcome, plan, store, name, companions)
    remote = stac_url.startswith(("http://", "https://", "s3://"))
    origin = unsigned(stac_url) if remote else outcome.source
    item.add_link(pystac.Link("derived_from", origin, "application/json" if remote else None))
    if service is not None:
        _add_storage(item, outcome.output_zarr, service)
    item.stac_extensions.sort()
    return json.dumps(strict(item.to_dict(include_self_link=False, transform_hrefs=False)), indent=1, allow_nan=False) + "\n"


def _add_assets(item: pystac.Item, outcome: Outcome, plan: Plan, store: Path, name: str, companions: Mapping[str, str]) -> None:
    base = plan.source.url if plan.native is Native.REFERENCE else f"./{name}"
    whole = pystac.Asset(base, title="GeoZarr", media_type=_ZARR, roles=["data"])
    item.add_asset("geozarr", whole)
    reflectance = [a for a in plan.selection.arrays if a.group in outcome.groups and a.group.startswith(REFLECTANCE)]
    if reflectance:
        finest = min(reflectance, key=lambda a: _metres(a))
        asset = pystac.Asset(f"{base}/{REFLECTANCE}", title="Reflectance pyramid", media_type=_ZARR, roles=["data", "reflectance"])
        item.add_asset("reflectance", asset)
        projection = _projection(store, finest)
        asset.extra_fields |= projection
        item.properties |= {key: projection[key] for key in ("proj:code",) if key in projection}
        asset.extra_fields |= {
            "raster:spatial_resolution": _metres(finest),
            "bands": [{"name": b} for b in sorted({a.name for a in reflectance if not a.is_coordinate})],
            **_numbers(plan, finest),
        }
        item.stac_extensions += [_EXTENSIONS["raster"], _EXTENSIONS["proj"]]
    if outcome.package is not None:
        package = outcome.package
        kind = "application/gzip" if package.href.endswith("gz") else "application/x-tar"
        asset = pystac.Asset(f"./{package.href.rpartition('/')[2]}", title="The same, packed", media_type=kind, roles=["archive"])
        asset.extra_fields = {"file:size": package.bytes, "file:checksum": _SHA256 + package.sha256}
        item.add_asset("package", asset)
        item.stac_extensions.append(_EXTENSIONS["file"])
    for key, kind, role in (
        ("quicklook", "image/png", "thumbnail"),
        ("report", "text/html", "metadata"),
        ("report_json", "application/json", "metadata"),
        ("dask_report", "text/html", "metadata"),
        ("checksums", "text/plain", "metadata"),
    ):
        if key in companions:
            item.add_asset(key, pystac.Asset(f"./{companions[key]}", media_type=kind, roles=[role]))


def _numbers(plan: Plan, array: ZarrArray) -> dict[str, Any]:
    """Returns what the pixels are: decoded ones of a conversion, or as the store has them that was taken as it is."""
    if plan.native is Native.CONVERT:
        return {"data_type": "float32", "nodata": "nan"}
    found: dict[str, Any] = {"data_type": np.dtype(array.dtype).name}
    if array.fill_value is not None:
        found["nodata"] = array.fill_value
    known = {"raster:scale": "scale_factor", "raster:offset": "add_offset"}
    return found | {name: array.attributes[key] for name, key in known.items() if key in array.attributes}


def _projection(store: Path, array: ZarrArray) -> dict[str, Any]:
    """Returns what the output itself says of a group's grid, in the words of the projection extension."""
    try:
        said = json.loads((store / array.group / "zarr.json").read_bytes())["attributes"]
    except (OSError, ValueError, KeyError):
        said = {}  # of a store that is only referenced
    names = {
        "proj:code": "proj:code",
        "spatial:bbox": "proj:bbox",
        "spatial:shape": "proj:shape",
        "spatial:transform": "proj:transform",
    }
    found = {ours: said[theirs] for theirs, ours in names.items() if said.get(theirs) is not None}
    if not found:
        found = {key: array.attributes[key] for key in ("proj:bbox", "proj:shape", "proj:transform") if key in array.attributes}
        found |= {"proj:code": f"EPSG:{array.attributes['proj:epsg']}"} if "proj:epsg" in array.attributes else {}
    return found


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
    item.stac_extensions.append(_EXTENSIONS["storage"])


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


def _metres(array: ZarrArray) -> int:
    return int(array.group.rpartition("/")[2].strip("rm"))
