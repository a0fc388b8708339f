"""Where the pixels are: the axes of the product before it is converted, and all that the output says of it afterwards.

The axes are what is believed; every other place that names a CRS, a transform, a shape, a box or a scale has to agree with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from geozarr_runner.source.crs import code_of
from geozarr_runner.source.product import NATIVE_LEVELS, REFLECTANCE, Product, Selection
from geozarr_runner.verify.expected import metres
from geozarr_runner.verify.rules import Values
from geozarr_runner.verify.source import SourceReader
from stac_watch.model.errors import InputError, printable
from stac_watch.model.outcome import Check

_NEAR = 1e-6  #: of a pixel
_DEGREES = 1e-6  #: a tenth of a metre


@dataclass(frozen=True)
class _Axes:
    """The axes of a group."""

    x: Values
    y: Values
    metres: int

    @property
    def still(self) -> bool:
        """True when an axis does not move: there is no place that its pixels could have."""
        return any(len(axis) > 1 and not np.ptp(axis) for axis in (self.x, self.y))

    def fault(self) -> str:
        """Says what is wrong with them; empty when they are those of a grid with the pixel size of their level."""
        for name, axis in (("x", self.x), ("y", self.y)):
            steps = np.diff(axis)
            wanted = self.metres * (1 if name == "x" or (len(steps) and steps[0] > 0) else -1)
            if not np.all(np.abs(steps - wanted) <= _NEAR * self.metres):
                return f"{name} does not go on by {self.metres} m a pixel"
        return ""

    @property
    def transform(self) -> list[float]:
        """The affine transform: of a column, and of a row, to the outer edges."""
        dy = float(self.y[1] - self.y[0]) if len(self.y) > 1 else -float(self.metres)
        return [float(self.metres), 0.0, float(self.x[0]) - self.metres / 2, 0.0, dy, float(self.y[0]) - dy / 2]

    @property
    def bbox(self) -> list[float]:
        """Outer edges: west, south, east, north."""
        half = self.metres / 2
        return [self.x.min() - half, self.y.min() - half, self.x.max() + half, self.y.max() + half]

    @property
    def shape(self) -> list[int]:
        """(y, x)."""
        return [len(self.y), len(self.x)]


def require_axes(selection: Selection, root: Path, where: str, product: Product | None = None) -> None:
    """Checks the axes of the staged product.

    Args:
        selection: what is converted.
        root: where it lies.
        where: the store, for messages.
        product: what its groups and its own STAC item say of their place is checked, too.

    Raises:
        InputError: those of a level are not regular, levels lie on different ground, or the product says another place.
    """
    groups, properties = ({}, {}) if product is None else (product.grids, product.properties)
    source, by_path = SourceReader(root), {a.path: a for a in selection.arrays}
    first: tuple[str, _Axes] | None = None
    for group in (g for g in selection.groups if g.rpartition("/")[2] in NATIVE_LEVELS):
        if not {f"{group}/x", f"{group}/y"} <= by_path.keys():
            if group.startswith(REFLECTANCE):
                raise _contradiction(where, f"{group} has no x or no y")
            continue
        x, y = (source.packed(f"{group}/{name}").block((slice(0, by_path[f"{group}/{name}"].pixels),)) for name in "xy")
        axes = _Axes(np.asarray(x, np.float64), np.asarray(y, np.float64), metres(group.rpartition("/")[2]))
        if axes.still and not group.startswith(REFLECTANCE):
            continue  # flags of which nothing is there, axes included
        if fault := axes.fault():
            raise _contradiction(where, f"in {group}, {fault}")
        first = first or (group, axes)
        if not np.allclose(axes.bbox, first[1].bbox, rtol=0, atol=_NEAR):
            raise _contradiction(where, f"{group} and {first[0]} are not on the same ground")
        described = [(a.path, a.attributes, a.shape) for a in selection.arrays if a.group == group]
        described.append((group, groups.get(group, {}), tuple(axes.shape)))
        if said := next(_said_otherwise(described, axes), ""):
            raise _contradiction(where, said)
    if first is not None and (said := next(_said_otherwise([_of_whole(properties, first[1])], first[1]), "")):
        raise _contradiction(where, said)


def _of_whole(properties: Mapping[str, Any], axes: _Axes) -> tuple[str, Mapping[str, Any], tuple[int, ...]]:
    """Returns what a product's own STAC item says of its place, with the shape in pixels of its own."""
    said = {name: properties[name] for name in ("proj:bbox", "proj:transform") if name in properties}
    six = _numbers(said.get("proj:transform"))
    pixel = abs(six[0]) if six and six[0] else axes.metres
    return "stac_discovery", said, tuple(round(n * axes.metres / pixel) for n in axes.shape)


def _said_otherwise(described: Iterable[tuple[str, Mapping[str, Any], tuple[int, ...]]], axes: _Axes) -> Iterator[str]:
    """Yields what is said of a place (path, attributes, shape) that the axes do not.

    Rows may be told from the north though they run from the south.

    Half a pixel is no contradiction: some tell a pixel's corner, others its middle.
    """
    for path, attributes, of in described:
        height, width = of[-2:] if len(of) > 1 else (0, 0)
        boxes = {"proj:bbox": _numbers(attributes.get("proj:bbox"))}
        if len(six := _numbers(attributes.get("proj:transform"))[:6]) == 6:
            a, b, x, d, e, y = six
            boxes["proj:transform"] = [x, y, x + a * width + b * height, y + d * width + e * height]
        for name, box in boxes.items():
            if len(box) == 4 and width:
                west, east, south, north = *sorted(box[0::2]), *sorted(box[1::2])
                if not np.allclose([west, south, east, north], axes.bbox, rtol=0, atol=axes.metres / 2 + _NEAR):
                    yield f"{path} has {name} {printable(str(attributes[name]), 200)}, its axes {[float(n) for n in axes.bbox]}"
        shape = attributes.get("proj:shape")
        if width and isinstance(shape, list) and shape != [height, width]:
            yield f"{path} has proj:shape {printable(str(shape), 80)} and {height} rows of {width}"


def _numbers(value: object) -> list[float]:
    """Returns a list of numbers as it is; of anything else an empty one."""
    given = value if isinstance(value, list) else []
    return [float(n) for n in given] if all(isinstance(n, int | float) and not isinstance(n, bool) for n in given) else []


def _contradiction(where: str, what: str) -> InputError:
    return InputError(f"{where} contradicts itself on where it is: {what}", hint="the producer has to publish it again")


def check(selection: Selection, output: Path, there: Mapping[str, Any]) -> Check:
    """Compares all that the output says of its place with its axes, and with the product's CRS."""
    root = zarr.open_group(str(output), mode="r")
    groups = sorted({path.rpartition("/")[0] for path in there if path.rpartition("/")[2] == "x"})
    levels = {group: _axes(group, there) for group in groups if _is_level(group) and f"{group}/y" in there}
    lacking = [
        g for g in (*selection.groups, *(f"{REFLECTANCE}/{n}" for n in selection.overviews)) if _needs(g) and g not in levels
    ]
    faults = [f"{group} has no axes" for group in lacking]
    for group, axes in levels.items():
        if not axes.still or group.startswith(REFLECTANCE):
            faults += _of_level(group, axes, root[group].attrs, there, selection.crs)
    faults += _of_layout({g: a for g, a in levels.items() if g.startswith(f"{REFLECTANCE}/")}, root, selection.crs)
    faults += _of_root([a for a in levels.values() if not a.still], root.attrs, selection.crs)
    if faults:
        return Check("georeferencing", "failed", f"{len(faults)} contradictions, first: {faults[0]}")
    return Check("georeferencing", "passed", f"{selection.crs or 'no CRS'}; {len(levels)} groups agree with their axes")


def _is_level(group: str) -> bool:
    name = group.rpartition("/")[2]
    return name.startswith("r") and name.endswith("m") and name[1:-1].isdigit()


def _needs(group: str) -> bool:
    return group.startswith(f"{REFLECTANCE}/")


def _axes(group: str, there: Mapping[str, Any]) -> _Axes:
    x, y = (np.asarray(there[f"{group}/{name}"][...], np.float64) for name in "xy")
    return _Axes(x, y, metres(group.rpartition("/")[2]))


def _of_level(group: str, axes: _Axes, attributes: Mapping[str, Any], there: Mapping[str, Any], crs: str) -> Iterator[str]:
    if fault := axes.fault():
        yield f"in {group}, {fault}"
    yield from _differing(
        group, attributes, {"spatial:transform": axes.transform, "spatial:bbox": axes.bbox, "spatial:shape": axes.shape}
    )
    yield from _differing_crs(group, attributes, crs)
    named = there.get(f"{group}/spatial_ref")
    if named is None or code_of(named.attrs.get("crs_wkt")) != crs:
        yield f"{group}/spatial_ref is not {crs}"
    derived: dict[str, list[Any]] = {
        "proj:shape": axes.shape,
        "proj:bbox": axes.bbox,
        "proj:transform": [*axes.transform, 0.0, 0.0, 1.0],
    }
    for path, array in there.items():
        if path.rpartition("/")[0] == group and array.ndim == 2:  # (y, x)
            if list(array.shape) != axes.shape:
                yield f"{path} has shape {array.shape}, its axes {axes.shape}"
            yield from _differing(path, array.attrs, {k: v for k, v in derived.items() if k in array.attrs})
            yield from _differing_crs(path, array.attrs, crs, optional=True)


def _of_layout(levels: Mapping[str, _Axes], root: zarr.Group, crs: str) -> Iterator[str]:
    if len(levels) < 2:  # one level is no pyramid
        return
    attributes = root[REFLECTANCE].attrs
    multiscales: Any = attributes.get("multiscales")
    layout = multiscales.get("layout", []) if isinstance(multiscales, Mapping) else []
    named = {entry["asset"]: entry for entry in layout}
    by_name = {group.rpartition("/")[2]: axes for group, axes in levels.items()}
    if named.keys() != by_name.keys():
        yield f"the layout has {', '.join(named) or 'no levels'}, the group {', '.join(by_name)}"
        return
    for name, entry in named.items():
        axes, where = by_name[name], f"layout {name}"
        yield from _differing(where, entry, {"spatial:transform": axes.transform, "spatial:shape": axes.shape})
        if "derived_from" in entry:
            origin = by_name.get(entry["derived_from"])
            if origin is None:
                yield f"{where} is derived from {entry['derived_from']}, which is not there"
                continue
            scale = [axes.transform[n] / origin.transform[n] for n in (4, 0)]
            yield from _differing(where, entry.get("transform", {}), {"scale": scale})
    finest = by_name[min(by_name, key=metres)]
    yield from _differing(REFLECTANCE, attributes, {"spatial:bbox": finest.bbox})
    yield from _differing_crs(REFLECTANCE, attributes, crs)


def _of_root(levels: list[_Axes], attributes: Mapping[str, Any], crs: str) -> Iterator[str]:
    from pyproj import Transformer

    discovery: Any = attributes.get("stac_discovery")
    for place in ("properties", "assets"):
        known = discovery.get(place) if isinstance(discovery, Mapping) else None
        known = known.get("reflectance") if place == "assets" and isinstance(known, Mapping) else known
        if isinstance(known, Mapping):
            yield from _differing_crs(f"stac_discovery {place}", known, crs, optional=True)
    if not levels or not crs or "spatial:bbox" not in attributes:
        return
    largest = max(levels, key=lambda axes: np.ptp(axes.x))
    west, south, east, north = largest.bbox
    box = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform_bounds(west, south, east, north)
    said: Any = attributes["spatial:bbox"]
    if not np.allclose(said, box, rtol=0, atol=_DEGREES):
        yield f"the root's box is {said}, its ground {list(box)}"


def _differing(where: str, attributes: Any, wanted: Mapping[str, list[Any]]) -> Iterator[str]:  # noqa: ANN401  # any mapping
    for name, value in wanted.items():
        found = attributes.get(name)
        if not isinstance(found, list) or len(found) != len(value) or not np.allclose(found, value, rtol=0, atol=_NEAR):
            yield f"{where} says {name} {found}, its axes {value}"


def _differing_crs(where: str, attributes: Any, crs: str, *, optional: bool = False) -> Iterator[str]:  # noqa: ANN401  # idem
    found = {name: code_of(attributes[name]) for name in ("proj:code", "proj:epsg") if name in attributes}
    if not found and not optional:
        yield f"{where} names no CRS"
    for name, code in found.items():
        if code != crs:
            yield f"{where} says {name} {attributes[name]}, the product {crs or 'none'}"
