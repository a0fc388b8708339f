"""A publication: the registration of a done conversion's item in a target catalog, and its states. Pure.

pending ─▶ registered, or failed; a later revision, or a person, makes it pending again.
withdrawing ─▶ withdrawn, when a person asks for it, or its output is to be removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class PublicationState(StrEnum):
    """Where the registration of an item stands."""

    PENDING = "pending"  #: to be sent, or to be sent again
    REGISTERED = "registered"  #: sent, read back, and found to be what was sent
    FAILED = "failed"  #: the catalog does not take it, or there is nothing to send
    WITHDRAWING = "withdrawing"  #: to be taken out of the catalog
    WITHDRAWN = "withdrawn"  #: taken out, and not there any more; a later revision is registered again


WAITING = frozenset({PublicationState.PENDING, PublicationState.WITHDRAWING})  # the next round does something about them


@dataclass(frozen=True)
class Publication:
    """The registration of an item as it stands."""

    source: str
    item_id: str
    key: str  # of the conversion whose output is, or is to be, registered
    state: PublicationState
    attempts: int  # since it was asked for
    due: datetime
    asked_at: datetime
    changed_at: datetime
    reason: str | None
    digest: str  # of what was sent last and found there; empty = nothing
    target: str  # where it was sent
    registered_at: datetime | None
    output_zarr: str


@dataclass(frozen=True)
class PublicationCount:
    """How many publications of a source are in a state."""

    source: str
    state: PublicationState
    n: int
    since: datetime  # when the first of them was asked for
