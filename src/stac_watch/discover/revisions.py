"""Which documents show something new beside what is known, however the place of their product is spelled.

A fresh signature is no change (`items` takes it out of the revision), nor another name of a host that the source knows of
(`same_as`), nor another host with the same path and checksum. Where only the host differs and no checksum says more, few items may
be news; many are a store that moved, which a person decides on: they are held, and say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stac_watch.config.model import Source
from stac_watch.discover.items import checksum_of, host_of, revision_of, trace_of
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Known
from stac_watch.model.event import Lane
from stac_watch.model.item import Item, ItemDocument, Unreadable
from stac_watch.model.signatures import unsigned
from stac_watch.model.states import State

FEW = 5  # items that may change in nothing but their host, in `WITHIN`, before it is a store that moved
SHARE = 10  # and no more than one in so many of those that are known
WITHIN = timedelta(days=7)
HELD = "nothing but the host of its product changed"
"""How the reason begins why an item is held."""


@dataclass(frozen=True)
class Recognised:
    """Documents as they are known."""

    items: dict[str, tuple[Item, ItemDocument]]  # of those whose place is spelled otherwise, with the revision that is known
    held: list[Unreadable]  # what nobody has decided on
    moved: frozenset[str]  # what is news although nothing changed but its host
    places: dict[str, str]  # of what waits: where its product can be had now


def recognise(
    items: Mapping[str, tuple[Item, ItemDocument]],
    known: Mapping[str, Known],
    source: Source,
    ledger: Ledger,
    now: datetime,
    lane: Lane,
) -> Recognised:
    """Compares documents with what is known of them; what a person asks for by name (lane `replay`) is never held."""
    found, asked = dict(items), list[str]()
    for item_id, k in known.items():
        item, document = items[item_id]
        if k.revision in item.others:
            found[item_id] = (replace(item, revision=k.revision), document)
        elif k.revision != item.revision:
            asked.append(item_id)
    hosts: dict[str, tuple[str, str]] = {}
    moved = [i for i in asked if known[i].trace in (items[i][0].trace, None)]
    before = ledger.items.hrefs([known[i].key for i in moved]) if moved else {}
    for item_id in moved:
        item, document = items[item_id]
        k, href = known[item_id], before.get(known[item_id].key, "")
        if k.trace is None and (trace_of(document, href, source.on), revision_of(document, href, source.on)) != (
            item.trace,
            k.revision,
        ):
            continue
        if checksum_of(document):
            found[item_id] = (replace(item, revision=k.revision), document)
        else:
            hosts[item_id] = (host_of(href), host_of(item.product_href))
    held = [] if lane == "replay" else _held(hosts, source, ledger, now)
    for entry in held:
        del found[entry.item_id]
    places = {
        i: item.product_href
        for i, (item, _) in found.items()
        if i in known
        and known[i].state is State.QUEUED
        and known[i].trace is not None
        and item.revision == known[i].revision
        and (item is not items[i][0] or item.others or unsigned(item.product_href) != item.product_href)
    }
    return Recognised(found, held, frozenset(hosts.keys() & found.keys()), places)


def _held(hosts: Mapping[str, tuple[str, str]], source: Source, ledger: Ledger, now: datetime) -> list[Unreadable]:
    """Returns all of these that are too many to be news."""
    if not hosts or source.moved == "convert":
        return []
    already = ledger.absences.moved(source.name, now - WITHIN) - hosts.keys()
    if len(already) + len(hosts) <= max(1, min(FEW, ledger.items.total(source.name) // SHARE)):
        return []
    return [
        Unreadable(
            item_id,
            f"{HELD}, from {old} to {new}, and of others, too: if this is one store, write `same_as: [[{old}, {new}]]` into source"
            f" {source.name}; if it is not, `stac-watch replay --held {source.name} --yes` converts what is held again, and"
            " `moved: convert` whatever moves",
        )
        for item_id, (old, new) in hosts.items()
    ]
