"""The output as its readers see it: zarr-python reads the numbers, and the CF rules that stand beside them are applied.

What is compared and shown are physical values, whether an array holds them or packed integers. And what of a sharded array is
there: its index says it, and is believed when its checksum fits (sharding codec 1.0).
"""

from __future__ import annotations

import math
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from geozarr_runner.verify.frames import checksum
from geozarr_runner.verify.rules import CfRule, Values, rule_of

_CF = {"scale_factor", "add_offset", "_FillValue", "missing_value"}
_CRC = 4  #: bytes
_ABSENT = 2**64 - 1
_HALF = 0.501  #: a step, and the last digits of a float32


class InStore(IntEnum):
    """What of a chunk lies in a store."""

    ABSENT = 0
    CUT = 1
    WHOLE = 2


class Shown:
    """A packed array that reads like a decoded one."""

    def __init__(self, array: Any) -> None:  # noqa: ANN401  # zarr.Array
        self._array = array
        self.shape, self.ndim, self.attrs = array.shape, array.ndim, array.attrs
        self.rule = rule_of(array.dtype, array.attrs.asdict())

    def __getitem__(self, block: Any) -> Values:  # noqa: ANN401  # whatever indexes an array
        packed = self.packed(block)
        return packed if self.rule is None else self.rule.values(packed)

    def packed(self, block: Any) -> Values:  # noqa: ANN401  # whatever indexes an array
        """Returns numbers as they are stored."""
        return np.asarray(self._array[block])

    @cached_property
    def fill_value(self) -> Any:  # noqa: ANN401  # a number
        """What a chunk says that is not there."""
        packed = self.unwritten.reshape(1)
        return (packed if self.rule is None else self.rule.values(packed))[0]

    @property
    def unwritten(self) -> Values:
        """The stored number of a chunk that is not there. No dimension."""
        return np.asarray(self._array.fill_value, self._array.dtype)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # of zarr.Array
        return getattr(self._array, name)

    @property
    def rounding(self) -> float:
        """How far a mean may be from what is stored: half a step, or one where "no data" is a number amid the others."""
        attributes, kind = self.attrs.asdict(), np.iinfo(self._array.dtype)
        missing = attributes.get("_FillValue", attributes.get("missing_value", kind.min))
        steps = _HALF if missing in (kind.min, kind.max) else 2 * _HALF
        return steps * abs(float(attributes.get("scale_factor", 1)))


def shown(array: Any) -> Any:  # noqa: ANN401  # zarr.Array, or the same in physical values
    """Returns an array in physical values."""
    packed = array.dtype.kind in "iu" and array.ndim == 2 and array.attrs.keys() & _CF  # (y, x)
    return Shown(array) if packed else array


def stored(array: Any, block: Any) -> Values:  # noqa: ANN401  # zarr.Array or `Shown`; whatever indexes it
    """Returns an array's numbers as they are stored."""
    return array.packed(block) if isinstance(array, Shown) else np.asarray(array[block])


def unwritten(array: Any, block: Any) -> Values:  # noqa: ANN401  # idem
    """Returns what readers of an array get where it has no chunk, as it is stored (Zarr v3: `fill_value`). Not to be changed."""
    fill = array.unwritten if isinstance(array, Shown) else np.asarray(array.fill_value, array.dtype)
    return np.broadcast_to(fill, tuple(s.stop - s.start for s in block))


def rule(array: Any) -> CfRule | None:  # noqa: ANN401  # zarr.Array, or `Shown`
    """Returns how its numbers are read: those of an array that is not packed say what they are."""
    return array.rule if isinstance(array, Shown) else rule_of(array.dtype, {})


def has_data(array: Any, block: Any) -> Values:  # noqa: ANN401  # idem
    """Returns flags: where an array has data."""
    if isinstance(array, Shown) and array.rule is not None:
        return array.rule.present(array.packed(block))
    return ~np.isnan(np.asarray(array[block]))


def rounding(array: Any) -> float:  # noqa: ANN401  # zarr.Array, or `Shown`
    """Returns how far a mean may be from what an array stores, beyond the last digits of a float."""
    if isinstance(array, Shown):
        return array.rounding
    return _HALF if array.dtype.kind in "iu" else 0.0


def in_shard(file: Path, grid: tuple[int, ...]) -> Values:
    """Says of each chunk of a shard what `InStore` has words for; CUT of all where its index is not what was written.

    Args:
        file: a shard.
        grid: number of its chunks along each dimension.
    """
    number, size = math.prod(grid), file.stat().st_size
    length = number * 16 + _CRC  # bytes: offset and length of each
    if size < length:
        return np.full(grid, InStore.CUT)
    with file.open("rb") as opened:
        opened.seek(size - length)
        raw = opened.read(length)
    if checksum(raw[:-_CRC]) != int.from_bytes(raw[-_CRC:], "little"):
        return np.full(grid, InStore.CUT)
    entries = np.frombuffer(raw[:-_CRC], "<u8").reshape(*grid, 2)
    begins, lengths = entries[..., 0], entries[..., 1]
    inside = (begins <= size - length) & (lengths <= size - length - np.minimum(begins, size - length))
    nothing = (begins == _ABSENT) & (lengths == _ABSENT)
    return np.select([nothing, inside], [InStore.ABSENT, InStore.WHOLE], InStore.CUT)
