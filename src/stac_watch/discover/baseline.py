"""What was there before the watch is no news until it changes: told by what was noted of it, else by its own stamps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from stac_watch.discover.intake import BASELINE, ORIGIN, Comparison, Intake
from stac_watch.discover.overlap import DATETIME_OVERLAP
from stac_watch.ledger.records import SourceState
from stac_watch.model.item import Item

LAUNCH = datetime(2015, 6, 23, tzinfo=UTC)
"""Of the first Sentinel-2. Earlier stamps are zero times of programs, and say nothing; those of copied archives may still be older
than what they stand at."""


@dataclass(frozen=True)
class Preexisting:
    """Items of a window that were there before the watch."""

    ids: frozenset[str]
    to_note: dict[str, str]  # of those that are not noted as they are: their traces


def preexisting(intake: Intake, seen: Comparison, state: SourceState, *, polled: bool) -> Preexisting:
    """Returns which unknown items were there before the source was watched.

    One that is noted was, unless it changed since. A day that was never swept shows what was there: of it only what is stamped
    since the start is new. Whatever a day shows besides, once it was swept to its end, has appeared since, whatever its stamp says.
    A note of which no revision is known (older ledgers) counts for sweeps, which amend it, and not for polls.
    """
    unknown = [i for i in seen.fresh if i.item_id not in seen.known and i.item_id not in seen.shared]
    if not unknown:
        return Preexisting(frozenset(), {})
    noted = intake.ledger.absences.preexisting(intake.source.name, [i.item_id for i in unknown])
    ids, to_note = set[str](), dict[str, str]()
    for item in unknown:
        if item.item_id in noted:
            trace = noted[item.item_id]
            if trace != item.trace and (polled or trace is not None):
                continue
        elif not _was_there(item, state, intake.catalog.abilities.stamp, polled=polled):
            continue
        ids.add(item.item_id)
        if noted.get(item.item_id) != item.trace:
            to_note[item.item_id] = item.trace
    return Preexisting(frozenset(ids), to_note)


def _was_there(item: Item, state: SourceState, watched_by: str, *, polled: bool) -> bool:
    """Tells by its stamps whether an item that nothing is known of was there before the watch.

    What is stamped since the watch began, and says itself that it was published before that, is re-stamped, for all that is known.
    Where others have stamps, one without any may have been published until days after its acquisition: it is taken for new. So is
    one with the zero time of some program (1970, the year 1).
    """
    origin, swept_from = state.positions.get(ORIGIN), state.positions.get(BASELINE)
    if origin is None or (swept_from is not None and item.datetime >= swept_from):
        return False
    published, updated = (None if at is None or at < LAUNCH else at for at in (item.published, item.updated))
    if published is not None and published < origin:
        return True
    if polled:
        return False  # a poll's own window begins at the origin
    if updated is None and watched_by != "datetime":
        return item.datetime < origin - DATETIME_OVERLAP
    return (updated or item.datetime) < origin
