"""What a product's store is, as its item tells it, and what is done with a store that is finished already. Pure.

An item only announces a form; the runner looks at the store itself before it does anything. So a wrong announcement costs nothing,
but a form that the runner does not take is not worth a run.

Sources: STAC extension zarr 1.1; items of sentinel-2-l2a (CPM 2.5 to 2.7) and sentinel-2-l2a-zarr3 (CPM 3.0), 2026-09.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Form(StrEnum):
    """What a store is. The values are labels of Workflows and of metrics."""

    EOPF_V2 = "eopf-v2"  #: EOPF product in Zarr v2
    EOPF_V3 = "eopf-v3"  #: EOPF product in Zarr v3, without a pyramid
    GEOZARR = "geozarr-v3"  #: finished GeoZarr in Zarr v3: pyramid, conventions, shards
    ARCHIVE = "zarr-zip"  #: a Zarr in one zip file
    OTHER = "other"  #: a later Zarr, or another mission's product


TAKEN = frozenset({Form.EOPF_V2, Form.EOPF_V3, Form.GEOZARR})
"""What the runner takes."""


class Native(StrEnum):
    """What is done with a store that is finished GeoZarr already."""

    MIRROR = "mirror"  #: the same objects, byte for byte, each of them checked
    CONVERT = "convert"  #: our encoding and chunks, by the recipe
    REFERENCE = "reference"  #: nothing is copied: it is checked where it lies, and the output says where that is


class Encoding(StrEnum):
    """How the numbers of an output are stored. Only `stock` is what eopf-geozarr writes byte for byte; all hold the same values."""

    PACKED = "packed"  #: the source's own integers, with scale, offset and missing value by the CF rule; overviews of such, rounded
    DECODED = "decoded"  #: float32, nodata is NaN
    STOCK = "stock"  #: the same in the codec of eopf-geozarr


ENCODING, SHARDING = Encoding.PACKED, "auto"
"""What a recipe asks for that says nothing of them."""


def sharded(asked: str | bool, output: str) -> bool:
    """Says whether each array of an output is one object: as it was asked, and by `auto` in object stores, which count objects."""
    return "://" in output if asked == "auto" else asked in (True, "true")


_VERSION = re.compile(r"application/vnd[.+]zarr\s*;.*\bversion=\"?(\d{1,9})", re.IGNORECASE)
_ZARR = re.compile(r"application/vnd[.+]zarr", re.IGNORECASE)
_CPM = re.compile(r"(\d{1,9})\.")
_PRODUCTS = ("S02MSIL1C", "S02MSIL2A")


def form_of(document: Mapping[str, Any]) -> Form:
    """Returns the form that a STAC item announces; what it does not say is taken for what was usual.

    Asked in this order: `product:type` (another mission's is never taken), the media type's version, `zarr:zarr_format`, and the
    version of the software that wrote it. A consolidated store in v3 is a finished one (CPM 3.0 alone consolidates none), and so
    is one with an asset for all levels together.
    """
    properties, assets = _mapping(document.get("properties")), _mapping(document.get("assets"))
    kind = properties.get("product:type")
    if isinstance(kind, str) and kind.startswith("S0") and not kind.startswith(_PRODUCTS):
        return Form.OTHER
    found = [asset for asset in assets.values() if isinstance(asset, Mapping)]
    zarrs = [asset for asset in found if _ZARR.match(str(asset.get("type", "")))]
    if not zarrs and any(is_archive(asset) for asset in found):
        return Form.ARCHIVE
    product = _mapping(assets.get("product"))
    version = _version(product) or next((v for v in map(_version, zarrs) if v), 0) or _software(properties)
    if version <= 2:  # the number of the format
        return Form.EOPF_V2
    if version > 3:  # idem
        return Form.OTHER
    pyramid = any(str(asset.get("href", "")).rstrip("/").endswith("/measurements/reflectance") for asset in zarrs)
    return Form.GEOZARR if pyramid or product.get("zarr:consolidated") is True else Form.EOPF_V3


def is_archive(asset: Mapping[str, Any]) -> bool:
    """Tells whether an asset is a Zarr packed in one zip file."""
    href = str(asset.get("href", "")).partition("?")[0].rstrip("/")
    return href.endswith(".zarr.zip")


def _version(asset: Mapping[str, Any]) -> int:
    match = _VERSION.match(str(asset.get("type", "")))
    stated = asset.get("zarr:zarr_format")
    return int(match[1]) if match else stated if isinstance(stated, int) and not isinstance(stated, bool) else 0


def _software(properties: Mapping[str, Any]) -> int:
    """Returns the format that the software writes by default: CPM 3 writes v3. Its key was `EOPF-CPM` before."""
    software = _mapping(properties.get("processing:software"))
    match = _CPM.match(str(software.get("EOPF_CPM") or software.get("EOPF-CPM") or ""))
    return 3 if match and int(match[1]) >= 3 else 2


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
