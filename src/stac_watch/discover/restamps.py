"""Known items that were stamped anew and have no checksum: is the product under their name still the one that was taken in?

The stores of new acquisitions have neither checksum nor ETag, and are published anew under their ids; a new stamp is all that
tells, and a whole collection may be stamped anew where nothing changed. So each such item is looked at once, cheaply: the root's
metadata first, then the size of every object, against the fingerprint in its outcome. Only what differs is converted again.

A look takes two hundred requests and half a megabyte, a conversion a gigabyte. They are paced, and made in steps, so that a wave of
a thousand delays no poll; what is left is in the ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from time import monotonic

from stac_watch.catalog.stores import Stores
from stac_watch.discover.intake import Intake
from stac_watch.ledger.records import Move, Restamp
from stac_watch.ledger.session import StaleState
from stac_watch.model.errors import InputError, Temporary
from stac_watch.model.event import fence_of
from stac_watch.model.item import Look
from stac_watch.model.patience import Backoff
from stac_watch.model.states import Fact, State
from stac_watch.model.zarr3 import consolidated, fingerprint, read_json, same_store, tree_of

STEP = 10.0  # seconds, after which polls have their turn
MOST = 50  # looks of a step
MOST_OBJECTS = 5_000  # of one store; a full tile has some 190
PAUSES = Backoff(timedelta(minutes=15), timedelta(days=1))  # between looks that gave no answer
TRIES = 8  # of them, five days in all
REMEMBERED = timedelta(days=8)
REACHED = ("http://", "https://", "s3://")  # stores on this machine cannot be looked at from everywhere

log = logging.getLogger(__name__)


def look(intake: Intake, stores: Stores, *, clock: Callable[[], float] = monotonic) -> int | None:
    """Looks at what is due, for some seconds; returns how many were looked at, None where nothing is due."""
    name, now = intake.source.name, intake.now()
    due = intake.ledger.restamps.due(name, now, MOST)
    if not due:
        intake.ledger.restamps.forget(name, now - REMEMBERED)
        return None
    began, looked = clock(), 0
    for restamp in due:
        try:
            found, move = _found(intake, stores, restamp, lambda: clock() - began >= STEP)
            intake.ledger.restamps.settle(restamp, found, intake.now(), move)
        except StaleState:
            continue  # moved meanwhile: the next step sees what holds now
        except _Unfinished:
            break  # it is the first of the next step, too
        except Temporary:
            if restamp.tries + 1 >= TRIES:
                intake.ledger.restamps.settle(restamp, Look.UNCLEAR, intake.now())
            else:
                intake.ledger.restamps.put_off(restamp, intake.now() + PAUSES.pause(restamp.tries))
        looked += 1
        if clock() - began >= STEP:
            break
    return looked


class _Unfinished(Exception):  # noqa: N818  # an order, not an error
    """A step's time is over."""


def _found(intake: Intake, stores: Stores, restamp: Restamp, over: Callable[[], bool]) -> tuple[Look, Move | None]:
    """Returns what a look shows, and what follows from it.

    Raises:
        Temporary: the store gives no usable answer.
        _Unfinished: time is over; what was found so far is kept.
    """
    row = restamp.row
    if row.state is State.SKIPPED:
        return Look.SAME, None  # a rule kept it out meanwhile: nothing was made of it, and rules judge it again
    if row.state is State.FAILED:
        return Look.RETRIED, _again(intake, restamp, "it had failed, and its item was stamped anew")
    known = row.outcome.fingerprint if row.outcome is not None else ""
    if not known or not restamp.href.startswith(REACHED):
        return Look.UNCLEAR, None
    try:
        same = is_same(stores, restamp.href, known, over)
    except InputError as error:  # its place may not be asked, or there is no end to it
        log.warning("item %s was stamped anew and cannot be looked at: %s", restamp.item_id, error.message)
        return Look.UNCLEAR, None
    if same:
        return Look.SAME, None
    return Look.CHANGED, _again(intake, restamp, "its product was published anew under its name: another fingerprint")


def is_same(stores: Stores, href: str, known: str, over: Callable[[], bool] = lambda: False) -> bool:
    """Tells whether a store is still the one of a fingerprint: root's metadata, and the sizes of all objects.

    Raises:
        InputError: the root is no metadata of a finished store, or there is no end to it.
        Temporary: no usable answer; also where there is no root: what is replaced just now is gone for a while.
        _Unfinished: `over` says that it is enough for now; the next call goes on.
    """
    raw = stores.root(href)
    if raw is None:
        raise Temporary(f"{href} has no root metadata", hint="it is looked at again later")
    if not same_store(known, fingerprint(raw, {}, {})):
        return False
    keys = list(tree_of({"": (root := read_json(raw, href)), **consolidated(root)}, href).keys())
    if len(keys) > MOST_OBJECTS:
        raise InputError(f"{href} has {len(keys)} objects, too many to be looked at")
    found = stores.begun(href, raw)
    try:
        for number, key in enumerate(key for key in keys if key not in found):
            if number and over():
                raise _Unfinished
            found[key] = stores.size(href, key)
    except (InputError, Temporary):
        stores.ended()
        raise
    stores.ended()
    return same_store(known, fingerprint(raw, {key: size for key, size in found.items() if size is not None}, {}))


def _again(intake: Intake, restamp: Restamp, why: str) -> Move:
    """Returns the move that has it converted again, over what is there: the key is the same, for its item says the same."""
    fence = fence_of(restamp.stamp, intake.now(), restamp.row.fence)
    return Move(Fact.REPLAYED, why, fence=fence, overwrite=True, asked="updated", allowed_hosts=",".join(intake.source.hosts()))
