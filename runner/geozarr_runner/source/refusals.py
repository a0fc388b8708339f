"""Objects that were answered with 403: of a store that may be read they are absent, as stores that may not be listed say it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from geozarr_runner.source.store import SourceStore
from geozarr_runner.source.transfer import Validator
from stac_watch.model.errors import SourceNotThere


class Refusals:
    """Those of one store; told from many threads."""

    def __init__(self, source: SourceStore, root: str) -> None:
        self._source, self._root = source, root
        self._lock = threading.Lock()
        self.keys: set[str] = set()

    def take_for_absent(self, key: str) -> None:
        """Asks, the first time, for the store's root document once more: when that may not be read any more, the refusal is meant.

        Raises:
            Refused | Temporary: it is; or the signature in the store's URL has ended.
        """
        with self._lock:
            if not self.keys:
                self._source.ask(self._root, Validator())
            self.keys.add(key)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Adds to what is said of missing objects that the server refused some.

        Raises:
            SourceNotThere: as it came, with more of a hint.
        """
        try:
            yield
        except SourceNotThere as error:
            if not self.keys:
                raise
            said = f"{len(self.keys)} were answered with 403, as stores that may not be listed answer for absent ones"
            raise SourceNotThere(error.message, hint=f"{error.hint}; {said}") from error
