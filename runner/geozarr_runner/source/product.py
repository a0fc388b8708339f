"""The product as its metadata tells it: groups, arrays, and the key of every chunk. Pure.

A choice of groups becomes the arrays and objects that a conversion of it needs, and what the output will hold. Where metadata is
missing nothing is guessed. `metadata` makes a product of documents.

Sources: Zarr v2 storage specification (keys, fill values, `.zmetadata`); eopf-geozarr 0.12.0, `s2_optimization` (what it takes).
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from geozarr_runner.source import crs
from stac_watch.model.errors import InputError, printable
from stac_watch.model.identity import parse_product_id
from stac_watch.model.zarr3 import PlacedArray

REFLECTANCE = "measurements/reflectance"
NATIVE_LEVELS = ("r10m", "r20m", "r60m")
OVERVIEWS = {"r120m": ("r60m", 2), "r360m": ("r120m", 3), "r720m": ("r360m", 2)}
"""Overview level -> the level it is made from, and by which factor (eopf-geozarr's `pyramid_levels`)."""
QUICKLOOKS = ("quality/l1c_quicklook", "quality/l2a_quicklook")
"""The converter drops these (EOPF-Explorer/data-model#81); a full tile's are 460 MB that nobody needs to download."""
_PUBLISH_AGAIN = "nothing can be drawn without it: the producer has to publish the product again"
ROOT_MEMBERS = {"measurements", "quality", "conditions"}
_MUST_HAVE = {"r10m": ("b02", "b03", "b04", "b08"), "r20m": ("b05", "b06", "b07", "b8a", "b11", "b12"), "r60m": ("b01", "b09")}
"""Bands at their own resolution, which every product has; L1C has b10 besides."""
_PRODUCT_TYPES = {"S02MSIL1C": "L1C", "S02MSIL2A": "L2A"}


@dataclass(frozen=True)
class ZarrArray(PlacedArray):
    """One array of the source: what `.zarray` and `.zattrs` say."""

    chunks: tuple[int, ...]
    dtype: str  # numpy typestr, e.g. `<u2`
    fill_value: object
    compressor: Mapping[str, Any] | None
    separator: str
    attributes: Mapping[str, Any] = field(repr=False)
    filters: tuple[Any, ...] = ()
    order: Literal["C", "F"] = "C"  # of a chunk's elements: F is columns first
    unknown: tuple[str, ...] = ()  # keys of `.zarray` that the specification does not have

    @property
    def itemsize(self) -> int:
        """Bytes per pixel, uncompressed."""
        return np.dtype(self.dtype).itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each dimension."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))

    @property
    def is_coordinate(self) -> bool:
        """True for a dimension's own coordinate and for scalars: described, not measured."""
        return not self.shape or self.attributes.get("_ARRAY_DIMENSIONS") == [self.name]

    def chunk_keys(self) -> Iterator[str]:
        """Yields the keys of its chunks, relative to the store's root, in C order."""
        if not self.shape:
            yield f"{self.path}/0"
            return
        for index in itertools.product(*map(range, self.grid)):
            yield f"{self.path}/{self.separator.join(map(str, index))}"


@dataclass(frozen=True)
class Product:
    """A Sentinel-2 product in Zarr v2: its groups and arrays."""

    attributes: Mapping[str, Any] = field(repr=False)
    groups: frozenset[str]
    arrays: Mapping[str, ZarrArray] = field(repr=False)
    name: str = ""  # its own id, as its metadata or else its store's name has it
    left_out: tuple[str, ...] = ()  # groups and arrays that are no part of a Sentinel-2 product as it is known
    grids: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """Path -> attributes of groups, and of variables that describe a grid."""

    @property
    def properties(self) -> Mapping[str, Any]:
        """What the product's own STAC item says of it; empty when it has none that can be read."""
        return _properties(self.attributes)

    @property
    def level(self) -> str:
        """`L1C`, `L2A`: what its `product:type` says, or where it has none its id; an empty string when neither does."""
        kind = self.properties.get("product:type")
        if isinstance(kind, str) and kind:
            return next((level for prefix, level in _PRODUCT_TYPES.items() if kind.startswith(prefix)), "")
        return (parse_product_id(self.name) or {}).get("level", "")

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person should know of it, a sentence each: what was left out, and what is not there."""
        bands = [f"{level}/{band}" for level, names in _MUST_HAVE.items() for band in names]
        absent = [band for band in bands if f"{REFLECTANCE}/{band}" not in self.arrays]
        parts = ("conditions/geometry", "conditions/meteorology")
        absent += [part for part in parts if not any(path.startswith(f"{part}/") for path in self.arrays)]
        return tuple(
            f"{words}: {_few(names)}"
            for words, names in (("not known, and left out", self.left_out), ("not in the product", tuple(absent)))
            if names
        )

    def leaves(self) -> list[str]:
        """Returns the groups that the converter converts: those with data and without child groups, quicklooks excepted."""
        parents = {group.rpartition("/")[0] for group in self.groups}
        with_data = {a.group for a in self.arrays.values() if not a.is_coordinate}
        return sorted(g for g in with_data if g not in parents and not g.startswith(QUICKLOOKS))


@dataclass(frozen=True)
class Selection:
    """What a choice of groups means for the source and for the output."""

    groups: tuple[str, ...]  # leaf groups whose arrays the output will hold
    overviews: tuple[str, ...]  # levels below reflectance that the output will hold besides
    scaffold: ZarrArray | None  # a band that only the converter needs; it is not in the output
    arrays: tuple[ZarrArray, ...]  # everything to read, the scaffold included
    crs: str = ""  # e.g. EPSG:32632; empty when the product names none

    @property
    def keys(self) -> list[str]:
        """The chunk keys to read."""
        return [key for array in self.arrays for key in array.chunk_keys()]

    @property
    def raw_bytes(self) -> int:
        """Uncompressed bytes to read."""
        return sum(a.pixels * a.itemsize for a in self.arrays)


def require_sentinel2(product: Product, where: str) -> None:
    """Checks what the converter's own test of a Sentinel-2 product rests on, before anything heavy is loaded or downloaded.

    Raises:
        InputError: another mission, level or structure; says which part is missing.
    """
    hint = "the converter takes EOPF Sentinel-2 L1C and L2A products in Zarr v2"
    kind = str(product.properties.get("product:type", ""))
    if kind and not product.level:
        raise InputError(f"{where} is not a Sentinel-2 L1C or L2A product: product:type is {kind!r}", hint=hint)
    top = {group.partition("/")[0] for group in product.groups} | {a.partition("/")[0] for a in product.arrays}
    if not top >= ROOT_MEMBERS:  # others are left out
        raise InputError(
            f"{where} is not a Sentinel-2 product: its root holds {_listing(top)}, not {_listing(ROOT_MEMBERS)}", hint=hint
        )
    missing = [f"{REFLECTANCE}/{level}" for level in NATIVE_LEVELS if f"{REFLECTANCE}/{level}" not in product.groups]
    if missing:
        raise InputError(f"{where} is not a Sentinel-2 product: it lacks {_listing(missing)}", hint=hint)
    absent = [name for name in ("stac_discovery", "other_metadata") if not isinstance(product.attributes.get(name), dict)]
    if absent:
        raise InputError(f"{where} is not a Sentinel-2 product: its root attributes lack {_listing(absent)}", hint=hint)
    bands = [a for a in product.arrays.values() if a.path.startswith(f"{REFLECTANCE}/") and len(a.shape) == 2]  # (y, x)
    for band in bands:  # nothing that writes a map of it asks which axis is which
        if (given := band.attributes.get("_ARRAY_DIMENSIONS")) != ["y", "x"]:
            raise InputError(f"{where}: {band.path} has dimensions {printable(str(given), 80)}, not y, x", hint=_PUBLISH_AGAIN)


def require_crs(product: Product, where: str, tile: str = "") -> None:
    """Checks that the product names one coordinate reference system, that of its tile.

    Args:
        product: what is judged.
        where: it lies, for messages.
        tile: `32TQM`; empty where nothing says which.

    Raises:
        InputError: none, several, or another; says where each stands.
    """
    found = _named(product)
    if len(found) > 1:
        said = ", ".join(f"{code} by {place}" for code, place in found.items())
        raise InputError(f"{where} contradicts itself on its coordinate reference system: {said}", hint=_PUBLISH_AGAIN)
    if not found:
        raise InputError(f"{where} names no coordinate reference system that is understood", hint=_PUBLISH_AGAIN)
    [(code, place)] = found.items()
    if tile and code != crs.of_tile(tile):
        raise InputError(
            f"{where} shows tile {tile}, whose grid is {crs.of_tile(tile)}, and says {code} by {place}", hint=_PUBLISH_AGAIN
        )


def select(product: Product, groups: str) -> Selection:
    """Returns what to read and write for `groups` (space-separated, leading `/` optional, empty = the whole product).

    A parent stands for every leaf group below it. The converter cannot do without reflectance/r60m; when that was not asked for,
    one band of it is read as a scaffold, and what is made of it does not stay in the output.

    Raises:
        InputError: a name that is no group of the product, or one that cannot be converted; it is never ignored. No such band.
    """
    leaves = product.leaves()
    wanted = [name.strip("/") for name in groups.split()]
    chosen = sorted({leaf for name in wanted for leaf in _expand(product, leaves, name)}) if wanted else leaves
    arrays = [a for path, a in sorted(product.arrays.items()) if a.group in chosen]
    coarse = f"{REFLECTANCE}/r60m"
    if coarse in chosen:
        return Selection(tuple(chosen), tuple(OVERVIEWS), None, tuple(arrays), _crs(product))
    bands = [a for path, a in sorted(product.arrays.items()) if a.group == coarse and len(a.shape) == 2]  # (y, x)
    extra = [a for path, a in sorted(product.arrays.items()) if a.group == coarse and a.is_coordinate]
    if not bands:
        raise InputError(f"the product has no band in {coarse}, and the converter needs one", hint="is it complete at its source?")
    return Selection(tuple(chosen), (), bands[0], (*arrays, bands[0], *extra), _crs(product))


def tree(product: Product, mark: tuple[str, ...] = ()) -> str:
    """Returns the groups that can be asked for as an indented tree; those in `mark` have an asterisk."""
    lines, seen = [], set()
    for leaf in product.leaves():
        parts = leaf.split("/")
        for depth, part in enumerate(parts):
            path = "/".join(parts[: depth + 1])
            if path not in seen:
                seen.add(path)
                lines.append(f"{'  ' * depth}{part}{' *' if path in mark else ''}")
    return "\n".join(lines)


def _named(product: Product) -> dict[str, str]:
    return crs.named(product.attributes, {path: array.attributes for path, array in product.arrays.items()}, product.grids)


def _crs(product: Product) -> str:
    return next(iter(_named(product)), "")


def _expand(product: Product, leaves: list[str], name: str) -> list[str]:
    below = [leaf for leaf in leaves if leaf == name or leaf.startswith(f"{name}/")]
    if below:
        return below
    if name.startswith(QUICKLOOKS) and name in product.groups:
        raise InputError(
            f"group {name!r} is a quicklook, which the converter drops",
            hint="leave it out of groups; a true-colour picture can be made of b04, b03, b02",
        )
    if name in product.arrays:
        raise InputError(f"{name!r} is an array, not a group", hint=f"ask for its group, {product.arrays[name].group}")
    known = sorted({"/".join(leaf.split("/")[: n + 1]) for leaf in leaves for n in range(leaf.count("/") + 1)})
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    raise InputError(f"the product has no group {name!r}{meant}", hint=f"groups that can be asked for:\n{tree(product)}")


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")  # a line's worth


def _properties(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    discovery = attributes.get("stac_discovery")
    properties = discovery.get("properties") if isinstance(discovery, dict) else None
    return properties if isinstance(properties, dict) else {}


def _listing(names: Any) -> str:  # noqa: ANN401  # any iterable of str
    return ", ".join(sorted(names)) or "nothing"
