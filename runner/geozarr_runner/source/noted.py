"""What the source said of each object when it was staged, kept beside the copy; and whether it still says so.

A product that is replaced in place, while it is read or between two attempts, would else become a mixture of old and new.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from geozarr_runner.source import codecs, shards
from geozarr_runner.source.faults import Forbidden
from geozarr_runner.source.forms import recognise
from geozarr_runner.source.preflight import Plan, read_metadata
from geozarr_runner.source.threads import CONNECTIONS
from geozarr_runner.source.transfer import Validator
from geozarr_runner.source.walk import walk
from stac_watch.model.errors import Defect, InputError, SourceNotThere, Temporary
from stac_watch.model.zarr3 import ROOT, consolidated

METADATA = ".zmetadata"
_FILE = "noted.jsonl"


class Replaced(Temporary):
    """The product is not what it was when its first object was read."""


class Noted:
    """Validators by key; a line of JSON for each, so that a killed attempt leaves those of what it had staged."""

    def __init__(self, file: Path | None = None) -> None:
        self._file, self._lock = file, threading.Lock()
        self.known: dict[str, Validator] = {}
        self.broken: dict[str, Validator] = {}  # of objects that were not kept: nobody could decode them
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


def noted_in(folder: Path) -> Noted:
    """Returns what is noted of what is staged in a folder."""
    return Noted(folder / _FILE)


def forget(folder: Path) -> None:
    """Removes what was noted of what was staged in a folder."""
    (folder / _FILE).unlink(missing_ok=True)


class Watch:
    """Asks, while the conversion works, whether the source is still what was staged. To be entered when all of it is there."""

    def __init__(self, plan: Plan, root: Path, noted: Noted, absent: Iterable[str], called_off: threading.Event) -> None:
        self._plan, self._root, self._noted, self._absent = plan, root, noted, tuple(absent)
        self._called_off = called_off
        self._asked: Future[list[str]] | None = None

    @property
    def in_place(self) -> bool:
        """True when the product is read where it lies, to the end."""
        return self._plan.source.local is not None

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
        self._require_none(self._asked.result() if self._asked is not None else self.changed())

    def require_unchanged_now(self) -> None:
        """Asks, now that something was found to be wrong. Objects of which the server says nothing are fetched once more.

        Raises:
            Replaced | SourceNotThere | Refused | Temporary | InputError: see `require_unchanged`.
        """
        self._require_none(self.changed(thorough=True))

    def _require_none(self, changed: list[str]) -> None:
        if not changed:
            return
        for key in changed:
            if self._plan.source.local is None:
                (self._root / key).unlink(missing_ok=True)
        few = ", ".join(changed[:3])
        raise Replaced(
            f"{self._plan.source.url} was replaced while it was read: {len(changed)} objects are not what they were ({few})",
            hint="what has changed is staged again; if this repeats, its producer is still writing",
        )

    def changed(self, *, thorough: bool = False) -> list[str]:
        """Returns the keys of what is another object now, is gone, or has come; the metadata first.

        Args:
            thorough: an object of which the server says neither tag nor time is compared with what is there now.
        """
        if (root := self._document_changed()) is not None:
            return [root]
        vouched = self._noted.vouches
        asked: list[tuple[str, Callable[[str], bool]]] = [
            (key, self._is_other if vouched(key) else self._is_unlike) for key in self._noted.known if thorough or vouched(key)
        ]
        asked += [(key, self._is_there) for key in self._absent]
        asked += [(key, self._is_mended) for key in self._noted.broken if thorough]
        wanted = self._limits()
        with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="ask") as pool:
            found = list(pool.map(lambda pair: pair[0] in wanted and not self._called_off.is_set() and pair[1](pair[0]), asked))
        return [key for (key, _), other in zip(asked, found, strict=True) if other]

    def _document_changed(self) -> str | None:
        """Returns the key of a document that is not what was planned with: of the root's, or of a node that no other speaks for."""
        source, tree = self._plan.source, self._plan.tree
        if tree is not None:
            if source.read(ROOT) != self._plan.root:
                return ROOT
            root = dict(tree.nodes[""])
            nodes = tree.nodes if consolidated(root) else walk(source, root, self._called_off)
            return next((f"{path}/{ROOT}" for path in sorted(tree.nodes) if tree.nodes[path] != nodes.get(path)), None)
        store = recognise(source)
        return METADATA if store.tree is not None or read_metadata(source, store.raw)[0] != self._plan.metadata else None

    def _limits(self) -> dict[str, int]:
        """Returns the key of every object that may be watched, and the most bytes that it can have."""
        if self._plan.tree is not None:
            return shards.limits_of(self._plan.tree.keys())
        return {key: codecs.encoded_limit(array) for array in self._plan.selection.arrays for key in array.chunk_keys()}

    def _is_other(self, key: str) -> bool:
        source = self._plan.source
        try:
            if source.ask(key, self._noted.known[key]):
                return False
            return True if source.local is not None else self._differs(key)
        except (SourceNotThere, Forbidden):  # the root has just been read
            return True

    def _is_unlike(self, key: str) -> bool:
        try:
            return not self._plan.source.ask(key, self._noted.known[key]) or self._differs(key)
        except (SourceNotThere, Forbidden):
            return True

    def _is_mended(self, key: str) -> bool:
        try:
            return not self._plan.source.ask(key, self._noted.broken[key])
        except (SourceNotThere, Forbidden):
            return True

    def _is_there(self, key: str) -> bool:
        source = self._plan.source
        if source.local is not None:
            return (source.local / key).exists()
        try:
            source.ask(key, Validator())
        except (SourceNotThere, Forbidden):
            return False
        return True

    def _differs(self, key: str) -> bool:
        """Compares the bytes: servers behind one address may give one object several tags, or the time of the request."""
        again = (self._root / key).with_name(f".{key.rpartition('/')[2]}.again")
        try:
            fetched = self._plan.source.fetch(key, again, limit=self._limits()[key])
            other = again.read_bytes() != (self._root / key).read_bytes()
        except FileNotFoundError:  # discarded meanwhile, because it could not be decoded
            return True
        else:
            if not other:
                self._noted.add(key, fetched.validator)
            return other
        finally:
            again.unlink(missing_ok=True)


VERDICTS = (InputError, SourceNotThere, Defect, RuntimeError, ValueError, TypeError)
"""What is said of a product's content: by us, and by codecs. A broken network, or a full disk, has nothing to do with it."""


@contextlib.contextmanager
def unchanged(watch: Watch) -> Iterator[None]:
    """Asks meanwhile whether the source is still what was staged; where it is not, that is the reason for whatever failed, too.

    A verdict is asked about once more: what was replaced in the meantime may have been staged in part. So is, at the end, a
    product that is read where it lies.

    Raises:
        Replaced: see `Watch.require_unchanged`.
    """
    with watch:
        try:
            yield
        except VERDICTS:
            watch.require_unchanged_now()
            raise
        watch.require_unchanged()
    if watch.in_place:
        watch.require_unchanged_now()


@contextlib.contextmanager
def unless_replaced(plan: Plan, root: Path, noted: Noted, called_off: threading.Event) -> Iterator[set[str]]:
    """Of a product that is just being replaced anything can be said: what is wrong with it may be that.

    To be held around all that is said of what is being staged. Yields a set, for the keys that are found to be absent.

    Raises:
        Replaced: see `Watch.require_unchanged`.
    """
    absent: set[str] = set()
    try:
        yield absent
    except VERDICTS:
        Watch(plan, root, noted, absent, called_off).require_unchanged_now()
        raise
