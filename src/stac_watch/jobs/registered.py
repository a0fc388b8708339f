"""Whether what is done is found: the ledger and the catalog of outputs side by side, over what an audit has looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from stac_watch.jobs.audit import REMEDY, Audit, Gap, GapKind
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow
from stac_watch.model.publication import Publication, PublicationState
from stac_watch.model.stamps import parse_stamp
from stac_watch.model.states import State

type Listing = Callable[[], Iterable[Mapping[str, Any]]]


def compared(found: Audit, ledger: Ledger, listing: Listing) -> Audit:
    """Returns the audit with what is wrong in the catalog of outputs, too.

    Args:
        found: an audit; its source and its range count.
        ledger: read first, so that what is registered meanwhile is no gap.
        listing: gives the items of that catalog that were acquired in the range.
    """
    publications = {p.item_id: p for p in ledger.publications.within(found.source, found.start, found.end)}
    rows = {row.item_id: row for row in ledger.items.within(found.source, found.start, found.end)}
    there = {str(item.get("id")): item for item in listing()}
    gaps = [gap for row in rows.values() if (gap := _wrong(row, publications.get(row.item_id), there.get(row.item_id)))]
    gaps += _foreign(found.source, ledger, rows, there)
    kinds = Counter(gap.kind.value for gap in [*found.gaps, *gaps])
    return replace(found, kinds=dict(sorted(kinds.items())), gaps=[*found.gaps, *gaps])


def _wrong(row: ConversionRow, known: Publication | None, item: Mapping[str, Any] | None) -> Gap | None:
    """Returns what is wrong with the registration of a conversion that is current."""
    if row.state is not State.DONE:
        return None
    state = known.state if known is not None and known.key == row.key else None
    if state in (PublicationState.WITHDRAWING, PublicationState.WITHDRAWN):
        back = state is PublicationState.WITHDRAWN and item is not None
        return _gap(GapKind.FOREIGN, row, "it was taken out of the catalog of outputs, and is there again") if back else None
    if state is PublicationState.PENDING and known is not None:
        why = f"to be registered since {known.asked_at:%Y-%m-%d %H:%M}{f': {known.reason}' if known.reason else ''}"
        return _gap(GapKind.UNFINISHED, row, why)
    if item is None:
        return _gap(GapKind.UNREGISTERED, row, _missing(known if state is not None else None))
    made, shown = row.outcome.finished if row.outcome is not None else "", item.get("properties", {}).get("processing:datetime")
    if made and parse_stamp(shown) != parse_stamp(made):
        return _gap(GapKind.MISREGISTERED, row, f"its output was made {made}, and the catalog of outputs has that of {shown}")
    return None


def _missing(known: Publication | None) -> str:
    """Returns why the catalog of outputs does not have an item that is done."""
    if known is None:
        return "done, and was never to be registered"
    if known.state is PublicationState.FAILED:
        return f"done, and could not be registered: {known.reason}"
    return "done and registered, and the catalog of outputs does not have it any more"


def _foreign(
    source: str, ledger: Ledger, rows: Mapping[str, ConversionRow], there: Mapping[str, Mapping[str, Any]]
) -> Iterator[Gap]:
    """Yields items of the catalog of outputs of which no source has an output to show."""
    for name in sorted(there):
        row = rows.get(name)
        if row is not None and row.state is State.DONE:
            continue
        if all(p.state is PublicationState.WITHDRAWN for p in ledger.publications.of(name)):
            why = "it is in the catalog of outputs, and the ledger has no output of it registered"
            key, state = (row.key, row.state) if row is not None else (None, None)
            yield Gap(GapKind.FOREIGN, source, name, key, state, why, REMEDY[GapKind.FOREIGN])


def _gap(kind: GapKind, row: ConversionRow, why: str) -> Gap:
    return Gap(kind, row.source, row.item_id, row.key, row.state, why, REMEDY[kind])
