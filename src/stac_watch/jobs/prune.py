"""Forgets what nobody asks for any more, so that a ledger of many years is not mostly moves of conversions that are long done.

Nothing goes that an audit, discovery, a replay or the funnel reads, that moves, or that has failed; and no transaction keeps a
watcher waiting for more than a moment.

What goes, of conversions that are done or skipped and did not change for so long: events of earlier attempts, moves between the
first and the last, the parts of an outcome that stand elsewhere too. The last event stays, byte for byte, but packed: the next
attempt is made of it. What sinks were told goes in the same way, and publications that are over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from time import monotonic

from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.pruning import Bookmark, Part

CHUNK = 250  # conversions in one transaction: 40 ms of processor time, measured on a machine busy with other things
SHARE = 1.0  # times as long as a transaction took passes before the next: a watcher that waits gets its turn
COUNTED = ("looked_at", "conversions", "events", "moves", "packed", "outcomes", "announcements", "publications", "bytes")


@dataclass(frozen=True)
class Pruned:
    """What was found, or removed."""

    before: datetime  # what did not change since then
    done: bool  # whether it was removed, or only counted
    complete: bool  # whether all of it was looked at
    looked_at: int  # conversions
    conversions: int  # of them, that have anything to forget
    events: int  # of earlier attempts
    moves: int  # rows of the history
    packed: int  # last events, of attempts and of outputs
    outcomes: int  # summed up
    announcements: int  # what sinks were told, but the last of each item
    publications: int  # of items that were taken out of the catalog, and whose outputs are no more
    bytes: int  # freed, indexes apart
    file_bytes: int | None  # of the ledger's file; null where it is no file
    free_bytes: int | None  # of them free for what comes


def prune(
    ledger: Ledger, before: datetime, *, yes: bool, wait: Callable[[float], bool] = lambda _: False, chunk: int = CHUNK
) -> Pruned:
    """Looks at every conversion that did not change since `before`, part by part; with `yes` what is found is removed at once.

    Args:
        ledger: it may be in use by a watcher.
        before: younger conversions are left alone.
        yes: remove it; else count only.
        wait: waits so many seconds between parts; True when asked to stop. What was removed before stays removed.
        chunk: conversions in one part.

    Raises:
        Temporary: the database does not answer; run again, it goes on.
    """
    counts = dict.fromkeys(COUNTED, 0)
    parts = chain(
        _conversions(ledger, before, chunk, yes=yes), _announcements(ledger, before, chunk, yes=yes),
        _publications(ledger, before, chunk, yes=yes),
    )  # fmt: skip
    began, complete = monotonic(), True
    for part in parts:
        for name, n in part.items():
            counts[name] += n
        if wait(SHARE * (monotonic() - began) if yes else 0.0):
            complete = False
            break
        began = monotonic()
    size = ledger.pruning.file_size()
    return Pruned(
        before=before, done=yes, complete=complete, **counts,
        file_bytes=size[0] if size else None, free_bytes=size[1] if size else None,
    )  # fmt: skip


def _conversions(ledger: Ledger, before: datetime, chunk: int, *, yes: bool) -> Iterator[Mapping[str, int]]:
    after: Bookmark | None = Bookmark()
    while after is not None:
        part = ledger.pruning.forgettable(before, after, chunk)
        if yes and part.keys:
            part = ledger.pruning.forget(part, before)
        after = part.end
        yield _counted(part)


def _announcements(ledger: Ledger, before: datetime, chunk: int, *, yes: bool) -> Iterator[Mapping[str, int]]:
    after: int | None = 0
    while after is not None:
        part = ledger.bygones.announcements(before, after, chunk, yes=yes)
        after = part.end
        yield {"announcements": part.removed, "packed": part.packed, "bytes": part.bytes}


def _publications(ledger: Ledger, before: datetime, chunk: int, *, yes: bool) -> Iterator[Mapping[str, int]]:
    n = chunk
    while n == chunk:
        n = ledger.bygones.publications(before, chunk, yes=yes)
        yield {"publications": n}
        n = n if yes else 0  # counted at once


def _counted(part: Part) -> dict[str, int]:
    return {
        "looked_at": part.looked_at, "conversions": len(part.keys), "events": len(part.events), "moves": len(part.moves),
        "packed": len(part.bodies), "outcomes": len(part.outcomes), "bytes": part.bytes,
    }  # fmt: skip
