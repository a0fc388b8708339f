"""Writes a small Sentinel-2-like product: Zarr v2 with the structure of a real EOPF L2A, and a plausible picture in it.

It lies under its final name only when it is whole, and the same arguments give the same bytes. Neither zarr nor xarray is used: the
runner reads with other code what this writes.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from math import ceil, prod
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

from stac_watch.demo.pixels import Array, values
from stac_watch.demo.scene import Scene
from stac_watch.demo.structure import SIZES, Node, l2a_structure
from stac_watch.demo.tiles import Tile, parse_tile
from stac_watch.model.errors import CannotWrite, InputError, cannot_write
from stac_watch.model.identity import check_item_id, tile_of

SIZE_STEP = 12  # pixels of 10 m: an even number of 20 m and a whole one of 60 m; coarser levels have remainders, as real tiles do
SMALLEST = 72  # 720 m: one pixel of the coarsest level
_LEVEL = re.compile(r"r(10|20|60)m")


def write_product(folder: Path, item_id: str, *, size: int = 756, seed: int = 0, tiled: bool = False) -> Path:
    """Writes `<folder>/<item_id>.zarr`, an L2A product of size x size pixels at 10 m, and returns its path.

    Args:
        folder: made when absent.
        item_id: a Sentinel-2 product id; its tile decides the ground, the whole of it the day.
        size: edge of r10m in pixels of 10 m, from the tile's upper left corner; a multiple of 12, at least 72. 756 leaves
            the remainder that a real tile does.
        seed: another one gives another day (clouds, swath edge, noise) over the same ground.
        tiled: small chunks as in products of early 2025, instead of one or four per band.

    Raises:
        InputError: not a Sentinel-2 product id, a size that does not fit, or the product exists already.
        CannotWrite: the folder is not writable or full.
    """
    return write_structure(l2a_structure(check_item_id(item_id), tiled=tiled), folder / f"{item_id}.zarr", size=size, seed=seed)


def write_structure(structure: Node, path: Path, *, size: int, seed: int = 0) -> Path:
    """Writes the product that `structure` describes, reduced to size x size pixels at 10 m, and returns `path`.

    Raises:
        InputError: no Sentinel-2 id in the structure, a size that does not fit, or `path` exists already.
        CannotWrite: the folder is not writable or full.
    """
    if size < SMALLEST or size % SIZE_STEP:
        raise InputError(
            f"size {size} is not a multiple of {SIZE_STEP} from {SMALLEST} on",
            hint=f"for example 756, or {SIZES[10]} for the real size",
        )
    if path.exists():
        raise InputError(f"product {path.name} exists already in {path.parent}", hint="remove it or choose another folder")
    product = str(structure["attributes"]["stac_discovery"]["id"]).removesuffix(".SAFE")
    tile = parse_tile(tile_of(product))
    scene = Scene(size, tile.name, f"{product}/{seed}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            _write_tree(unfinished, scene, tile, structure)
            unfinished.chmod(0o755)  # mkdtemp makes it private; a file server under another user reads it
            unfinished.rename(path)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    except OSError as error:
        known = cannot_write(error, path) or CannotWrite(
            f"cannot write {path}: {error.strerror}", hint="choose a folder that can be written"
        )
        need = sum(_raw_bytes(reduce_node(node, at, tile, size)) for at, node in _walk(structure, ""))
        raise CannotWrite(
            known.message, hint=f"{known.hint}; the product needs up to {need / 1e6:.0f} MB ({need} bytes)"
        ) from error
    return path


def _raw_bytes(node: Node) -> int:
    """Returns what an array takes before it is encoded; 0 for a group."""
    return 0 if "members" in node else prod(node["shape"]) * np.dtype(node["dtype"]).itemsize


def _write_tree(root: Path, scene: Scene, tile: Tile, structure: Node) -> None:
    metadata: dict[str, Any] = {}
    for path, full in _walk(structure, ""):
        node = reduce_node(full, path, tile, scene.size)
        folder = root / path.lstrip("/")
        folder.mkdir(exist_ok=True)
        documents = {".zattrs": node["attributes"]} if node["attributes"] else {}
        if "members" in full:
            documents[".zgroup"] = {"zarr_format": 2}
        else:
            documents[".zarray"] = {k: v for k, v in node.items() if k != "attributes"}
            _write_chunks(folder, node, values(scene, tile, path, node))
        for name, document in documents.items():
            (folder / name).write_text(json.dumps(document, indent=1))
            metadata[f"{path.lstrip('/')}/{name}".lstrip("/")] = document
    consolidated = {"metadata": metadata, "zarr_consolidated_format": 1}
    (root / ".zmetadata").write_text(json.dumps(consolidated, indent=1))


def _walk(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    yield path, node
    for name, member in node.get("members", {}).items():
        yield from _walk(member, f"{path}/{name}")


def reduce_node(node: Node, path: str, tile: Tile, size: int) -> Node:
    """Returns the node for a product of `size` pixels: shape, chunks and projection in proportion, all else as it is.

    Only dimensions that have the real size of their resolution group are reduced; small grids stay as they are.
    """
    level = next((part for part in path.split("/")[:-1] if _LEVEL.fullmatch(part)), None)
    if not path:
        return _reduce_root(node, tile, size)
    if "members" in node or level is None:
        return node
    gsd = int(level[1:-1])
    full, edge = SIZES[gsd], size * 10 // gsd
    dims = list(zip(node["shape"], node["chunks"], strict=True))
    reduced = {
        **node,
        "shape": [edge if dim == full else dim for dim, _ in dims],
        "chunks": [ceil(chunk * edge / full) if dim == full else chunk for dim, chunk in dims],
    }
    if "proj:shape" in node["attributes"]:
        west, north = float(tile.left), float(tile.top)
        reduced["attributes"] = node["attributes"] | {
            "proj:bbox": _box(tile, edge * gsd),
            "proj:shape": [edge, edge],
            "proj:transform": [float(gsd), 0.0, west, 0.0, float(-gsd), north, 0.0, 0.0, 1.0],
        }
    return reduced


def _reduce_root(node: Node, tile: Tile, size: int) -> Node:
    """Returns the root with the box of the reduced product where its own STAC item has one, as real products do."""
    attributes = node["attributes"]
    discovery = attributes.get("stac_discovery", {})
    properties = discovery.get("properties", {})
    if "proj:bbox" not in properties:
        return node
    properties = properties | {"proj:bbox": _box(tile, size * 10)}  # metres
    return {**node, "attributes": attributes | {"stac_discovery": discovery | {"properties": properties}}}


def _box(tile: Tile, edge: int) -> list[float]:
    """Returns west, south, east, north of the upper left corner of a tile, `edge` metres wide."""
    west, north = float(tile.left), float(tile.top)
    return [west, north - edge, west + edge, north]


def _write_chunks(folder: Path, node: Node, array: Array) -> None:
    """Writes every chunk, also those that hold nothing but the fill value: EOPF does, and absence means "not uploaded" here."""
    codec = numcodecs.get_codec(node["compressor"]) if node["compressor"] else None
    chunks, separator = tuple(node["chunks"]), node.get("dimension_separator", ".")
    counts = [ceil(dim / chunk) for dim, chunk in zip(array.shape, chunks, strict=True)]
    for index in itertools.product(*map(range, counts)):
        where = tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks, strict=True))
        block = np.asarray(array[where], order="C")
        if block.shape != chunks:  # Zarr v2 stores edge chunks at full size
            block = np.pad(block, [(0, c - b) for c, b in zip(chunks, block.shape, strict=True)])
        key = separator.join(map(str, index)) or "0"
        (folder / key).write_bytes(codec.encode(block) if codec else block.tobytes())
