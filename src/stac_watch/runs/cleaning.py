"""What may be removed after runs, and what stays. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class LeftoverKind(StrEnum):
    """What is removed."""

    WORKFLOW = "Workflow"
    VOLUME = "PersistentVolumeClaim"
    POD = "Pod"
    RUN = "run folder"  #: of the local engine
    STAGED = "staged source"  #: of the local engine


@dataclass(frozen=True)
class Leftover:
    """One object, and what becomes of it."""

    kind: LeftoverKind
    name: str
    uid: str  # empty for what is no object of a cluster
    why: str  # it may go, or must stay
    holds: str = ""  # of a volume or a staged source: what is lost with it


@dataclass(frozen=True)
class Cleaning:
    """What would be removed, and what stays."""

    remove: tuple[Leftover, ...]
    keep: tuple[Leftover, ...]


def spelled(span: timedelta) -> str:
    """Returns a span in the largest unit that it is whole in."""
    seconds = int(span.total_seconds())
    for name, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds // length} {name}"
    return f"{seconds} s"
