"""Arrays of an output as a report shows them: physical values, NaN where there is no data, whether they are packed or not."""

from __future__ import annotations

from typing import Any

import numpy as np


class Physical:
    """A packed array that reads like a decoded one: scale, offset and missing value of its own attributes, by the CF rule."""

    def __init__(self, array: Any) -> None:  # noqa: ANN401  # zarr.Array
        self._array = array
        self.shape, self.ndim, self.attrs = array.shape, array.ndim, array.attrs

    def __getitem__(self, block: Any) -> np.ndarray[Any, np.dtype[Any]]:  # noqa: ANN401  # whatever indexes an array
        packed = np.asarray(self._array[block])
        attributes = self.attrs.asdict()
        values = packed.astype(np.float64) * float(attributes.get("scale_factor", 1)) + float(attributes.get("add_offset", 0))
        missing = attributes.get("_FillValue")
        if isinstance(missing, int | float):
            values[packed == missing] = np.nan
        return values.astype(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, np.dtype[Any]]:  # noqa: ANN401  # numpy's protocol
        values = self[...]
        return values if dtype is None else values.astype(dtype)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # of zarr.Array
        return getattr(self._array, name)


def physical(array: Any) -> Any:  # noqa: ANN401  # zarr.Array, or the same in physical values
    """Returns an array in physical values."""
    packed = array.dtype.kind in "iu" and ("scale_factor" in array.attrs or "add_offset" in array.attrs)
    return Physical(array) if packed else array
