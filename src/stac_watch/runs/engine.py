"""What turns an event into a run. Two implementations: `argo` on a cluster, `local` on this machine.

An engine takes events as bytes and says what runs exist now. It knows no ledger and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class Answer(StrEnum):
    """What an engine said to a submitted event."""

    ACCEPTED = "accepted"  #: it has it; whether a run comes of it is another question
    REFUSED = "refused"  #: it will never take this very event
    UNKNOWN = "unknown"  #: no clear answer; the same event may be sent again, safely


@dataclass(frozen=True)
class Receipt:
    """The answer to one submission."""

    answer: Answer
    detail: str = ""


class Phase(StrEnum):
    """Where a run stands."""

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
    stage: str = ""  # what it is at, in the runner's words
    progress: tuple[int, int] | None = None  # done, total
    outcome: dict[str, Any] | None = None  # the runner's outcome JSON once it ended
    started: datetime | None = None
    ended: datetime | None = None


class Engine(Protocol):
    """The whole interface; what one engine needs and the other lacks is not in it."""

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
        """Lets go; with `stop_runs` the runs are asked to end, if they live and die with this machine's session."""
