"""Item documents on their way into the ledger: read, compared with what it knows, judged, written down.

Polls, sweeps, backfills, audits and replays differ in what they read, and in nothing that comes after it: that is the `Intake` of
a source. Each window's items and events, the cursor, and all else that it tells are one transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta

from stac_watch.catalog.abilities import STAMPS, restore
from stac_watch.catalog.client import Catalog
from stac_watch.catalog.probe import good_for, probe
from stac_watch.catalog.reader import Leaf, hidden_name, leaves
from stac_watch.catalog.windows import days
from stac_watch.config.model import Recipe, Source
from stac_watch.discover.items import checksum_of, read_item, shown_id
from stac_watch.discover.overlap import lateness_bucket
from stac_watch.discover.policy import Skip, judge
from stac_watch.discover.recipes import asked_by, asked_now, conversion, differences
from stac_watch.discover.revisions import recognise
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import NO_RIVALS, Findings, Known, Rivals, Sighting, SourceState, Tally
from stac_watch.ledger.session import StaleState
from stac_watch.model.errors import Temporary, of_data, told
from stac_watch.model.event import Lane, fence_of
from stac_watch.model.forms import Form
from stac_watch.model.item import Item, ItemDocument, SkipReason, Unreadable
from stac_watch.model.product import acquisition
from stac_watch.model.states import IN_FLIGHT, State

HOUR = timedelta(hours=1)


class Flooded(Temporary):
    """A catalog shows more new items than are let in within an hour; `tally` is what was let in before."""

    def __init__(self, message: str, *, hint: str, tally: Tally) -> None:
        super().__init__(message, hint=hint)
        self.tally = tally


ORIGIN, BASELINE = "origin", "baseline"
"""Cursors: where the watch began, and how far back sweeps have looked at what was there before."""
SPANS = ("", ":all", ":again", ":begun")
"""Cursors of a stamp: of polls; of polls without a limit on the acquisition time; how far the overlap was read again in the
present round; and when, by the server's clock, that round began."""
CURSORS = (ORIGIN, BASELINE, *(f"{stamp}{span}" for stamp in (*STAMPS, "datetime") for span in SPANS))


@dataclass(frozen=True)
class Comparison:
    """What documents turned out to be beside what the ledger knows."""

    sightings: list[Sighting]
    unreadable: list[Unreadable]
    fresh: list[Item]  # not known before, or of another revision
    known: dict[str, Known]
    readable: frozenset[str]  # ids of all that can be read
    shared: dict[str, Known] = field(default_factory=dict)  # not known before, and converted or under way for another source
    moved: frozenset[str] = frozenset()  # of the fresh ones those of which nothing changed but the product's host
    places: dict[str, str] = field(default_factory=dict)  # of unchanged ones that wait: where the product can be had now
    lagging: int = 0  # answers that are older than what is known: neither news nor a return
    older: dict[str, str] = field(default_factory=dict)  # items that a newer processing takes the place of, and why
    restamped: dict[str, tuple[datetime, str]] = field(default_factory=dict)  # unchanged, for all that they say: see `restamps`
    otherwise: frozenset[str] = frozenset()  # unchanged ones that were asked for with another recipe, or for another place

    def without(self, item_ids: Collection[str]) -> Comparison:
        """Returns the same without these items' news."""
        return replace(
            self,
            sightings=[s for s in self.sightings if s.item.item_id not in item_ids],
            fresh=[i for i in self.fresh if i.item_id not in item_ids],
        )


@dataclass(frozen=True)
class Intake:
    """What the documents of one source pass through."""

    source: Source
    recipe: Recipe
    catalog: Catalog
    ledger: Ledger
    now: Callable[[], datetime]
    installation: str = ""  # whose conversions are asked for
    rivals: Rivals = NO_RIVALS  # other sources that may have the same acquisitions

    def state(self) -> SourceState:
        """Returns what the ledger remembers of the source."""
        return self.ledger.sources.state(self.source.name, CURSORS)

    def cursor(self, name: str) -> str:
        """Returns a cursor's name in the ledger."""
        return f"{self.source.name}:{name}"

    def ensure_room(self, seen: Comparison, before: Tally) -> None:
        """Lets no more items in within an hour than `poll.most_new` says: what one catalog invents must not fill the disk of all.

        Nothing is lost: no cursor passes what was not let in, and the next hour goes on there.

        Raises:
            Flooded: so many were let in already; `before` of them just now.
        """
        if not seen.sightings:
            return
        most, now = self.source.poll.most_new, self.now()
        if self.ledger.counts.begun_since(self.source.name, now - HOUR, most) >= most:
            said = f"{most} items are new within an hour: what is left waits for the next"
            raise Flooded(said, hint="if that is right here, raise `poll.most_new`; nothing is lost", tally=before)

    def ensure_abilities(self, state: SourceState | None = None) -> None:
        """Lets the catalog's abilities be those that the ledger knows; probes it when that was a day ago, or it erred since."""
        kept, now, abilities = (state or self.state()).abilities, self.now(), None
        if kept is not None:
            found, at, invalidated = kept
            abilities = restore(found)
            if abilities is not None and not invalidated and now - at < good_for(abilities):
                self.catalog.abilities = abilities
                return
        probed = probe(self.catalog, self.source.poll.page, abilities)
        self.ledger.sources.note_abilities(self.source.name, asdict(probed), now)

    def read_days(self, start: datetime, end: datetime, lane: Lane) -> Iterator[tuple[Leaf, Comparison]]:
        """Yields what was acquired in `[start, end)`, day by day, oldest first."""
        for window in days("datetime", start, end):
            yield from self.scan(leaves(self.catalog, window, self.source.poll.page), lane)

    def scan(self, read: Iterable[Leaf], lane: Lane) -> Iterator[tuple[Leaf, Comparison]]:
        """Yields windows that were read, each compared with the ledger as it is when its turn comes."""
        return ((leaf, self.compare(leaf.documents, lane)) for leaf in read)

    def compare(self, documents: Sequence[ItemDocument], lane: Lane) -> Comparison:
        """Reads documents and compares them with what is known; writes nothing.

        Whatever one of them makes of our code, or of a library's, it is unreadable by itself, and the others are not.
        """
        try:
            return self._compare(documents, lane)
        except BaseException as error:
            if not of_data(error):
                raise
        good, bad = [], []
        for document in documents:
            try:
                self._compare([document], lane)
                good.append(document)
            except BaseException as error:
                if not of_data(error):
                    raise
                bad.append(Unreadable(shown_id(document), f"it cannot be dealt with: {told(error)}"))
        seen = self._compare(good, lane)
        return replace(seen, unreadable=[*seen.unreadable, *bad])

    def _compare(self, documents: Sequence[ItemDocument], lane: Lane) -> Comparison:
        items, unreadable = self._read(documents)
        known = self.ledger.items.known(self.source.name, list(items))
        lagging = {i for i, k in known.items() if is_behind(items[i][0], k, self.now())}
        items = {i: entry for i, entry in items.items() if i not in lagging}
        as_known = recognise(items, {i: k for i, k in known.items() if i in items}, self.source, self.ledger, self.now(), lane)
        items = as_known.items
        fresh = {i for i, (item, _) in items.items() if i not in known or known[i].revision != item.revision}
        # an unchanged item is judged again only where a rule kept it out: a property may have come, or the rules have changed
        otherwise = self._otherwise({i: item for i, (item, _) in items.items() if i not in fresh}, known, lane)
        news = {i: items[i] for i in items if i in fresh or i in otherwise or is_open(items[i][0], known[i])}
        newer, older = self._processings([item for item, _ in news.values()])
        replaced = (fresh & known.keys()) | otherwise
        sightings = self._judge(news, replaced, newer, self._elsewhere(news, known, lane), lane)
        # what rules that came later leave out stays as it was made
        sightings = [s for s in sightings if s.skip is None or s.item.item_id not in otherwise]
        admitted = {s.item.item_id for s in sightings if s.skip is None}
        return Comparison(
            sightings=sightings,
            unreadable=[*unreadable, *as_known.held],
            fresh=[items[i][0] for i in items if i in fresh],
            known=known,
            readable=frozenset(items) | lagging,
            lagging=len(lagging),
            shared=self._shared(sightings, known),
            moved=as_known.moved,
            places=as_known.places,
            restamped={
                i: (item.updated, item.product_href)
                for i, (item, document) in items.items()
                if i in known and i not in fresh and item.updated is not None and is_in_doubt(item, document, known[i])
            },
            older={i: f"{by} is a newer processing of the same acquisition" for i, by in older.items() if by in admitted},
            otherwise=frozenset(otherwise & admitted),
        )

    def _otherwise(self, unchanged: Mapping[str, Item], known: Mapping[str, Known], lane: Lane) -> set[str]:
        """Returns which of these a person who asks for them wants made anew: another recipe is another conversion.

        What is new alone never asks for that: a changed recipe must not convert an archive by itself.
        """
        if lane == "live":
            return set()
        asked = {i: conversion(item, self.source, self.recipe, lane, replaced=True) for i, item in unchanged.items()}
        keys = {i: known[i].key for i in asked if known[i].state is not State.SKIPPED and known[i].key != asked[i].key}
        bodies = self.ledger.items.last_events(list(keys.values())) if keys else {}
        return {i for i, k in keys.items() if k in bodies and differences(asked_by(bodies[k]), asked_now(asked[i]))}

    def commit(
        self,
        seen: Comparison,
        leaf: Leaf | None = None,
        *,
        cursor: tuple[str, datetime] | None = None,
        late_after: datetime | None = None,
        besides: Findings | None = None,
    ) -> Tally:
        """Writes down what a window showed, in one transaction.

        Args:
            seen: its documents, compared.
            leaf: the window; None where items were asked for by name.
            cursor: what moves with it.
            late_after: new items that are stamped before then are late; None = it is not known.
            besides: what else it tells.

        An item that the ledger cannot take is unreadable; then each of the others is a transaction of its own.
        """
        try:
            return self._commit(seen, leaf, cursor, late_after, besides)
        except BaseException as error:
            if not of_data(error) or isinstance(error, StaleState) or not seen.sightings:
                raise
        total, bad, alone = Tally(), list[Unreadable](), Findings(rivals=self.rivals)
        for sighting in seen.sightings:
            try:
                total = add(total, self.ledger.items.commit(self.source.name, [sighting], [], None, self.now(), alone))
            except BaseException as error:
                if not of_data(error):
                    raise
                bad.append(Unreadable(sighting.item.item_id, f"it cannot be written down: {told(error)}"))
        readable = seen.readable - {entry.item_id for entry in bad}
        rest = replace(seen, sightings=[], unreadable=[*seen.unreadable, *bad], readable=readable)
        if besides is not None:
            besides = replace(besides, readable=readable & set(besides.readable))
        return add(total, self._commit(rest, leaf, cursor, late_after, besides))

    def _commit(
        self,
        seen: Comparison,
        leaf: Leaf | None,
        cursor: tuple[str, datetime] | None,
        late_after: datetime | None,
        besides: Findings | None,
    ) -> Tally:
        found = besides or Findings(readable=seen.readable)
        late = (lateness_bucket(late_after, i.updated) for i in seen.fresh if i.updated is not None) if late_after else ()
        found = replace(
            found,
            superseded=seen.older,
            restamped=seen.restamped,
            rivals=self.rivals,
            places=seen.places,
            moved=seen.moved,
            lateness=Counter(bucket for bucket in late if bucket is not None),
        )
        unreadable = [*seen.unreadable, leaf.hidden] if leaf is not None and leaf.hidden is not None else seen.unreadable
        tally = self.ledger.items.commit(self.source.name, seen.sightings, unreadable, cursor, self.now(), found)
        return replace(tally, lagging=seen.lagging)

    def _read(self, documents: Sequence[ItemDocument]) -> tuple[dict[str, tuple[Item, ItemDocument]], list[Unreadable]]:
        source, unreadable = self.source, list[Unreadable]()
        items: dict[str, tuple[Item, ItemDocument]] = {}
        for document in documents:
            entry = read_document(document, source)
            if isinstance(entry, Unreadable):
                unreadable.append(entry)
            else:
                items[entry.item_id] = (entry, document)
        return items, unreadable

    def _shared(self, sightings: Sequence[Sighting], known: Mapping[str, Known]) -> dict[str, Known]:
        """Returns what another source has admitted of what this one does not know yet."""
        keys = {s.conversion.key: s.item.item_id for s in sightings if s.item.item_id not in known}
        decided = self.ledger.items.decided(keys) if keys else {}
        return {keys[key]: k for key, k in decided.items() if k.state is not State.SKIPPED}

    def _judge(
        self, news: Mapping[str, tuple[Item, ItemDocument]], replaced: set[str], newer: set[str], taken: set[str], lane: Lane
    ) -> list[Sighting]:
        rules, now, sightings = self.source.filter, self.now(), []
        if lane != "live":  # a person said which
            rules = rules.model_copy(update={"max_age": None})
        for item_id, (item, document) in news.items():
            verdict = judge(item, rules, now, document)
            beaten = SkipReason.SUPERSEDED if item_id in newer else SkipReason.OTHER_SOURCE if item_id in taken else None
            reason = verdict.reason if isinstance(verdict, Skip) else beaten
            asked = conversion(item, self.source, self.recipe, lane, replaced=item_id in replaced)
            asked = replace(asked, fence=fence_of(item.updated, now), installation=self.installation)
            sightings.append(Sighting(item, asked, reason))
        return sightings

    def _elsewhere(self, news: Collection[str], known: Mapping[str, Known], lane: Lane) -> set[str]:
        """Returns which acquisitions are another source's; not what this one has begun, or a person asks for by name."""
        own = {i for i, k in known.items() if k.state in IN_FLIGHT or k.state is State.DONE}
        asked = set(news) - own if self.rivals and lane != "replay" else set()
        return self.ledger.items.elsewhere(self.rivals, asked) if asked else set()

    def _processings(self, items: list[Item]) -> tuple[set[str], dict[str, str]]:
        """Returns which items are older processings than others, and which known items these take the place of."""
        if self.source.reprocessing == "all" or not items:
            return set(), {}
        known = self.ledger.items.acquired_at(self.source.name, [item.datetime for item in items])
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


def is_behind(item: Item, known: Known, now: datetime) -> bool:
    """Tells whether a document is older than what is known: it comes from a replica of the catalog that lags.

    A stamp that lies in the future says nothing, or a mistake of the catalog could never be corrected.
    """
    stamps = item.updated is not None and known.updated is not None and item.updated < known.updated <= now
    return stamps and item.revision != known.revision


def is_open(item: Item, known: Known) -> bool:
    """Tells whether an unchanged item is judged again: what rules kept out is, what met a later revision only once stamped anew.

    What was removed because its lifetime is over is not: nothing but a person, or a later revision, brings it back.
    """
    if known.cause == SkipReason.LIFETIME_OVER:
        return False
    stamped_anew = item.updated is not None and known.updated is not None and item.updated > known.updated
    return known.state is State.SKIPPED and (not known.overtaken or stamped_anew)


def is_in_doubt(item: Item, document: ItemDocument, known: Known) -> bool:
    """Tells whether an unchanged item was stamped anew and has no checksum that says whether its product is the same still.

    Only of a finished store more is known than the item says: its outcome has a fingerprint.
    """
    before = max((stamp for stamp in (known.updated, known.restamped) if stamp is not None), default=None)
    stamped_anew = item.updated is not None and before is not None and item.updated > before
    return stamped_anew and item.form is Form.GEOZARR and known.state is not State.SKIPPED and not checksum_of(document)


def hidden_names(leaf: Leaf) -> tuple[str, str] | None:
    """Returns the names that stood for what was hidden in a window, where it was read completely."""
    span = leaf.window
    whole = leaf.hidden is None and not leaf.part
    return (hidden_name(span.field, span.start), hidden_name(span.field, span.end)) if whole else None


def read_document(document: ItemDocument, source: Source) -> Item | Unreadable:
    """Reads an item of a source."""
    return read_item(
        document, collection=source.collection, api=source.api, on=source.on, allowed_hosts=source.hosts(), same_as=source.same_as
    )


def add(one: Tally, other: Tally) -> Tally:
    """Returns the sum of two tallies."""
    return Tally(*(getattr(one, f.name) + getattr(other, f.name) for f in fields(Tally)))
