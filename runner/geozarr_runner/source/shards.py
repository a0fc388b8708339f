"""One object of a Zarr v3 store: is it whole, and what is in it? Nothing of it is believed before its own sums are.

A shard is checked before anybody opens it with zarr: zarr 3.3 reads a truncated one as fill values, without a word. Its index has a
CRC-32C; the chunks have none, so each is decoded once. Sources: Zarr v3 sharding codec 1.0; c-blosc README_HEADER.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product as cartesian
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numcodecs import blosc

from geozarr_runner.source.codecs import MAX_CHUNK, expanded, stated_lengths
from stac_watch.model.errors import InputError, printable
from stac_watch.model.zarr3 import CRC, ENTRY, StoredArray, index_crc

type Cells = np.ndarray[Any, np.dtype[Any]]
type Region = tuple[slice, ...]

_ABSENT = 2**64 - 1  #: an entry's offset and length where the chunk is all fill (sharding codec 1.0)
_MARGIN = 1_000_000  #: bytes of headers of chunks that do not get smaller: of thousands in a shard, too
_CODECS = {"bytes", "blosc", "zstd", "gzip", "crc32c"}
_LONGEST = 65_536  #: bytes of one text: names of bands, and of detectors
_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "μs", "ns", "ps", "fs", "as", "generic")  # of numpy
_PLAIN = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"}


class Broken(Exception):  # noqa: N818  # what is said of an object; `arrive` turns it into an error with its key
    """An object is not what its array's metadata and its own sums say."""


@dataclass(frozen=True)
class Inspected:
    """What an object turned out to be."""

    size: int
    crc: int | None  # of a shard's index; None where there is none
    absent: tuple[Region, ...]  # chunks that are left out: all fill


def dtype_of(array: StoredArray) -> np.dtype[Any]:
    """Returns the array's numpy type, in the byte order in which it is stored.

    Raises:
        InputError: a type that is not known here.
    """
    kind = array.data_type
    order = next((c.get("configuration", {}).get("endian") for c in array.codecs if c["name"] == "bytes"), None)
    mark: Literal["<", ">"] = ">" if order == "big" else "<"
    if isinstance(kind, str) and kind in _PLAIN:
        return np.dtype(kind).newbyteorder(mark)
    name, how = (kind.get("name"), kind.get("configuration")) if isinstance(kind, dict) else (None, None)
    length, unit = (how.get("length_bytes"), how.get("unit")) if isinstance(how, dict) else (None, None)
    if name == "fixed_length_utf32" and isinstance(length, int) and 4 <= length <= _LONGEST:
        return np.dtype(f"{mark}U{length // 4}")
    if name in ("numpy.datetime64", "numpy.timedelta64") and unit in _UNITS:
        return np.dtype("int64").newbyteorder(mark)
    raise InputError(
        f"{array.path} has data type {printable(repr(kind), 80)}, which is not known here", hint="report it with the product's URL"
    )


def fill_of(array: StoredArray) -> Any:  # noqa: ANN401  # a number, a text or a boolean
    """Returns the value that an absent chunk stands for."""
    value, dtype = array.fill_value, dtype_of(array)
    if dtype.kind == "f" and isinstance(value, str):
        if value.startswith("0x"):
            return np.frombuffer(bytes.fromhex(value[2:])[::-1], dtype.newbyteorder("<"))[0]
        return float(value.replace("Infinity", "inf"))
    return value


def missing_of(array: StoredArray) -> Any | None:  # noqa: ANN401  # idem
    """Returns the packed value that means "no data" by the CF rule: `_FillValue` of the attributes; None where there is none.

    A v3 array's own `fill_value` is no such thing: each has one, masks and flags too. Source: CF 1.11, 2.5.1; xarray writes the
    attribute of floats as base64 of eight bytes.
    """
    value = array.attributes.get("_FillValue", array.attributes.get("missing_value"))
    if isinstance(value, str) and dtype_of(array).kind == "f":
        try:
            return struct.unpack("<d", base64.b64decode(value, validate=True))[0]
        except (ValueError, struct.error):
            return float(value)
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def require_known(array: StoredArray) -> None:
    """Raises InputError unless codecs, type and fill values of the array are known here: nothing is loaded by a stranger's name."""
    dtype_of(array)
    unknown = [str(c.get("name")) for c in array.codecs if c.get("name") not in _CODECS]
    order = [c["name"] for c in array.codecs]
    if unknown or order.count("bytes") != 1 or order[0] != "bytes":
        raise InputError(
            f"{array.path} is encoded with {', '.join(order)}, which is not known here", hint="known are blosc, zstd, gzip, crc32c"
        )
    if (size := array.pixels * dtype_of(array).itemsize) > MAX_CHUNK:  # of an array here, and of a chunk there
        raise InputError(f"{array.path} has {size} bytes", hint="no array of a Sentinel-2 product has so many")
    try:
        with np.errstate(invalid="raise"):
            if (missing := missing_of(array)) is not None:
                np.full((), missing, dtype_of(array))
            if array.fill_value != "NaT":  # of a time; nobody reads what it is
                np.full((), fill_of(array), dtype_of(array))
    except (ValueError, TypeError, ArithmeticError, IndexError) as error:
        said = printable(f"{array.fill_value!r} and {array.attributes.get('_FillValue')!r}", 80)
        raise InputError(f"{array.path} has fill values {said}, which its type cannot hold") from error


def inspect(
    array: StoredArray, place: tuple[int, ...], path: Path, see: Callable[[Region, Cells | None], None] | None = None
) -> Inspected:
    """Checks an object, and decodes each of its chunks once.

    Args:
        array: whose object it is.
        place: where it stands in the array's grid.
        path: the object.
        see: told of each chunk: where it lies in the array, and its values cut to the array's edge, None = all fill.

    Raises:
        Broken: says in what.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    absent = []
    crc = None
    with path.open("rb") as file:
        entries = [(0, size)]
        if array.sharded:
            entries, crc = _index(array, file, size)
        for (offset, length), where in zip(entries, _places(array, place), strict=True):
            inside = all(s.start < n for s, n in zip(where, array.shape, strict=True))
            if offset == _ABSENT:
                cells = None
                if inside:
                    absent.append(where)
            else:
                file.seek(offset)
                cells = decode(array, file.read(length))[tuple(slice(0, s.stop - s.start) for s in where)]
            if see is not None and inside:
                see(where, cells)
    return Inspected(size, crc, tuple(absent))


def read_whole(array: StoredArray, root: Path) -> Cells:
    """Returns an array's values, packed; what is absent is fill. For objects that `inspect` has seen.

    Raises:
        Broken: an object cannot be decoded.
        OSError: it cannot be read.
    """
    out = np.full(array.shape, fill_of(array), dtype_of(array).newbyteorder("="))

    def put(where: Region, cells: Cells | None) -> None:
        if cells is not None:
            out[where] = cells

    for key, place in array.keys():  # noqa: SIM118  # no mapping
        if (root / key).exists():
            inspect(array, place, root / key, put)
    return out


def decode(array: StoredArray, data: bytes) -> Cells:
    """Returns one chunk's values, packed, in its full shape.

    Raises:
        Broken: it cannot be decoded, or is not as long as it has to be.
    """
    dtype = dtype_of(array)
    wanted = math.prod(array.inner) * dtype.itemsize
    for number, codec in reversed(list(enumerate(array.codecs[1:]))):
        data = _decoded(codec, data, wanted, last=number == 0)
    if len(data) != wanted:
        raise Broken(f"a chunk has {len(data)} bytes decoded, not {wanted}")
    return np.frombuffer(data, dtype).reshape(array.inner)


def _decoded(codec: Mapping[str, Any], data: bytes, wanted: int, *, last: bool) -> bytes:
    """Decodes one step; what comes out of the last one has so many bytes, and of those before a little more at most."""
    name = codec["name"]
    if name == "crc32c":
        return _summed(data)
    if name == "blosc":
        lengths = stated_lengths(data)
        if lengths is None:
            raise Broken(f"a chunk of {len(data)} bytes is no blosc frame")
        decoded, stored = lengths
        if (decoded, stored) != (wanted, len(data)):
            raise Broken(f"a chunk of {len(data)} bytes says that it has {stored}, and {decoded} decoded instead of {wanted}")
    try:
        if name == "blosc":
            return bytes(blosc.decompress(data))
        return expanded(name, data, wanted if last else wanted * 101 // 100 + _MARGIN)
    except (RuntimeError, ValueError, TypeError, OSError, EOFError) as error:
        raise Broken(f"a chunk cannot be decoded: {error}") from error


def _summed(data: bytes) -> bytes:
    from google_crc32c import value  # zarr's own; a chunk is too long for Python

    if len(data) < CRC or value(data[:-CRC]) != int.from_bytes(data[-CRC:], "little"):
        raise Broken("a chunk has another CRC-32C than it says")
    return data[:-CRC]


def _index(array: StoredArray, file: BinaryIO, size: int) -> tuple[list[tuple[int, int]], int]:
    length = array.index_bytes
    if size < length:
        raise Broken(f"a shard of {size} bytes is shorter than its index of {length}")
    start = 0 if array.index_first else size - length
    file.seek(start)
    index = file.read(length)
    crc = index_crc(index)
    if crc is None:
        raise Broken("a shard's index has another CRC-32C than it says: the shard is cut, or not this array's")
    numbers = np.frombuffer(index[:-CRC], "<u8").reshape(-1, ENTRY // 8).tolist()
    entries = [(int(offset), int(n)) for offset, n in numbers]
    low, high = (length, size) if array.index_first else (0, start)
    end = low
    for offset, n in sorted(entry for entry in entries if entry[0] != _ABSENT):
        if offset < end or offset + n > high:
            raise Broken(f"a shard of {size} bytes has no room for a chunk at {offset} of {n}")
        end = offset + n
    if end != high:
        raise Broken(f"a shard of {size} bytes holds {high - end} that its index does not know")
    return entries, crc


def _places(array: StoredArray, place: tuple[int, ...]) -> Iterator[Region]:
    """Yields where each chunk of an object lies in the array, cut to the array's edge; beyond it start >= size."""
    counts = [range(s // i) for s, i in zip(array.stored, array.inner, strict=True)]
    for index in cartesian(*counts):
        starts = [p * s + k * i for p, s, k, i in zip(place, array.stored, index, array.inner, strict=True)]
        yield tuple(slice(a, max(a, min(a + i, n))) for a, i, n in zip(starts, array.inner, array.shape, strict=True))


def encoded_limit(array: StoredArray) -> int:
    """Returns the most bytes that a stored object can have: no codec makes noise longer by more than a hundredth."""
    return math.prod(array.stored) * dtype_of(array).itemsize * 101 // 100 + array.index_bytes + _MARGIN


def limits_of(keys: Mapping[str, StoredArray]) -> dict[str, int]:
    """Returns the same of each object of a store, by key."""
    return {key: encoded_limit(array) for key, array in keys.items()}
