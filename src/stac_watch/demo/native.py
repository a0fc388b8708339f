"""Writes a small product of the form that new acquisitions have: finished GeoZarr in Zarr v3, sharded, packed integers.

Six levels, shards that hold a whole array, blosc-zstd, consolidated at the root and at reflectance; what holds nothing is left out,
as the publisher leaves it out; no quicklook. Made of the Zarr v2 product of the same id, without zarr and without the converter.

Source: published stores of sentinel-2-l2a-zarr3, 2026-09 (a shard of 11,264 pixels and chunks of 1,024 at full size).
"""

from __future__ import annotations

import itertools
import json
import shutil
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

from stac_watch.demo.pixels import Array
from stac_watch.demo.product import write_product
from stac_watch.demo.structure import Node
from stac_watch.demo.tiles import parse_tile
from stac_watch.model.errors import InputError
from stac_watch.model.identity import tile_of
from stac_watch.model.zarr3 import crc32c

PYRAMID = "measurements/reflectance"
LEVELS = {"r120m": ("r60m", 2), "r360m": ("r120m", 3), "r720m": ("r360m", 2)}
"""Overview -> the level it is made of, and by which factor."""
_INJECTED = {"r20m": 2, "r60m": 6}  #: levels that b08 is added to, made of r10m
_NOTHING = 2**64 - 1  #: an entry of a shard's index where a chunk is left out
_CONVENTIONS: tuple[Node, ...] = tuple(
    {
        "uuid": uuid, "name": name, "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v0.1/schema.json",
    }
    for name, uuid in (
        ("multiscales", "d35379db-88df-4056-af3a-620245f8e347"), ("spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"),
        ("proj", "f17cb550-5864-4468-aeb7-f3180cfb622f"),
    )
)  # fmt: skip


def write_native(folder: Path, item_id: str, *, size: int = 756, seed: int = 0, chunk: int = 256, scaled: bool = True) -> Path:
    """Writes `<folder>/<item_id>.zarr` and returns its path; the same arguments give the same bytes.

    Args:
        folder: made when absent.
        item_id: a Sentinel-2 product id.
        size: edge of r10m in pixels of 10 m; a multiple of 12, at least 72.
        seed: another one gives another day over the same ground.
        chunk: edge of the chunks within a shard, in pixels.
        scaled: false: reflectance has no scale and offset, its numbers are what they are.

    Raises:
        InputError: not a Sentinel-2 product id, a size that does not fit, or the product exists already.
        CannotWrite: the folder is not writable or full.
    """
    path = folder / f"{item_id}.zarr"
    if path.exists():
        raise InputError(f"product {path.name} exists already in {folder}", hint="remove it or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=folder) as beside:
        source = write_product(Path(beside) / "v2", item_id, size=size, seed=seed)
        unfinished = Path(beside) / path.name
        _Writer(unfinished, source, chunk, scaled=scaled).write()
        shutil.move(unfinished, path)
    return path


class _Writer:
    """One store on its way; nodes are kept until the end, because the root's document holds them all."""

    def __init__(self, root: Path, source: Path, chunk: int, *, scaled: bool) -> None:
        self._root, self._source, self._chunk, self._scaled = root, source, chunk, scaled
        self._documents: Mapping[str, Any] = json.loads((source / ".zmetadata").read_text())["metadata"]
        self._tile = parse_tile(tile_of(source.name))
        self._nodes: dict[str, Node] = {}
        self._read: dict[str, Array] = {}

    def write(self) -> None:
        for key in self._documents:
            path, _, kind = key.rpartition("/")
            if "quicklook" in path:
                continue
            if kind == ".zgroup" and path:
                self._nodes[path] = _group(self._documents.get(f"{path}/.zattrs", {}))
            elif kind == ".zarray" and self._documents[key]["shape"]:  # the publisher's writer drops scalars
                self._array(path)
        for level, factor in _INJECTED.items():
            self._derive(f"{PYRAMID}/{level}/b08", f"{PYRAMID}/r10m/b08", factor)
        for level, (parent, factor) in LEVELS.items():
            self._nodes[f"{PYRAMID}/{level}"] = _group({})
            for path in [p for p, n in self._nodes.items() if p.rpartition("/")[0] == f"{PYRAMID}/{parent}" and n["shape"]]:
                self._derive(f"{PYRAMID}/{level}/{path.rpartition('/')[2]}", path, factor)
        self._describe()
        self._close()

    def _array(self, path: str) -> None:
        found, attributes = self._documents[f"{path}/.zarray"], dict(self._documents.get(f"{path}/.zattrs", {}))
        dimensions = attributes.pop("_ARRAY_DIMENSIONS", [])
        attributes = {k: v for k, v in attributes.items() if not k.startswith(("proj:", "_"))}
        if found["fill_value"] is not None and dimensions == ["y", "x"]:
            attributes["_FillValue"] = found["fill_value"]
        if not self._scaled and path.startswith(PYRAMID):
            attributes = {k: v for k, v in attributes.items() if k not in ("scale_factor", "add_offset")}
        self._put(path, read_v2(self._source, path, found), dimensions, attributes)

    def _derive(self, path: str, origin: str, factor: int) -> None:
        """Writes a coarser array: means of what is valid, rounded; coordinates in the middle."""
        node, values = self._nodes[origin], self._read[origin]
        attributes, missing = node["attributes"], node["attributes"].get("_FillValue")
        if values.ndim == 1:
            edge = values.size // factor * factor
            coarse = values[:edge].reshape(-1, factor).mean(axis=1).astype(values.dtype)
        else:
            height, width = (n // factor * factor for n in values.shape)
            blocks = values[:height, :width].reshape(height // factor, factor, width // factor, factor).astype("f8")
            valid = blocks != missing if missing is not None else np.ones(blocks.shape, bool)
            number = valid.sum(axis=(1, 3))
            mean = np.where(valid, blocks, 0).sum(axis=(1, 3)) / np.maximum(number, 1)
            coarse = np.where(number > 0, np.maximum(np.rint(mean), 1), missing or 0).astype(values.dtype)
        self._put(path, coarse, node["dimension_names"], attributes)

    def _put(self, path: str, values: Array, dimensions: list[str], attributes: Mapping[str, Any]) -> None:
        sharded = values.ndim > 1 and values.dtype.kind in "uif"
        inner = [min(self._chunk, n) for n in values.shape]
        stored = [-(-n // i) * i for n, i in zip(values.shape, inner, strict=True)] if sharded else list(values.shape)
        fill: Any = "NaN" if values.dtype.kind == "f" else "" if values.dtype.kind == "U" else 0
        blosc = numcodecs.Blosc("zstd", 3, numcodecs.Blosc.SHUFFLE)
        if path.startswith(PYRAMID):
            self._read[path] = values
        self._nodes[path] = {
            "shape": list(values.shape), "data_type": _data_type(values.dtype), "fill_value": fill,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": stored}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [_shards(inner, values.dtype)] if sharded else [_bytes(values.dtype)],
            "attributes": dict(attributes), "dimension_names": dimensions, "zarr_format": 3, "node_type": "array",
            "storage_transformers": [],
        }  # fmt: skip
        target = self._root / path / "c" / "/".join("0" for _ in values.shape)
        if sharded:
            data = _shard(values, inner, stored, fill, blosc)
        else:
            data = b"" if values.ndim == 0 and not values.any() else values.tobytes()
        if data:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

    def _describe(self) -> None:
        """Says where on the map each group on a grid lies, and which levels there are."""
        code = f"EPSG:{self._tile.epsg}"
        layout: list[Node] = []
        for group in [p for p, n in self._nodes.items() if n["node_type"] == "group" and f"{p}/x" in self._nodes]:
            level = group.rpartition("/")[2]
            if not level.startswith("r"):
                continue
            metres, shape = int(level.strip("rm")), [self._nodes[f"{group}/{axis}"]["shape"][0] for axis in "yx"]
            transform = [float(metres), 0.0, float(self._tile.left), 0.0, float(-metres), float(self._tile.top)]
            bbox = [transform[2], transform[5] - shape[0] * metres, transform[2] + shape[1] * metres, transform[5]]
            self._nodes[group]["attributes"] |= {
                "grid_mapping": "spatial_ref", "spatial:dimensions": ["y", "x"], "spatial:registration": "pixel",
                "spatial:bbox": bbox, "spatial:transform": transform, "spatial:shape": shape, "proj:code": code,
                "zarr_conventions": list(_CONVENTIONS[1:]),
            }  # fmt: skip
            for path, node in self._nodes.items():  # what readers of CF look for
                if path.rpartition("/")[0] == group and node.get("dimension_names") == ["y", "x"]:
                    node["attributes"]["grid_mapping"] = "spatial_ref"
            self._put(f"{group}/spatial_ref", np.zeros((), "<i8"), [], {"crs_wkt": self._tile.wkt, "spatial_ref": self._tile.wkt})
            if group.startswith(PYRAMID):
                layout.append({"asset": level, "spatial:shape": shape, "spatial:transform": transform})
        layout.sort(key=lambda entry: entry["spatial:transform"][0])
        self._nodes[PYRAMID]["attributes"] |= {
            "multiscales": {"layout": layout, "resampling_method": "average"},
            "zarr_conventions": list(_CONVENTIONS), "spatial:dimensions": ["y", "x"], "proj:code": code,
        }  # fmt: skip

    def _close(self) -> None:
        ordered = dict(sorted(self._nodes.items()))
        below = {p.removeprefix(f"{PYRAMID}/"): n for p, n in ordered.items() if p.startswith(f"{PYRAMID}/")}
        for path, node in ordered.items():
            document = {**node, "consolidated_metadata": _inline(below)} if path == PYRAMID else node
            (self._root / path).mkdir(parents=True, exist_ok=True)
            (self._root / path / "zarr.json").write_text(json.dumps(document))
        root = {**_group(self._documents.get(".zattrs", {})), "consolidated_metadata": _inline(ordered)}
        (self._root / "zarr.json").write_text(json.dumps(root))


def read_v2(store: Path, path: str, document: Mapping[str, Any]) -> Array:
    """Returns a whole array of a Zarr v2 product of this package."""
    codec = numcodecs.get_codec(document["compressor"]) if document["compressor"] else None
    shape, chunks = document["shape"], document["chunks"]
    values = np.empty(shape, document["dtype"])
    for index in itertools.product(*(range(-(-n // c)) for n, c in zip(shape, chunks, strict=True))):
        raw = (store / path / (document.get("dimension_separator", ".").join(map(str, index)) or "0")).read_bytes()
        block = np.frombuffer(codec.decode(raw) if codec else raw, document["dtype"]).reshape(chunks)
        place = tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunks, shape, strict=True))
        values[place] = block[tuple(slice(0, s.stop - s.start) for s in place)]
    return values


def _shard(values: Array, inner: list[int], stored: list[int], fill: Any, blosc: Any) -> bytes:  # noqa: ANN401  # numbers, numcodecs
    """Returns a shard that holds the whole array; empty when nothing is in it."""
    body, index = bytearray(), []
    for corner in itertools.product(*(range(0, s, i) for s, i in zip(stored, inner, strict=True))):
        block = values[tuple(slice(c, c + i) for c, i in zip(corner, inner, strict=True))]
        empty = np.isnan(block).all() if fill == "NaN" else not block.any()
        if block.size == 0 or empty:
            index.append((_NOTHING, _NOTHING))
            continue
        full = np.full(inner, np.nan if fill == "NaN" else fill, values.dtype)
        full[tuple(slice(0, n) for n in block.shape)] = block
        data = blosc.encode(full)
        index.append((len(body), len(data)))
        body += data
    table = b"".join(struct.pack("<2Q", *entry) for entry in index)
    return bytes(body + table + struct.pack("<I", crc32c(table))) if body else b""


def _shards(inner: list[int], dtype: np.dtype[Any]) -> Node:
    blosc = {"typesize": dtype.itemsize, "cname": "zstd", "clevel": 3, "shuffle": "shuffle", "blocksize": 0}
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": inner,
            "codecs": [_bytes(dtype), {"name": "blosc", "configuration": blosc}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        },
    }


def _bytes(dtype: np.dtype[Any]) -> Node:
    return {"name": "bytes"} if dtype.itemsize == 1 else {"name": "bytes", "configuration": {"endian": "little"}}


def _data_type(dtype: np.dtype[Any]) -> str | Node:
    if dtype.kind == "U":
        return {"name": "fixed_length_utf32", "configuration": {"length_bytes": dtype.itemsize}}
    return str(dtype.newbyteorder("="))


def _group(attributes: Mapping[str, Any]) -> Node:
    return {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}


def _inline(nodes: Mapping[str, Node]) -> Node:
    return {"kind": "inline", "must_understand": False, "metadata": dict(nodes)}
