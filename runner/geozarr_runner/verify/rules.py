"""What stored numbers say, by the CF rules that stand beside them: scale, offset, and which of them mean "no data".

Numbers of one or two bytes can have few values: the rule is applied to each of these once, and what an array says is looked up. Two
arrays by the same rule say the same where their numbers are equal, and nothing needs to be looked up at all.

Plain words are applied here as they are written in the conventions; whatever else stands there is left to xarray, which takes most
of a second to load. Nothing of the fast engine's arithmetic is used.

Sources: CF conventions 1.11, section 8.1 (packed data), section 2.5.1 (missing data).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

type Values = np.ndarray[Any, np.dtype[Any]]

_SCALES, _MISSING = ("scale_factor", "add_offset"), ("_FillValue", "missing_value")
_UNUSUAL = {"_Unsigned": ("true", "false"), "dtype": ("bool",)}  #: by these, xarray takes the stored numbers for others
_SHORT = 2  #: bytes of a number that has few values
_WORTH_A_TABLE = 2**14  # pixels; a quarter of the values of two bytes


@dataclass(frozen=True)
class CfRule:
    """How the numbers of an array are read. Made by `rule_of`, which makes equal ones once."""

    dtype: np.dtype[Any]
    words: str  # JSON

    def values(self, packed: Values) -> Values:
        """Returns what numbers say: missing = NaN; float32 as in the output, of 8 bytes float64, for coordinates. Same shape."""
        packed = packed.astype(self.dtype, copy=False)
        if not self.is_short or packed.size < _WORTH_A_TABLE:
            return self._decoded(packed)
        return np.asarray(np.take(self.table, packed.view(_unsigned(self.dtype)), mode="clip"))

    def absent(self, packed: Values) -> Values:
        """Returns flags: which numbers say nothing. Same shape."""
        packed = packed.astype(self.dtype, copy=False)
        if not self.is_short:
            return np.isnan(self._decoded(packed))
        if len(self._nothing) > 1:
            return np.asarray(np.take(np.isnan(self.table), packed.view(_unsigned(self.dtype)), mode="clip"))
        return packed == self._nothing[0] if len(self._nothing) else np.zeros(packed.shape, bool)

    def present(self, packed: Values) -> Values:
        """Returns flags: which numbers say something. Same shape."""
        packed = packed.astype(self.dtype, copy=False)
        return packed != self._nothing[0] if self.is_short and len(self._nothing) == 1 else ~self.absent(packed)

    def missing(self, packed: Values) -> int:
        """Returns how many numbers say nothing."""
        return 0 if self.is_short and not len(self._nothing) else int(np.count_nonzero(self.absent(packed)))

    def equals(self, other: CfRule | None) -> bool:
        """Says whether every number there can be says the same by both."""
        if self is other:
            return True
        same = other is not None and self.is_short and self.dtype == other.dtype
        return same and other is not None and np.array_equal(self.table, other.table, equal_nan=True)

    @property
    def is_short(self) -> bool:
        """True for integers that have few values."""
        return self.dtype.kind in "iu" and self.dtype.itemsize <= _SHORT

    @cached_property
    def table(self) -> Values:
        """What each number says, by its bits taken for an unsigned one."""
        return self._decoded(_every(self.dtype))

    @cached_property
    def _nothing(self) -> Values:
        """The numbers that say nothing."""
        return np.asarray(_every(self.dtype)[np.isnan(self.table)])

    def _decoded(self, packed: Values) -> Values:
        words = json.loads(self.words)
        values = _by_the_book(packed, words) if _is_plain(self.dtype, words) else _by_xarray(packed, words)
        return values.astype(
            np.float64 if self.dtype.itemsize > 4 else np.float32, copy=False
        )  # bytes; coordinates are not rounded


def rule_of(dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> CfRule | None:
    """Returns how numbers are read; None for what are no numbers.

    Args:
        dtype: of the array.
        attributes: what stands beside it, `_FillValue` included.
    """
    if dtype.kind not in "iufb":
        return None
    words = {name: attributes[name] for name in (*_SCALES, *_MISSING) if name in attributes}
    words |= {name: attributes[name] for name, known in _UNUSUAL.items() if attributes.get(name) in known}
    return _rule(dtype.newbyteorder("="), json.dumps(words, sort_keys=True, default=np.generic.item))


@lru_cache(256)
def _rule(dtype: np.dtype[Any], words: str) -> CfRule:
    return CfRule(dtype, words)


def _is_plain(dtype: np.dtype[Any], words: Mapping[str, Any]) -> bool:
    """Says whether words are numbers of the types that leave nothing to interpret."""
    scales, missing = ([words[name] for name in names if name in words] for names in (_SCALES, _MISSING))
    return (
        all(type(number) is float and math.isfinite(number) for number in scales)
        and all(type(number) in (int, float) and not (dtype.kind != "f" and math.isnan(number)) for number in missing)
        and not (scales and dtype.kind == "f")
        and not words.keys() & _UNUSUAL.keys()
    )


def _by_the_book(packed: Values, words: Mapping[str, Any]) -> Values:
    """CF 8.1: unpacked = packed * scale_factor + add_offset; what is missing is told by packed numbers (2.5.1)."""
    values = packed.astype(np.float64) if packed.dtype.kind != "f" else packed.copy()
    values = values * words.get("scale_factor", 1.0) + words.get("add_offset", 0.0) if words.keys() & set(_SCALES) else values
    for number in (words[name] for name in _MISSING if name in words):
        values[packed == number] = np.nan
    return values


def _by_xarray(packed: Values, words: Mapping[str, Any]) -> Values:
    import xarray as xr
    from xarray.conventions import decode_cf_variable

    raw = xr.Variable(tuple(f"d{n}" for n in range(packed.ndim)), packed, dict(words))
    return np.asarray(decode_cf_variable("values", raw, decode_times=False, decode_timedelta=False).values)


def _every(dtype: np.dtype[Any]) -> Values:
    unsigned = _unsigned(dtype)
    return np.arange(np.iinfo(unsigned).max + 1, dtype=unsigned).view(dtype)


def _unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")
