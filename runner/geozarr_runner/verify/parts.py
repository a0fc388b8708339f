"""A part of a large chunk, decoded without the rest of it: a band may be one chunk of 240 MB, of which a sample needs a tenth.

A blosc frame is made of blocks that are compressed each for itself. Those that are asked for are put into a smaller frame, which
c-blosc decodes. What has any other form is left to who reads whole chunks.

Source: c-blosc 1.21, README_CHUNK_FORMAT.rst.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from numcodecs import blosc

_HEADER = struct.Struct("<4B3I")  #: two versions, flags, size of an item; bytes decoded, of a block, of the frame
_VERSION = 2  #: of the format; blosc2 has others
_STORED = 0x2  #: flag: not compressed, and without starts


def part(file: Path, size: int, begin: int, end: int) -> bytes | memoryview | None:
    """Returns bytes of what a blosc frame holds.

    Args:
        file: holds the frame and nothing else.
        size: bytes that it has to hold in all.
        begin: the first byte wanted.
        end: after the last one.

    Returns:
        None when the file is not there, or not of this form.
    """
    try:
        with file.open("rb") as opened:
            header = _HEADER.unpack(opened.read(_HEADER.size))
            version, _, flags, _, decoded, block, encoded = header
            if version != _VERSION or decoded != size or not 0 < block <= size or encoded != file.stat().st_size:
                return None
            if flags & _STORED:
                opened.seek(_HEADER.size + begin)
                return opened.read(end - begin)
            number = -(-size // block)
            last = min(number, -(-end // block))
            first = min(begin // block, max(0, last - 2))  # a frame of nothing but a short last block would be none
            data = blosc.decompress(_frame(opened, header, first, last))
            return memoryview(data)[begin - first * block : end - first * block]
    except (OSError, ValueError, RuntimeError, struct.error):
        return None


def _frame(opened: BinaryIO, header: tuple[int, ...], first: int, last: int) -> bytes:
    """Returns a frame of blocks of another; threads that compressed it may have left them in any order."""
    *words, decoded, block, encoded = header
    number = -(-decoded // block)
    starts = struct.unpack(f"<{number}I", opened.read(4 * number))
    ends = dict(pairwise([*sorted(starts), encoded]))
    offset, body, found = _HEADER.size + 4 * (last - first), [], []
    for start in starts[first:last]:
        opened.seek(start)
        body.append(opened.read(ends[start] - start))
        found.append(offset)
        offset += len(body[-1])
    held = min(decoded, last * block) - first * block
    return b"".join([_HEADER.pack(*words, held, block, offset), struct.pack(f"<{len(found)}I", *found), *body])
