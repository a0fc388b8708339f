"""What an output says of where its pixels are, made to agree with its axes.

The converter writes a level's scale as a ratio of pixel counts, which is none where a level cannot be halved (305 -> 152: 2.0066
beside a pixel of exactly twice the size); a transform of north-up whichever way y runs; for derived arrays the shape and transform
of what they are made of; and a box round the world for a tile across 180 degrees. x and y are right: all of it is made of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geozarr_runner.source.product import REFLECTANCE, Selection


def declare(tree: Any, selection: Selection) -> None:  # noqa: ANN401  # xarray.DataTree
    """Puts the CRS where the converter looks for it first, in the spelling that it reads.

    It does not look into the product's own STAC item, and takes whatever follows a colon for the number of an EPSG code.
    """
    other = tree.attrs.get("other_metadata")
    known = other if isinstance(other, dict) else {}
    if selection.crs and known.get("horizontal_CRS_code") != selection.crs:
        tree.attrs["other_metadata"] = {**known, "horizontal_CRS_code": selection.crs}


@dataclass(frozen=True)
class Grid:
    """The pixels of a group."""

    transform: list[float]  # six numbers: pixel size, 0, outer edge of the first column; 0, pixel size, outer edge of the first row
    shape: list[int]  # y, x

    @property
    def bbox(self) -> list[float]:
        """Outer edges: west, south, east, north."""
        dx, _, x, _, dy, y = self.transform
        height, width = self.shape
        xs, ys = sorted((x, x + width * dx)), sorted((y, y + height * dy))
        return [xs[0], ys[0], xs[1], ys[1]]


def settle(folder: Path) -> None:
    """Writes the georeferencing of every group, array and level anew, in their own documents and in the consolidated ones."""
    documents = _Documents(folder)
    grids = {path: grid for path in documents.groups("spatial:dimensions") if (grid := _grid(folder / path)) is not None}
    for path, grid in grids.items():
        own = {"spatial:transform": grid.transform, "spatial:bbox": grid.bbox, "spatial:shape": grid.shape}
        documents.change(path, own)
        for name, attributes in documents.arrays(path):
            documents.change(f"{path}/{name}", {k: v for k, v in _array(grid).items() if k in attributes})
    _levels(documents, grids)
    _root(documents, grids)
    documents.save()


def _array(grid: Grid) -> dict[str, Any]:
    return {"proj:shape": grid.shape, "proj:bbox": grid.bbox, "proj:transform": [*grid.transform, 0.0, 0.0, 1.0]}


def _grid(group: Path) -> Grid | None:
    """Returns a group's grid by its axes; None when it has none, or such that do not move."""
    import zarr

    axes = [zarr.open_array(str(group / name), mode="r")[...] if (group / name).is_dir() else None for name in "yx"]
    if axes[0] is None or axes[1] is None:
        return None
    y, x = (np.asarray(axis, np.float64) for axis in axes)
    metres = float(group.name.strip("rm"))
    dy, dx = (float(a[1] - a[0]) if len(a) > 1 else pixel for a, pixel in ((y, -metres), (x, metres)))
    if not dx or not dy:
        return None
    return Grid([dx, 0.0, float(x[0]) - dx / 2, 0.0, dy, float(y[0]) - dy / 2], [len(y), len(x)])


def _levels(documents: _Documents, grids: dict[str, Grid]) -> None:
    multiscales = documents.attributes(REFLECTANCE).get("multiscales")
    if not isinstance(multiscales, dict):
        return
    by_level = {path.rpartition("/")[2]: grid for path, grid in grids.items() if path.startswith(f"{REFLECTANCE}/")}
    layout = [dict(entry) for entry in multiscales["layout"]]
    for entry in layout:
        grid = by_level[entry["asset"]]
        entry |= {"spatial:shape": grid.shape, "spatial:transform": grid.transform}
        if "derived_from" in entry:
            if entry["derived_from"] not in by_level:
                entry["derived_from"] = layout[0]["asset"]  # the finest of those that were asked for
            origin = by_level[entry["derived_from"]]
            scale = [grid.transform[n] / origin.transform[n] for n in (4, 0)]
            entry["transform"] = {**entry["transform"], "scale": scale}
    finest = by_level[layout[0]["asset"]]
    documents.change(REFLECTANCE, {"multiscales": {**multiscales, "layout": layout}, "spatial:bbox": finest.bbox})


def _root(documents: _Documents, grids: dict[str, Grid]) -> None:
    """Gives the root the tile's box; across 180 degrees it begins in the west of it (RFC 7946, section 5.2)."""
    from pyproj import Transformer

    boxes = [(documents.attributes(path).get("proj:code"), grid.bbox) for path, grid in grids.items()]
    if not boxes or not boxes[0][0] or "spatial:bbox" not in documents.attributes(""):
        return
    code, box = boxes[0]
    projected = Transformer.from_crs(code, "EPSG:4326", always_xy=True)
    west, south, east, north = projected.transform_bounds(box[0], box[1], box[2], box[3])
    documents.change("", {"spatial:bbox": [west, south, east, north]})


class _Documents:
    """The `zarr.json` documents of a store. Those of the root and of reflectance hold copies of what is below them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._holders = {path: self._read(path) for path in ("", REFLECTANCE) if (folder / path / "zarr.json").is_file()}
        self._below: dict[str, Any] = self._holders[""]["consolidated_metadata"]["metadata"]

    def groups(self, attribute: str) -> list[str]:
        """Returns the groups below reflectance's kind that have an attribute and arrays of their own."""
        return [p for p, d in self._below.items() if p != REFLECTANCE and d["node_type"] == "group" and attribute in _of(d)]

    def arrays(self, group: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the arrays of a group with their attributes."""
        for path, document in self._below.items():
            if document["node_type"] == "array" and path.rpartition("/")[0] == group:
                yield path.rpartition("/")[2], _of(document)

    def attributes(self, path: str) -> dict[str, Any]:
        """Returns a node's attributes; empty when there is no such node."""
        return _of(self._holders[""] if not path else self._below.get(path, {}))

    def change(self, path: str, attributes: dict[str, Any]) -> None:
        """Sets attributes of a node wherever it is written down. The holders are written by `save`."""
        known = self.attributes(path)
        if all(known.get(name) == value for name, value in attributes.items()):
            return
        if path not in self._holders:
            own = self._read(path)
            own["attributes"].update(attributes)
            self._write(path, own)
        for holder, document in self._holders.items():
            if path == holder:
                document["attributes"].update(attributes)
            below = document.get("consolidated_metadata", {}).get("metadata", {})
            if copy := below.get(path.removeprefix(f"{holder}/") if holder else path):
                copy["attributes"].update(attributes)

    def save(self) -> None:
        """Writes the documents that hold copies."""
        for path, document in self._holders.items():
            self._write(path, document)

    def _read(self, path: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self._folder / path / "zarr.json").read_bytes())
        return document

    def _write(self, path: str, document: dict[str, Any]) -> None:
        (self._folder / path / "zarr.json").write_text(json.dumps(document, indent=2))


def _of(document: dict[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = document.get("attributes", {})
    return attributes
