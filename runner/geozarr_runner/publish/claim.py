"""One writer at a time for an output in an object store, which locks nothing: a small object says who writes.

It is made on condition that there is none (`If-None-Match`), renewed and taken over on condition that it is still the one that was
read (`If-Match`). A store that knows no conditions takes it all the same; what was written is read again, and that decides. A
writer that lost its claim stops before its next write; one that died stands in nobody's way for longer than `LEASE`.

Sources: Amazon S3, conditional writes (2024); s3fs 2026.9 (`pipe_file` passes them on; what a store answers is in `__cause__`).
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from geozarr_runner.request import Identity
from stac_watch.model.errors import Temporary
from stac_watch.model.outcome import Outcome, read_document

if TYPE_CHECKING:
    from geozarr_runner.publish.objects import ObjectStore

NOTE = "stac-watch.uploading.json"
LEASE = 60.0  #: seconds without a renewal after which a writer is taken for dead
_LOOKS = 4  #: in one lease; a writer renews its claim as often
_TURNS = 3  #: of losing the race for a claim
_NOT_MET, _UNKNOWN = (409, 412), (400, 501)  #: HTTP: a condition does not hold; the store knows none


_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Asks:
    """Who wants to publish, and how it waits."""

    identity: Identity
    overwrite: bool = False
    wait: Callable[[float], bool] = lambda _: False  # seconds; True = stop
    lease: float = LEASE


@dataclass
class Reservation:
    """The right to write one output, held while its `with` block lasts; the note stays until `release`."""

    store: ObjectStore
    asks: Asks
    finished: Outcome | None = None  # the marker that lies there
    _token: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{next(_NUMBERS)}")  # of a process that lives
    _renewals: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _turn: threading.RLock = field(default_factory=threading.RLock)  # a store may show a note that is just rewritten half-way

    def __enter__(self) -> Self:
        self._acquire()
        threading.Thread(target=self._renew, daemon=True, name="claim").start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._ended.set()

    def check(self) -> None:
        """Makes sure, before something is written, that the claim is still ours.

        Raises:
            Temporary: another run has taken it over.
        """
        with self._turn:
            if not self._is_ours():
                raise self._taken("has taken over")

    def release(self) -> None:
        """Removes the note: the output is whole."""
        with self._turn:  # a renewal in between would leave the note for ever
            self._ended.set()
            self.check()
            self.store.fs.rm(self.store.at(NOTE))

    def _acquire(self) -> None:
        seen: dict[str, Any] | None = None
        waited, turns = 0.0, 0
        while turns < _TURNS:
            found = self._read()
            if found is not None and not self._is_free(found[1]) and waited < self.asks.lease:
                if seen is not None and found[1] != seen:
                    raise self._taken("is writing")
                seen, pause = found[1], self.asks.lease / _LOOKS
                if self.asks.wait(pause):
                    raise self._taken("was writing when this one was stopped")
                waited += pause
                continue
            condition = {"IfNoneMatch": "*"} if found is None else {"IfMatch": found[0]}
            if write_if(self.store, NOTE, self._note(), condition) and self._is_ours():
                return
            turns += 1
        raise self._taken("was quicker")

    def _is_free(self, note: dict[str, Any]) -> bool:
        """Tells whether a note is of work that this run may go on with: an earlier attempt's, or one that was finished.

        Another installation may give the item the same key and place: its attempt is not this one's.
        """
        done, mine = self.finished, self.asks.identity
        own = not mine.installation or note.get("installation", "") in ("", mine.installation)
        return (own and note.get("key") == mine.key) or (
            done is not None and (note.get("key"), note.get("attempt")) == (done.key, done.attempt)
        )

    def _is_ours(self) -> bool:
        found = self._read()
        return found is not None and found[1].get("token") == self._token

    def _read(self) -> tuple[str, dict[str, Any]] | None:
        path = self.store.at(NOTE)
        try:
            tag = str(self.store.fs.info(path).get("ETag", ""))  # before the content: what changed between fails the condition
            return tag, read_document(self.store.fs.cat_file(path)) or {}
        except FileNotFoundError:
            return None

    def _note(self) -> bytes:
        mine = self.asks.identity
        said = {"key": mine.key, "run": mine.run, "attempt": mine.attempt, "installation": mine.installation, "fence": mine.fence}
        return json.dumps({**said, "token": self._token, "renewals": self._renewals}).encode()

    def _renew(self) -> None:
        while not self._ended.wait(self.asks.lease / _LOOKS):
            try:
                with self._turn:
                    found = self._read()
                    if self._ended.is_set() or found is None or found[1].get("token") != self._token:
                        return  # said at the next check
                    self._renewals += 1
                    write_if(self.store, NOTE, self._note(), {"IfMatch": found[0]})
            except Exception:  # noqa: BLE001, S112  # a store that does not answer is asked again; the main thread says so
                continue

    def _taken(self, what: str) -> Temporary:
        return Temporary(f"another run {what}: {self.store.href}", hint="it is tried again; the other run's result counts")


def write_if(store: ObjectStore, name: str, content: bytes, condition: dict[str, str]) -> bool:
    """Writes a small object if an S3 condition holds; tells whether it did. Where conditions are unknown it is just written."""
    path = store.at(name)
    if not store.is_s3:
        store.fs.pipe_file(path, content)
        return True
    try:
        store.fs.pipe_file(path, content, **condition)
    except OSError as error:
        status = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
        gone = isinstance(error, FileNotFoundError) and "IfMatch" in condition
        if gone or status in _NOT_MET or isinstance(error, FileExistsError):
            return False
        if status not in _UNKNOWN:
            raise
        store.fs.pipe_file(path, content)
    return True
