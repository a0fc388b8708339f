"""The page's content again whenever it has changed, as server-sent events (WHATWG HTML, 9.2): what keeps an open page true."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import AsyncIterator, Callable

import anyio
import anyio.to_thread

BEAT = 2.0  # seconds between two looks: what a reading of the ledger is kept for
SILENCE = 15.0  # seconds after which it says that it is there: proxies close what is silent, and readers take it for dead
LOOKS = 8  # in a beat, whether it is time to end: a watcher that stops should not wait for its readers
RETRY = 5000  # milliseconds that a browser waits before it comes back, to a watcher that was restarted


class Readers:
    """Those who read a stream now, so many at most: each is a connection of a server that the loop shares its process with."""

    def __init__(self, most: int, ended: Callable[[], bool], *, beat: float = BEAT, silence: float = SILENCE) -> None:
        self._free, self._ended = threading.BoundedSemaphore(most), ended
        self._beat, self._silence = beat, silence

    async def changes(self, render: Callable[[], tuple[str, str]]) -> AsyncIterator[bytes]:
        """Yields an event, its name and its text, for each rendering that differs from the one before; `busy` when it is full."""
        if not self._free.acquire(blocking=False):
            yield event("busy", "")
            return
        try:
            yield f"retry: {RETRY}\n\n".encode()
            async for part in self._changes(render):
                yield part
        finally:
            self._free.release()

    async def _changes(self, render: Callable[[], tuple[str, str]]) -> AsyncIterator[bytes]:
        last, quiet = b"", 0.0
        while True:
            name, text = await anyio.to_thread.run_sync(render)
            digest = hashlib.sha256(f"{name} {text}".encode()).digest()
            if digest != last:
                last, quiet = digest, 0.0
                yield event(name, text)
            elif quiet >= self._silence:
                quiet = 0.0
                yield event("beat", "")
            for _ in range(LOOKS):
                if self._ended():
                    return
                await anyio.sleep(self._beat / LOOKS)
            quiet += self._beat


def event(name: str, text: str) -> bytes:
    """Returns one event; a line of text is a line of data."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {name}\n{lines}\n".encode()
