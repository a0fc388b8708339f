"""What the source said of each object when it was staged, kept beside the copy; and whether it still says so.

A product that is replaced in place, while it is read or between two attempts, would else become a mixture of old and new.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from geozarr_runner.source import codecs
from geozarr_runner.source.forms import recognise
from geozarr_runner.source.preflight import Plan, read_metadata
from geozarr_runner.source.threads import CONNECTIONS
from geozarr_runner.source.transfer import Validator
from stac_watch.model.errors import SourceNotThere, Temporary

METADATA = ".zmetadata"


class Replaced(Temporary):
    """The product is not what it was when its first object was read."""


class Noted:
    """Validators by key; a line of JSON for each, so that a killed attempt leaves those of what it had staged."""

    def __init__(self, file: Path | None = None) -> None:
        self._file, self._lock = file, threading.Lock()
        self.known: dict[str, Validator] = {}
        for line in file.read_text().splitlines() if file is not None and file.exists() else ():
            try:
                entry = json.loads(line)
                key = str(entry.pop("key"))
                self.known[key] = Validator(**entry)
            except (ValueError, TypeError, KeyError, AttributeError):  # cut when its writer was killed
                continue

    def add(self, key: str, validator: Validator) -> None:
        """Notes an object that is there under its final name.

        Raises:
            OSError: the file cannot be written.
        """
        with self._lock:
            self.known[key] = validator
            if self._file is not None:
                with self._file.open("a") as file:
                    file.write(json.dumps({"key": key, **asdict(validator)}) + "\n")

    def vouches(self, key: str) -> bool:
        """Tells whether it can be asked later if a staged object is still the source's."""
        known = self.known.get(key)
        return known is not None and bool(known.etag or known.modified)


class Watch:
    """Asks, while the conversion works, whether the source is still what was staged. To be entered when all of it is there."""

    def __init__(self, plan: Plan, root: Path, noted: Noted, absent: Iterable[str], called_off: threading.Event) -> None:
        self._plan, self._root, self._noted, self._absent = plan, root, noted, tuple(absent)
        self._called_off = called_off
        self._asked: Future[list[str]] | None = None

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self._asked = self._pool.submit(self.changed)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=kind is None or issubclass(kind, Exception), cancel_futures=True)

    def require_unchanged(self) -> None:
        """Waits for the answers. What has changed is discarded, so that the next staging fetches it.

        Raises:
            Replaced: names what is not what it was.
            SourceNotThere | Refused | Temporary | InputError: the source does not say any more.
        """
        changed = self._asked.result() if self._asked is not None else self.changed()
        if not changed:
            return
        for key in changed:
            if self._plan.source.local is None:
                (self._root / key).unlink(missing_ok=True)
        few = ", ".join(changed[:3])
        raise Replaced(
            f"{self._plan.source.url} was replaced while it was read: {len(changed)} objects are not what they were ({few})",
            hint="what has changed is staged anew; if it goes on, its producer is still writing",
        )

    def changed(self) -> list[str]:
        """Returns the keys of what is another object now, is gone, or has come; the metadata first."""
        store = recognise(self._plan.source)
        if store.tree is not None or read_metadata(self._plan.source, store.raw)[0] != self._plan.metadata:
            return [METADATA]
        asked: list[tuple[str, Callable[[str], bool]]] = [
            (key, self._is_other) for key in self._noted.known if self._noted.vouches(key)
        ]
        asked += [(key, self._is_there) for key in self._absent]
        wanted = {key for array in self._plan.selection.arrays for key in array.chunk_keys()}
        with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="ask") as pool:
            found = list(pool.map(lambda pair: pair[0] in wanted and not self._called_off.is_set() and pair[1](pair[0]), asked))
        return [key for (key, _), other in zip(asked, found, strict=True) if other]

    def _is_other(self, key: str) -> bool:
        source = self._plan.source
        try:
            if source.ask(key, self._noted.known[key]):
                return False
            return True if source.local is not None else self._differs(key)
        except SourceNotThere:
            return True

    def _is_there(self, key: str) -> bool:
        source = self._plan.source
        if source.local is not None:
            return (source.local / key).exists()
        try:
            source.ask(key, Validator())
        except SourceNotThere:
            return False
        return True

    def _differs(self, key: str) -> bool:
        """Compares the bytes: servers behind one address may give one object several tags, or the time of the request."""
        array = next(a for a in self._plan.selection.arrays if key.startswith(f"{a.path}/"))
        again = (self._root / key).with_name(f".{key.rpartition('/')[2]}.again")
        try:
            fetched = self._plan.source.fetch(key, again, limit=codecs.encoded_limit(array))
            other = again.read_bytes() != (self._root / key).read_bytes()
        except FileNotFoundError:  # discarded meanwhile, because it could not be decoded
            return True
        else:
            if not other:
                self._noted.add(key, fetched.validator)
            return other
        finally:
            again.unlink(missing_ok=True)
