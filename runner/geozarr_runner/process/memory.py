"""Has the process use freed memory again, rather than fetch each buffer from the kernel anew."""

from __future__ import annotations

import ctypes

_MALLOPT = {-8: 1, -4: 0, -1: -1}
"""glibc's M_ARENA_MAX, M_MMAP_MAX and M_TRIM_THRESHOLD (mallopt(3)): one heap, nothing beside it, nothing of it given back."""


def keep_freed() -> None:
    """Keeps freed memory from now on: to clear fresh pages for buffers of 4 to 240 MB was a quarter of `verify` (measured).

    To be called before a thread begins: a second thread's heap stays, and takes nothing beyond 64 MB. Does nothing where the C
    library has no such options.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        for option, value in _MALLOPT.items():
            mallopt(option, value)


def give_back() -> None:
    """Gives all that is free back to the kernel, once: between two stages that need other buffers.

    What is kept of one stage lies in pieces between what lives on, and the next one's buffers would come beside it.
    """
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
