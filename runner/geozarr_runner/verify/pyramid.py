"""Do the levels of a finished GeoZarr agree with each other: pixels of the overviews, and where on the ground each level lies?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geozarr_runner.source.product import OVERVIEWS, REFLECTANCE
from geozarr_runner.source.shards import Cells, missing_of, read_whole
from stac_watch.model.outcome import Check
from stac_watch.model.zarr3 import StoredArray, StoredTree, attributes_of

_ROUNDING = 1.0  #: packed numbers: a mean is rounded or cut to a whole one
_HALF = 0.5  #: of a pixel: coordinates name its middle, the transform its corner


def overviews(tree: StoredTree, root: Path) -> Check:
    """Compares each overview with the level that it is made of.

    A block without nodata must have its mean, to one packed number. Of a block with some, any value up to the most of it is taken:
    the converter's writer averages nodata in, which is told, and is the publisher's to mend. A block of nothing is nodata.
    """
    method = str(attributes_of(tree.nodes.get(REFLECTANCE, {})).get("multiscales", {}).get("resampling_method", "average"))
    pixels = edges = 0
    for level, (parent, factor) in OVERVIEWS.items():
        for array in (a for a in tree.arrays.values() if a.group == f"{REFLECTANCE}/{level}" and len(a.shape) == 2):
            above = tree.arrays.get(f"{REFLECTANCE}/{parent}/{array.name}")
            if above is None:
                return Check("overviews", "failed", f"{array.path} is there, {REFLECTANCE}/{parent}/{array.name} is not")
            if array.shape != tuple(n // factor for n in above.shape):
                return Check("overviews", "failed", f"{array.path} has shape {array.shape}, {above.path} {above.shape}")
            got, want = read_whole(array, root).astype(np.float64), read_whole(above, root).astype(np.float64)
            wrong, mixed = _differences(got, want, factor, missing_of(array), exact=method == "average")
            if wrong is not None:
                at = ", ".join(str(int(i)) for i in wrong)
                return Check("overviews", "failed", f"{array.path} at [{at}] has {got[wrong]}, which {above.path} does not give")
            pixels, edges = pixels + got.size, edges + mixed
    if not pixels:
        return Check("overviews", "skipped", "the store has none")
    told = f"{pixels} pixels, each what the level above gives ({method})"
    return Check("overviews", "passed", told + (f"; {edges} of them with nodata averaged in, as published" if edges else ""))


def _differences(
    got: Cells,
    above: Cells,
    factor: int,
    missing: Any | None,  # noqa: ANN401  # a number
    *,
    exact: bool,
) -> tuple[tuple[Any, ...] | None, int]:
    """Returns the first pixel that cannot be right, and how many have nodata averaged in."""
    number, total = np.zeros(got.shape, np.int64), np.zeros(got.shape)
    low, high = np.full(got.shape, np.inf), np.full(got.shape, -np.inf)
    for part in _parts(above, got.shape, factor):
        valid = ~np.isnan(part)
        if missing is not None and missing == missing:  # NaN is asked for above
            valid &= part != missing
        number += valid
        np.add(total, part, out=total, where=valid)
        np.minimum(low, part, out=low, where=valid)
        np.maximum(high, part, out=high, where=valid)
    whole, empty = number == factor * factor, number == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / number
    nothing = np.isnan(got) if missing is None or missing != missing else got == missing
    step = _ROUNDING if float(np.nanmax(np.abs(above), initial=0)) > 2 else 1e-5  # packed numbers, or reflectance
    off = np.abs(got - mean) > step if exact else (got < low - step) | (got > high + step)
    mixed = ~whole & ~empty & ~nothing
    bad = (whole & (off | np.isnan(got))) | (empty & ~nothing) | (mixed & (got > high + step))
    averaged = int(np.count_nonzero(mixed & (np.abs(got - mean) > step)))
    return (np.unravel_index(int(np.argmax(bad)), bad.shape), averaged) if bad.any() else (None, averaged)


def _parts(above: Cells, shape: tuple[int, ...], factor: int) -> Iterator[Cells]:
    """Yields the first pixel of every block, then the second, and so on: six times faster than sums over blocks (measured)."""
    height, width = shape
    for i in range(factor):
        for j in range(factor):
            yield np.ascontiguousarray(above[i : height * factor : factor, j : width * factor : factor])


def georeferencing(tree: StoredTree, root: Path) -> Check:
    """Asks each level for its CRS, and whether its transform is that of its coordinates."""
    codes, levels = set(), 0
    for path, node in sorted(tree.nodes.items()):
        if not path.startswith(f"{REFLECTANCE}/r") or node.get("node_type") != "group":
            continue
        levels += 1
        attributes = attributes_of(node)
        code = attributes.get("proj:code") or _spatial_ref(tree, path)
        if not code:
            return Check("georeferencing", "failed", f"{path} says no CRS")
        codes.add(code)
        for problem in _off_grid(tree, root, path, attributes.get("spatial:transform")):
            return Check("georeferencing", "failed", problem)
    stated = {str(c) for c in codes if str(c).startswith("EPSG:")}
    if len(stated) > 1:
        return Check("georeferencing", "failed", f"the levels have different CRS: {', '.join(sorted(stated))}")
    if not levels:
        return Check("georeferencing", "failed", f"{REFLECTANCE} has no level")
    return Check(
        "georeferencing", "passed", f"{levels} levels, {', '.join(sorted(stated)) or 'one CRS by its WKT'}; coordinates fit"
    )


def _spatial_ref(tree: StoredTree, group: str) -> str:
    array = tree.arrays.get(f"{group}/spatial_ref")
    return str(array.attributes.get("crs_wkt", ""))[:1] and "WKT" if array is not None else ""


def _off_grid(tree: StoredTree, root: Path, group: str, transform: Any) -> Iterator[str]:  # noqa: ANN401  # whatever the store says
    """Yields what does not fit between a level's transform and its x and y, and the arrays' shapes."""
    axes = {name: tree.arrays.get(f"{group}/{name}") for name in ("x", "y")}
    for name, array in axes.items():
        if array is None or len(array.shape) != 1 or array.pixels < 2:  # no axis, or one that has no step
            yield f"{group} has no coordinates {name}"
            return
    shape = tuple(a.pixels for a in (axes["y"], axes["x"]) if a is not None)
    odd = [a.path for a in tree.arrays.values() if a.group == group and len(a.shape) == 2 and a.shape != shape]
    if odd:
        yield f"{odd[0]} has another shape than the coordinates of {group}, {shape}"
    if not isinstance(transform, list) or len(transform) < 6:  # the numbers of an affine transform
        return
    for name, (step, origin) in {"x": (transform[0], transform[2]), "y": (transform[4], transform[5])}.items():
        array = axes[name]
        values = read_whole(array, root).astype(np.float64) if array is not None else np.zeros(2)
        want = origin + (np.arange(values.size) + _HALF) * step
        if float(np.abs(values - want).max()) > abs(step):
            yield f"{group}: {name} runs from {values[0]:g} to {values[-1]:g}, its transform says {want[0]:g} to {want[-1]:g}"


def scales(tree: StoredTree) -> Mapping[str, tuple[float, float]]:
    """Returns scale and offset of every packed array, from the store; an item's `raster:scale` is never asked."""
    found: dict[str, tuple[float, float]] = {}
    for path, array in tree.arrays.items():
        attributes: Mapping[str, Any] = array.attributes
        if "scale_factor" in attributes or "add_offset" in attributes:
            found[path] = (float(attributes.get("scale_factor", 1)), float(attributes.get("add_offset", 0)))
    return found


def decoded(array: StoredArray, cells: Cells) -> Cells:
    """Returns physical values, float32, NaN where there is no data: by the array's own attributes."""
    scale, offset = float(array.attributes.get("scale_factor", 1)), float(array.attributes.get("add_offset", 0))
    values = cells.astype(np.float64) * scale + offset
    missing = missing_of(array)
    if missing is not None and missing == missing:  # NaN stays NaN
        values[cells == missing] = np.nan
    return values.astype(np.float32)
