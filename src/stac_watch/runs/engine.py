"""What turns an event into a run. Two implementations: `argo` on a cluster, `local` on this machine.

An engine takes events as bytes and says what runs exist now. It knows no ledger and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from stac_watch.model.outcome import Outcome


class Answer(StrEnum):
    """What an engine said to a submitted event."""

    ACCEPTED = "accepted"  #: it has the event; whether a run follows is not known yet
    REFUSED = "refused"  #: it will never accept this event
    UNKNOWN = "unknown"  #: no clear answer; the same event may be sent again, safely


@dataclass(frozen=True)
class Receipt:
    """The answer to one submission."""

    answer: Answer
    detail: str = ""


def name_taken(run: str, key: str) -> str:
    """Returns what is said of an event whose run's name a run of another conversion has: its names hold 64 bits of a key only."""
    return f"the name {run} is taken by a run of key {key[:40]!r}: `stac-watch replay ITEM --yes` gives this one its next name"


class Phase(StrEnum):
    """How far a run has come."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True)
class Run:
    """One Workflow or process, as it is now."""

    name: str
    key: str
    attempt: int
    phase: Phase
    stage: str = ""  # what it is doing, in the runner's words
    progress: tuple[int, int] | None = None  # done, total
    outcome: Outcome | None = None  # once it ended
    started: datetime | None = None
    ended: datetime | None = None


class Attempt(Protocol):
    """One attempt at a conversion, as a row of the ledger has it."""

    @property
    def key(self) -> str:
        """The conversion's key."""

    @property
    def attempt(self) -> int:
        """Its number, from 1."""


class Runs:
    """Runs as an engine had them last, found by their attempt."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._of = {(run.key, run.attempt): run for run in runs}

    def of(self, attempt: Attempt) -> Run | None:
        """Returns the run of a conversion's current attempt, if there is one."""
        return self._of.get((attempt.key, attempt.attempt))


class Engine(Protocol):
    """The whole interface: only what both engines have."""

    def submit(self, event: bytes) -> Receipt:
        """Asks for the run that the event names. Safe to repeat: the same event never makes a second run.

        Raises:
            Refused: credentials or permissions are wrong; no event can be sent until a person acts.
        """

    def runs(self, keys: Sequence[str]) -> Iterable[Run]:
        """Returns the runs of these keys that exist now, every attempt. Absence is not failure."""

    def headroom(self) -> int:
        """Returns how many more runs may be started now."""

    def close(self, *, stop_runs: bool) -> None:
        """Releases what it holds; with `stop_runs`, runs that are processes of this machine are asked to end."""
