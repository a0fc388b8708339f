"""Which codecs a product may name, and how a chunk is decoded to no more than its array says. The one place for both.

A codec's name is looked up here before any library sees it: numcodecs has codecs that run code (`pickle`), and takes more from
plugins.
A chunk is measured before anybody decodes it whole: what engines and checks decode later is known to have the right length.

Sources: Zarr v2 storage specification; c-blosc, README_HEADER; RFC 8878, section 3.1.1 (frames of zstd); numcodecs 0.17, lz4
(four bytes of length come first) and its configurations.
"""

from __future__ import annotations

import bz2
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stac_watch.model.errors import printable

if TYPE_CHECKING:
    from geozarr_runner.source.product import ZarrArray

COMPRESSORS = frozenset({"blosc", "bz2", "gzip", "lz4", "zlib", "zstd"})
FILTERS = frozenset({"astype", "bitround", "crc32", "delta", "fixedscaleoffset", "packbits", "quantize", "shuffle"})
"""Those of numcodecs that change numbers into numbers, and run nothing."""
MAX_CHUNK = 2**31 - 1
"""Decoded bytes of a chunk: what blosc can hold, nine times the largest real one (10,980 x 10,980 uint16)."""
_MARGIN = 65_536  #: what no compressor adds to a chunk that does not get smaller; they add 1 % or some hundred bytes
_BLOSC = struct.Struct("<4B3I")  # version, versionlz, flags, typesize, nbytes, blocksize, cbytes
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BLOCK = 1 << 20


def check(path: str, compressor: object, filters: object) -> None:
    """Refuses what is not on the lists.

    Raises:
        ValueError: names the array and the codec.
    """
    if filters is not None and not isinstance(filters, list):
        raise ValueError(f"{path} has filters {_shown(filters)}")
    given = [("compressor", compressor, COMPRESSORS)] if compressor is not None else []
    for what, codec, allowed in (*given, *(("filter", one, FILTERS) for one in filters or ())):
        name = codec.get("id") if isinstance(codec, Mapping) else codec
        if not isinstance(name, str) or name not in allowed or not isinstance(codec, Mapping):
            raise ValueError(f"{path} has {what} {_shown(name)}, which is not one of {', '.join(sorted(allowed))}")


def decoded_bytes(array: ZarrArray) -> int:
    """Returns what a chunk decodes to: chunks are stored at full size, at the edges too."""
    return math.prod(array.chunks) * array.itemsize


def inner_bytes(array: ZarrArray) -> int:
    """Returns what the compressor holds of a chunk: its pixels, or what the filters made of them.

    Raises:
        KeyError | TypeError: a filter does not say which numbers it makes.
    """
    number = math.prod(array.chunks)
    size = number * array.itemsize
    for one in array.filters:
        if one["id"] == "astype":
            size = number * np.dtype(one["encode_dtype"]).itemsize
        elif one["id"] in ("delta", "fixedscaleoffset", "quantize"):
            size = number * np.dtype(one.get("astype") or one["dtype"]).itemsize
        elif one["id"] == "packbits":
            number = size = 1 + -(-number // 8)
        elif one["id"] == "crc32":
            size += 4
    return size


def encoded_limit(array: ZarrArray) -> int:
    """Returns the most bytes that a stored chunk can have: no compressor makes noise longer by more than a hundredth."""
    return inner_bytes(array) * 101 // 100 + _MARGIN


def decode(array: ZarrArray, data: bytes) -> np.ndarray[Any, Any]:
    """Returns one decoded chunk, in its full chunk shape and order.

    Raises:
        RuntimeError | ValueError | TypeError: it cannot be decoded, or not to the length that its array says.
    """
    import numcodecs

    check(array.path, array.compressor, list(array.filters))
    if not _right_length(array, data, len(data)):
        raise ValueError(f"a chunk of {array.path} does not decode to {decoded_bytes(array)} bytes")
    inner: Any = data
    if array.compressor is not None:
        codec = numcodecs.get_codec(dict(array.compressor))
        # without a content size only a buffer of the right length bounds it (numcodecs.zstd.decompress)
        unsized = array.compressor["id"] == "zstd" and _zstd_length(data) is None
        inner = codec.decode(data, out=bytearray(inner_bytes(array))) if unsized else codec.decode(data)
    for filtered in reversed(array.filters):
        inner = numcodecs.get_codec(dict(filtered)).decode(inner)
    return np.frombuffer(inner, dtype=array.dtype).reshape(array.chunks, order=array.order)


def expanded(name: str, data: bytes, limit: int) -> bytes:
    """Returns what gzip or zstd made of bytes that are no more than so many.

    Raises:
        RuntimeError | ValueError | TypeError | OSError | EOFError: it cannot be decoded, or there are more.
    """
    import numcodecs

    codec = numcodecs.get_codec({"id": name})
    length = _zstd_length(data) if name == "zstd" else _counted(name, data, limit)
    if length is None:  # a frame that does not say it: what it is decoded into bounds it, and has to be as long
        return bytes(codec.decode(data, out=bytearray(limit)))
    if not 0 <= length <= limit:
        raise ValueError(f"{len(data)} bytes in {name} hold {length}, more than {limit}")
    return bytes(codec.decode(data))


def measures(array: ZarrArray, path: Path) -> bool:
    """Tells whether a stored chunk decodes to the length that its array says.

    Blosc, lz4 and zstd say it in their first bytes; the others are decompressed and counted, never held.
    """
    size = path.stat().st_size
    if array.compressor is None or array.compressor["id"] in ("blosc", "lz4", "zstd"):
        with path.open("rb") as file:
            head = file.read(32)
        if array.compressor is not None and array.compressor["id"] == "zstd" and _zstd_length(head) is None:
            return _zstd_fits(array, path)
        return _right_length(array, head, size)
    return _right_length(array, path.read_bytes(), size)


def blosc_lengths(path: Path) -> tuple[int, int] | None:
    """Returns the decoded and the stored length that a blosc frame's header states; None when it is too short to have one."""
    with path.open("rb") as file:
        return stated_lengths(file.read(_BLOSC.size))


def _right_length(array: ZarrArray, data: bytes, size: int) -> bool:
    """`data` is the chunk, or its beginning where that says all; `size` that of the whole."""
    name = None if array.compressor is None else array.compressor["id"]
    length = inner_bytes(array)
    if name == "blosc":
        lengths = stated_lengths(data)
        return lengths is not None and lengths[1] == size and lengths[0] == length
    if name == "lz4":
        return len(data) >= 4 and int.from_bytes(data[:4], "little") == length
    if name == "zstd":
        return _zstd_length(data) in (None, length)
    if name is None:
        return size == length
    return _counted(name, data, length) == length


def stated_lengths(head: bytes) -> tuple[int, int] | None:
    """Returns the same of a frame's first bytes."""
    if len(head) < _BLOSC.size:
        return None
    *_, decoded, _, stored = _BLOSC.unpack(head[: _BLOSC.size])
    return decoded, stored


def _zstd_length(head: bytes) -> int | None:
    """Returns the content size that a zstd frame's header states; None when it states none, 0 when it is no frame."""
    if head[:4] != _ZSTD_MAGIC or len(head) < 6:
        return 0
    descriptor = head[4]
    single, dictionary, kind = descriptor >> 5 & 1, (0, 1, 2, 4)[descriptor & 3], descriptor >> 6
    length = (1 if single else 0, 2, 4, 8)[kind]
    if not length:
        return None
    start = 5 + (0 if single else 1) + dictionary
    return int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)


def _zstd_fits(array: ZarrArray, path: Path) -> bool:
    """A frame of unknown length is decoded once, into a buffer of the length that it must have."""
    from numcodecs import zstd

    try:
        zstd.decompress(path.read_bytes(), bytearray(inner_bytes(array)))
    except (RuntimeError, ValueError):
        return False
    return True


def _counted(name: str, data: bytes, limit: int) -> int:
    """Returns how many bytes data decompresses to, or any number above the limit as soon as it is passed; -1 for corrupt data."""
    total, rest = 0, data
    try:
        while rest:  # gzip and bz2 may hold several members, one after the other
            machine: Any = bz2.BZ2Decompressor() if name == "bz2" else zlib.decompressobj(31 if name == "gzip" else 15)
            while not machine.eof:
                out = machine.decompress(rest, _BLOCK)
                rest = b"" if name == "bz2" else machine.unconsumed_tail
                total += len(out)
                if total > limit:
                    return total
                if not out and not rest and not machine.eof:
                    return -1  # cut
            rest = machine.unused_data if name != "zlib" else b""
    except (zlib.error, OSError, EOFError):
        return -1
    return total


def _shown(value: object) -> str:
    return printable(repr(value), 80)
