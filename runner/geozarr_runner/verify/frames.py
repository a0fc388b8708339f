"""Every encoded chunk is on the disk as it was encoded: the checksum that was taken then is compared on reading again.

blosc has no checksum of its own: a bit that turns in memory, on a disk or in a copy gives other pixels and no error. Values are
only compared in a sample of large arrays; this covers every byte of all of them, at the speed of reading.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c

from stac_watch.model.outcome import Check

_PIECE = 2**22  #: bytes read at a time


def checksum(data: bytes) -> int:
    """Returns the CRC32C of encoded bytes (RFC 3720, appendix B.4), as Zarr's shards have it."""
    found: int = google_crc32c.value(data)
    return found


def check(output: Path, frames: Mapping[str, int], workers: int) -> Check:
    """Compares files with what they were when they were encoded.

    Args:
        output: the store.
        frames: key -> checksum; empty when none were taken: then all values have been compared.
        workers: files that are read at a time.
    """
    if not frames:
        return Check("frames", "passed", "no checksums were taken, all values were compared")
    different = mismatches(lambda key: checksum_of(output / key), frames, workers)
    if different:
        return Check("frames", "failed", f"{len(different)} of {len(frames)} chunks are not as encoded, first {different[0]}")
    return Check("frames", "passed", f"{len(frames)} chunks are as they were encoded")


def checksum_of(file: Path) -> int:
    """Returns the CRC32C of a file, which may be a shard of hundreds of megabytes.

    Raises:
        FileNotFoundError: there is none.
    """
    found = 0
    with file.open("rb", buffering=0) as opened:
        while data := opened.read(_PIECE):
            found = google_crc32c.extend(found, data)
    return found


def mismatches(read: Callable[[str], int], frames: Mapping[str, int], workers: int) -> list[str]:
    """Returns the keys whose bytes have another checksum than those that were encoded, or cannot be read."""

    def differs(key: str) -> bool:
        try:
            return read(key) != frames[key]
        except FileNotFoundError:
            return True

    keys = sorted(frames)
    with ThreadPoolExecutor(workers, thread_name_prefix="frames") as pool:
        return [key for key, different in zip(keys, pool.map(differs, keys), strict=True) if different]
