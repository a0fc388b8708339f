"""What the output has to hold: the staged source as `source` reads it, and plain block means of it.

Neither the converter nor the fast engine's reader and arithmetic are used: each of them is what is judged. An overview is expected
to be what the level of the output that it is made of says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from geozarr_runner.source.product import OVERVIEWS, REFLECTANCE, Selection, ZarrArray
from geozarr_runner.verify.rules import CfRule, Values
from geozarr_runner.verify.source import Block, SourceReader

type Kind = Literal["native", "injected", "overview", "coordinate"]


def block_mean(values: Values, factor: int) -> Values:
    """Returns the mean of factor x factor blocks, ignoring NaN; NaN where a block holds nothing else. Shape (y, x)."""
    height, width = (n // factor * factor for n in values.shape)
    part = values[:height, :width]
    nan = np.isnan(part)
    if not nan.any():  # nearly always; in less than half the time
        return (_block_sums(part, factor, np.dtype(np.float64)) / factor**2).astype(np.float32)
    number = _block_sums(~nan, factor, np.dtype(np.uint16))
    total = _block_sums(np.where(nan, part.dtype.type(0), part), factor, np.dtype(np.float64))
    mean = np.full(number.shape, np.nan)
    np.divide(total, number, out=mean, where=number > 0)
    return mean.astype(np.float32)


def _block_sums(values: Values, factor: int, wide: np.dtype[Any]) -> Values:
    """Adds rows, which are contiguous, then columns of what is left: a third of the time of sums over axes (measured)."""
    rows = values[::factor].astype(wide)
    for number in range(1, factor):
        rows += values[number::factor]
    sums = rows[:, ::factor].copy()
    for number in range(1, factor):
        sums += rows[:, number::factor]
    return sums


@dataclass(frozen=True)
class Original:
    """What an array has to hold, a block at a time."""

    values: Callable[[Block], Values]
    packed: Callable[[Block], Values] | None = None  # the numbers of the source behind it, where each pixel has one
    rule: CfRule | None = None  # how these are read
    quick: Callable[[Block], Values] | None = None  # the values; if they are not those of the output, `values` decides


@dataclass(frozen=True)
class Task:
    """One array of the output to compare, and what it has to hold."""

    path: str
    kind: Kind
    shape: tuple[int, ...]  # that it has to have
    reads: int  # pixels behind it: an injected band of 60 m stands for 36 times as many
    expect: Callable[[], Original]  # opens what is needed, late: a full band takes 240 MB
    factor: int = (
        1  # pixels of the source's edge for each; a chunk is sampled in so many parts, or one of 60 m is all of a 10 m band
    )


def from_source(source: SourceReader, path: str) -> Original:
    """Returns what a native array of the output has to hold."""
    packed = source.packed(path)
    return Original(packed.block, packed.packed, packed.rule, partial(packed.block, whole=False))


def from_finer(source: SourceReader, array: ZarrArray, level: str) -> Original:
    """Returns what a band has to hold that the converter made of a finer one."""
    packed = source.packed(array.path)
    factor = metres(level) // metres(array.group.rpartition("/")[2])
    return Original(lambda block: block_mean(packed.block(_scaled(block, factor)), factor))


def from_output(array: Any, factor: int) -> Original:  # noqa: ANN401  # zarr.Array
    """Returns what an overview, or an axis of it, has to hold, seen from the level that it is made of."""
    values = np.asarray(array[...])
    if values.ndim == 1:
        return Original(lambda block: values[_scaled(block, factor)].reshape(-1, factor).mean(axis=1))
    return Original(lambda block: block_mean(values[_scaled(block, factor)], factor))


def _scaled(block: Block, factor: int) -> Block:
    return tuple(slice(s.start * factor, s.stop * factor) for s in block)


def metres(level: str) -> int:
    """Returns the pixel size that a level is named after."""
    return int(level.strip("rm"))


def tasks_of(selection: Selection, source: SourceReader, there: dict[str, Any], product_level: str) -> Iterator[Task]:
    """Yields what the output has to hold, array by array; `there` are its own arrays, of which overviews are made."""
    by_path = {a.path: a for a in selection.arrays if a.group in selection.groups}
    for path, array in by_path.items():
        if not is_time(array) and (array.shape or path in there):  # the converter drops scalar coordinates
            kind: Kind = "coordinate" if array.is_coordinate else "native"
            yield Task(path, kind, array.shape, array.pixels, lambda p=path: from_source(source, p))  # type: ignore[misc]
    for path, origin in _injected(by_path, selection, product_level).items():
        level = path.split("/")[-2]
        factor = metres(level) // metres(origin.group.rpartition("/")[2])
        shape = tuple(n // factor for n in origin.shape)
        yield Task(path, "injected", shape, origin.pixels, partial(from_finer, source, origin, level), factor)
    for level in selection.overviews:
        parent, factor = OVERVIEWS[level]
        for name, above in _members(there, f"{REFLECTANCE}/{parent}").items():
            shape, kind = tuple(n // factor for n in above.shape), "coordinate" if above.ndim == 1 else "overview"
            path = f"{REFLECTANCE}/{level}/{name}"
            yield Task(path, kind, shape, above.size, lambda a=above, f=factor: from_output(a, f))  # type: ignore[misc]


def _members(there: dict[str, Any], group: str) -> dict[str, Any]:
    """Returns the bands and the axes of a group of the output; scalars describe the projection."""
    return {path.rpartition("/")[2]: node for path, node in there.items() if path.rpartition("/")[0] == group and node.ndim}


def _injected(by_path: dict[str, ZarrArray], selection: Selection, product_level: str) -> dict[str, ZarrArray]:
    """Returns what the converter adds to coarser groups: path -> the finest source band of that name.

    An L2A product gets b08 at 20 and 60 m, an L1C product every finer band (`create_multiscale_from_datatree`, 0.12.0). The rest of
    an L2A product's bands come at 20 m of their own.
    """
    found: dict[str, ZarrArray] = {}
    for coarse in ("r20m", "r60m"):
        group = f"{REFLECTANCE}/{coarse}"
        for array in by_path.values():
            path = f"{group}/{array.name}"
            finer = any(array.group == f"{REFLECTANCE}/{level}" for level in ("r10m", "r20m") if metres(level) < metres(coarse))
            wanted = not array.is_coordinate and (product_level == "L1C" or array.name == "b08")
            if group in selection.groups and finer and wanted and path not in by_path:
                found.setdefault(path, array)
    return found


def is_time(array: ZarrArray) -> bool:
    """True for CF times: xarray may write them with another reference date, so their stored numbers need not agree."""
    return " since " in str(array.attributes.get("units", "")) or array.attributes.get("dtype", "") in ("<M8[ns]", "<m8[ns]")
