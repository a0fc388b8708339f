"""Registering what was done before, or what could not be registered: a plan first, and only then asked for.

It only asks: the watcher sends, so that credentials are used in one place.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from stac_watch.ledger.deliveries import Told
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow
from stac_watch.model.announcement import DeliveryState
from stac_watch.model.errors import InputError
from stac_watch.model.publication import Publication, PublicationState
from stac_watch.model.states import State

MOST = 100_000  # items of one call


@dataclass(frozen=True)
class RegistrationWish:
    """An item that is to be registered."""

    item: str
    source: str
    key: str
    why: str  # what was known of it


def unregistered(ledger: Ledger, since: datetime | None) -> list[RegistrationWish]:
    """Returns what is done, and was never to be registered."""
    found = ledger.publications.unregistered(since, MOST)
    return [RegistrationWish(item, source, key, "done, and never registered") for source, item, key in found]


def failed(ledger: Ledger, since: datetime | None) -> list[RegistrationWish]:
    """Returns what could not be registered."""
    rows = ledger.publications.find(PublicationState.FAILED, limit=MOST, since=since)
    return [RegistrationWish(row.item_id, row.source, row.key, row.reason or "failed") for row in rows]


def named(ledger: Ledger, names: Collection[str]) -> list[RegistrationWish]:
    """Returns items by whatever names each alone; they are sent again where they are registered.

    Raises:
        InputError: one is not known, or is not done.
    """
    rows = [done(ledger, name) for name in names]
    return [RegistrationWish(row.item_id, row.source, row.key, "named; sent again") for row in rows]


def done(ledger: Ledger, name: str) -> ConversionRow:
    """Returns the done conversion that a name means, of several revisions the last that changed.

    Raises:
        InputError: there is none, or several items are called so.
    """
    found = [row for row in ledger.conversions.called(name) if row.state is State.DONE]
    if not found:
        raise InputError(f"nothing that is done is called {name!r}", hint="`stac-watch items --state done` lists what is")
    return max(found, key=lambda row: row.changed_at)


def registered(ledger: Ledger, names: Collection[str], target: str) -> list[RegistrationWish]:
    """Returns items by whatever names each alone, that are to be taken out of the catalog `target`.

    Raises:
        InputError: one is not known, was never to be registered, or is registered elsewhere.
    """
    found: dict[str, RegistrationWish] = {}
    for name in names:
        items = {(row.source, row.item_id) for row in ledger.conversions.called(name)}
        rows = [p for source, item in sorted(items) for p in ledger.publications.of(item) if p.source == source]
        if not rows:
            raise InputError(
                f"nothing called {name!r} is registered, or to be", hint="`stac-watch explain ITEM` says where it stands"
            )
        for row in rows:
            if row.target not in ("", target):
                hint = "give `register` the `api` and `collection` that it had, or remove it there by hand"
                raise InputError(f"{row.item_id} is registered in {row.target}, not in {target}", hint=hint)
            found[row.key] = RegistrationWish(row.item_id, row.source, row.key, row.state.value)
    return list(found.values())


def told(ledger: Ledger, names: Collection[str], since: datetime | None, *, failed: bool) -> list[Told]:
    """Returns what sinks were told, or are to be: of items by whatever names each, since then, what was refused.

    Raises:
        InputError: an item is not known.
    """
    topics = list[str]()
    for name in names:
        rows = ledger.conversions.called(name)
        if not rows:
            raise InputError(f"nothing is called {name!r}", hint="`stac-watch items` lists what there is")
        topics += {row.item_id for row in rows}
    state = DeliveryState.REFUSED if failed else None
    return ledger.deliveries.find(topics=topics, since=since, state=state, limit=MOST)


def publication_of(row: ConversionRow) -> Publication:
    """Returns the publication that a done conversion has, or would have."""
    at = row.changed_at
    return Publication(
        row.source, row.item_id, row.key, PublicationState.PENDING, attempts=0, due=at, asked_at=at, changed_at=at, reason=None,
        digest="", target="", registered_at=None, output_zarr=row.output_zarr,
    )  # fmt: skip


def ask(ledger: Ledger, wanted: Collection[RegistrationWish], now: datetime, *, anew: bool) -> int:
    """Has them registered, those that are done and current; returns how many. `anew`: also what is registered as it is."""
    return ledger.publications.ask([one.key for one in wanted], now, anew=anew)
