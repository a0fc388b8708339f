"""Asks the catalog for what changed and writes it down: windows, pages, changes, verdicts, ledger, cursor.

In: one source. Out: ledger rows, each window's items, events and cursor in one transaction. Never: moves the cursor before the
commit or past the server's clock; drops an item without a reason; fails a page because of one item.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from stac_watch.catalog.abilities import restore
from stac_watch.catalog.client import Catalog
from stac_watch.catalog.probe import GOOD_FOR, GOOD_FOR_EMPTY, probe
from stac_watch.catalog.reader import Leaf, hidden_name
from stac_watch.config.model import Recipe, Source
from stac_watch.discover.items import ChangeKind, classify, read_item
from stac_watch.discover.overlap import lateness_bucket
from stac_watch.discover.policy import Skip, judge
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Known, Sighting, Tally
from stac_watch.model.event import Conversion, Lane
from stac_watch.model.identity import conversion_key, tile_of
from stac_watch.model.item import Item, SkipReason, Unreadable
from stac_watch.model.product import acquisition
from stac_watch.model.states import State


@dataclass(frozen=True)
class Look:
    """What documents turned out to be."""

    sightings: list[Sighting]
    bad: list[Unreadable]
    fresh: list[Item]  # not known before, or of another revision
    known: dict[str, Known]
    readable: frozenset[str]  # ids of all that are not bad
    older: dict[str, str]  # items that a newer processing of the same acquisition takes the place of, and why


def ensure_abilities(source: Source, catalog: Catalog, ledger: Ledger, now: datetime) -> None:
    """Lets the catalog's abilities be those that the ledger knows; probes it when that was a day ago, or it erred since."""
    kept = ledger.sources.abilities(source.name)
    if kept is not None:
        found, at, invalidated = kept
        abilities = restore(found)
        if abilities is not None and not invalidated and now - at < (GOOD_FOR if abilities.samples else GOOD_FOR_EMPTY):
            catalog.abilities = abilities
            return
    ledger.sources.note_abilities(source.name, asdict(probe(catalog, source.poll.page)), now)


def note_lateness(source: Source, ledger: Ledger, cursor: datetime, fresh: list[Item]) -> None:
    """Counts how late new items were; the overlap follows from it."""
    buckets = (lateness_bucket(cursor, item.updated) for item in fresh if item.updated is not None)
    ledger.sources.note_lateness(source.name, Counter(bucket for bucket in buckets if bucket is not None))


def commit(
    seen: Look, hidden: Unreadable | None, source: Source, ledger: Ledger, now: datetime, *, cursor: tuple[str, datetime] | None
) -> Tally:
    """Writes down what a window showed: first what is superseded, so that a crash in between leaves the newer to be found again."""
    if seen.older:
        ledger.items.supersede(source.name, seen.older.keys(), seen.older, now)
    bad = [*seen.bad, hidden] if hidden is not None else seen.bad
    return ledger.items.commit(source.name, seen.sightings, bad, cursor, now)


def heal(seen: Look, leaf: Leaf, source: Source, ledger: Ledger, *, whole: bool) -> None:
    """Marks as readable what this window could read; `whole`: it had everything of its span."""
    span = leaf.window
    names = hidden_name(span.field, span.start), hidden_name(span.field, span.end)
    ledger.absences.mark_readable(source.name, seen.readable, names if whole and leaf.hidden is None else None)


def look(documents: list[dict[str, Any]], source: Source, recipe: Recipe, ledger: Ledger, now: datetime, *, lane: Lane) -> Look:
    """Reads documents and compares them with what is known."""
    items: dict[str, tuple[Item, dict[str, Any]]] = {}
    bad = []
    for document in documents:
        entry = read_item(document, collection=source.collection, api=source.api, on=source.on, allowed_hosts=source.hosts())
        if isinstance(entry, Unreadable):
            bad.append(entry)
        else:
            items[entry.item_id] = (entry, document)
    known = ledger.items.known(source.name, list(items))
    kinds = {i: classify(item, known[i].revision if i in known else None).kind for i, (item, _) in items.items()}
    # an unchanged item is looked at again only where a rule kept it out: a property may have come, or the rules have changed
    open_ = {i: items[i] for i, kind in kinds.items() if kind is not ChangeKind.NONE or known[i].state is State.SKIPPED}
    newer, older = _processings(source, [item for item, _ in open_.values()], ledger)
    rules = source.filter if lane == "live" else source.filter.model_copy(update={"max_age": None})  # a person said which
    sightings = []
    for item_id, (item, document) in open_.items():
        verdict = judge(item, rules, now, document)
        reason = verdict.reason if isinstance(verdict, Skip) else SkipReason.SUPERSEDED if item_id in newer else None
        replaced = kinds[item_id] is ChangeKind.REPLACE
        sightings.append(Sighting(item, _conversion(item, source, recipe, lane, replaced=replaced), reason))
    admitted = {s.item.item_id for s in sightings if s.skip is None}
    return Look(
        sightings=sightings,
        bad=bad,
        fresh=[items[i][0] for i, kind in kinds.items() if kind is not ChangeKind.NONE],
        known=known,
        readable=frozenset(items),
        older={i: f"{by} is a newer processing of the same acquisition" for i, by in older.items() if by in admitted},
    )


def _processings(source: Source, items: list[Item], ledger: Ledger) -> tuple[set[str], dict[str, str]]:
    """Returns which items are older processings than others, and which known items these take the place of."""
    if source.reprocessing == "all" or not items:
        return set(), {}
    known = ledger.items.acquired_at(source.name, [item.datetime for item in items])
    gone = {SkipReason.WITHDRAWN.value, SkipReason.DEPRECATED.value}
    ids = {i for i, k in known.items() if not (k.state is State.SKIPPED and k.cause in gone)}
    ids |= {item.item_id for item in items if not item.deprecated}
    newest: dict[str, tuple[str, str]] = {}
    for item_id in ids:
        if (parts := acquisition(item_id)) is not None:
            newest[parts[0]] = max(newest.get(parts[0], ("", "")), (parts[1], item_id))
    beaten = {i: newest[parts[0]][1] for i in ids if (parts := acquisition(i)) is not None and newest[parts[0]][1] != i}
    mine = {item.item_id for item in items}
    return beaten.keys() & mine, {i: by for i, by in beaten.items() if i not in mine and by in mine}


def _conversion(item: Item, source: Source, recipe: Recipe, lane: Lane, *, replaced: bool) -> Conversion:
    key = conversion_key(source.api, item.collection, item.item_id, item.revision, recipe.digest_fields())
    output = recipe.output.format(
        collection=item.collection, item_id=item.item_id, tile=item.tile or tile_of(item.item_id), key=key
    )
    reason = "backfill" if lane == "backfill" else "updated" if replaced else "new"
    return Conversion(
        catalog=source.api, collection=item.collection, item_id=item.item_id, revision=item.revision,
        recipe=recipe.digest_fields(), kind="replace" if replaced else "create", reason=reason, lane=lane,
        time=item.updated or item.datetime, datetime=item.datetime, item_href=item.item_href, product_href=item.product_href,
        output_zarr=output, groups=recipe.groups, bbox=item.bbox, source_name=source.name,
        options={
            "spatial_chunk": str(recipe.spatial_chunk), "sharding": str(recipe.sharding).lower(), "package": recipe.package,
            "overwrite": "false", "dask_perf_html": "",
        },
    )  # fmt: skip


def add(one: Tally, other: Tally) -> Tally:
    """Returns the sum of two tallies."""
    return Tally(
        one.seen + other.seen, one.admitted + other.admitted, one.skipped + other.skipped, one.unreadable + other.unreadable
    )
