"""Documents become a product: what a stranger's metadata says is judged here, once, before anything is decoded or written. Pure.

What is no part of a Sentinel-2 product as it is known is left out, whatever it holds; what is part of one must be right.

Sources: Zarr v2 storage specification (keys, fill values, `.zmetadata`); CF conventions 1.11, section 8.1 (scale and offset).
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from geozarr_runner.source import codecs
from geozarr_runner.source.product import ROOT_MEMBERS, Product, ZarrArray
from stac_watch.model.errors import InputError, printable
from stac_watch.model.identity import parse_product_id

MAX_OBJECTS = 200_000
"""More than 60 times what the most finely chunked real product has (3,014); beyond it, metadata is wrong or hostile."""
MAX_ARRAYS = 5_000  #: a real product has 149
MAX_BYTES = 64 * 1024**3
"""Decoded, of all arrays together: a full tile has 5 GB."""
_KEY = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_ZARRAY = {
    "zarr_format", "shape", "chunks", "dtype", "compressor", "fill_value", "order", "filters", "dimension_separator",
}  # fmt: skip
_GRIDS = ("spatial_ref", "crs")  #: rioxarray's and CF's usual names
_MAX_KEY = 512  #: characters; real ones have 60
_LEVEL = "r(10|20|60)m"
_KNOWN = re.compile(
    rf"measurements/reflectance/{_LEVEL}/(x|y|time|b(0[1-9]|1[0-2]|8a))"
    rf"|quality/(atmosphere/{_LEVEL}/(aot|wvp|x|y)|probability/{_LEVEL}/(cld|snw|band|x|y)|(mask|l1c_quicklook|l2a_quicklook)/.+)"
    r"|conditions/(geometry|mask|meteorology/(cams|ecmwf))/.+"
)
"""The arrays that the converter's model of a product knows; what else a release of the processor adds is left out, and said."""


def strict(value: Any) -> Any:  # noqa: ANN401  # a JSON value
    """Returns the value as RFC 8259 knows it: null for what Python's reader takes and no other does (NaN, infinity)."""
    if isinstance(value, Mapping):
        return {str(key): strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse(documents: Mapping[str, Any], where: str) -> Product:
    """Returns the product that consolidated metadata describes.

    Args:
        documents: key -> JSON document, as under `metadata` in `.zmetadata`.
        where: the store, for messages.

    Raises:
        InputError: the documents are not Zarr v2 metadata.
    """
    if len(documents) > 4 * MAX_ARRAYS:
        raise InputError(f"the metadata of {where} has {len(documents)} documents", hint="no Sentinel-2 product has so many")
    arrays, groups, odd = {}, set(), set()
    try:
        for key, document in documents.items():
            path, _, kind = _legal(key, document).rpartition("/")
            if kind == ".zgroup" and path:
                groups.add(path)
            elif kind == ".zarray" and _KNOWN.fullmatch(path):
                arrays[path] = _array(path, document, documents.get(f"{path}/.zattrs", {}))
            elif kind == ".zarray":
                odd.add(path)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"the metadata of {where} is not valid Zarr v2: {error!r}", hint="open the store with zarr to see more"
        ) from error
    objects, size = sum(math.prod(a.grid) for a in arrays.values()), sum(a.pixels * a.itemsize for a in arrays.values())
    if objects > MAX_OBJECTS or size > MAX_BYTES:
        raise InputError(
            f"{where} has {objects} chunks and {size} bytes, more than {MAX_OBJECTS} or {MAX_BYTES}",
            hint="no Sentinel-2 product has so many",
        )
    attributes = documents.get(".zattrs", {})
    used = {"/".join(parts[:n]) for parts in (path.split("/") for path in arrays) for n in range(1, len(parts))}
    strange = {group for group in groups - used if not _KNOWN.fullmatch(f"{group}/x") and not _is_part(group)}
    return Product(
        attributes=attributes,
        groups=frozenset(groups - strange),
        arrays=arrays,
        name=_name(attributes, where),
        left_out=_topmost(strange | odd),
        grids=_grids(documents, groups),
    )


def known(documents: Mapping[str, Any], product: Product) -> dict[str, Any]:
    """Returns those of the documents that belong to the product as it is known: what a copy of it has to hold, in order."""
    kept = {"", *product.groups, *product.arrays, *(a.group for a in product.arrays.values())}
    return {key: documents[key] for key in sorted(documents, key=lambda key: key.split("/")) if key.rpartition("/")[0] in kept}


def in_order(keys: Iterable[str]) -> bool:
    """Tells whether the members of each group follow each other, among those of the same depth.

    JSON knows no order, and zarr-python 3.3 takes the last of several rows of members for all of a group.
    """
    paths = sorted(dict.fromkeys(key.rpartition("/")[0] for key in keys), key=lambda path: path.count("/"))
    rows = [parent for parent, _ in groupby(paths, key=lambda path: path.rpartition("/")[0])]
    return len(rows) == len(set(rows))


def _legal(key: str, document: object) -> str:
    """Returns a key that may become a path on our disk; a hostile catalog could name ../../etc."""
    if not _KEY.fullmatch(key) or ".." in key or len(key) > _MAX_KEY:
        raise ValueError(f"illegal key {key[:80]!r}")
    if not isinstance(document, dict):
        raise ValueError(f"{key} is no JSON object")  # noqa: TRY004  # JSON's words, not Python's
    return key


def _array(path: str, document: Mapping[str, Any], attributes: Mapping[str, Any]) -> ZarrArray:
    if document["zarr_format"] != 2:  # the number in the specification
        raise ValueError(f"{path} has zarr_format {document['zarr_format']}")
    dtype = np.dtype(document["dtype"])  # a structured or unknown type raises here, with its name
    if dtype.kind not in "biufSUmM" or not dtype.itemsize:
        raise ValueError(f"{path} has dtype {document['dtype']!r}")
    shape, chunks = tuple(_whole(n) for n in document["shape"]), tuple(_whole(n) for n in document["chunks"])
    if len(shape) != len(chunks) or any(n < 0 for n in shape) or any(n < 1 for n in chunks):
        raise ValueError(f"{path} has shape {shape} and chunks {chunks}")
    separator, order = document.get("dimension_separator", "."), document.get("order", "C")
    if separator not in (".", "/") or order not in ("C", "F"):
        raise ValueError(f"{path} has dimension_separator {separator!r} and order {order!r}")
    codecs.check(path, document["compressor"], document.get("filters"))
    array = ZarrArray(
        path=path,
        shape=shape,
        chunks=chunks,
        dtype=str(document["dtype"]),
        fill_value=_fill(path, dtype, document["fill_value"]),
        compressor=document["compressor"],
        separator=separator,
        attributes=_scalars(path, attributes),
        filters=tuple(document.get("filters") or ()),
        order=order,
        unknown=tuple(sorted(document.keys() - _ZARRAY)),
    )
    if max(codecs.decoded_bytes(array), codecs.inner_bytes(array)) > codecs.MAX_CHUNK:
        raise ValueError(f"{path} has chunks of {codecs.decoded_bytes(array)} bytes, more than any codec takes")
    return array


def _whole(value: object) -> int:
    if not isinstance(value, int | float) or isinstance(value, bool) or value != int(value):
        raise ValueError(f"{printable(repr(value), 80)} is no size")
    return int(value)


def _fill(path: str, dtype: np.dtype[Any], value: object) -> object:
    """Returns the fill value when the array's type can hold it. None: there is none."""
    if value is None:
        return value
    number = isinstance(value, int | float)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        fits = number and value == value // 1 and limits.min <= value <= limits.max  # type: ignore[operator]  # a number
    elif dtype.kind == "f":
        fits = number or value in ("NaN", "Infinity", "-Infinity")
    elif dtype.kind == "b":
        fits = number and value in (0, 1)
    else:
        fits = isinstance(value, int | str)
    if not fits:
        raise ValueError(f"{path} has fill_value {printable(repr(value), 80)}, which its type {dtype.str} cannot hold")
    return int(value) if dtype.kind in "iu" else value  # type: ignore[call-overload]  # idem


def _scalars(path: str, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the attributes with scale and offset as numbers; a list of one is one, as xarray reads it (CF 1.11, 8.1)."""
    if not isinstance(attributes, dict):
        raise TypeError(f"the attributes of {path} are no JSON object")
    found = dict(attributes)
    for name in ("scale_factor", "add_offset"):
        if name in found:
            given = found[name]
            value = given[0] if isinstance(given, list) and len(given) == 1 else given
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                raise ValueError(f"{path} has {name} {printable(repr(given), 80)}, which is no number")
            found[name] = value
    return found


def _is_part(group: str) -> bool:
    """Tells whether a group without arrays is one of those that a product has: a parent, or empty."""
    parents = (
        ROOT_MEMBERS,
        {"reflectance", "atmosphere", "probability", "mask", "geometry", "meteorology", "l1c_quicklook", "l2a_quicklook"},
    )
    parts = group.split("/")
    return len(parts) <= len(parents) and all(part in known for part, known in zip(parts, parents, strict=False))


def _grids(documents: Mapping[str, Any], groups: set[str]) -> dict[str, Mapping[str, Any]]:
    """Returns the attributes of groups, and of the variables beside bands that describe a grid."""
    places = (key.removesuffix("/.zattrs") for key in documents if key.endswith("/.zattrs"))
    return {path: documents[f"{path}/.zattrs"] for path in places if path in groups or path.rpartition("/")[2] in _GRIDS}


def _topmost(paths: set[str]) -> tuple[str, ...]:
    return tuple(sorted(p for p in paths if not any(p.startswith(f"{other}/") for other in paths)))


def _name(attributes: Mapping[str, Any], where: str) -> str:
    discovery = attributes.get("stac_discovery")
    given = discovery.get("id") if isinstance(discovery, dict) else None
    return given.removesuffix(".SAFE") if isinstance(given, str) and parse_product_id(given) else store_name(where)


def store_name(url: str) -> str:
    """Returns a store's name without `.zarr`."""
    return posixpath.basename(urlsplit(url).path.rstrip("/")).removesuffix(".zarr")
