"""One acquisition that several sources have under one id: one of them converts it. Functions within a transaction.

Which one: whoever has begun; of those that have not, the one that is preferred. What failed, or was skipped, claims nothing: then
the next one takes it, when its catalog shows it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from stac_watch.ledger import moves
from stac_watch.ledger import statements as sql
from stac_watch.ledger.moves import conversion_of
from stac_watch.ledger.records import ConversionRow, Move, Rivals, Sighting
from stac_watch.ledger.session import chunked
from stac_watch.model.item import SkipReason
from stac_watch.model.product import acquisition
from stac_watch.model.states import IN_FLIGHT, Fact, State

BEGUN = IN_FLIGHT | {State.DONE}


def taken(tx: Connection, rivals: Rivals, item_ids: Collection[str]) -> Iterator[str]:
    """Yields the ids that another source converts, has converted, or is preferred for and will."""
    for seen_by, row in _elsewhere(tx, rivals, item_ids):
        if row.state in BEGUN or (row.state is State.QUEUED and seen_by in rivals.ahead):
            yield row.item_id


def settled(
    tx: Connection, sightings: Sequence[Sighting], before: Mapping[str, ConversionRow | None], rivals: Rivals, now: datetime
) -> list[Sighting]:
    """Returns the sightings, skipped where the acquisition is another source's; what waits for a less preferred one makes room.

    In the transaction that admits them: two sources may see an acquisition at the same moment. What this source has begun stays its
    own, and what a person asks for by name is nobody else's.
    """
    own = {s.item.item_id for s in sightings if (row := before[s.item.item_id]) is not None and row.state in BEGUN}
    asked = {s.item.item_id: s for s in sightings if s.skip is None and s.conversion.lane != "replay" and s.item.item_id not in own}
    lost = set()
    for seen_by, row in _elsewhere(tx, rivals, asked):
        if row.key == asked[row.item_id].conversion.key:
            continue
        if row.state in BEGUN or (row.state is State.QUEUED and seen_by in rivals.ahead):
            lost.add(row.item_id)
        elif row.state is State.QUEUED:
            gone = Move(
                Fact.SUPERSEDED, f"{_name(asked[row.item_id])} has it, too, and is preferred", reason=SkipReason.OTHER_SOURCE
            )
            if not moves.skip(tx, row, gone, now):  # a run of it may exist
                lost.add(row.item_id)
    return [replace(s, skip=SkipReason.OTHER_SOURCE) if s.item.item_id in lost else s for s in sightings]


def _elsewhere(tx: Connection, rivals: Rivals, item_ids: Collection[str]) -> Iterator[tuple[str, ConversionRow]]:
    """Yields the current conversions of these ids for other sources, and who saw them there; of products' ids only."""
    ids = [item_id for item_id in item_ids if acquisition(item_id) is not None] if rivals else []
    for found in list(chunked(tx, sql.ELSEWHERE, ids, sources=sorted(rivals.ahead | rivals.behind))):
        values = dict(found._mapping)  # noqa: SLF001  # SQLAlchemy's documented name for it
        seen_by = values.pop("seen_by")
        yield seen_by, conversion_of(values)


def _name(sighting: Sighting) -> str:
    return sighting.conversion.source_name or sighting.item.collection
