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
    different = mismatches(lambda key: (output / key).read_bytes(), frames, workers)
    if different:
        return Check("frames", "failed", f"{len(different)} of {len(frames)} chunks are not as encoded, first {different[0]}")
    return Check("frames", "passed", f"{len(frames)} chunks are as they were encoded")


def mismatches(read: Callable[[str], bytes], frames: Mapping[str, int], workers: int) -> list[str]:
    """Returns the keys whose bytes are others than those that were encoded, or that cannot be read."""

    def differs(key: str) -> bool:
        try:
            return checksum(read(key)) != frames[key]
        except FileNotFoundError:
            return True

    keys = sorted(frames)
    with ThreadPoolExecutor(workers, thread_name_prefix="frames") as pool:
        return [key for key, different in zip(keys, pool.map(differs, keys), strict=True) if different]
