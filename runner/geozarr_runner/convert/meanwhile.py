"""What is found out about a mirror while the rest of it is on its way: its last objects take several times as long as most.

The four bands of 10 m are half of a store, and four connections of sixteen bring them. Until they are there the cores are idle;
after that each second is one that somebody waits.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from geozarr_runner.request import Offer
from geozarr_runner.source.product import OVERVIEWS, REFLECTANCE
from geozarr_runner.verify.pyramid import overviews
from stac_watch.model.outcome import Check
from stac_watch.model.zarr3 import StoredArray, StoredTree

_COARSE = tuple(f"{REFLECTANCE}/{level}/" for level in {*OVERVIEWS, *(parent for parent, _ in OVERVIEWS.values())})
_PAUSE = 1.0  #: seconds between two times that what has come is brought to the disk


class Meanwhile:
    """Digests of the objects, the overviews' check, and what has come on its way to the disk. Ends with the block.

    `flush` brings a folder's file system to the disk; None = the objects lie at their source, and are nobody's to flush.
    `offer` takes objects that go to a store: what lies there without the root's metadata is nothing to anybody.
    """

    def __init__(
        self,
        tree: StoredTree,
        arrays: Mapping[str, StoredArray],
        root: Path,
        flush: Callable[[Path], None] | None,
        offer: Offer | None = None,
    ) -> None:
        self.sums: dict[str, str] = {}  # key -> SHA-256; of what is copied here, else whoever copies it takes them
        self._tree, self._root, self._flush, self._offer = StoredTree(tree.nodes, arrays), root, flush, offer
        keys = (key for array in arrays.values() if array.path.startswith(_COARSE) for key, _ in array.keys())  # noqa: SIM118
        self._waiting, self._turn, self._ended = set(keys), threading.Lock(), threading.Event()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="meanwhile")
        self._compared: Future[Check] | None = None
        self._flushed: Future[None] | None = None

    def __enter__(self) -> Self:
        if self._flush is not None:
            self._flushed = self._pool.submit(self._keep_flushing, self._flush)
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._ended.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def done(self, array: StoredArray, key: str) -> None:
        """Takes an object that is here, or is nowhere; called from many threads."""
        path = self._root / key
        if self._flush is not None and path.is_file():
            with path.open("rb") as file:
                self.sums[key] = hashlib.file_digest(file, "sha256").hexdigest()
            if self._offer is not None:
                self._offer(key, path)
        if not array.path.startswith(_COARSE):
            return
        with self._turn:
            self._waiting.discard(key)
            if not self._waiting and self._compared is None:
                self._compared = self._pool.submit(overviews, self._tree, self._root)

    def settle(self) -> None:
        """Ends what brings objects to the disk.

        Raises:
            OSError: the disk did not take one; it says so once, to who asks first.
        """
        self._ended.set()
        if self._flushed is not None:
            self._flushed.result()

    def _keep_flushing(self, flush: Callable[[Path], None]) -> None:
        while not self._ended.wait(_PAUSE):
            flush(self._root)

    def overviews(self) -> Check:
        """Waits for the verdict on the overviews; for a store that has none, too."""
        return self._compared.result() if self._compared is not None else overviews(self._tree, self._root)
