"""Ends the staging of a product whose server sends more slowly than anybody can wait for.

Each object comes, so nothing stands still; but a product of two megabytes that takes six hours holds a slot that other sources
need. What was staged is kept, and the next attempt continues from it.
"""

from __future__ import annotations

from collections.abc import Callable

from stac_watch.model.errors import Temporary

GRANTED = 1800.0  # seconds, whatever the size: a server may be busy, and what arrives is converted meanwhile
SLOWEST = 256 * 1024  # bytes a second, of what the product's chunks are when they are decoded


def in_time(advance: Callable[[int], None], size: int, url: str, monotonic: Callable[[], float]) -> Callable[[int], None]:
    """Returns `advance` that also looks at the clock.

    Args:
        advance: told of each object that came.
        size: bytes of all of them, decoded.
        url: the product, for the message.
        monotonic: the clock, in seconds.

    Raises (what is returned):
        Temporary: it took longer than that size may.
    """
    begun, allowed = monotonic(), GRANTED + size / SLOWEST

    def told(objects: int) -> None:
        advance(objects)
        if (took := monotonic() - begun) > allowed:
            said = f"{url} has sent for {took:.0f} s, and is not through: {allowed:.0f} s are enough for {size / 1e6:.1f} MB"
            raise Temporary(said, hint="its server is too slow; what came is kept, and the next attempt continues from it")

    return told
